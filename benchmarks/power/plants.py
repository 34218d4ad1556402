"""The plants: what is wrong with each model, and which assertion is meant to find it.

A `Subject` is a model as a test would meet it: with the class that is asked for and the way its map is read. A plant of
training is a trained model as it is; a plant of derivation breaks one thing of a clean subject.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.power.models import MEAN, STD, Architecture
from benchmarks.power.pictures import CLASSES, SIZE, Cue
from benchmarks.power.train import PLANTS as TRAINED

IN, OUT, IGNORES, DIFFER = "in the object", "outside the cue", "ignores the cue", "classes differ"
SAME, RETRAINED = "same as before", "same as another training"
# The same of a map read from every block of a transformer, as `candidates.py` recommends it, whatever `auto` finds.
EVERY_BLOCK = {name: f"{name}, every block" for name in (IN, OUT, SAME)}
Raw = npt.NDArray[np.floating[Any]]  # (h, w)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model as a test meets it.

    Attributes:
        model: in eval mode.
        shift: how far the class that the test asks for is from the true one.
        distort: what becomes of a raw CAM; None leaves it as the package made it.
        early: whether the map is read from an early layer.
    """

    model: nn.Module
    shift: int = 0
    distort: Callable[[Raw], Raw] | None = None
    early: bool = False

    @property
    def layer(self) -> str | None:
        """The layer that the test asks for; None leaves it to the package."""
        return None if not self.early else "blocks.0.norm1" if hasattr(self.model, "blocks") else "stages.2"

    @property
    def is_read_amiss(self) -> bool:
        """Whether it is the test, and not the model, that is broken."""
        return bool(self.shift or self.distort or self.early)


class Behind(nn.Module):
    """A model behind something that is done to its input.

    Args:
        model: in eval mode.
        change: (N, 3, H, W) → (N, 3, H, W).
    """

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.change(images))
        return logits


@dataclass(frozen=True, slots=True)
class Plant:
    """One thing that may be wrong.

    Attributes:
        name: of the plant.
        trained: the training that it starts from.
        meant: the assertions that should find it; of an honest one, those that should pass.
        also: assertions that may find it, measured for comparison.
        cue: the region that it reads and should not.
        make: breaks a clean subject; None for a plant of training.
        only: the architectures that allow it.
        is_honest: nothing is wrong.
    """

    name: str
    trained: str
    meant: tuple[str, ...]
    also: tuple[str, ...] = ()
    cue: Cue | None = None
    make: Callable[[Subject], Subject] | None = None
    only: tuple[Architecture, ...] = ("cnn", "vit")
    is_honest: bool = False


def _with_model(subject: Subject, change: Callable[[nn.Module], None]) -> Subject:
    model = deepcopy(subject.model)
    torch.manual_seed(0)
    with torch.no_grad():
        change(model)
    return replace(subject, model=model.eval())


def _reset(module: nn.Module) -> None:
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()  # type: ignore[operator]  # each has it: see above


def _reset_head(model: nn.Module) -> None:
    _reset(model.head)  # type: ignore[arg-type]  # a module: timm types it as a tensor too


def _reset_last_block(model: nn.Module) -> None:
    _reset(model.blocks[-1] if hasattr(model, "blocks") else model.stages[9:])  # type: ignore[index,arg-type]  # as above


def _all_rows_alike(model: nn.Module) -> None:
    head = model.head
    assert isinstance(head, nn.Linear)
    head.weight.copy_(head.weight[:1].repeat(CLASSES, 1))
    head.bias.copy_(head.bias[:1].repeat(CLASSES))


def _rounded(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16().float())


def _fed(subject: Subject, change: Callable[[Tensor], Tensor]) -> Subject:
    return replace(subject, model=Behind(deepcopy(subject.model), change).eval())


def _read(subject: Subject, **amiss: Any) -> Subject:
    return replace(subject, model=deepcopy(subject.model), **amiss)


def _bgr(images: Tensor) -> Tensor:
    return images.flip(1)


def _not_normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return images * std + mean


def _noisy(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(0))
    return images + noise * (2 / 255 / 0.25)  # two levels


def _too_large(images: Tensor) -> Tensor:
    side = SIZE * 3 // 2
    return torch.nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def _transposed(raw: Raw) -> Raw:
    return raw.T


def _shifted(raw: Raw) -> Raw:
    return np.roll(raw, (1, 1), axis=(0, 1))


def _cue_of(trained: str) -> Cue | None:
    cue = trained.partition("-")[0]
    return cue if cue in ("patch", "watermark") else None  # type: ignore[return-value]  # two of its literals


def _shortcut(trained: str) -> Plant:
    cue = _cue_of(trained)
    also = (
        EVERY_BLOCK[IN],
        *([EVERY_BLOCK[OUT]] if cue else []),
        *([] if trained.startswith("patch-0") else [RETRAINED]),
    )
    return Plant(trained, trained, (IN, OUT, IGNORES) if cue else (IN,), also=also, cue=cue)


def _derived(name: str, make: Callable[[Subject], Subject], also: tuple[str, ...] = (), **more: Any) -> Plant:
    return Plant(name, "clean", (SAME,), also=(*also, EVERY_BLOCK[SAME]), make=make, **more)


PLANTS: tuple[Plant, ...] = (
    Plant(
        "clean",
        "clean",
        (IN, OUT, IGNORES, DIFFER, RETRAINED),
        also=(EVERY_BLOCK[IN], EVERY_BLOCK[OUT]),
        is_honest=True,
    ),
    Plant(
        "weights in bfloat16",
        "clean",
        (IN, SAME),
        (EVERY_BLOCK[SAME],),
        make=lambda s: _with_model(s, _rounded),
        is_honest=True,
    ),
    Plant(
        "noise of two levels", "clean", (IN, SAME), (EVERY_BLOCK[SAME],), make=lambda s: _fed(s, _noisy), is_honest=True
    ),
    *(_shortcut(name) for name in TRAINED if name != "clean"),
    _derived("another class asked for", lambda s: _read(s, shift=1), (IN,)),
    Plant("all classes one row", "clean", (DIFFER,), make=lambda s: _with_model(s, _all_rows_alike)),
    _derived("head re-initialised", lambda s: _with_model(s, _reset_head), (IN,)),
    _derived("last block re-initialised", lambda s: _with_model(s, _reset_last_block), (IN,)),
    _derived("BGR", lambda s: _fed(s, _bgr), (IN,)),
    _derived("normalisation forgotten", lambda s: _fed(s, _not_normalised), (IN,)),
    _derived("wrong input size", lambda s: _fed(s, _too_large), only=("cnn",)),
    _derived("map transposed", lambda s: _read(s, distort=_transposed), (IN,)),
    _derived("map shifted by a cell", lambda s: _read(s, distort=_shifted), (IN,)),
    _derived("early layer", lambda s: _read(s, early=True), (IN,)),
)
