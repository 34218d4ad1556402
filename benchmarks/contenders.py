"""The tasks that are measured and the contenders that do them, each called as its own documentation shows.

How they are timed is in `speed.py`, how their memory is measured in `memory.py`; nothing here measures anything.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_gradcam import Explanation, explain, explain_batch, explain_classes

Maps = npt.NDArray[np.floating[Any]]
Call = Callable[[], Any]

SIDE = 224
# Random weights at a fixed seed: they need no download, and a forward takes as long as with trained ones.
SEED = 0
# The same task done right differs by rounding and by how a map is scaled, and neither lowers a correlation this far.
LEAST_CORRELATION = 0.99


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be explained.

    Attributes:
        key: name on the command line.
        title: name in the table.
        model: timm's name; the target layer is its `layer4`.
        batch: images in the forward.
        many: how many classes of one image are explained; 0 for one class of each image.
    """

    key: str
    title: str
    model: str
    batch: int
    many: int = 0


TASKS = (
    Task("resnet18-1", "ResNet-18, 1 image", "resnet18", 1),
    Task("resnet18-8", "ResNet-18, 8 images", "resnet18", 8),
    Task("resnet50-1", "ResNet-50, 1 image", "resnet50", 1),
    Task("resnet18-100-classes", "ResNet-18, 100 classes of 1 image", "resnet18", 1, many=100),
)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A task made ready: the model in eval mode on its device, inputs, and the classes, which all contenders are told.

    One class of each image: `classes` has as many entries as `inputs`, each the predicted class. Many classes of one
    image: the likeliest ones, since a class that nothing speaks for has no map that could be compared.
    """

    task: Task
    model: nn.Module
    layer: nn.Module
    inputs: Tensor  # (N, 3, SIDE, SIDE)
    classes: list[int]

    @classmethod
    def of(cls, task: Task, device: torch.device) -> Job:
        torch.manual_seed(SEED)
        model = timm.create_model(task.model).eval().to(device)
        inputs = torch.randn(task.batch, 3, SIDE, SIDE).to(device)
        with torch.inference_mode():  # image by image: a whole batch would leave its mark on measurements of memory
            logits = torch.cat([model(image[None]) for image in inputs])
        classes = logits[0].topk(task.many).indices if task.many else logits.argmax(dim=1)
        return cls(task, model, model.get_submodule("layer4"), inputs, classes.tolist())


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the tasks.

    Attributes:
        name: its column.
        prepare: the call that is measured, for a job; making it costs nothing that the call should cost.
        maps: from what the call returns to signed or ReLU'd maps, (M, h, w) or (M, H, W), one for each class asked;
            None for the plain forward, which has none.
        package: what must be importable; None where nothing but this project is.
        repeats_forward: many classes of one image cost it a forward and a backward for each.
    """

    name: str
    prepare: Callable[[Job], Call]
    maps: Callable[[Any], Maps] | None
    package: str | None = None
    repeats_forward: bool = False

    @property
    def missing(self) -> str | None:
        """Why it cannot run here; None where it can."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return f"{self.package} is not installed: pip install pytest-gradcam[bench]"


def check(job: Job, contender: Contender) -> None:
    """Run a contender once and compare its maps with ours, so that nobody is timed on another task.

    Raises:
        AssertionError: other maps, or another number of them.
    """
    if contender.maps is None:
        contender.prepare(job)()
        return
    ours = torch.from_numpy(_raw_maps(_ours(job)()))[:, None].clamp(min=0)
    found = np.maximum(contender.maps(contender.prepare(job)()), 0.0)
    size = found.shape[1:]
    if size != ours.shape[2:]:
        ours = F.interpolate(ours, size=size, mode="bilinear", align_corners=False)
    expected = ours[:, 0].numpy()
    if found.shape != expected.shape:
        raise AssertionError(f"{contender.name} gives maps of shape {found.shape}, we give {expected.shape}")
    for index, (theirs, our) in enumerate(zip(found, expected, strict=True)):
        correlation = float(np.corrcoef(theirs.ravel(), our.ravel())[0, 1])
        if not correlation > LEAST_CORRELATION:
            raise AssertionError(f"map {index} of {contender.name} correlates with ours at {correlation:.4f} only")


def _plain(job: Job) -> Call:
    def call() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = job.model(job.inputs)
        return logits

    return call


def _ours(job: Job) -> Call:
    model, inputs, classes = job.model, job.inputs, job.classes
    # "auto" would take a model on the CPU to an accelerator, and the plain forward it is compared with stays.
    moved = inputs.device.type == "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    device = inputs.device if moved else "auto"
    if job.task.many:
        return lambda: explain_classes(model, inputs, classes, device=device)
    if job.task.batch == 1:
        return lambda: [explain(model, inputs, classes[0], device=device)]
    return lambda: explain_batch(model, inputs, classes, device=device)


def _ours_full(job: Job) -> Call:
    grid = _ours(job)

    def call() -> list[Explanation]:
        explanations: list[Explanation] = grid()
        for explanation in explanations:
            _ = explanation.cam  # resized to the input when it is first asked for
        return explanations

    return call


def _torchcam(job: Job) -> Call:
    from torchcam.methods import GradCAM

    def call() -> list[Tensor]:
        with GradCAM(job.model, job.layer) as extractor:
            logits = job.model(job.inputs)
            if job.task.many:
                return [extractor(cls, logits, retain_graph=True)[0] for cls in job.classes]
            return extractor(job.classes, logits)

    return call


def _captum(job: Job) -> Call:
    from captum.attr import LayerGradCam

    def call() -> list[Tensor]:
        attribution = LayerGradCam(job.model, job.layer)
        if job.task.many:
            return [attribution.attribute(job.inputs, target=cls) for cls in job.classes]
        return [attribution.attribute(job.inputs, target=job.classes)]

    return call


def _grad_cam(job: Job) -> Call:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def call() -> list[Maps]:
        with GradCAM(model=job.model, target_layers=[job.layer]) as cam:
            if job.task.many:
                return [cam(input_tensor=job.inputs, targets=[ClassifierOutputTarget(cls)]) for cls in job.classes]
            return [cam(input_tensor=job.inputs, targets=[ClassifierOutputTarget(cls) for cls in job.classes])]

    return call


def _recipe(job: Job) -> Call:
    """Grad-CAM as tutorials write it out: two hooks, a forward, `.backward()`."""

    def call() -> list[Tensor]:
        kept: dict[str, Tensor] = {}

        def keep_activations(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            kept["activations"] = output.detach()

        def keep_gradients(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
            kept["gradients"] = outputs[0]

        handles = [
            job.layer.register_forward_hook(keep_activations),
            job.layer.register_full_backward_hook(keep_gradients),
        ]

        def maps(score: Tensor) -> Tensor:
            job.model.zero_grad()
            score.backward(retain_graph=bool(job.task.many))  # type: ignore[no-untyped-call]  # torch's own lack
            weights = kept["gradients"].mean(dim=(2, 3), keepdim=True)
            return torch.relu((weights * kept["activations"]).sum(dim=1))

        try:
            logits = job.model(job.inputs)
            if job.task.many:
                return [maps(logits[0, cls]) for cls in job.classes]
            return [maps(logits[range(len(job.classes)), job.classes].sum())]
        finally:
            for handle in handles:
                handle.remove()

    return call


def _raw_maps(explanations: list[Explanation]) -> Maps:
    return np.stack([explanation.raw for explanation in explanations])


def _full_maps(explanations: list[Explanation]) -> Maps:
    return np.stack([explanation.cam for explanation in explanations])


def _stacked(parts: list[Tensor]) -> Maps:
    """Maps (N, h, w) or (N, 1, h, w) of several calls."""
    joined = torch.cat(parts).detach().cpu()
    maps: Maps = joined.reshape(-1, *joined.shape[-2:]).numpy()
    return maps


PLAIN = Contender("plain", _plain, None)
CONTENDERS = (
    PLAIN,
    Contender("ours", _ours, _raw_maps),
    Contender("ours, full size", _ours_full, _full_maps),
    Contender("torchcam", _torchcam, _stacked, package="torchcam"),
    Contender("captum", _captum, _stacked, package="captum", repeats_forward=True),
    Contender("grad-cam", _grad_cam, np.concatenate, package="pytorch_grad_cam", repeats_forward=True),
    Contender("recipe", _recipe, _stacked, repeats_forward=True),
)
