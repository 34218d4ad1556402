"""Scores without gradients: forwards of many inputs, in batches of the size and in the layout that are fastest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pytest_gradcam.cam.captured import labels_for
from pytest_gradcam.cam.methods import kind_of
from pytest_gradcam.cam.model import logits_of, tensors_in
from pytest_gradcam.cam.running import ModelLike, Options, Run, ready
from pytest_gradcam.cam.scores import (
    ClassLike,
    Fact,
    Score,
    call_score,
    checked_rows,
    facts_of,
    image_of,
    scores_of_batch,
)
from pytest_gradcam.errors import ModelError

Doubles: TypeAlias = npt.NDArray[np.float64]

# On a CPU, eight photos of 224 × 224 at once take .89 of the time that 32 at once take (ResNet-18, one thread): what
# lies between two layers stays in a cache. Smaller pictures go more at a time.
CPU_PIXELS = 8 * 224 * 224
CPU_BATCHES = (8, 64)
ACCELERATOR_BATCH = 64
# The same input, computed in another batch, gives the same score up to rounding: this share of the largest, or this
# many steps of its type.
SAME = 1e-4
STEPS = 4.0


def score_inputs(
    model: ModelLike, inputs: Tensor, cls: ClassLike, options: Options, *, batch: int | None = None
) -> list[Fact]:
    """The score of one class for each of many inputs, without gradients, in as few forwards as fit into batches.

    Args:
        model: as for `explain`; left as it was.
        inputs: (N, C, H, W), model input, on any device.
        cls: class index, label or callable, the same for all; None for the predicted class of each.
        options: how to compute; of these, `device`, `labels` and `forward` matter.
        batch: inputs in a forward; None for the size that is fastest. A model that mixes the images of a batch gets
            one at a time.

    Raises:
        GradcamError: as `explain` does.
    """
    with ready(model, inputs, options) as run:
        size = _size(run, batch)
        if kind_of(options.method) == "inputs" and not takes_batches(run, inputs[-1:]):
            size = 1
        call, facts = Caller(run), list[Fact]()
        for start in range(0, len(run.inputs), size):
            chunk = run.inputs[start : start + size]
            output = call(chunk)
            facts += scores_of_batch(output, [cls] * len(chunk), labels_for(run, output)).facts
        return facts


class Caller:
    """A model called without gradients, (B, C, H, W) → output, each time with a copy of what it is given.

    On a CPU, convolutions take .74 (ResNet-18) to .69 (MobileNetV3) of the time on inputs in channels-last order, and
    the layers pass the order on. A forward that asks for another order of its memory (`view`) gets that.
    """

    def __init__(self, run: Run) -> None:
        """Of a run."""
        self._run = run
        self._is_channels_last = (
            run.device.type == "cpu"
            and run.inputs.dtype in (torch.float32, torch.bfloat16)
            and not isinstance(run.module, torch.jit.ScriptModule)
            and any(isinstance(m, nn.Conv2d) for m in run.module.modules())
        )

    def __call__(self, inputs: Tensor) -> Any:
        """The output for inputs (B, C, H, W)."""
        with torch.no_grad():
            if self._is_channels_last:
                try:
                    return self._run.call(inputs.clone(memory_format=torch.channels_last))
                except RuntimeError:
                    self._is_channels_last = False
            return self._run.call(inputs.clone(memory_format=torch.contiguous_format))


class Scorer:
    """Scores of inputs in batches: (B, C, H, W) → float64 (B, M), one column for each class that is asked."""

    def __init__(self, run: Run, asked: Sequence[int | Score], *, one_at_a_time: bool = False) -> None:
        """Of a run.

        Args:
            run: the model.
            asked: M class indices and callables.
            one_at_a_time: whether a batch would not give what its images give alone.
        """
        self._call = Caller(run)
        self._asked = asked
        self.size = 1 if one_at_a_time else _size(run, None)

    def __call__(self, inputs: Tensor) -> Doubles:
        """The scores of inputs (B, C, H, W), in one forward."""
        return read_scores(self._call(inputs), len(inputs), self._asked)

    def all(self, chunks: Iterable[Tensor]) -> Doubles:
        """The scores of all inputs of several chunks, each no longer than `size`, (N, M)."""
        return np.concatenate([self(chunk) for chunk in chunks])


def read_scores(output: Any, rows: int, asked: Sequence[int | Score]) -> Doubles:
    """The scores in a model's output for `rows` inputs, (rows, M).

    A callable gets the part of the output that belongs to each input, as the model would give it for a batch of one.

    Raises:
        ClassError: the output has no such classes, or not as many rows.
        NonFiniteError: a score is NaN or infinite.
    """
    found = np.empty((rows, len(asked)))
    indices = {place: cls for place, cls in enumerate(asked) if isinstance(cls, int)}
    if indices:
        found[:, list(indices)] = checked_rows(logits_of(output), rows)[:, list(indices.values())]
    for place, cls in enumerate(asked):
        if not isinstance(cls, int):
            found[:, place] = [float(call_score(cls, image_of(output, i, rows)).detach()) for i in range(rows)]
    return found


def facts_of_image(output: Any, asked: Sequence[int | Score]) -> list[Fact]:
    """The facts of M scores of one image."""
    indices = [cls if isinstance(cls, int) else None for cls in asked]
    rows = checked_rows(logits_of(output), 1) if any(index is not None for index in indices) else None
    return facts_of(read_scores(output, 1, asked)[0].tolist(), indices, rows)


def chunks_of(inputs: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """One after the other, `size` at a time."""
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]


def mixes_images(module: nn.Module) -> bool:
    """Whether a batch changes what an image gives: normalisation by the batch's own statistics, in eval mode too."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return any(isinstance(m, kinds) and m.running_mean is None for m in module.modules())


def takes_batches(run: Run, other: Tensor) -> bool:
    """Whether a batch of two gives what its images give alone; a model exported for one image at a time takes none.

    Modules that quantise as they go choose one scale for all of a batch: there, an image's score would depend on what
    is beside it.

    Args:
        run: the model and an image.
        other: another input, (1, C, H, W), as unlike the image as those that will be scored.

    Raises:
        ModelError: the model gives two answers for one input.
    """
    call, image = Caller(run), run.inputs[:1]
    first, again = _flat(call(image)), _flat(call(image))
    if not _agree(first, again):
        raise ModelError(
            "the model answers the same input differently twice: it is random, and so would be its maps. Look for "
            "dropout or noise, and switch it off"
        )
    other = other.to(image)
    alone = [torch.cat(pair) for pair in zip(first, _flat(call(other)), strict=False) if pair[0].ndim and pair[1].ndim]
    try:
        together = _flat(call(torch.cat([image, other])))
    except Exception:  # in as many ways as there are runtimes; one input was taken just before
        return False
    return len(together) == len(first) == len(alone) and _agree(together, alone)


def _flat(output: Any) -> list[Tensor]:
    return [tensor.detach().double().cpu() for tensor in tensors_in(output)]


def _agree(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and agree(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)
    )


def agree(a: npt.NDArray[Any], b: npt.NDArray[Any], step: float = 0.0) -> bool:
    """Whether numbers are equal up to rounding, where they were computed with relative steps of this size."""
    finite = np.abs(b[np.isfinite(b)])
    scale = max(SAME, STEPS * step) * float(finite.max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=scale, equal_nan=True))


def _size(run: Run, batch: int | None) -> int:
    if mixes_images(run.module):
        return 1
    if batch is not None:
        return max(1, batch)
    if run.device.type != "cpu":
        return ACCELERATOR_BATCH
    least, most = CPU_BATCHES
    return min(most, max(least, CPU_PIXELS // (run.inputs.shape[2] * run.inputs.shape[3])))
