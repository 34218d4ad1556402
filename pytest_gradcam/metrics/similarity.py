"""How alike two maps are: pure functions on arrays of the same shape, numpy in, float out.

The maps are CAMs, float (H, W) in [0, 1], or raw CAMs, float (h, w), signed. None of the measures knows the scale of a
map. A map of which a measure is undefined (constant, zero, without a positive value) is a ValueError that names it,
never a 1 or a 0 passed on in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_gradcam.metrics.maps import TIE, Map, area_average, check_finite

# Rows and columns up to which the earth mover's distance is exact: 16 × 16 cells take a tenth of a second, 24 × 24 two.
EXACT = 16

Floats = npt.NDArray[np.float64]


def pearson(a: Map, b: Map) -> float:
    """Pearson's correlation of the cells, in [-1, 1]; blind to a constant added to a map.

    Raises:
        ValueError: the shapes differ, or a map is not finite or constant.
    """
    first, second = (_centred(map_, which) for map_, which in _both(a, b))
    return _cosine(first, second)


def cosine(a: Map, b: Map) -> float:
    """Cosine of the angle between the maps as vectors, in [-1, 1]; of CAMs, which are not negative, in [0, 1].

    Raises:
        ValueError: the shapes differ, or a map is not finite or zero everywhere.
    """
    first, second = (_scaled(map_, which) for map_, which in _both(a, b))
    return _cosine(first, second)


def rmse(a: Map, b: Map) -> float:
    """Root of the mean squared difference of the maps, each divided by its maximum; of CAMs, in [0, 1].

    Raises:
        ValueError: the shapes differ, or a map is not finite or has no positive value.
    """
    first, second = (_scaled(map_, which, positive=True) for map_, which in _both(a, b))
    return math.sqrt(float(((first / first.max() - second / second.max()) ** 2).mean()))


def wasserstein(a: Map, b: Map) -> float:
    """1-Wasserstein (earth mover's) distance, in cells: the least mean way from one map's mass to the other's.

    Both maps lose their negative values and are divided by their sum; ways are Euclidean, between cell centres (Rubner
    et al., 2000). Exact up to `EXACT` rows and columns. A larger map is averaged by area to that many first, and ways
    are still counted in its own cells; that changes the distance by one averaged cell's diagonal at most.

    Raises:
        ValueError: the shapes differ, or a map is not finite or has no positive value.
    """
    first, second = (_mass(map_, which) for map_, which in _both(a, b))
    height, width = first.shape
    grid = min(height, EXACT), min(width, EXACT)
    # Averages over equal areas, so dividing by their sum gives masses again.
    first, second = (averaged / averaged.sum() for averaged in (area_average(first, grid), area_average(second, grid)))
    return _least_way(first, second, (height / grid[0], width / grid[1]))


def shift(a: Map, b: Map) -> tuple[float, float]:
    """(dx, dy), in cells, from the first map's centre of mass to the second's; its length is at most `wasserstein`.

    Negative values have no mass.

    Raises:
        ValueError: the shapes differ, or a map is not finite or has no positive value.
    """
    (xa, ya), (xb, yb) = (_centre(_mass(map_, which)) for map_, which in _both(a, b))
    return xb - xa, yb - ya


def _least_way(first: Floats, second: Floats, step: tuple[float, float]) -> float:
    """The transport problem as a linear program: masses (h, w) that sum to 1, cells `step` (down, across) apart.

    Mass that both maps have at a cell need not move, because ways obey the triangle inequality; so only what one has
    more than the other goes into the program, which makes it a quarter as large.
    """
    from scipy import optimize, sparse  # takes as long to import as all the rest, and nothing else here needs it

    excess = (first - second).ravel()
    down, across = (axis.ravel() * size for axis, size in zip(np.indices(first.shape), step, strict=True))
    sources, sinks = np.flatnonzero(excess > 1e-15), np.flatnonzero(excess < -1e-15)  # less is rounding
    if not (sources.size and sinks.size):
        return 0.0
    ways = np.hypot(down[sources, None] - down[sinks], across[sources, None] - across[sinks])
    leaving, arriving = excess[sources], -excess[sinks]
    sums = sparse.vstack(
        [
            sparse.kron(sparse.eye(sources.size), np.ones((1, sinks.size))),
            sparse.kron(np.ones((1, sources.size)), sparse.eye(sinks.size)),
        ]
    ).tocsr()
    # The solver's tolerances are absolute: masses with a mean near 1 keep small differences out of them.
    wanted = np.concatenate([leaving / leaving.sum(), arriving / arriving.sum()]) * sources.size
    # The last sum follows from the others; left in, rounding may contradict it, and the solver call it infeasible.
    found = optimize.linprog(ways.ravel(), A_eq=sums[:-1], b_eq=wanted[:-1], bounds=(0, None), method="highs")
    if not found.success:  # pragma: no cover - every transport problem has a solution
        raise RuntimeError(f"the transport between the maps was not solved: {found.message}")
    return float(found.fun) / sources.size * float(leaving.sum())


def _both(a: Map, b: Map) -> tuple[tuple[Floats, str], tuple[Floats, str]]:
    if a.shape != b.shape:
        raise ValueError(f"the maps are {a.shape} and {b.shape}: only maps on the same grid can be compared")
    if a.ndim != 2 or a.size == 0:
        raise ValueError(f"the maps are {a.shape}: each must have rows and columns")
    check_finite(a, "the first map")
    check_finite(b, "the second map")
    return (a.astype(np.float64), "first"), (b.astype(np.float64), "second")


def _scaled(values: Floats, which: str, *, positive: bool = False) -> Floats:
    """Divided by the largest magnitude, so that neither squares nor sums leave the range of floats."""
    if positive and values.max() <= 0:
        raise ValueError(f"the {which} map has no positive value: there is no maximum or mass to compare")
    size = np.abs(values).max()
    if size == 0:
        raise ValueError(f"the {which} map is zero everywhere: it has no direction to compare")
    return np.asarray(values / size)


def _centred(values: Floats, which: str) -> Floats:
    if np.ptp(values) <= TIE * np.abs(values).max():
        raise ValueError(f"the {which} map is constant: it has no variance to correlate")
    scaled = _scaled(values, which)
    centred = scaled - scaled.mean()
    return np.asarray(centred / np.abs(centred).max())


def _mass(values: Floats, which: str) -> Floats:
    positive = np.maximum(_scaled(values, which, positive=True), 0.0)
    return np.asarray(positive / positive.sum())


def _centre(mass: Floats) -> tuple[float, float]:
    ys, xs = np.indices(mass.shape)
    return float((mass * xs).sum()), float((mass * ys).sum())


def _cosine(first: Floats, second: Floats) -> float:
    between = float((first * second).sum()) / math.sqrt(float((first**2).sum()) * float((second**2).sum()))
    return min(1.0, max(-1.0, between))  # rounding may leave the range


@dataclass(frozen=True, slots=True)
class Similarity:
    """A measurement by which a map may be compared with a stored one.

    Attributes:
        title: its name in a sentence.
        measure: (a, b) → value, the same for (b, a).
        higher_is_closer: whether the value rises as the maps become alike; a distance falls.
        at_same: the value of a map and itself.
        farthest: (h, w) of the maps → a value that no two maps are beyond.
    """

    title: str
    measure: Callable[[Map, Map], float]
    higher_is_closer: bool
    at_same: float
    farthest: Callable[[tuple[int, int]], float]

    def passes(self, value: float, threshold: float) -> bool:
        """Whether two maps are close enough: at the threshold or closer.

        Args:
            value: what was measured.
            threshold: what is compared with.
        """
        return value >= threshold if self.higher_is_closer else value <= threshold


SIMILARITIES: dict[str, Similarity] = {
    "pearson": Similarity("Pearson correlation", pearson, True, 1.0, lambda shape: -1.0),
    "cosine": Similarity("cosine", cosine, True, 1.0, lambda shape: -1.0),
    "wasserstein": Similarity(
        "earth mover's distance",
        wasserstein,
        False,
        0.0,
        lambda shape: math.hypot(shape[0] - 1, shape[1] - 1),
    ),
    # Raw CAMs may be as negative as they like beside their maximum.
    "rmse": Similarity("RMSE", rmse, False, 0.0, lambda shape: math.inf),
}
