"""Shapes of a data set made to fit the image that they were drawn on. Knows no file format."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pytest_gradcam.errors import RegionError
from pytest_gradcam.regions import Region
from pytest_gradcam.shapes import SLACK, Box, Polygon, short

Points = npt.NDArray[np.float64]


def fitted_box(corners: Sequence[float], frame: tuple[int, int]) -> tuple[Box, str]:
    """A box that sticks out of the image by no more than a region may, and what was clipped off, or nothing.

    Args:
        corners: x0, y0, x1, y1, in pixels, half-open.
        frame: (height, width) of the image.

    Raises:
        RegionError: not finite, inside out, without area, outside the image, or in fractions of it.
    """
    # Files do not say whether 1.0 is a whole number: only what has fractions can be a normalised box.
    shape = Region.box(*(int(value) if math.isfinite(value) and value == int(value) else value for value in corners))
    box = shape.shapes[0]
    assert isinstance(box, Box)
    height, width = frame
    if not _sticks_out((box.x0, box.y0, box.x1, box.y1), frame, str(box)):
        return box, ""
    clipped = Box(max(box.x0, 0), max(box.y0, 0), min(box.x1, width), min(box.y1, height))
    return clipped, f"{box} was clipped to the image, which is {width} wide and {height} high"


def fitted_polygon(points: Points, frame: tuple[int, int]) -> tuple[Polygon, str]:
    """A polygon that sticks out of the image by no more than a region may, and what was clipped off, or nothing.

    Args:
        points: (P, 2), x and y, in pixels.
        frame: (height, width) of the image.

    Raises:
        RegionError: not finite, of fewer than 3 corners, without area, outside the image, or in fractions of it.
    """
    polygon = Region.polygon(points.tolist()).shapes[0]
    assert isinstance(polygon, Polygon)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    shown = f"{polygon} (x from {short(x0)} to {short(x1)}, y from {short(y0)} to {short(y1)})"
    if not _sticks_out((x0, y0, x1, y1), frame, shown):
        return polygon, ""
    height, width = frame
    clipped = points
    for axis, edge, side in ((0, 0.0, 1.0), (0, float(width), -1.0), (1, 0.0, 1.0), (1, float(height), -1.0)):
        clipped = _inside_of(clipped, axis, edge, side)
    if len(clipped) < 3:
        raise RegionError(f"{shown} lies outside the image: it is {width} wide and {height} high")
    note = f"{shown} was clipped to the image, which is {width} wide and {height} high"
    return Polygon(tuple((x, y) for x, y in clipped.tolist())), note


def _sticks_out(bounds: tuple[float, float, float, float], frame: tuple[int, int], shown: str) -> bool:
    x0, y0, x1, y1 = bounds
    height, width = frame
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise RegionError(f"{shown} lies outside the image: it is {width} wide and {height} high")
    return max(-x0, -y0, x1 - width, y1 - height) > SLACK


def _inside_of(points: Points, axis: int, edge: float, side: float) -> Points:
    """What of a polygon lies on one side of an edge: Sutherland and Hodgman 1974, doi:10.1145/360767.360802.

    Winding numbers on that side stay what they were, so that a polygon that crosses itself is clipped rightly too.
    """
    kept: list[Points] = []
    depth = side * (points[:, axis] - edge)
    for place in range(len(points)):
        before, here = depth[place - 1], depth[place]
        if (before < 0) != (here < 0):
            share = before / (before - here)
            crossing = points[place - 1] + share * (points[place] - points[place - 1])
            crossing[axis] = edge
            kept.append(crossing)
        if here >= 0:
            kept.append(points[place])
    return np.array(kept).reshape(-1, 2)
