"""Box, Polygon and Mask: what a region is made of, and the share of each pixel that they cover.

Values that cannot be wrong in themselves: finite, the right way round, with an area. How a user's argument becomes one
is in `regions`; the arithmetic of coverage is in `rasters`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_gradcam.errors import RegionError, RegionTypeError
from pytest_gradcam.rasters import Block, box_coverage, polygon_coverage

SLACK = 1.0  # pixels that a shape may stick out of the image before it is taken for one of another frame


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel box, half-open, in pixels.

    Attributes:
        x0, y0, x1, y1: left, top, right and bottom edge; `x1` and `y1` lie just outside.
        canvas: (height, width) of the image that it was drawn for, where known.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    canvas: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _refuse_infinite((self.x0, self.y0, self.x1, self.y1), str(self))
        pairs = (("x0", self.x0, "x1", self.x1), ("y0", self.y0, "y1", self.y1))
        wrong = [f"{b} ({short(y)}) must be larger than {a} ({short(x)})" for a, x, b, y in pairs if y <= x]
        if not wrong:
            return
        fault = "inside out" if self.x1 < self.x0 or self.y1 < self.y0 else "without area"
        meant = tuple(map(short, (self.x0, self.y0, self.x0 + self.x1, self.y0 + self.y1)))
        hint = f" If it was (x, y, width, height), write ({', '.join(meant)})." if self.x1 > 0 and self.y1 > 0 else ""
        raise RegionError(f"{self} is {fault}: {' and '.join(wrong)}. Boxes are (x0, y0, x1, y1).{hint}")

    def __str__(self) -> str:
        return f"the box {self.corners}"

    @property
    def corners(self) -> str:
        return f"({', '.join(map(short, (self.x0, self.y0, self.x1, self.y1)))})"

    def coverage(self, height: int, width: int) -> Block:
        """Exact area coverage of an image's pixels."""
        if self.canvas is not None and self.canvas != (height, width):
            raise RegionError(
                f"{self} was drawn on a canvas {self.canvas[1]} wide and {self.canvas[0]} high (its canvas_size), and "
                f"the image is {width} wide and {height} high: pass the boxes of the picture as it was before any "
                "transform"
            )
        _refuse_outside((self.x0, self.y0, self.x1, self.y1), height, width, str(self), "Boxes are (x0, y0, x1, y1)")
        block = box_coverage(self.x0, self.y0, self.x1, self.y1, height, width)
        return _not_empty(block, height, width, str(self))


@dataclass(frozen=True, slots=True)
class Polygon:
    """A polygon: its corners (x, y) in pixels, in order; the last is joined to the first."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        listed = [f"({short(x)}, {short(y)})" for x, y in self.points]
        shown = f"the polygon [{', '.join(listed[:6])}{', …' if len(listed) > 6 else ''}]"
        _refuse_infinite([value for point in self.points for value in point], shown)
        if len(self.points) < 3:
            raise RegionError(
                f"{shown} has {counted(len(self.points), 'corner')} and no area: a polygon needs at least 3 points "
                "(x, y), and a box is written (x0, y0, x1, y1)"
            )
        offsets = np.array(self.points) - self.points[0]
        x, y = offsets[np.argmax(np.hypot(*offsets.T))]
        if np.abs(offsets[:, 0] * y - offsets[:, 1] * x).max() <= 1e-9 * (x * x + y * y):
            raise RegionError(f"{shown} has no area: its points lie on one line. Give the corners of an area, in order")

    def __str__(self) -> str:
        return f"the polygon of {len(self.points)} points"

    def coverage(self, height: int, width: int) -> Block:
        """Exact area coverage of an image's pixels, but for pixels in which the polygon crosses itself."""
        corners = np.array(self.points)
        (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        shown = f"{self} (x from {short(x0)} to {short(x1)}, y from {short(y0)} to {short(y1)})"
        _refuse_outside((x0, y0, x1, y1), height, width, shown, "Points are (x, y)")
        return _not_empty(polygon_coverage(corners, height, width), height, width, shown)


@dataclass(frozen=True, slots=True)
class Mask:
    """A boolean mask, packed into bytes: hashable, comparable, and safe from later changes by its maker.

    Attributes:
        height, width: its size in pixels.
        bits: its elements, row by row, as `numpy.packbits` packs them.
        count: how many of them are True, at least one.
    """

    height: int
    width: int
    bits: bytes
    count: int

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Mask:
        """The mask of a boolean array (H, W), or of a uint8 one of 0 and 1, or of 0 and 255."""
        if array.ndim != 2:
            raise RegionError(
                f"a mask is two-dimensional, (height, width), and this one has shape {array.shape}: pass one plane of "
                "it, or mask.any(axis=0) for the union of many"
            )
        if array.dtype == np.uint8:
            values = np.unique(array).tolist()
            if not set(values) <= {0, 1} and not set(values) <= {0, 255}:
                few = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
                raise RegionTypeError(
                    f"a uint8 mask holds 0 and 1, or 0 and 255, and this one holds {few}: pass a boolean mask, for "
                    "example mask == 7 or mask > 127"
                )
        elif array.dtype != bool:
            raise RegionTypeError(
                f"a mask is boolean, and this one has dtype {array.dtype}: pass mask > 0.5, or mask != 0"
            )
        flags = array != 0
        count = int(flags.sum())
        if count == 0:
            raise RegionError(
                f"the mask of shape {array.shape} is empty, nothing in it is True: mark the pixels of the region as "
                "True"
            )
        return cls(array.shape[0], array.shape[1], np.packbits(flags).tobytes(), count)

    def __str__(self) -> str:
        return f"the mask of {counted(self.count, 'pixel')}"

    def coverage(self, height: int, width: int) -> Block:
        """The mask itself, 0 and 1, for an image of its own size."""
        if (self.height, self.width) != (height, width):
            turned = " It looks transposed: pass mask.T." if (self.width, self.height) == (height, width) else ""
            raise RegionError(
                f"{self} is {self.width} wide and {self.height} high, and the image is {width} wide and {height} high: "
                f"a mask has one element for each pixel of the picture you passed, not of the resized one.{turned}"
            )
        bits = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=height * width)
        return 0, 0, bits.reshape(height, width).astype(np.float32)


Shape: TypeAlias = Box | Polygon | Mask


def short(value: float) -> str:
    """A coordinate as a person writes it: without a point where it is whole."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def counted(number: int, word: str) -> str:
    """`1 pixel`, `2 pixels`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _refuse_infinite(values: Iterable[float], shown: str) -> None:
    odd = next((value for value in values if not math.isfinite(value)), None)
    if odd is not None:
        raise RegionError(f"{shown} holds {odd}: every coordinate must be a finite number of pixels")


def _refuse_outside(
    bounds: tuple[float, float, float, float], height: int, width: int, shown: str, written: str
) -> None:
    x0, y0, x1, y1 = bounds
    size = f"it is {width} wide and {height} high"
    rule = f"{written} in pixels of the picture you passed, not of the resized one."
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise RegionError(f"{shown} lies outside the image: {size}. {rule}")
    sides = {"on the left": -x0, "at the top": -y0, "on the right": x1 - width, "at the bottom": y1 - height}
    over = [f"{short(excess)} {side}" for side, excess in sides.items() if excess > SLACK]
    if over:
        raise RegionError(
            f"{shown} sticks out of the image by {' and '.join(over)}: {size}. {rule} If it is meant to reach "
            "beyond the edge, clip it there."
        )


def _not_empty(block: Block, height: int, width: int, shown: str) -> Block:
    if not block[2].any():
        raise RegionError(
            f"{shown} covers nothing of the image, which is {width} wide and {height} high: give "
            "the corners of an area inside it"
        )
    return block
