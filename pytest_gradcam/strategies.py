"""Hypothesis strategies for property tests of what you build on CAMs: images, regions, maps, and small models.

What they draw is small, seeded and valid: every region fits its image, every model has a grid. Hypothesis is needed
here and nowhere else in the package. The models themselves, which need no Hypothesis, are in `small_models`.

Example:
    ```python
    import pytest
    from hypothesis import given
    from pytest_gradcam import explain
    from pytest_gradcam.strategies import model_inputs, small_models


    @pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")  # some nets find nothing in some images
    @given(small_models(size=(8, 8), head="gap-linear"), model_inputs(size=(8, 8)))
    def test_my_normalisation_is_idempotent(model, image):
        cam = explain(model.build(), image, 0).cam
        assert (mine(mine(cam)) == mine(cam)).all()
    ```
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_gradcam.errors import SettingsError
from pytest_gradcam.regions import Region
from pytest_gradcam.small_models import ACTIVATIONS, HEADS, PADDING_MODES, PaddingMode, SmallModel

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "pytest_gradcam.strategies draws from Hypothesis, which is not installed: pip install hypothesis"
    ) from error

__all__ = ["SmallModel", "boxes", "images", "maps", "masks", "model_inputs", "polygons", "regions", "small_models"]

T = TypeVar("T")
# What a parameter may be: a value, a strategy for it, or None for the default strategy.
Trait: TypeAlias = T | st.SearchStrategy[T] | None

Box: TypeAlias = tuple[int, int, int, int]
Point: TypeAlias = tuple[float, float]

# Corners of polygons lie on this fraction of a pixel: exact in binary, and short in a report.
_STEPS_PER_PIXEL = 8

_seeds = st.integers(0, 2**32 - 1)


@st.composite
def images(
    draw: st.DrawFn, *, height: Trait[int] = None, width: Trait[int] = None, grey: Trait[bool] = False
) -> npt.NDArray[np.uint8]:
    """Pictures as a user holds them: rectangles of any colour on a background, with or without noise.

    They shrink towards plain black.

    Args:
        draw: given by Hypothesis.
        height: in pixels; 1 to 64 if None.
        width: in pixels; 1 to 64 if None.
        grey: True for (H, W) instead of (H, W, 3); None for both.

    Returns:
        uint8 (H, W, 3) RGB, or (H, W).

    Example:
        `@given(images(height=224, width=st.integers(100, 400)))`
    """
    h, w = draw(_trait(height, st.integers(1, 64))), draw(_trait(width, st.integers(1, 64)))
    depth = 1 if draw(_trait(grey, st.booleans())) else 3
    colours = st.tuples(*[st.integers(0, 255)] * depth)
    picture = np.empty((h, w, depth), np.uint8)
    picture[:] = draw(colours)
    for x0, y0, x1, y1 in draw(st.lists(boxes(h, w, proper=False), max_size=3)):
        picture[y0:y1, x0:x1] = draw(colours)
    if draw(st.booleans()):
        noise = np.random.default_rng(draw(_seeds)).integers(-48, 49, picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return picture[..., 0] if depth == 1 else picture


@st.composite
def boxes(draw: st.DrawFn, height: int, width: int, *, min_side: int = 1, proper: bool = True) -> Box:
    """Boxes (x0, y0, x1, y1) with integer corners inside an image of this size.

    They shrink towards the smallest box at the top left.

    Args:
        draw: given by Hypothesis.
        height: of the image, in pixels.
        width: of the image, in pixels.
        min_side: smallest height and width of the box, in pixels.
        proper: never the whole image, of which every map would hold; False allows it.

    Example:
        `@given(boxes(224, 224, min_side=16))`
    """
    if height < 1 or width < 1 or not 1 <= min_side <= min(height, width) or (proper and min_side == height == width):
        kind = "proper box" if proper else "box"
        raise SettingsError(
            f"no {kind} with sides of {min_side} pixels or more fits an image {width} wide, {height} high"
        )
    x0, y0 = draw(st.integers(0, width - min_side)), draw(st.integers(0, height - min_side))
    x1 = draw(st.integers(x0 + min_side, width))
    top = height - 1 if proper and y0 == 0 and x1 - x0 == width else height
    if top < y0 + min_side:  # only a box as high as the image is left at this width
        return x0, y0, x1 - 1, height
    return x0, y0, x1, draw(st.integers(y0 + min_side, top))


@st.composite
def polygons(draw: st.DrawFn, height: int, width: int) -> list[Point]:
    """Convex polygons of 3 or 4 corners (x, y), at fractions of a pixel, inside an image of this size.

    Args:
        draw: given by Hypothesis.
        height: of the image, in pixels, at least 2.
        width: of the image, in pixels, at least 2.

    Example:
        `@given(polygons(32, 48).map(Region.polygon))`
    """
    if height < 2 or width < 2:
        raise SettingsError(
            f"no polygon is drawn in an image {width} wide, {height} high: both must be at least 2 pixels"
        )
    # One corner strictly inside each side of a box: always an area, never a crossing.
    x0, y0, x1, y1 = draw(boxes(height, width, min_side=2, proper=False))

    def between(low: int, high: int) -> float:
        return draw(st.integers(low * _STEPS_PER_PIXEL + 1, high * _STEPS_PER_PIXEL - 1)) / _STEPS_PER_PIXEL

    corners = [(between(x0, x1), float(y0)), (float(x1), between(y0, y1)), (between(x0, x1), float(y1))]
    return [*corners, (float(x0), between(y0, y1))] if draw(st.booleans()) else corners


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Boolean masks (H, W) with at least one pixel in the region and one outside: blocks, with or without holes.

    Args:
        draw: given by Hypothesis.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Example:
        `@given(masks(32, 48))`
    """
    mask = np.zeros((height, width), np.bool_)
    for x0, y0, x1, y1 in draw(st.lists(boxes(height, width), min_size=1, max_size=3)):
        mask[y0:y1, x0:x1] ^= True
    if draw(st.booleans()):
        mask &= np.random.default_rng(draw(_seeds)).random((height, width)) < 0.7
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    if not mask.any():
        mask[y, x] = True
    elif mask.all():
        mask[y, x] = False
    return mask


def regions(height: int, width: int) -> st.SearchStrategy[Region]:
    """Regions of every kind that fit an image of this size: boxes, polygons, masks, and unions of them.

    Args:
        height: of the image, in pixels, at least 2.
        width: of the image, in pixels, at least 2.

    Example:
        `@given(regions(32, 48))`
    """
    single = st.one_of(
        boxes(height, width).map(Region.of),
        polygons(height, width).map(Region.polygon),
        masks(height, width).map(Region.mask),
    )
    return single | st.lists(single, min_size=2, max_size=3).map(lambda several: Region.union(*several))


@st.composite
def model_inputs(
    draw: st.DrawFn,
    *,
    batch: Trait[int] = 1,
    channels: Trait[int] = 3,
    size: Trait[tuple[int, int]] = (8, 8),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Model input: noise from a drawn seed, of a drawn strength, with a bright patch.

    Args:
        draw: given by Hypothesis.
        batch: N.
        channels: C.
        size: (H, W), in pixels.
        dtype: of the tensor.

    Returns:
        (N, C, H, W), finite, not constant.

    Example:
        `@given(model_inputs(batch=4, size=(32, 32)))`
    """
    n, c = draw(_trait(batch, st.integers(1, 4))), draw(_trait(channels, st.integers(1, 3)))
    h, w = draw(_trait(size, st.tuples(st.integers(6, 12), st.integers(6, 12))))
    values = np.random.default_rng(draw(_seeds)).standard_normal((n, c, h, w))
    values *= draw(st.sampled_from([1.0, 0.25, 4.0]))
    x0, y0, x1, y1 = draw(boxes(h, w))
    values[..., y0:y1, x0:x1] += draw(st.sampled_from([0.0, 1.0, -1.0]))
    return torch.from_numpy(values).to(dtype)


@st.composite
def maps(draw: st.DrawFn, height: int, width: int) -> npt.NDArray[np.float32]:
    """CAM-like maps: one to three peaks, zero below a drawn level, divided by the maximum.

    They shrink towards a single peak.

    Args:
        draw: given by Hypothesis.
        height: of the map, in pixels or cells.
        width: of the map, in pixels or cells.

    Returns:
        float32 (H, W) in [0, 1], with maximum 1: there always is evidence.

    Example:
        `@given(maps(7, 7))`
    """
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    total = np.zeros((height, width))
    for _ in range(draw(st.integers(1, 3))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        spread = draw(st.sampled_from([0.1, 0.05, 0.3, 1.0])) * max(height, width)
        total += draw(st.sampled_from([1.0, 0.5, 2.0])) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / spread**2)
    positive = np.maximum(total / total.max() - draw(st.sampled_from([0.0, 0.1, 0.5])), 0.0)
    return np.asarray(positive / positive.max(), np.float32)


@st.composite
def small_models(
    draw: st.DrawFn,
    *,
    seed: Trait[int] = None,
    size: Trait[tuple[int, int]] = None,
    in_channels: Trait[int] = 3,
    classes: Trait[int] = None,
    channels: Trait[tuple[int, ...]] = None,
    kernel: Trait[int] = None,
    stride: Trait[int] = None,
    padding: Trait[int] = None,
    padding_mode: Trait[PaddingMode] = "zeros",
    symmetric: Trait[bool] = False,
    bias: Trait[bool] = None,
    norm: Trait[bool] = None,
    activation: Trait[str] = None,
    head: Trait[str] = None,
    head_bias: Trait[bool] = None,
) -> SmallModel:
    """Small seeded conv nets with the traits asked for: one explanation of such a net takes a millisecond or two.

    Every parameter is a trait of `SmallModel`: a value, a strategy, or None for any that is small. Combinations without
    a usable grid are not drawn.

    Args:
        draw: given by Hypothesis.
        seed: of the weights.
        size: (H, W) of the model input, in pixels.
        in_channels: of the model input.
        classes: number of classes.
        channels: of each stage; as many stages as there are numbers.
        kernel: side of the kernels, in pixels.
        stride: of every stage.
        padding: of every stage, on each side, in pixels.
        padding_mode: `zeros` or `circular`.
        symmetric: whether every kernel is its own mirror image.
        bias: whether the convolutions have one.
        norm: whether BatchNorm follows each convolution, with drawn statistics.
        activation: one of `ACTIVATIONS`.
        head: one of `HEADS`.
        head_bias: whether the head's layers have one.

    Example:
        ```python
        @given(small_models(head=st.sampled_from(["gap-linear", "gap-mlp"]), norm=True))
        def test_a_law(model):
            net = model.build()  # an nn.Module in eval mode, always the same for this `model`
        ```
    """
    stages = st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple)
    size_drawn = draw(_trait(size, st.tuples(st.integers(6, 12), st.integers(6, 12))))
    geometry = st.tuples(
        _trait(channels, stages),
        _trait(kernel, st.sampled_from([3, 1, 2])),
        _trait(stride, st.sampled_from([1, 2])),
        _trait(padding, st.sampled_from([1, 0])),
    )
    # Padding of more than half a kernel moves the grid against the image: its cells no longer stand for their places.
    fitting = geometry.filter(
        lambda drawn: SmallModel.fits(size_drawn, *drawn) and (padding is not None or 2 * drawn[3] <= drawn[1])
    )
    channels_drawn, kernel_drawn, stride_drawn, padding_drawn = draw(fitting)
    return SmallModel(
        seed=draw(_trait(seed, st.integers(0, 9999))),
        size=size_drawn,
        in_channels=draw(_trait(in_channels, st.integers(1, 3))),
        classes=draw(_trait(classes, st.integers(2, 4))),
        channels=channels_drawn,
        kernel=kernel_drawn,
        stride=stride_drawn,
        padding=padding_drawn,
        padding_mode=draw(_trait(padding_mode, st.sampled_from(PADDING_MODES))),
        symmetric=draw(_trait(symmetric, st.booleans())),
        bias=draw(_trait(bias, st.booleans())),
        norm=draw(_trait(norm, st.booleans())),
        activation=draw(_trait(activation, st.sampled_from(ACTIVATIONS))),
        head=draw(_trait(head, st.sampled_from(HEADS))),
        head_bias=draw(_trait(head_bias, st.booleans())),
    )


def _trait(trait: Trait[T], default: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    if trait is None:
        return default
    return trait if isinstance(trait, st.SearchStrategy) else st.just(trait)
