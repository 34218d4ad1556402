"""Boxes and polygons as the share of each pixel that they cover, by exact area. Pure arithmetic; no errors of its own.

A result is a `Block`: the first row, the first column, and float32 coverage from there on, so that a small shape on a
large image costs what it covers.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Block: TypeAlias = tuple[int, int, npt.NDArray[np.float32]]


def box_coverage(x0: float, y0: float, x1: float, y1: float, height: int, width: int) -> Block:
    """Coverage of a box, clipped to an image (height, width)."""
    top, rows = _covered(max(y0, 0.0), min(y1, float(height)))
    left, columns = _covered(max(x0, 0.0), min(x1, float(width)))
    return top, left, np.outer(rows, columns).astype(np.float32)


def polygon_coverage(points: npt.NDArray[np.float64], height: int, width: int) -> Block:
    """Coverage of a closed polygon, corners (P, 2) as (x, y), clipped to an image (height, width).

    Each edge adds, with its sign, the part of every pixel that lies to the right of it; the sum over a closed path is
    the area inside. Exact for polygons that do not cross themselves.
    """
    left, top = (max(0, math.floor(low)) for low in points.min(axis=0).tolist())
    right = min(width, math.ceil(points[:, 0].max()))
    bottom = min(height, math.ceil(points[:, 1].max()))
    signed = np.zeros((max(bottom - top, 0), max(right - left, 0)))
    columns = np.arange(left, right, dtype=np.float64)
    for (xa, ya), (xb, yb) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
        if ya == yb:
            continue
        low, high = max(min(ya, yb), top), min(max(ya, yb), bottom)
        first, last = math.floor(low), math.ceil(high)
        if first >= last:
            continue
        bounds = np.clip(np.arange(first, last + 1, dtype=np.float64), low, high)  # where the edge changes its row
        xs = xa + (bounds - ya) * ((xb - xa) / (yb - ya))
        heights = np.diff(bounds) * (1.0 if yb > ya else -1.0)
        right_of = _mean_right_of(xs[:-1, None], xs[1:, None], columns)
        signed[first - top : last - top] += heights[:, None] * right_of
    covered = np.minimum(np.abs(signed), 1.0)
    covered[covered < 1e-9] = 0.0  # rounding, not area
    return top, left, covered.astype(np.float32)


def _covered(low: float, high: float) -> tuple[int, npt.NDArray[np.float64]]:
    """First pixel touched by the interval, and the covered share of each from there on."""
    first = math.floor(low)
    pixels = np.arange(first, max(math.ceil(high), first), dtype=np.float64)
    return first, np.clip(np.minimum(high, pixels + 1.0) - np.maximum(low, pixels), 0.0, 1.0)


def _mean_right_of(
    xa: npt.NDArray[np.float64], xb: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean share of pixels [c, c + 1) to the right of x, while x goes evenly from `xa` to `xb`."""
    step = xa - xb
    upright = np.abs(step) < 1e-6  # a difference quotient would only amplify rounding
    middle = np.clip(columns + 1.0 - (xa + xb) / 2.0, 0.0, 1.0)
    quotient = (_ramp_area(columns + 1.0 - xb) - _ramp_area(columns + 1.0 - xa)) / np.where(upright, 1.0, step)
    return np.where(upright, middle, quotient)


def _ramp_area(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral of clip(t, 0, 1) from 0 to t."""
    inside = np.clip(t, 0.0, 1.0)
    return np.asarray(inside * inside / 2.0 + np.maximum(t - 1.0, 0.0))
