"""What the property tests measure with: maps by plain autograd, tolerances, rewired nets, and bilinear resizing.

Independent of the engines: nothing here uses `cam.capture` or `cam.split`, except `explained`, which is what is tested.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import Phase, assume, find, settings, strategies as st
from torch import Tensor, nn

from pytest_gradcam import explain_batch
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.errors import TargetLayerError, ZeroEvidenceWarning
from pytest_gradcam.small_models import SmallNet

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[np.floating]
# A class index, or output (1, K) → scalar.
Score: TypeAlias = int | Callable[[Tensor], Tensor]

TARGET = "stages"
GAP_HEADS = ("gap-linear", "gap-mlp", "conv")

some = settings(max_examples=25)
every_method = pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
# In float32 the map is what `explain` gives; in float64 it is the method's pure function on plain autograd's A and G.
every_way = pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, id="explain-float32"), pytest.param(torch.float64, id="formula-float64")]
)


def raw_cams(net: SmallNet, x: Tensor, score: Score, method: str) -> Array:
    """Raw CAMs (N, h, w) after the last ReLU, obtained in the way that belongs to the dtype of `x`."""
    if x.dtype == torch.float32:
        return np.stack([explanation.raw for explanation in explained(net, x, score, method)])
    activations, gradients = captured(net, x, score)
    raw: Array = METHODS[method].raw(activations, gradients).numpy()
    return raw


def explained(
    net: nn.Module | tuple[Callable[[Tensor], Any], Callable[[Any], Any]],
    x: Tensor,
    score: Score | Sequence[Score] | None,
    method: str = "grad-cam",
    *,
    layer: str | None = TARGET,
    engine: str = "hooks",
) -> list[Explanation]:
    """`explain_batch` on the CPU; zero evidence is no surprise here.

    A net of which a drawn image leaves a cell or two open behind its ReLUs cannot show where its cells belong, and is
    refused: such draws say nothing of the arithmetic.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroEvidenceWarning)
        try:
            return explain_batch(net, x, score, method=method, layer=layer, engine=engine, device="cpu")
        except TargetLayerError as error:
            assume("do not stand for their places" not in str(error))
            raise


def captured(net: SmallNet, x: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    """Activations after the last ReLU and their gradient, (N, C, h, w) each, by plain autograd."""
    with torch.no_grad():
        activations = net.stages(x)
    activations.requires_grad_()
    output = net.head(activations)
    total = torch.stack([score_of(output[i : i + 1], score) for i in range(len(output))]).sum()
    (gradients,) = torch.autograd.grad(total, activations)
    return activations.detach(), gradients


def score_of(output: Tensor, score: Score) -> Tensor:
    return score(output) if callable(score) else output[0, score]


def logits(net: SmallNet, x: Tensor) -> Array:
    """(N, K)."""
    with torch.no_grad():
        found: Array = net(x).numpy()
    return found


def term_size(net: SmallNet, x: Tensor) -> float:
    """What the largest logit could be if no two terms in the head cancelled: rounding is small against this."""
    head = copy.deepcopy(net.head)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.abs_()
        return float(head(net.stages(x)).max())


def agree(actual: Array | float, expected: Array | float, scale: float = 0.0) -> bool:
    """Equal up to rounding: rtol 1e-5 and atol 1e-6·max|ref| where float32 is involved, else 1e-10.

    Args:
        actual: the one.
        expected: the other.
        scale: size of the terms that were added up, where they may cancel.
    """
    a, b = np.asarray(actual), np.asarray(expected)
    single = np.float32 in (a.dtype, b.dtype)
    size = max(scale, float(np.abs(b).max()))
    rtol, atol = (1e-5, 1e-6) if single else (1e-10, 1e-10)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=rtol, atol=atol * size))


def assert_agree(actual: Array | float, expected: Array | float, scale: float = 0.0) -> None:
    assert agree(actual, expected, scale), f"{actual}\nis not\n{expected}"


def counterexample(strategy: st.SearchStrategy[T], violates: Callable[[T], bool]) -> T:
    """An example that violates a property; raises `NoSuchExample` if 100 examples all hold it."""
    return find(strategy, violates, settings=settings(max_examples=100, phases=[Phase.generate]))


def first_weights(net: SmallNet) -> nn.Parameter:
    """The weights that the channels of the grid go into: (out, C, 1, 1) or (out, C · cells of a channel)."""
    first = next(module for module in net.head if isinstance(module, nn.Conv2d | nn.Linear))
    return cast("nn.Parameter", first.weight)


def rewired(
    net: SmallNet,
    index: Sequence[int],
    incoming: Sequence[float] | None = None,
    outgoing: Sequence[float] | None = None,
) -> SmallNet:
    """The net with other channels in its target layer; the weights after them follow.

    Args:
        net: left as it is.
        index: for each new channel, the old one that it copies.
        incoming: for each new channel, a factor > 0 of its activations.
        outgoing: for each new channel, a factor of the weights that it goes into.
    """
    net = copy.deepcopy(net)
    count = len(index)
    layers = [m for m in net.stages[-1].modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    channels = layers[0].weight.shape[0]
    with torch.no_grad():
        for module in layers:
            for name, parameter in list(module.named_parameters()):
                setattr(module, name, nn.Parameter(parameter[list(index)]))
            for name, buffer in list(module.named_buffers()):
                if buffer.ndim:
                    setattr(module, name, buffer[list(index)])
        for parameter in layers[-1].parameters():  # weight and bias of what goes into the ReLU
            parameter.mul_(_along(incoming, count, parameter, 0))
        weights = first_weights(net)
        by_channel = weights.view(len(weights), channels, -1)[:, list(index)]
        by_channel = by_channel * _along(outgoing, count, by_channel, 1)
        weights.data = by_channel.reshape(len(weights), -1, *weights.shape[2:])
    return net


def _along(factors: Sequence[float] | None, count: int, like: Tensor, dim: int) -> Tensor:
    """Factors shaped to multiply `like` along one dimension."""
    shape = [1] * like.ndim
    shape[dim] = count
    return torch.tensor([1.0] * count if factors is None else list(factors), dtype=like.dtype).view(shape)


def bilinear(grid_map: Array, height: int, width: int) -> npt.NDArray[np.float64]:
    """Bilinear resizing with pixel centres at (i + ½) / size, clamped at the border: `align_corners=False`."""
    rows, columns = (_hats(cells, size) for cells, size in zip(grid_map.shape, (height, width), strict=True))
    resized: npt.NDArray[np.float64] = rows @ grid_map.astype(np.float64) @ columns.T
    return resized


def _hats(cells: int, size: int) -> npt.NDArray[np.float64]:
    """(size, cells): the weight of each cell in each pixel."""
    centres = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    weights: npt.NDArray[np.float64] = np.maximum(1 - np.abs(centres[:, None] - np.arange(cells)), 0)
    return weights
