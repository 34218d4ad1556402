"""Bounds of the earth mover's distance, around the exact one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from pytest_gradcam.metrics import wasserstein
from pytest_gradcam.metrics.bounds import wasserstein_at_least, wasserstein_at_most

Floats = npt.NDArray[np.float64]
# Rounding of the solver's and ours, of distances of a few cells.
ROUNDING = 1e-7


@st.composite
def pairs(draw: st.DrawFn, rows: int = 6, columns: int = 6) -> tuple[Floats, Floats]:
    """Two maps of the same shape: smooth, sparse, signed, of any scale, with something positive."""
    shape = draw(st.tuples(st.integers(1, rows), st.integers(1, columns)))
    cells = st.sampled_from([0.0, 0.0, -1.0, 1.0]) | st.floats(-1, 1, width=32)
    made = []
    for _ in range(2):
        values = draw(arrays.arrays(np.float64, shape, elements=cells))
        assume(values.max() > 1e-6)
        made.append(values * 10.0 ** draw(st.integers(-20, 20)))
    return made[0], made[1]


@settings(max_examples=250)
@given(pairs())
def test_the_exact_distance_lies_between(maps: tuple[Floats, Floats]) -> None:
    exact = wasserstein(*maps)
    assert wasserstein_at_least(*maps) <= exact + ROUNDING
    assert exact <= wasserstein_at_most(*maps) + ROUNDING


@settings(max_examples=200)
@given(pairs(), st.booleans())
def test_neither_depends_on_the_order_of_the_maps(maps: tuple[Floats, Floats], is_upper: bool) -> None:
    bound = wasserstein_at_most if is_upper else wasserstein_at_least
    assert bound(*maps) == pytest.approx(bound(maps[1], maps[0]), abs=1e-12)


@settings(max_examples=200)
@given(pairs(rows=1, columns=12), st.booleans())
def test_on_a_line_all_are_one(maps: tuple[Floats, Floats], is_upright: bool) -> None:
    a, b = (np.maximum(each, 0).ravel() / np.maximum(each, 0).max() for each in maps)
    known = stats.wasserstein_distance(np.arange(a.size), np.arange(a.size), a, b) if a.size > 1 else 0.0
    a, b = (each[:, None] if is_upright else each[None] for each in (a, b))
    assert wasserstein_at_least(a, b) == pytest.approx(known, abs=1e-9)
    assert wasserstein_at_most(a, b) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("side", [2, 7, 14])
def test_of_one_spot_that_moves(side: int) -> None:
    """The upper bound is the way itself; the lower one is it along an axis or a diagonal, and .92 of it at worst."""
    rng = np.random.default_rng(side)
    for _ in range(50):
        (y0, x0), (y1, x1) = rng.integers(0, side, (2, 2))
        before, after = np.zeros((side, side)), np.zeros((side, side))
        before[y0, x0] = after[y1, x1] = 1.0
        way = float(np.hypot(y1 - y0, x1 - x0))
        assert wasserstein_at_most(before, after) == pytest.approx(way)
        assert np.cos(np.pi / 8) * way - 1e-9 <= wasserstein_at_least(before, after) <= way + 1e-9
        if y0 == y1 or x0 == x1 or abs(y1 - y0) == abs(x1 - x0):
            assert wasserstein_at_least(before, after) == pytest.approx(way)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(7, 7), (14, 14), (3, 11)])
def test_of_maps_as_models_have(seed: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    before = rng.normal(size=shape).astype(np.float32)
    for noise in (1e-4, 1e-2, 1.0):
        after = before + np.float32(noise) * rng.normal(size=shape).astype(np.float32)
        exact = wasserstein(before, after)
        assert wasserstein_at_least(before, after) <= exact + ROUNDING
        assert exact <= wasserstein_at_most(before, after) + ROUNDING


def test_a_map_and_itself() -> None:
    values = np.random.default_rng(0).normal(size=(7, 7))
    assert wasserstein_at_least(values, 3 * values) == pytest.approx(0, abs=1e-12)
    assert wasserstein_at_most(values, 3 * values) == pytest.approx(0, abs=1e-12)


def test_asking_leaves_the_maps_as_they_are() -> None:
    """The order of the cells is kept between calls: nothing of one pair may reach the next."""
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(5, 5)) for _ in range(4)]
    copies = [each.copy() for each in maps]
    first = [(wasserstein_at_least(a, b), wasserstein_at_most(a, b)) for a in maps for b in maps]
    again = [(wasserstein_at_least(a, b), wasserstein_at_most(a, b)) for a in maps for b in maps]
    assert first == again
    assert all((each == copy).all() for each, copy in zip(maps, copies, strict=True))
