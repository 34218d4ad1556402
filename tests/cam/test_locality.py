"""The locality probe, on places that are known: what proves a grid, and what shows that it is read in another order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam.cam.locality import PLACES, Places, changed, probed, redrawn
from pytest_gradcam.cam.views import View
from tests.models import picture

GRID = (8, 8)
CELLS = tuple((int(row * 8), int(column * 8)) for row, column in PLACES)


def places(where: Callable[[int, int], tuple[int, int]], *, spread: float = 0.0, floor: float = 0.0) -> Places:
    """Cells that depend on the place that `where` says, on what is around it, and on everything a little."""
    rows, columns = np.mgrid[:8, :8]
    maps = []
    for row, column in CELLS:
        r, c = where(row, column)
        squared = (rows - r) ** 2 + (columns - c) ** 2
        found = np.exp(-squared / (2 * spread**2)) if spread else (squared == 0).astype(float)
        found = found + floor
        maps.append(found / found.sum())
    return Places(CELLS, np.stack(maps), 0, len(CELLS))


def itself(row: int, column: int) -> tuple[int, int]:
    return row, column


class TestOwnPlaces:
    def test_of_cells_that_depend_on_nothing_else_are_the_number_of_cells(self) -> None:
        seen = places(itself)
        assert np.allclose(seen.own, len(CELLS), rtol=1e-4)
        assert seen.locality == pytest.approx(len(CELLS), rel=1e-4)
        assert seen.share == pytest.approx(1)
        assert seen.follows == pytest.approx(1, abs=0.02)
        assert seen.are_proven and seen.are_exact and not seen.are_elsewhere

    @pytest.mark.parametrize("floor", [0.01, 0.05])
    def test_are_proven_also_where_every_cell_sees_everything(self, floor: float) -> None:
        seen = places(itself, spread=2.0, floor=floor)
        assert 1.2 < seen.locality < 6
        assert seen.are_proven

    def test_of_cells_that_all_see_the_same_are_one(self) -> None:
        seen = places(lambda row, column: (4, 4), spread=2.0)
        assert np.allclose(seen.own, 1, rtol=1e-4)
        assert not seen.are_proven


def in_windows(side: int) -> Callable[[int, int], tuple[int, int]]:
    """Windows of side × side cells one after the other, read row by row."""

    def where(row: int, column: int) -> tuple[int, int]:
        window, inside = divmod(8 * row + column, side * side)
        (down, right), (below, beside) = divmod(window, 8 // side), divmod(inside, side)
        return side * down + below, side * right + beside

    return where


ORDERS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "transposed": lambda row, column: (column, row),
    "mirrored": lambda row, column: (row, 7 - column),
    "upside down": lambda row, column: (7 - row, column),
    "in windows of 4×4": in_windows(4),
    "in windows of 2×2": in_windows(2),
    "rolled by half": lambda row, column: ((row + 4) % 8, (column + 4) % 8),
    "one further": lambda row, column: divmod(min(63, 8 * row + column + 1), 8),
}


@pytest.mark.parametrize("spread", [0.0, 0.6])
@pytest.mark.parametrize("order", ORDERS)
def test_cells_in_another_order_are_elsewhere(order: str, spread: float) -> None:
    seen = places(ORDERS[order], spread=spread, floor=1e-4)
    assert not seen.are_proven
    if order != "one further" or not spread:  # a neighbour's place is seen through what is around it
        assert seen.are_elsewhere


class Blocks(nn.Module):
    """Cells of 8×8 pixels, each the mean colours of its block."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 8)


class TestProbing:
    def test_by_gradients(self) -> None:
        x = picture(64, 64).requires_grad_()
        seen = probed([(Blocks()(x), x)], View("nchw", GRID))
        assert seen is not None and seen.are_proven and seen.are_exact
        assert seen.cells == CELLS[:4]  # four are enough
        assert np.allclose([found[cell] for cell, found in zip(seen.cells, seen.maps, strict=True)], 1)

    def test_of_a_transposed_grid(self) -> None:
        x = picture(64, 64).requires_grad_()
        seen = probed([(Blocks()(x).transpose(2, 3), x)], View("nchw", GRID))
        assert seen is not None and not seen.are_proven and seen.are_elsewhere

    def test_of_closed_relus_says_nothing(self) -> None:
        x = picture(64, 64).requires_grad_()
        assert probed([((Blocks()(x) - 10).relu(), x)], View("nchw", GRID)) is None

    def test_other_images_answer_for_closed_relus(self) -> None:
        x, y = picture(64, 64).requires_grad_(), picture(64, 64, seed=3).requires_grad_()
        seen = probed([((Blocks()(x) - 10).relu(), x), (Blocks()(y).relu(), y)], View("nchw", GRID))
        assert seen is not None and seen.are_proven

    def test_channels_that_cancel_each_other_are_weighed(self) -> None:
        """As after a normalisation over channels, whose sum is constant."""
        x = picture(64, 64).requires_grad_()
        cells = Blocks()(x)
        seen = probed([(torch.cat([cells, -cells], 1), x)], View("nchw", GRID))
        assert seen is not None and seen.are_proven

    @pytest.mark.parametrize("transposed", [False, True])
    def test_by_redrawing_parts_of_the_image(self, transposed: bool) -> None:
        x = picture(64, 64)
        before, after = Blocks()(x), Blocks()(redrawn(x))
        if transposed:
            before, after = before.transpose(2, 3), after.transpose(2, 3)
        seen = changed(before, after, View("nchw", GRID))
        assert seen is not None and seen.are_proven is not transposed

    def test_what_no_part_of_the_image_changes_says_nothing(self) -> None:
        x = picture(64, 64)
        assert changed(torch.ones(1, 3, 8, 8), torch.ones(len(PLACES), 3, 8, 8), View("nchw", GRID)) is None
        assert len(redrawn(x)) == len(PLACES)
