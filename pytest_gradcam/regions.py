"""Region: where attention should or should not be, and what a user may write for one. Knows no model and no transform.

Only numpy is imported. Tensors, and torchvision's `BoundingBoxes` and `Mask`, are recognised where the caller has
already imported torch or torchvision: nobody can pass one otherwise.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_gradcam.errors import RegionError, RegionTypeError
from pytest_gradcam.shapes import Box, Mask, Polygon, Shape, counted

_KINDS = (
    "a region is a box (x0, y0, x1, y1), a list of boxes, a polygon of at least 3 points (x, y), a boolean mask "
    "(height, width), torchvision BoundingBoxes or Mask, or a Region"
)
_SHOWN_MEMBERS = 4


@dataclass(frozen=True, slots=True)
class Region:
    """Boxes, polygons, masks, or a union of them, in pixels of the image frame.

    Coordinates are 0-based and half-open: the box (0, 0, 2, 1) covers the first two pixels of the first row. Regions
    are values: they compare, hash and pickle.

    Attributes:
        shapes: the members of the union, at least one.
    """

    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if not self.shapes:
            raise RegionError(f"the region is empty: {_KINDS}")

    @classmethod
    def of(cls, value: object) -> Region:
        """The region that a value means.

        Args:
            value: a box (x0, y0, x1, y1); a list of boxes or an (N, 4) array; a polygon, that is a list of at least 3
                points (x, y) or a (P, 2) array; a boolean mask (H, W); torchvision `BoundingBoxes` or `Mask`; a
                `Region`; or a list of any of these, which means their union.

        Raises:
            RegionError: malformed, empty, inside out, not finite, or in fractions instead of pixels.
            RegionTypeError: of a type that means no region.
        """
        if isinstance(value, Region):
            return value
        if _is_tensor(value):
            return cls(_from_tensor(value))
        if isinstance(value, np.ndarray):
            return cls(_from_array(value))
        if isinstance(value, (list, tuple)):
            return cls(_from_sequence(value))
        raise RegionTypeError(f"{_shown(value)} of type {type(value).__name__} is no region: {_KINDS}")

    @classmethod
    def box(cls, x0: float, y0: float, x1: float, y1: float) -> Region:
        """A box from its left, top, right and bottom edge, in pixels; `x1` and `y1` lie just outside it.

        Raises:
            RegionError: inside out, without area, not finite, or in fractions instead of pixels.
            RegionTypeError: an edge is no number.
        """
        return cls(_boxes([(x0, y0, x1, y1)]))

    @classmethod
    def polygon(cls, points: object) -> Region:
        """A polygon from its corners (x, y), in pixels, in order: a list of pairs, or an array (P, 2).

        The last corner is joined to the first. A polygon that crosses itself is filled wherever its winding number is
        not zero.

        Raises:
            RegionError: fewer than 3 corners, no area, not finite, or in fractions instead of pixels.
            RegionTypeError: something among the points is no point.
        """
        if not isinstance(points, Iterable) or isinstance(points, str):
            raise RegionTypeError(f"{_shown(points)} of type {type(points).__name__} is no list of points (x, y)")
        rows = []
        for point in points:
            row = _row(point)
            if row is None:
                raise RegionTypeError(f"{_shown(point)} of type {type(point).__name__} is no point (x, y) of a polygon")
            rows.append(row)
        return cls((_polygon(rows),))

    @classmethod
    def mask(cls, array: npt.NDArray[Any]) -> Region:
        """A mask (H, W) with one element for each pixel of the image: boolean, or uint8 of 0 and 1, or of 0 and 255.

        Raises:
            RegionError: not two-dimensional, or nothing in it is True.
            RegionTypeError: no array, of another dtype, or with other values.
        """
        plain = _numpy(array) if _is_tensor(array) else array
        if not isinstance(plain, np.ndarray):
            raise RegionTypeError(f"a mask is a boolean array (height, width), not {type(plain).__name__}")
        return cls((Mask.of(plain),))

    @classmethod
    def union(cls, *regions: object) -> Region:
        """Everything that any of the regions covers; each may be whatever `Region.of` takes."""
        return cls(tuple(shape for region in regions for shape in cls.of(region).shapes))

    def __or__(self, other: object) -> Region:
        return Region.union(self, other)

    def rasterise(self, height: int, width: int) -> npt.NDArray[np.float32]:
        """The share of each pixel that the region covers, float32 (height, width) in [0, 1].

        Boxes and polygons are covered by exact area (a polygon that crosses itself: exact but for the pixels in which
        it does), so boxes with integer corners give exactly 0 and 1. What sticks out by up to 1 pixel is clipped. The
        members of a union are joined by their maximum, so a pixel that two of them share without overlapping in it
        counts as its larger part.

        Args:
            height: height of the image, in pixels.
            width: width of the image, in pixels.

        Raises:
            RegionError: a member lies outside the image, sticks out of it by more than 1 pixel, covers nothing of it,
                or was drawn for an image of another size.
        """
        covered = np.zeros((height, width), dtype=np.float32)
        for shape in self.shapes:
            top, left, block = shape.coverage(height, width)
            part = covered[top : top + block.shape[0], left : left + block.shape[1]]
            np.maximum(part, block, out=part)
        return covered

    @property
    def noun(self) -> str:
        """The region without its numbers: `the box`, `the 2 boxes`, `the polygon`, `the mask`, else `the region`."""
        if all(isinstance(shape, Box) for shape in self.shapes):
            return "the box" if len(self.shapes) == 1 else f"the {len(self.shapes)} boxes"
        if len(self.shapes) > 1:
            return "the region"
        return "the polygon" if isinstance(self.shapes[0], Polygon) else "the mask"

    def __str__(self) -> str:
        if len(self.shapes) == 1:
            return str(self.shapes[0])
        boxes = [shape.corners for shape in self.shapes if isinstance(shape, Box)]
        only_boxes = len(boxes) == len(self.shapes)
        names = boxes if only_boxes else [str(shape) for shape in self.shapes]
        rest = f" and {len(names) - _SHOWN_MEMBERS} more" if len(names) > _SHOWN_MEMBERS else ""
        return f"the {f'{len(boxes)} boxes' if only_boxes else 'union of'} {', '.join(names[:_SHOWN_MEMBERS])}{rest}"


def _from_sequence(items: Sequence[object]) -> tuple[Shape, ...]:
    if not items:
        raise RegionError(f"the region is an empty {type(items).__name__}: {_KINDS}")
    scalars = [_is_number(item) for item in items]
    if all(scalars):
        return _boxes([items])
    if any(scalars):
        odd = items[scalars.index(False)]
        raise RegionTypeError(f"{_shown(odd)} of type {type(odd).__name__} stands among numbers: {_KINDS}")
    rows = [row for row in map(_row, items) if row is not None]
    if len(rows) < len(items):
        return Region.union(*items).shapes
    lengths = [len(row) for row in rows]
    if set(lengths) == {4}:
        return _boxes(rows)
    if set(lengths) == {2}:
        return (_polygon(rows),)
    place = next(i for i, length in enumerate(lengths) if length not in (2, 4) or length != lengths[0])
    raise RegionError(
        f"item {place} of the list, {_shown(items[place])}, has {counted(lengths[place], 'number')}: a list of boxes "
        "has 4 in each, (x0, y0, x1, y1), and a polygon has 2, (x, y)"
    )


def _from_array(array: npt.NDArray[Any]) -> tuple[Shape, ...]:
    if array.dtype == bool:
        return (Mask.of(array),)
    if array.dtype.kind not in "iuf":
        raise RegionTypeError(f"an array of dtype {array.dtype} is no region: {_KINDS}")
    if array.size == 0:
        raise RegionError(f"the region is an empty array of shape {array.shape}: {_KINDS}")
    if array.ndim == 1:
        return _boxes([array.tolist()])
    if array.ndim == 2 and array.shape[1] == 4:
        return _boxes(array.tolist())
    if array.ndim == 2 and array.shape[1] == 2:
        return (_polygon(array.tolist()),)
    if array.ndim == 2 and array.dtype == np.uint8:
        return (Mask.of(array),)
    raise (RegionTypeError if array.ndim == 2 else RegionError)(
        f"an array of shape {array.shape} and dtype {array.dtype} is no region: boxes are (N, 4), a polygon is (P, 2), "
        "and a mask is boolean (height, width), so that a map of weights is passed as weights > 0.5"
    )


def _from_tensor(tensor: Any) -> tuple[Shape, ...]:
    known = sys.modules.get("torchvision.tv_tensors")
    if known is not None and isinstance(tensor, known.BoundingBoxes):
        return _from_bounding_boxes(tensor)
    array = _numpy(tensor)
    if known is not None and isinstance(tensor, known.Mask):
        planes = array if array.ndim == 3 and len(array) else [array]  # torchvision: one mask for each object
        return tuple(Mask.of(plane) for plane in planes)
    if known is not None and isinstance(tensor, known.TVTensor):
        raise RegionTypeError(f"a torchvision {type(tensor).__name__} is no region: {_KINDS}")
    return _from_array(array)


def _from_bounding_boxes(boxes: Any) -> tuple[Shape, ...]:
    """Boxes in the formats of https://docs.pytorch.org/vision/stable/generated/torchvision.tv_tensors.BoundingBoxes."""
    style = str(getattr(boxes.format, "value", boxes.format))
    if style not in ("XYXY", "XYWH", "CXCYWH"):
        raise RegionError(
            f"BoundingBoxes of format {style} are rotated, and boxes here are parallel to the axes: pass the corners "
            "as a polygon, [(x, y), …]"
        )
    rows = _numpy(boxes)
    if len(rows) == 0:
        raise RegionError(f"the BoundingBoxes hold no box: {_KINDS}")
    _refuse_fractions(rows.tolist(), f"the BoundingBoxes {_shown(rows.tolist())}")
    first, second = rows[:, :2].astype(np.float64), rows[:, 2:].astype(np.float64)
    if style == "XYWH":
        second = first + second
    elif style == "CXCYWH":
        first, second = first - second / 2, first + second / 2
    height, width = boxes.canvas_size
    corners = np.concatenate([first, second], axis=1).tolist()
    return tuple(Box(x0, y0, x1, y1, (int(height), int(width))) for x0, y0, x1, y1 in corners)


def _boxes(rows: Sequence[Sequence[object]]) -> tuple[Box, ...]:
    for row in rows:
        if len(row) != 4:
            hint = " A polygon is a list of points: [(x, y), …]." if len(row) >= 6 and len(row) % 2 == 0 else ""
            raise RegionError(
                f"a box has 4 numbers, (x0, y0, x1, y1), and this one has {len(row)}: {_shown(tuple(row))}.{hint}"
            )
    numeric = [[_number(value) for value in row] for row in rows]
    name = (
        f"the box {_shown(tuple(rows[0]))}" if len(rows) == 1 else f"the boxes {_shown([tuple(row) for row in rows])}"
    )
    _refuse_fractions(rows, name)
    return tuple(Box(x0, y0, x1, y1) for x0, y0, x1, y1 in numeric)


def _polygon(rows: Sequence[Sequence[object]]) -> Polygon:
    for row in rows:
        if len(row) != 2:
            raise RegionError(
                f"a polygon's points are (x, y), and {_shown(tuple(row))} has {counted(len(row), 'number')}"
            )
    points = [(_number(x), _number(y)) for x, y in rows]
    _refuse_fractions(rows, f"the polygon {_shown([tuple(row) for row in rows])}")
    while len(points) > 1 and points[0] == points[-1]:  # some formats repeat the first point to close the polygon
        points.pop()
    return Polygon(tuple(points))


def _refuse_fractions(rows: Sequence[Sequence[object]], shown: str) -> None:
    """Numbers that are floats and none above 1: a normalised box, or a region smaller than any that can be judged."""
    values = [value for row in rows for value in row]
    largest = max((abs(_number(value)) for value in values), default=0.0)
    if 0 < largest <= 1 and not all(isinstance(value, numbers.Integral) for value in values):
        raise RegionError(
            f"{shown}: these look like fractions of the image, and regions are in pixels of the picture you passed: "
            "multiply x by its width and y by its height (if the very first pixel is meant, write integers)"
        )


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _numpy(tensor: Any) -> npt.NDArray[Any]:
    torch: Any = sys.modules["torch"]
    plain = tensor.detach().as_subclass(torch.Tensor).cpu()
    array: npt.NDArray[Any] = (plain.double() if plain.is_floating_point() else plain).numpy()  # numpy has no bfloat16
    return array


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return bool(value.ndim == 0)
    return isinstance(value, (numbers.Real, np.bool_))


def _number(value: Any) -> float:
    if isinstance(value, np.ndarray) or _is_tensor(value):
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise RegionTypeError(f"{_shown(value)} of type {type(value).__name__} is no number of pixels: {_KINDS}")
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of floats
        return inf


def _row(value: object) -> Sequence[object] | None:
    """The numbers of a flat sequence, or None for anything else."""
    if _is_tensor(value):
        value = _numpy(value)
    if isinstance(value, np.ndarray):
        return list(value.tolist()) if value.ndim == 1 and value.dtype.kind in "iuf" else None
    if isinstance(value, (list, tuple)) and value and all(_is_number(item) for item in value):
        return value
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
