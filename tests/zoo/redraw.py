"""Does a map follow what changes in the picture? Measured from outside, with no knowledge of layers or views.

A window of the picture is redrawn with other content, and the map of the same class is made again. Where the map
changed must follow where the picture changed: down when the window goes down, to the right when it goes to the right,
and not the other way about. A grid that is read transposed, in another order, or along the wrong axis fails, and so
does a layer whose cells no longer belong to a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import Explanation, explain, explain_batch

Size = tuple[int, int, int]
Floats = npt.NDArray[np.floating]

# The windows tile the picture: 4 × 4 of them, each a quarter of the side.
LATTICE = 4
# Pictures in one forward: enough to save time on one thread, few enough for the memory of a large model.
CHUNK = 4
# What the centroid's correlation with the window must reach along its own axis, in the mean of three seeds.
LEAST = 0.6


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Correlations of the change's centroid with the window, over the windows of the lattice.

    Attributes:
        along_row: centroid's row with the window's row.
        along_col: centroid's column with the window's column.
        across_row: centroid's row with the window's column.
        across_col: centroid's column with the window's row.
    """

    along_row: float
    along_col: float
    across_row: float
    across_col: float

    def follows(self, least: float = LEAST) -> bool:
        """Whether the change follows the window along both axes, and more than it follows it across them.

        Across, the size counts: a map whose rows run against the columns is as wrong as one whose rows run with them.

        Args:
            least: what both correlations along must reach.
        """
        along = min(self.along_row, self.along_col)
        return along >= least and along > max(abs(self.across_row), abs(self.across_col))

    def __str__(self) -> str:
        return (
            f"along {self.along_row:.2f} (rows) {self.along_col:.2f} (columns), "
            f"across {self.across_row:.2f} {self.across_col:.2f}"
        )


def pictures(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Model input without a subject: smooth noise of three scales, of mean 0 and deviation 1, (count, *size)."""
    channels, height, width = size
    found = torch.zeros(count, channels, height, width)
    for side, share in ((4, 1.0), (12, 0.7), (36, 0.5)):
        noise = torch.randn(count, channels, side, side, generator=generator)
        found += share * functional.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
    return (found - found.mean((2, 3), keepdim=True)) / found.std((2, 3), keepdim=True)


def windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """The windows of the lattice, (rows, columns) in pixels, row by row."""

    def parts(side: int) -> list[slice]:
        edges = [round(i * side / LATTICE) for i in range(LATTICE + 1)]
        return [slice(edges[i], edges[i + 1]) for i in range(LATTICE)]

    return [(rows, columns) for rows in parts(height) for columns in parts(width)]


def redraw(base: Tensor, other: Tensor) -> Tensor:
    """The picture with one window after the other taken from the other picture, (C, H, W) twice → (16, C, H, W)."""
    places = windows(base.shape[1], base.shape[2])
    found = base.repeat(len(places), 1, 1, 1)
    for picture, (rows, columns) in zip(found, places, strict=True):
        picture[:, rows, columns] = other[:, rows, columns]
    return found


def redrawn(model: nn.Module, size: Size, seed: int, *, chunk: int = CHUNK, **keywords: Any) -> Redrawn:
    """How the maps of a model follow the window, for one picture; the class is the one predicted for it.

    Args:
        model: in eval mode.
        size: (C, H, W) of its input.
        seed: of the picture and of what is drawn into the windows.
        chunk: pictures in one forward.
        keywords: for `explain`, `layer` say.
    """
    base, other = pictures(2, size, torch.Generator().manual_seed(seed))
    first = explain(model, base, **keywords)
    maps = [first, *_explained(model, redraw(base, other), first.cls, chunk, keywords)]
    assert {(found.layer, found.cls) for found in maps} == {(first.layer, first.cls)}
    return correlations([found.raw for found in maps])


def _explained(
    model: nn.Module, inputs: Tensor, cls: int | None, chunk: int, keywords: dict[str, Any]
) -> Iterator[Explanation]:
    for part in torch.split(inputs, chunk):
        yield from explain_batch(model, part, cls, **keywords)


def correlations(raws: Sequence[Floats]) -> Redrawn:
    """How the change of a map follows the window.

    The change is |raw CAM redrawn - raw CAM|, cell by cell, and its place is its centroid. A change that is the same
    wherever the window is, such as normalisation over the whole picture brings about, draws all centroids to one point,
    which scales what the correlation sees but does not change it; so no background is subtracted, and no cell is left
    out.

    Args:
        raws: 17 signed maps, (h, w): the base picture's, then one for each window of the lattice, row by row.
    """
    base, *others = (np.asarray(raw, np.float64) for raw in raws)
    if len(others) != LATTICE**2:
        raise ValueError(f"{len(others)} maps of redrawn pictures: there are {LATTICE**2} windows")
    rows, columns = np.indices(base.shape)
    change = np.stack([np.abs(other - base) for other in others])  # (16, h, w)
    # A window that changes nothing pulls nowhere: its centroid is the grid's middle.
    change[change.sum(axis=(1, 2)) == 0] = 1.0
    total = change.sum(axis=(1, 2))
    row, column = (change * rows).sum(axis=(1, 2)) / total, (change * columns).sum(axis=(1, 2)) / total
    window_row, window_column = np.divmod(np.arange(LATTICE**2), LATTICE)
    return Redrawn(
        _correlation(row, window_row),
        _correlation(column, window_column),
        _correlation(row, window_column),
        _correlation(column, window_row),
    )


def _correlation(centroid: Floats, window: npt.NDArray[np.integer]) -> float:
    """Pearson's; 0 for a centroid that does not move by more than rounding: it follows nothing."""
    if np.ptp(centroid) < 1e-9:
        return 0.0
    return float(np.corrcoef(centroid, window)[0, 1])


def mean_of(found: Sequence[Redrawn]) -> Redrawn:
    """The mean over seeds, correlation by correlation."""
    return Redrawn(
        fmean(each.along_row for each in found),
        fmean(each.along_col for each in found),
        fmean(each.across_row for each in found),
        fmean(each.across_col for each in found),
    )
