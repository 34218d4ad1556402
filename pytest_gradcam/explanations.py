"""The public `explain`, `explain_batch` and `explain_classes`: picture → model input (`images`) → map (`cam`)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_gradcam.cam.explain import explain_input_classes, explain_inputs
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import LayerLike, MethodLike, ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import ClassError, ImageError, ZeroEvidenceWarning
from pytest_gradcam.images import Look, Prepared, prepare, prepare_batch
from pytest_gradcam.settings import checked_labels
from pytest_gradcam.transforms import Transform

ForwardLike: TypeAlias = Callable[[Any, Tensor], Any]
ClassesLike: TypeAlias = Sequence[ClassLike] | Tensor | npt.NDArray[np.integer[Any]]


class ExplainKeywords(TypedDict, total=False):
    """The keywords of `explain`, `explain_batch` and `explain_classes`, for whoever hands them on."""

    method: MethodLike
    layer: LayerLike
    engine: str
    transform: Transform | None
    device: str | torch.device
    labels: Sequence[str] | None
    forward: ForwardLike | None


def explain(
    model: ModelLike,
    image: object,
    cls: ClassLike = None,
    *,
    method: MethodLike = "auto",
    layer: LayerLike = None,
    engine: str = "hooks",
    transform: Transform | None = None,
    device: str | torch.device = "auto",
    labels: Sequence[str] | None = None,
    forward: ForwardLike | None = None,
) -> Explanation:
    """Where in an image a model finds the evidence for a class.

    Args:
        model: `nn.Module` (also compiled, `DataParallel`, DDP); for `engine="split"` also a `(features, head)` pair;
            for `occlusion` and `rise` anything that can be called, inputs (N, C, H, W) → scores: TorchScript, int8, a
            function around a session of another runtime. It is left as it was.
        image: path, `PIL.Image`, uint8 array (H, W, 3) or (H, W), or a float tensor (C, H, W) or (1, C, H, W) that
            already is model input.
        cls: class index; label; None for the predicted class; or a callable, output → scalar tensor.
        method: `auto`, the name of a registered method, or a callable (model, inputs (1, C, H, W), target) → map.
        layer: dotted name of the target layer, the module, a list of them, or None to find it.
        engine: `hooks` or `split`; both give the same map.
        transform: picture → model input; None for the one that the model declares.
        device: `auto` or a torch device.
        labels: class names, by index, where the model does not carry them.
        forward: how the model is called, (model, inputs (N, C, H, W)) → output, where `model(inputs)` is not enough:
            for further inputs, inputs by name, or a list of images.

    Returns:
        The map and what it was computed from. Zero evidence comes with a `ZeroEvidenceWarning`.

    Raises:
        GradcamError: one of its family for whatever cannot be explained; what the model raises passes unchanged.
    """
    prepared = prepare(image, model=model, transform=transform)
    names = checked_labels("labels", labels)
    options = Options(method=method, layer=layer, engine=engine, device=device, labels=names, forward=forward)
    return warned(explain_prepared(model, [prepared], [cls], options))[0]


def explain_prepared(
    model: ModelLike, prepared: Sequence[Prepared], classes: Sequence[ClassLike], options: Options
) -> list[Explanation]:
    """`explain_batch` for images that are prepared already and come to one size; zero evidence passes unwarned."""
    inputs = prepared[0].tensor if len(prepared) == 1 else torch.cat([each.tensor for each in prepared])
    return explain_inputs(model, inputs, classes, [each.look for each in prepared], options)


def explain_batch(
    model: ModelLike,
    images: Tensor | Sequence[object],
    classes: ClassesLike | ClassLike = None,
    *,
    method: MethodLike = "auto",
    layer: LayerLike = None,
    engine: str = "hooks",
    transform: Transform | None = None,
    device: str | torch.device = "auto",
    labels: Sequence[str] | None = None,
    forward: ForwardLike | None = None,
) -> list[Explanation]:
    """`explain` for several images, in one forward.

    Args:
        model: as for `explain`.
        images: float tensor (N, C, H, W), or a list of images that the transform brings to one size.
        classes: one for each image, or a single one for all of them; None for each image's predicted class.
        method: as for `explain`, and so on.
        layer: as for `explain`.
        engine: as for `explain`.
        transform: as for `explain`.
        device: as for `explain`.
        labels: as for `explain`.
        forward: as for `explain`.

    Raises:
        ClassError: as many classes as images were not given.
        ImageError: the images do not come to one size.
        GradcamError: as for `explain`.
    """
    names = checked_labels("labels", labels)
    options = Options(method=method, layer=layer, engine=engine, device=device, labels=names, forward=forward)
    if isinstance(images, Tensor) and transform is None:
        held, looks = prepare_batch(images, model=model)
        explanations = explain_inputs(model, held.tensor, _one_for_each(classes, len(looks)), looks, options)
        held.keep()
        return warned(explanations)
    each = [prepare(image, model=model, transform=transform) for image in _listed(images)]
    inputs, looks = _prepared_together(each)
    return warned(explain_inputs(model, inputs, _one_for_each(classes, len(looks)), looks, options))


def explain_classes(
    model: ModelLike,
    image: object,
    classes: ClassesLike | None = None,
    *,
    method: MethodLike = "auto",
    layer: LayerLike = None,
    engine: str = "hooks",
    transform: Transform | None = None,
    device: str | torch.device = "auto",
    labels: Sequence[str] | None = None,
    forward: ForwardLike | None = None,
) -> list[Explanation]:
    """`explain` for several classes of one image, from one forward.

    Args:
        model: as for `explain`.
        image: as for `explain`.
        classes: class indices, labels or callables; None for all classes of the model.
        method: as for `explain`, and so on.
        layer: as for `explain`.
        engine: as for `explain`.
        transform: as for `explain`.
        device: as for `explain`.
        labels: as for `explain`.
        forward: as for `explain`.

    Raises:
        GradcamError: as for `explain`.
    """
    if isinstance(classes, Tensor | np.ndarray):
        classes = classes.tolist()
    if isinstance(classes, str) or (classes is not None and not isinstance(classes, Sequence)):
        raise ClassError(f"classes is {classes!r}: pass a list of classes, or None for all")
    prepared = prepare(image, model=model, transform=transform)
    names = checked_labels("labels", labels)
    options = Options(method=method, layer=layer, engine=engine, device=device, labels=names, forward=forward)
    return warned(explain_input_classes(model, prepared.tensor, classes, prepared.look, options))


def _listed(images: Tensor | Sequence[object]) -> Iterable[object]:
    if isinstance(images, Tensor | np.ndarray):
        if images.ndim != 4:  # the rows of a single picture would pass for grey pictures
            raise ImageError(f"the batch has shape {tuple(images.shape)}: pass (N, C, H, W), or a list of images")
    elif isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Iterable):
        raise ImageError(f"the batch is a {type(images).__name__}: pass a list of images, or one image to explain")
    return images


def _prepared_together(prepared: list[Prepared]) -> tuple[Tensor, list[Look]]:
    if not prepared:
        raise ImageError("there are no images: the batch is empty")
    sizes = {tuple(p.tensor.shape[1:]) for p in prepared}
    if len(sizes) > 1:
        listed = ", ".join(str(size) for size in sorted(sizes))
        raise ImageError(f"the images come to different sizes {listed}: a batch needs one; explain them one at a time")
    return torch.cat([p.tensor for p in prepared]), [p.look for p in prepared]


def _one_for_each(classes: ClassesLike | ClassLike, count: int) -> list[ClassLike]:
    if isinstance(classes, Tensor | np.ndarray):
        classes = classes.tolist()
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        if len(classes) != count:
            raise ClassError(f"{len(classes)} classes for {count} images: pass one for each image, or None")
        return list(classes)
    return [classes] * count


def warned(explanations: list[Explanation]) -> list[Explanation]:
    """The explanations, after a warning of those without evidence, to whoever called the caller."""
    without = [explanation for explanation in explanations if explanation.evidence == 0]
    if without:
        shown = ", ".join("the score" if e.cls is None else f"class {e.cls}" for e in without[:8])
        more = f" and {len(without) - 8} more" if len(without) > 8 else ""
        warnings.warn(
            f"no evidence: nothing at {without[0].layer} speaks for {shown}{more}; the map is zero",
            ZeroEvidenceWarning,
            stacklevel=3,
        )
    return explanations
