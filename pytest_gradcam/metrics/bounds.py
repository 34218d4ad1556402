"""Bounds of the earth mover's distance, for whoever only asks whether it is below something: a hundredth of its time.

Pure functions on arrays, numpy only.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_gradcam.metrics.maps import Map

Floats = npt.NDArray[np.float64]


def wasserstein_at_least(a: Map, b: Map) -> float:
    """What `wasserstein(a, b)` is not below, in cells.

    The largest distance of the masses' projections onto a line, of four directions: no projection makes a way longer,
    and on a line the least way is known, the area between the two distributions (Vallender, 1974).

    Args:
        a: float (h, w), up to `similarity.EXACT` rows and columns, with a positive value; negative values have no mass.
        b: likewise, of the same shape.
    """
    gained = _mass(b) - _mass(a)
    down, across = np.indices(gained.shape)
    along, against = (down + across).ravel(), (across - down + len(gained)).ravel()
    straight = [_between(gained.sum(axis=axis)) for axis in (0, 1)]
    diagonal = [_between(np.bincount(line, weights=gained.ravel())) / math.sqrt(2.0) for line in (along, against)]
    return max(*straight, *diagonal)


def wasserstein_at_most(a: Map, b: Map) -> float:
    """What `wasserstein(a, b)` is not above, in cells.

    The cost of two ways to carry the masses, in the order of a snake through the rows and of one through the columns:
    whatever way there is, the least is no longer. Mass that both maps have at a cell stays.

    Args:
        a: float (h, w), up to `similarity.EXACT` rows and columns, with a positive value; negative values have no mass.
        b: likewise, of the same shape.
    """
    gained = _mass(b) - _mass(a)
    return min(_cost(gained.ravel()[order], places) for order, places in _snakes(gained.shape))


@lru_cache(maxsize=64)
def _snakes(shape: tuple[int, int]) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """The cells of a grid in the order of a snake through the rows and of one through the columns, and their places."""
    down, across = (each.ravel() for each in np.indices(shape))
    by_rows = np.lexsort((np.where(down % 2, -across, across), down))
    by_columns = np.lexsort((np.where(across % 2, -down, down), across))
    return [(order, np.stack([down[order], across[order]], axis=1)) for order in (by_rows, by_columns)]


def _cost(gained: Floats, places: npt.NDArray[np.intp]) -> float:
    """Of carrying what is lost to where it is gained, first to first, (n,) masses at (n, 2) places."""
    lost, found = np.cumsum(np.maximum(-gained, 0.0)), np.cumsum(np.maximum(gained, 0.0))
    whole = min(lost[-1], found[-1])  # both are one total variation, but for rounding
    ends = np.unique(np.minimum(np.concatenate([lost, found]), whole))
    amounts = np.diff(ends, prepend=0.0)
    middles = ends - amounts / 2.0
    start, end = (np.minimum(np.searchsorted(each, middles), len(gained) - 1) for each in (lost, found))
    ways = np.hypot(*(places[start] - places[end]).T)
    return float((amounts * ways).sum())


def _between(gained: npt.NDArray[Any]) -> float:
    """The area between two distributions on a line, whose steps are one cell."""
    return float(np.abs(np.cumsum(gained)).sum())


def _mass(values: Map) -> Floats:
    positive = np.maximum(values.astype(np.float64), 0.0)
    return np.asarray(positive / positive.sum())
