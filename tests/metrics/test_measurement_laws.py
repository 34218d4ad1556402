"""Laws of all measurements on drawn maps and regions: scale, complements, symmetry, the triangle inequality."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from pytest_gradcam.metrics import (
    METRICS,
    SIMILARITIES,
    chance,
    energy,
    filled,
    iou,
    lift,
    mass_outside,
    pearson,
    pointing_game,
    rank_accuracy,
    shift,
    wasserstein,
)
from pytest_gradcam.strategies import maps, regions

Floats = npt.NDArray[np.float64]

HEIGHT, WIDTH = 12, 16
CAMS = maps(HEIGHT, WIDTH)
MASKS = regions(HEIGHT, WIDTH).map(lambda region: region.rasterise(HEIGHT, WIDTH))
GRID = (4, 4)
# Whole numbers, so that scaling by powers of two is exact and ties stay ties; 0 to 8 has plenty of them.
WHOLE = arrays.arrays(np.float64, (4, 5), elements=st.integers(0, 8).map(float)).filter(lambda cam: np.ptp(cam) > 0)
SIGNED = arrays.arrays(np.float64, (4, 5), elements=st.integers(-8, 8).map(float)).filter(
    lambda cam: np.ptp(cam) > 0 and cam.max() > 0
)

some = settings(max_examples=40)
every_similarity = pytest.mark.parametrize("name", SIMILARITIES)


@some
@given(CAMS, MASKS)
def test_energy_and_mass_outside_make_one(cam: Any, mask: Any) -> None:
    assert energy(cam, mask) + mass_outside(cam, mask) == pytest.approx(1.0, abs=1e-12)


@some
@given(CAMS, MASKS, st.integers(-40, 40))
def test_no_metric_knows_the_scale_of_the_map(cam: Any, mask: Any, power: int) -> None:
    assume(filled(mask, GRID) > chance(mask) + 0.01)
    scaled = cam.astype(np.float64) * 2.0**power
    for rule in METRICS.values():
        assert rule.measure(scaled, mask, GRID) == pytest.approx(rule.measure(cam, mask, GRID), rel=1e-5, abs=1e-5)


@some
@given(CAMS, MASKS)
def test_every_metric_stays_within_its_bounds(cam: Any, mask: Any) -> None:
    assume(filled(mask, GRID) > chance(mask) + 0.01)
    bounds = chance(mask), filled(mask, GRID)
    for rule in METRICS.values():
        value, most = rule.measure(cam, mask, GRID), rule.most(*bounds)
        assert rule.least(*bounds) - 1e-5 <= value <= most + 1e-5 * (1 + most)


@some
@given(CAMS, MASKS)
def test_metrics_without_a_grid_do_not_see_reflections(cam: Any, mask: Any) -> None:
    """No position is preferred, so that a tie cannot be either."""
    for measure in (energy, lift, pointing_game, rank_accuracy, iou):
        value = measure(cam, mask)
        for turned in [(cam[::-1], mask[::-1]), (cam[:, ::-1], mask[:, ::-1]), (cam.T, mask.T)]:
            assert measure(*turned) == pytest.approx(value, rel=1e-5, abs=1e-6)


@some
@given(WHOLE, arrays.arrays(np.bool_, (4, 5)).filter(np.any))
def test_rank_accuracy_depends_on_ranks_alone(cam: Floats, mask: npt.NDArray[np.bool_]) -> None:
    assert rank_accuracy(cam**3 + cam, mask.astype(float)) == pytest.approx(rank_accuracy(cam, mask.astype(float)))


@some
@given(WHOLE, arrays.arrays(np.bool_, (4, 5)).filter(lambda mask: bool(mask.any() and not mask.all())))
def test_rank_accuracy_of_ties_is_the_mean_over_random_orders(cam: Floats, mask: npt.NDArray[np.bool_]) -> None:
    rng, places = np.random.default_rng(0), int(mask.sum())
    found = []
    for _ in range(400):
        drawn = rng.permutation(cam.size)
        ranking = drawn[np.argsort(-cam.ravel()[drawn], kind="stable")]
        found.append(mask.ravel()[ranking[:places]].mean())
    assert rank_accuracy(cam, mask.astype(float)) == pytest.approx(np.mean(found), abs=5 * 0.5 / math.sqrt(400))


@every_similarity
@some
@given(a=SIGNED, b=SIGNED)
def test_similarities_are_symmetric(name: str, a: Floats, b: Floats) -> None:
    measure = SIMILARITIES[name].measure
    assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-9)


@every_similarity
@some
@given(a=SIGNED)
def test_a_map_is_like_itself(name: str, a: Floats) -> None:
    rule = SIMILARITIES[name]
    assert rule.measure(a, a) == pytest.approx(rule.at_same, abs=1e-12)


@every_similarity
@some
@given(a=SIGNED, b=SIGNED, power=st.integers(-300, 300))
def test_similarities_do_not_know_the_scale(name: str, a: Floats, b: Floats, power: int) -> None:
    measure = SIMILARITIES[name].measure
    assert measure(a * 2.0**power, b) == pytest.approx(measure(a, b), abs=1e-9)


@every_similarity
@some
@given(a=SIGNED, b=SIGNED)
def test_no_two_maps_are_beyond_the_farthest(name: str, a: Floats, b: Floats) -> None:
    rule = SIMILARITIES[name]
    value, farthest = rule.measure(a, b), rule.farthest(a.shape)
    low, high = sorted([rule.at_same, farthest])
    assert low - 1e-9 <= value <= high + 1e-9


@some
@given(SIGNED, SIGNED, st.integers(-8, 8), st.integers(1, 8))
def test_pearson_does_not_see_a_constant_added(a: Floats, b: Floats, constant: int, factor: int) -> None:
    assert pearson(a * factor + constant, b) == pytest.approx(pearson(a, b), abs=1e-9)
    assert pearson(-a, b) == pytest.approx(-pearson(a, b), abs=1e-9)


@some
@given(WHOLE, WHOLE, WHOLE)
def test_the_way_over_a_third_map_is_not_shorter(a: Floats, b: Floats, c: Floats) -> None:
    assert wasserstein(a, c) <= wasserstein(a, b) + wasserstein(b, c) + 1e-9


@some
@given(WHOLE, st.integers(0, 3), st.integers(0, 3))
def test_a_map_moved_as_a_whole_is_as_far_as_it_was_moved(cam: Floats, dx: int, dy: int) -> None:
    a, b = np.zeros((8, 8)), np.zeros((8, 8))
    a[:4, :5] = b[dy : dy + 4, dx : dx + 5] = cam
    assert wasserstein(a, b) == pytest.approx(math.hypot(dx, dy), abs=1e-9)
    assert shift(a, b) == pytest.approx((dx, dy), abs=1e-9)


@some
@given(WHOLE, WHOLE)
def test_the_centres_are_no_farther_apart_than_the_maps(a: Floats, b: Floats) -> None:
    assert math.hypot(*shift(a, b)) <= wasserstein(a, b) + 1e-9
