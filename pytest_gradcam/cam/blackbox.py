"""Occlusion and RISE: maps of any model that can be called, from its scores of changed images alone. Pure functions.

Both cover parts of the image with its own mean colour: of all fills, the one that depends on no normalisation, and that
of an image without anything in it gives no map. A raw CAM is signed: below zero lies what speaks against the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

# Occlusion: cells on the shorter side, and the side of the window in cells. 15 × 15 windows on a square image.
CELLS = 16
WINDOW = 2
# RISE: how many masks, their cells on each side, the share of these that is left (Petsiuk et al., 2018, section 4), and
# how many cells of the map there are to one of a mask's.
MASKS = 1000
MASK_CELLS = 7
KEPT = 0.5
FINENESS = 4
SEED = 0

Window = tuple[int, int, int, int]  # first and last row and column of cells, half-open


def mean_colour(image: Tensor) -> Tensor:
    """(1, C, 1, 1) of an image (1, C, H, W)."""
    return image.double().mean(dim=(2, 3), keepdim=True).to(image.dtype)


def edges(length: int, cells: int) -> list[int]:
    """Where the cells of a side of `length` pixels begin, and where the last ends."""
    return [round(i * length / cells) for i in range(cells + 1)]


def occlusion_grid(height: int, width: int) -> tuple[int, int]:
    """(h, w): cells about as high as wide, 16 on the shorter side, and no more than there are pixels."""
    cell = max(1.0, min(height, width) / CELLS)
    return round(height / cell), round(width / cell)


def windows(grid: tuple[int, int]) -> list[Window]:
    """All places of the window on the grid, one cell apart."""
    h, w = min(WINDOW, grid[0]), min(WINDOW, grid[1])
    return [(y, y + h, x, x + w) for y, x in product(range(grid[0] - h + 1), range(grid[1] - w + 1))]


def occluded(image: Tensor, fill: Tensor, grid: tuple[int, int], covered: Sequence[Window]) -> Tensor:
    """The image (1, C, H, W) with a window filled, (B, C, H, W), one for each."""
    rows, columns = edges(int(image.shape[2]), grid[0]), edges(int(image.shape[3]), grid[1])
    made = image.repeat(len(covered), 1, 1, 1)
    for each, (y0, y1, x0, x1) in zip(made, covered, strict=True):
        each[:, rows[y0] : rows[y1], columns[x0] : columns[x1]] = fill[0]
    return made


def occlusion(grid: tuple[int, int], covered: Sequence[Window], falls: npt.NDArray[np.float64]) -> Tensor:
    """Each cell's mean fall of the score over the windows that cover it (Zeiler & Fergus, 2014, section 4.2).

    Args:
        grid: (h, w).
        covered: B windows.
        falls: (B, M), the score of the image less that with the window filled, for M classes.

    Returns:
        Raw CAMs (M, h, w), float64.
    """
    total = torch.zeros(falls.shape[1], *grid, dtype=torch.float64)
    times = torch.zeros(grid, dtype=torch.float64)
    for (y0, y1, x0, x1), fall in zip(covered, torch.from_numpy(falls), strict=True):
        total[:, y0:y1, x0:x1] += fall[:, None, None]
        times[y0:y1, x0:x1] += 1
    return total / times


def random_masks(count: int, height: int, width: int) -> Iterator[Tensor]:
    """RISE's masks (H, W) in [0, 1]: cells kept or not, enlarged bilinearly and shifted (Petsiuk et al., 2018, 3.2).

    Drawn from a generator of their own, on the CPU: the same ones on every device and in every call.
    """
    generator = torch.Generator().manual_seed(SEED)
    cell = -(-height // MASK_CELLS), -(-width // MASK_CELLS)
    size = (MASK_CELLS + 1) * cell[0], (MASK_CELLS + 1) * cell[1]
    for _ in range(count):
        kept = (torch.rand(1, 1, MASK_CELLS, MASK_CELLS, generator=generator) < KEPT).float()
        y, x = (int(torch.randint(0, side, (), generator=generator)) for side in cell)
        large = functional.interpolate(kept, size, mode="bilinear", align_corners=False)[0, 0]
        yield large[y : y + height, x : x + width]


def revealed(image: Tensor, fill: Tensor, masks: Tensor) -> Tensor:
    """The image (1, C, H, W) where masks (B, H, W) are 1, the fill where they are 0: (B, C, H, W)."""
    return fill + (image - fill) * masks[:, None].to(image)


def rise(masks: Tensor, scores: npt.NDArray[np.float64]) -> Tensor:
    """Each cell's slope of the score by how much of the cell is shown, over random masks.

    The paper's map is the mean of the masks, weighted by their scores (Petsiuk et al., 2018, eq. 6): for a score that
    never moves, an even map of full strength, and for one that hardly does, mostly how often each pixel was shown. Here
    the means of both are taken off first, which in expectation changes the map by a constant only, and the covariance
    that is left is divided by the variance of the mask.

    Args:
        masks: (N, h, w), the share of each cell that is shown.
        scores: (N, M), for M classes.

    Returns:
        Raw CAMs (M, h, w), float64.
    """
    shown = masks.double() - masks.double().mean(dim=0)
    moved = torch.from_numpy(scores - scores.mean(axis=0))
    spread = shown.square().sum(dim=0)
    slopes = torch.einsum("nm,nhw->mhw", moved, shown) / spread
    return torch.where(spread > 0, slopes, 0.0)
