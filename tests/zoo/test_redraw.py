"""The check of geometry is itself checked: maps that follow the picture pass it, and maps that do not fail it."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pytest_gradcam import explain
from tests.models import seeded
from tests.zoo.redraw import LATTICE, Floats, Redrawn, correlations, mean_of, pictures, redraw, redrawn, windows

SIZE = (3, 64, 64)


def patches(*, side: int = 8, seed: int = 0) -> nn.Module:
    """A net whose cells see nothing but their own `side` × `side` pixels."""
    layers = OrderedDict(
        cells=nn.Conv2d(3, 16, side, stride=side),
        act=nn.ReLU(),
        mix=nn.Conv2d(16, 16, 1),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(16, 5),
    )
    model: nn.Module = seeded(nn.Sequential(layers), seed)
    return model


def maps(seed: int = 0, side: int = 8) -> list[Floats]:
    """The 17 raw maps of such a net, one call for each."""
    model = patches(side=side, seed=seed)
    base, other = pictures(2, SIZE, torch.Generator().manual_seed(seed))
    cls = explain(model, base).cls
    return [explain(model, picture, cls).raw for picture in [base, *redraw(base, other)]]


@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_net_whose_cells_see_their_own_pixels_passes(side: int) -> None:
    found = mean_of([redrawn(patches(side=side, seed=seed), SIZE, seed) for seed in range(3)])
    assert found.follows()
    assert min(found.along_row, found.along_col) > 0.97
    assert max(abs(found.across_row), abs(found.across_col)) < 0.1


def test_the_maps_of_a_batch_are_those_of_single_calls() -> None:
    found = redrawn(patches(), SIZE, 0, chunk=5)
    alone = correlations(maps())
    assert found.along_row == pytest.approx(alone.along_row, abs=1e-4)
    assert found.across_col == pytest.approx(alone.across_col, abs=1e-4)


def test_a_picture_that_is_not_square_has_windows_that_are_not() -> None:
    found = redrawn(patches(), (3, 48, 96), 0)
    assert found.follows()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (299, 331), (7, 30)])
def test_the_windows_tile_the_picture(height: int, width: int) -> None:
    covered = np.zeros((height, width), int)
    for rows, columns in windows(height, width):
        covered[rows, columns] += 1
    assert (covered == 1).all()
    assert len(windows(height, width)) == LATTICE**2


def shuffled(raw: Floats) -> Floats:
    return raw.reshape(-1)[np.random.default_rng(7).permutation(raw.size)].reshape(raw.shape)


def noise(raw: Floats) -> Floats:
    return np.random.default_rng(zlib.crc32(raw.tobytes())).normal(size=raw.shape)


def in_windows(raw: Floats) -> Floats:
    """The cells in the order of 2 × 2 windows, as window attention keeps them, read as if they lay row by row."""
    h, w = raw.shape
    return raw.reshape(2, h // 2, 2, w // 2).transpose(0, 2, 1, 3).reshape(h, w)


# What a wrong reading makes of every map, and what the check says of it then.
WRONG: dict[str, Callable[[Floats], Floats]] = {
    "transposed": np.transpose,
    "cells shuffled": shuffled,
    "upside down": np.flipud,
    "mirrored": np.fliplr,
    "cells in windows": in_windows,
    "one cell for all": lambda raw: np.full_like(raw, raw.mean()),
    "noise": noise,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_wrong_reading_fails(wrong: str, side: int) -> None:
    found = mean_of([correlations([WRONG[wrong](raw) for raw in maps(seed, side)]) for seed in range(3)])
    assert not found.follows()


def test_a_transposed_grid_is_seen_to_be_one() -> None:
    found = correlations([raw.T for raw in maps()])
    assert min(found.across_row, found.across_col) > 0.97
    assert max(abs(found.along_row), abs(found.along_col)) < 0.1


def test_a_change_of_the_whole_map_does_not_hide_the_window() -> None:
    """As normalisation over the whole picture brings about: every cell changes a little, wherever the window is."""
    raws = maps()
    everywhere = 0.2 * np.abs(np.stack(raws)).max() * np.random.default_rng(0).normal(size=raws[0].shape)
    found = correlations([raws[0], *(raw + everywhere for raw in raws[1:])])
    assert found.follows()


def test_maps_that_never_change_follow_nothing() -> None:
    found = correlations([np.ones((7, 7))] * 17)
    assert found == Redrawn(0.0, 0.0, 0.0, 0.0)
    assert not found.follows()


def test_across_counts_by_its_size() -> None:
    assert Redrawn(0.7, 0.7, 0.1, 0.6).follows()
    assert not Redrawn(0.7, 0.7, 0.1, 0.71).follows()
    assert not Redrawn(0.7, 0.7, -0.71, 0.1).follows()
    assert not Redrawn(0.59, 0.9, 0.0, 0.0).follows()
    assert Redrawn(0.59, 0.9, 0.0, 0.0).follows(0.3)


def test_other_numbers_of_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="3 maps of redrawn pictures: there are 16 windows"):
        correlations([np.ones((7, 7))] * 4)
