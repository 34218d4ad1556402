"""What the tests of compared maps share: the demo's models and pictures, models that are known to fail, formulas."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    AttentionError,
    Verdict,
    explain,
)
from pytest_gradcam.demo import models as demo
from pytest_gradcam.demo.pictures import LABELS, Picture, held_out
from tests.models import coloured

Floats = npt.NDArray[np.floating]
COUNT = 24
# On the grid of `reads_colours`, 8×8 cells of 8 pixels: one red square and a blue one, off the middle both ways.
RED, BLUE = (0, 8, 16, 24), (40, 40, 64, 56)
IMAGE = coloured((0, RED), (2, BLUE))
TURNS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Floats], Floats]]] = {
    "hflip": (lambda x: x[..., :, range(x.shape[-1] - 1, -1, -1)], lambda a: a[:, ::-1]),
    "vflip": (lambda x: x[..., range(x.shape[-2] - 1, -1, -1), :], lambda a: a[::-1]),
    # Against the clock: what was the right column becomes the top row. The way back is the other way round.
    "rot90": (lambda x: x.transpose(-1, -2).flip(-2), lambda a: a.T[:, ::-1]),
    "rot180": (lambda x: x.flip(-1).flip(-2), lambda a: a[::-1, ::-1]),
    "rot270": (lambda x: x.transpose(-1, -2).flip(-1), lambda a: a.T[::-1]),
}


@cache
def pictures() -> tuple[Picture, ...]:
    return tuple(held_out(COUNT))


@cache
def inputs() -> Tensor:
    return demo.inputs([picture.image for picture in pictures()])


def model(name: str) -> nn.Module:
    return demo.load_model("honest" if name == "honest" else "shortcut")


def classes() -> list[int]:
    return [picture.cls for picture in pictures()]


def others() -> list[int]:
    return [(cls + 1) % len(LABELS) for cls in classes()]


def correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def cosine(a: Floats, b: Floats) -> float:
    a, b = a.ravel().astype(float), b.ravel().astype(float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def rmse(a: Floats, b: Floats) -> float:
    a, b = (np.maximum(each, 0).astype(float) for each in (a, b))
    return float(np.sqrt(np.mean((a / a.max() - b / b.max()) ** 2)))


WRITTEN_OUT: dict[str, Callable[[Floats, Floats], float]] = {"pearson": correlation, "cosine": cosine, "rmse": rmse}


def failed(ask: Callable[[], Verdict]) -> Verdict:
    with pytest.raises(AttentionError) as raised:
        ask()
    assert raised.value.verdict is not None
    assert str(raised.value).splitlines()[0] == raised.value.verdict.message
    return raised.value.verdict


def facts(verdict: Verdict) -> dict[str, str]:
    return dict(verdict.facts)


def everywhere(model: nn.Module, x: Tensor, target: object) -> Tensor:
    """A method whose map is the same for every picture: the top left corner."""
    grid = torch.zeros(8, 8)
    grid[0, 0] = 1.0
    return grid


def transposed(model: nn.Module, x: Tensor, target: object) -> Tensor:
    """A method whose map of what is red has rows and columns confused."""
    return nn.functional.avg_pool2d(x[:, :1], 8)[0, 0].T


class Trembling(nn.Module):
    """What it sees in a pixel turns with the last of its digits."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.reads(torch.sin(2000.0 * nn.functional.avg_pool2d(x, 8)))
        found: Tensor = self.head(cells.relu().mean((2, 3)))
        return found


class ChannelsSwapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x.flip(1))
        return found


def rounded(model: nn.Module, levels: int = 127) -> nn.Module:
    """A copy whose weights have as many levels on each side of 0, as int8 has."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.ndim > 1:
                step = parameter.abs().max() / levels
                parameter.copy_((parameter / step).round() * step)
    return copied


def explain_quietly(net: Any, x: Tensor, cls: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return explain(net, x, cls)
