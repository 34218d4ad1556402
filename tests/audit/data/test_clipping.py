"""Boxes and polygons made to fit an image: what they cover of it stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from pytest_gradcam.audit.data.clipping import fitted_box, fitted_polygon
from pytest_gradcam.errors import RegionError
from pytest_gradcam.rasters import polygon_coverage
from pytest_gradcam.shapes import Box

HEIGHT, WIDTH = 20, 30
FAR = st.floats(-50, 80, allow_nan=False)


@given(x0=FAR, y0=FAR, width=st.floats(0.1, 90), height=st.floats(0.1, 90))
def test_box_covers_what_the_whole_one_covers(x0: float, y0: float, width: float, height: float) -> None:
    """Its edges in the image, and nothing of it more than a pixel outside."""
    x1, y1 = x0 + width, y0 + height
    assume(max(abs(x0), abs(y0), abs(x1), abs(y1)) > 1)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, WIDTH), min(y1, HEIGHT)
    if right <= left or bottom <= top:
        with pytest.raises(RegionError, match="lies outside the image"):
            fitted_box((x0, y0, x1, y1), (HEIGHT, WIDTH))
        return
    box, note = fitted_box((x0, y0, x1, y1), (HEIGHT, WIDTH))
    assert (max(box.x0, 0), max(box.y0, 0), min(box.x1, WIDTH), min(box.y1, HEIGHT)) == (left, top, right, bottom)
    assert bool(note) == (box != Box(x0, y0, x1, y1))
    _top, _left, block = box.coverage(HEIGHT, WIDTH)
    assert block.sum() == pytest.approx((right - left) * (bottom - top), rel=1e-4, abs=1e-4)


@given(points=st.lists(st.tuples(FAR, FAR), min_size=3, max_size=8))
def test_polygon_covers_what_the_whole_one_covers(points: list[tuple[float, float]]) -> None:
    """The pixels of the image are covered as by the polygon on a canvas so large that nothing is cut off."""
    corners = np.array(points)
    margin = 60
    top, left, block = polygon_coverage(corners + margin, HEIGHT + 2 * margin + 20, WIDTH + 2 * margin + 20)
    canvas = np.zeros((HEIGHT + 2 * margin + 20, WIDTH + 2 * margin + 20), dtype=np.float32)
    canvas[top : top + block.shape[0], left : left + block.shape[1]] = block
    wanted = canvas[margin : margin + HEIGHT, margin : margin + WIDTH]
    assume(wanted.sum() > 0.5)
    try:
        polygon, _note = fitted_polygon(corners, (HEIGHT, WIDTH))
    except RegionError as error:
        assume("no area" not in str(error))
        raise
    top, left, block = polygon.coverage(HEIGHT, WIDTH)
    covered = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    covered[top : top + block.shape[0], left : left + block.shape[1]] = block
    # Pixels in which a polygon crosses itself are not exact, and clipping lays its edges anew there.
    assert np.abs(covered - wanted).mean() < 0.005


def test_polygon_around_the_whole_image() -> None:
    """None of its corners is in the image, all of the image in it."""
    polygon, note = fitted_polygon(np.array([(-50, -50), (90, -40), (80, 90), (-60, 80)], float), (HEIGHT, WIDTH))
    _top, _left, block = polygon.coverage(HEIGHT, WIDTH)
    assert block.sum() == HEIGHT * WIDTH
    assert "clipped" in note


def test_polygon_past_a_corner_of_the_image() -> None:
    """Its bounds meet the image, and it does not."""
    with pytest.raises(RegionError, match=r"outside the image|no area"):
        fitted_polygon(np.array([(-20, 5), (5, -20), (-20, -20)], float), (HEIGHT, WIDTH))
