"""What all measurements share: what a map is, when two of its values are tied, its mean over the cells of a grid."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Map: TypeAlias = npt.NDArray[np.floating]

# Two pixels whose values differ by less than this share of the maximum are tied: float32 resizing rounds at 1e-7.
TIE = 1e-6


def check_finite(values: Map, noun: str) -> None:
    """Refuse NaN and infinity, which would be compared with thresholds and lose or win in silence.

    Args:
        values: any shape.
        noun: what they are, for the message.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{noun} is not finite: it has values that are NaN or infinite")


def area_average(values: Map, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Mean of the values over each cell of a coarser grid; cells may end inside a pixel.

    Args:
        values: float (H, W).
        grid: (h, w), at most (H, W) where every cell should hold a pixel.

    Returns:
        float64 (h, w).
    """
    rows, columns = (_shares(size, cells) for size, cells in zip(values.shape, grid, strict=True))
    averaged: npt.NDArray[np.float64] = rows @ values.astype(np.float64) @ columns.T
    return averaged


@cache  # a few sizes, asked for again and again
def _shares(size: int, cells: int) -> npt.NDArray[np.float64]:
    """(cells, size): the share that each pixel has in each cell; rows sum to 1."""
    edges = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: npt.NDArray[np.float64] = np.clip(overlap, 0.0, None) * (cells / size)
    return shares
