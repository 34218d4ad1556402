"""What moves the image moves the map: rows 23 to 27 of the CAM facts, for Grad-CAM and HiResCAM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from pytest_gradcam.cam.capture import gradient
from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.cam.split import run_pair
from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import (
    GAP_HEADS,
    Array,
    agree,
    assert_agree,
    counterexample,
    every_method,
    every_way,
    raw_cams,
    some,
)

# Heads that take no notice of where a cell is.
PLACELESS = st.sampled_from(GAP_HEADS)


def mirrors(model: SmallModel) -> bool:
    """(W + 2p − k) mod s = 0 in each layer: the last kernel ends where the image does."""
    return all((width + 2 * model.padding - model.kernel) % model.stride == 0 for _, width in model.sizes[:-1])


def inputs_for(model: SmallModel, dtype: torch.dtype) -> Tensor:
    noise = torch.Generator().manual_seed(model.seed)
    return torch.randn(2, model.in_channels, *model.size, generator=noise).to(dtype)


def flip_maps(model: SmallModel, method: str, dtype: torch.dtype) -> tuple[Array, Array]:
    """The map of the flipped image, and the flipped map of the image."""
    net, x = model.build().to(dtype), inputs_for(model, dtype)
    return raw_cams(net, x.flip(3), 0, method), raw_cams(net, x, 0, method)[:, :, ::-1]


def roll_maps(model: SmallModel, method: str, dtype: torch.dtype, pixels: int, cells: int) -> tuple[Array, Array]:
    """The map of the image rolled by so many pixels, and the map of the image rolled by so many cells."""
    net, x = model.build().to(dtype), inputs_for(model, dtype)
    return raw_cams(net, x.roll(pixels, 3), 0, method), np.roll(raw_cams(net, x, 0, method), cells, axis=2)


@every_method
@every_way
@some
@given(small_models(head=PLACELESS, symmetric=True).filter(mirrors))
def test_flipping_the_image_flips_the_map(dtype: torch.dtype, method: str, model: SmallModel) -> None:
    """Row 23, symmetric kernels and (W + 2p − k) mod s = 0 in each layer."""
    assert_agree(*flip_maps(model, method, dtype))


@every_method
@pytest.mark.parametrize("side", [8, 32])
def test_a_stride_that_does_not_come_out_even_breaks_the_mirror(method: str, side: int) -> None:
    """Negative control of row 23: k3 s2 p1 at an even width."""
    models = small_models(size=(side, side), kernel=3, stride=2, padding=1, head=PLACELESS, symmetric=True)
    counterexample(models, lambda model: not agree(*flip_maps(model, method, torch.float64)))


@every_method
def test_kernels_that_are_not_symmetric_break_the_mirror(method: str) -> None:
    """Negative control of row 23: everything but the kernels is as it should be."""
    models = small_models(kernel=3, stride=1, head=PLACELESS, symmetric=False)
    counterexample(models, lambda model: mirrors(model) and not agree(*flip_maps(model, method, torch.float64)))


@every_method
@every_way
@some
@given(small_models(head=PLACELESS, stride=1))
def test_flipping_image_and_kernels_flips_the_map(dtype: torch.dtype, method: str, model: SmallModel) -> None:
    """Row 24, stride 1."""
    net, x = model.build().to(dtype), inputs_for(model, dtype)
    expected = raw_cams(net, x, 0, method)[:, :, ::-1]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.flip(3))
    assert_agree(raw_cams(net, x.flip(3), 0, method), expected)


@st.composite
def rolling_models(draw: st.DrawFn) -> SmallModel:
    """Circular padding that keeps the size, and sides that the total stride divides."""
    kernel = draw(st.sampled_from([1, 3]))
    sides = st.sampled_from([8, 12])
    size = draw(st.tuples(sides, sides))
    keeps = (kernel - 1) // 2
    return draw(small_models(size=size, kernel=kernel, padding=keeps, padding_mode="circular", head=PLACELESS))


@every_method
@every_way
@some
@given(rolling_models(), st.integers(-2, 2))
def test_rolling_the_image_by_the_total_stride_rolls_the_map(
    dtype: torch.dtype, method: str, model: SmallModel, cells: int
) -> None:
    """Row 25, circular padding: one cell for each total stride."""
    assert_agree(*roll_maps(model, method, dtype, cells * model.total_stride, cells))


@every_method
def test_no_roll_of_the_map_answers_another_shift(method: str) -> None:
    """Negative control of row 25: half a stride moves the map by no number of cells."""

    def lost(model: SmallModel) -> bool:
        if model.stride == 1:
            return False
        maps = [roll_maps(model, method, torch.float64, 1, cells) for cells in range(model.grid[1])]
        return not any(agree(*pair) for pair in maps)

    counterexample(rolling_models(), lost)


@every_method
def test_padding_with_zeros_breaks_rolling(method: str) -> None:
    """Negative control of row 25: the border is somewhere."""
    models = small_models(size=(8, 8), kernel=3, padding=1, padding_mode="zeros", head=PLACELESS)
    counterexample(models, lambda model: not agree(*roll_maps(model, method, torch.float64, model.total_stride, 1)))


@every_method
@every_way
@some
@given(small_models(size=(8, 8), bias=False, norm=False, head="gap-linear"), model_inputs(batch=2), st.floats(0.1, 10))
def test_a_brighter_image_has_a_stronger_raw_cam(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, factor: float
) -> None:
    """Row 26, no bias, no BatchNorm, ReLU, GAP+linear: raw(a·x) = a · raw(x)."""
    net, x = model.build().to(dtype), x.to(dtype)
    assert_agree(raw_cams(net, factor * x, 0, method), raw_cams(net, x, 0, method) * x.numpy().dtype.type(factor))


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@some
@given(small_models(size=(8, 8), head=PLACELESS), model_inputs(batch=2), st.data())
def test_permuting_the_cells_permutes_the_map(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 27, GAP head: exactly."""
    net, x = model.build().to(dtype), x.to(dtype)
    h, w = model.grid
    order = data.draw(st.permutations(range(h * w)))

    def shuffled(x: Tensor) -> Tensor:
        found: Tensor = net.stages(x).flatten(2)[..., order].unflatten(2, (h, w))
        return found

    def raw(features: Callable[[Tensor], Tensor]) -> Tensor:
        """Below what explains: there, cells that are not in their places are refused."""
        tail = run_pair(features, net.head, x, [])
        (gradients,) = gradient(tail.output[:, 0].sum(), tail, "features")
        return METHODS[method].raw(tail.leaves[0].detach(), gradients)

    assert torch.equal(raw(shuffled).flatten(1), raw(net.stages).flatten(1)[:, order])
