"""Measurements of a map against a region: pure functions on arrays, numpy in, float out.

Every map is a CAM, float (H, W) in [0, 1] with some evidence; every mask is the region in the input frame, float (H, W)
in [0, 1], 1 inside. Thresholds, pictures and verdicts are elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Map: TypeAlias = npt.NDArray[np.floating]

# Two pixels whose values differ by less than this share of the maximum are tied: float32 resizing rounds at 1e-7.
TIE = 1e-6


def energy(cam: Map, mask: Map) -> float:
    """Share of the map's mass inside the region, in [0, 1]: energy-based pointing game (Wang et al., 2020).

    Raises:
        ValueError: the shapes differ, or the map is not finite or has no mass.
    """
    _check(cam, mask)
    total = float(cam.sum(dtype=np.float64))
    return float((cam * mask).sum(dtype=np.float64)) / total


def chance(mask: Map) -> float:
    """Energy of a uniform map: the share of the input frame that the region covers."""
    return float(mask.mean(dtype=np.float64))


def filled(mask: Map, grid: tuple[int, int]) -> float:
    """Energy of the region's own mask, area-averaged to the grid and resized back bilinearly.

    What a map that fills the region evenly has on this grid: the coarser the grid, the less.

    Args:
        mask: float (H, W).
        grid: (h, w) of the target layer.
    """
    height, width = mask.shape
    averaged = _area_average(mask, grid)
    # OpenCV's bilinear resizing takes pixel centres as torch's does with align_corners=False.
    resized = cv2.resize(averaged, (width, height), interpolation=cv2.INTER_LINEAR)
    return energy(resized.astype(np.float64), mask)


def calibrated_energy(cam: Map, mask: Map, grid: tuple[int, int]) -> float:
    """`(energy - chance) / (filled - chance)`: 0 is chance, 1 is the region evenly filled on this grid.

    Raises:
        ValueError: the shapes differ, the map has no mass, or the region is not above chance on this grid.
    """
    by_chance, by_filling = chance(mask), filled(mask, grid)
    if by_filling <= by_chance:
        raise ValueError(f"a map that fills the region has energy {by_filling:.3g}, not above chance {by_chance:.3g}")
    return (energy(cam, mask) - by_chance) / (by_filling - by_chance)


def inside(mask: Map) -> npt.NDArray[np.bool_]:
    """The pixels of a soft mask that are inside, bool (H, W): those with at least half of the mask's maximum.

    So a region that was thinned until it covers no pixel by half still has pixels; a mask of zeros has none.
    """
    found: npt.NDArray[np.bool_] = (mask >= 0.5 * min(1.0, float(mask.max()))) & (mask > 0)
    return found


def pointing_game(cam: Map, mask: Map) -> float:
    """1.0 if the map's maximum lies inside the region, else 0.0; tied maxima must all lie inside (Zhang et al., 2016).

    Raises:
        ValueError: the shapes differ, or the map is not finite or has no mass.
    """
    _check(cam, mask)
    return float(bool(inside(mask)[_tied(cam)].all()))


def peak(cam: Map) -> tuple[int, int]:
    """(x, y) of the map's maximum; of tied maxima, the one nearest to their centre."""
    ys, xs = np.nonzero(_tied(cam))
    nearest = int(np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2))
    return int(xs[nearest]), int(ys[nearest])


def distance_to(mask: Map, point: tuple[int, int]) -> float:
    """Pixels from (x, y) to the nearest pixel inside the region; 0 inside.

    Raises:
        ValueError: the region has no pixel.
    """
    ys, xs = np.nonzero(inside(mask))
    if len(xs) == 0:
        raise ValueError("the region's mask is zero everywhere: there is no distance to it")
    return float(np.sqrt(((xs - point[0]) ** 2 + (ys - point[1]) ** 2).min()))


def _tied(cam: Map) -> npt.NDArray[np.bool_]:
    top = cam.max()
    found: npt.NDArray[np.bool_] = cam >= top - TIE * abs(top)
    return found


def _check(cam: Map, mask: Map) -> None:
    if cam.shape != mask.shape:
        raise ValueError(f"the map is {cam.shape}, the region's mask {mask.shape}: both must be in the input frame")
    total = float(cam.sum(dtype=np.float64))
    if not math.isfinite(total):
        raise ValueError("the map is not finite: it has values that are NaN or infinite")
    if total <= 0:
        raise ValueError("the map has no mass: where it lies is undefined")


def _area_average(mask: Map, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Mean of the mask over each cell; cells may end inside a pixel."""
    rows, columns = (_shares(size, cells) for size, cells in zip(mask.shape, grid, strict=True))
    averaged: npt.NDArray[np.float64] = rows @ mask.astype(np.float64) @ columns.T
    return averaged


def _shares(size: int, cells: int) -> npt.NDArray[np.float64]:
    """(cells, size): the share that each pixel has in each cell; rows sum to 1."""
    edges = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: npt.NDArray[np.float64] = np.clip(overlap, 0.0, None) * (cells / size)
    return shares


@dataclass(frozen=True, slots=True)
class Metric:
    """A measurement that assertions may be asked for.

    Attributes:
        title: its name in a sentence.
        measure: (cam, mask, grid) → value.
        at_chance: (chance, filled) → the value of a uniform map.
        at_filled: (chance, filled) → the value of a map that fills the region evenly.
        least: (chance, filled) → a value that no map is below.
        most: (chance, filled) → a value that no map is above.
        inside: default threshold of assertions that ask for attention inside.
        outside: (chance, filled) → default threshold of assertions that ask for no attention inside.
    """

    title: str
    measure: Callable[[Map, Map, tuple[int, int]], float]
    at_chance: Callable[[float, float], float]
    at_filled: Callable[[float, float], float]
    least: Callable[[float, float], float]
    most: Callable[[float, float], float]
    inside: float
    outside: Callable[[float, float], float]


METRICS: dict[str, Metric] = {
    "calibrated_energy": Metric(
        "calibrated energy",
        calibrated_energy,
        at_chance=lambda chance, filled: 0.0,
        at_filled=lambda chance, filled: 1.0,
        least=lambda chance, filled: -chance / (filled - chance),
        most=lambda chance, filled: (1.0 - chance) / (filled - chance),
        inside=0.15,
        # A small forbidden patch never holds much of a coarse map: no more than chance is the bound that finds it.
        outside=lambda chance, filled: 0.0,
    ),
    "energy": Metric(
        "energy",
        lambda cam, mask, grid: energy(cam, mask),
        at_chance=lambda chance, filled: chance,
        at_filled=lambda chance, filled: filled,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0,
        inside=0.5,
        outside=lambda chance, filled: chance,
    ),
    "pointing_game": Metric(
        "pointing game",
        lambda cam, mask, grid: pointing_game(cam, mask),
        # Every pixel of a uniform map is a tied maximum, and some lie outside; of a map that fills the region, none.
        at_chance=lambda chance, filled: 0.0,
        at_filled=lambda chance, filled: 1.0,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0,
        inside=1.0,
        outside=lambda chance, filled: 0.0,
    ),
}
