"""Where the mass of a map went: from which part of the picture to which. Pure functions on arrays, numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_gradcam.metrics.maps import TIE, Map, area_average, check_finite
from pytest_gradcam.metrics.similarity import shift

# The nine parts of a picture, each a third of its height and of its width, row by row.
PARTS: Final = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
# Of parts that are tied, as the rows of a one-row map are, the plainest name: the centre, then sides, then corners.
_PLAINEST: Final = (4, 1, 3, 5, 7, 0, 2, 6, 8)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Movement:
    """What changed from one map to another.

    Attributes:
        source: of `PARTS`, the one that lost the most mass.
        target: the one that gained the most; the same as `source` where mass moved only inside of parts.
        moved: share of the mass that is elsewhere now, above 0 and up to 1: the total variation.
        dx: from the first centre of mass to the second, in cells, rightwards.
        dy: likewise, downwards.
    """

    source: str
    target: str
    moved: float
    dx: float
    dy: float

    def __str__(self) -> str:
        """`from the left to the top right`, or `inside the left`."""
        return (
            f"inside the {self.source}"
            if self.source == self.target
            else f"from the {self.source} to the {self.target}"
        )


def movement(before: Map, after: Map) -> Movement | None:
    """Where the mass of one map is in another; None where one has no mass, or nothing moved but rounding.

    Negative values have no mass, and the masses of both maps are 1.

    Args:
        before: raw CAM (h, w) or CAM (H, W).
        after: likewise, of the same shape.

    Raises:
        ValueError: the shapes differ or have no cells, or a map is not finite.
    """
    if before.shape != after.shape or before.ndim != 2 or before.size == 0:
        raise ValueError(
            f"the maps are {before.shape} and {after.shape}: both must have the same rows and columns, and some"
        )
    check_finite(before, "the first map")
    check_finite(after, "the second map")
    if before.max() <= 0 or after.max() <= 0:
        return None
    dx, dy = shift(before, after)
    gained = _mass(after) - _mass(before)
    moved = float(np.abs(gained).sum()) / 2.0
    if moved <= TIE:
        return None
    of_parts = _of_parts(gained)
    if np.abs(of_parts).max() <= TIE * moved:
        inside = _most(_of_parts(np.abs(gained)))
        return Movement(inside, inside, moved, dx, dy)
    return Movement(_most(-of_parts), _most(of_parts), moved, dx, dy)


def _mass(values: Map) -> Floats:
    scaled = values.astype(np.float64) / float(np.abs(values).max())
    positive = np.maximum(scaled, 0.0)
    return np.asarray(positive / positive.sum())


def _of_parts(values: Floats) -> Floats:
    """Sums over the nine parts, (9,); a cell that lies across an edge is divided by area."""
    return np.asarray(area_average(values, (3, 3)).ravel() * (values.size / 9.0))


def _most(of_parts: Floats) -> str:
    top = float(of_parts.max())
    return PARTS[next(i for i in _PLAINEST if of_parts[i] >= top - TIE * abs(top))]
