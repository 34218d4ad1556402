"""Faithfulness from numbers: areas against scipy, order against sorting, drops by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from scipy import integrate

from pytest_gradcam.metrics import average_drop, deletion_auc, increase_rate, insertion_auc, order

every_area = pytest.mark.parametrize("area", [deletion_auc, insertion_auc])


@every_area
class TestAreas:
    def test_by_hand(self, area: Any) -> None:
        assert area([1.0, 0.5, 0.0]) == 0.5
        assert area([1.0, 0.0, 0.0]) == 0.25
        assert area([0.8, 0.8]) == pytest.approx(0.8)
        assert area([1.0, 0.0, 0.0], [0.0, 0.1, 1.0]) == pytest.approx(0.05)

    def test_is_scipys_trapezoid(self, area: Any) -> None:
        rng = np.random.default_rng(0)
        scores, fractions = rng.random(20), np.concatenate([[0.0], np.sort(rng.random(18)), [1.0]])
        assert area(scores, fractions) == pytest.approx(integrate.trapezoid(scores, fractions), rel=1e-12)
        assert area(scores) == pytest.approx(integrate.trapezoid(scores, np.linspace(0, 1, 20)), rel=1e-12)

    def test_is_what_the_paper_computes(self, area: Any) -> None:
        """RISE, `auc`: the sum less half of both ends, by the number of steps."""
        scores = np.random.default_rng(1).random(30)
        assert area(scores) == pytest.approx((scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1))

    @pytest.mark.parametrize(
        ("scores", "fractions", "message"),
        [
            ([1.0], None, "a curve needs two or more in a row"),
            ([[1.0, 0.0]], None, "a curve needs two or more in a row"),
            ([1.0, float("nan")], None, "the curve of scores is not finite"),
            ([1.0, 0.0], [0.0, 0.5, 1.0], r"^there are 2 scores at fractions of shape \(3,\): give one for each"),
            ([1.0, 0.0], [0.0, 0.9], "^the fractions go from 0 to 0.9: they must rise from 0 to 1"),
            ([1.0, 0.5, 0.0], [0.0, 0.0, 1.0], "they must rise from 0 to 1"),
            ([1.0, 0.5, 0.0], [1.0, 0.5, 0.0], "they must rise from 0 to 1"),
            ([1.0, 0.5, 0.0], [0.0, float("nan"), 1.0], "they must rise from 0 to 1"),
        ],
    )
    def test_are_refused(self, area: Any, scores: Any, fractions: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            area(scores, fractions)


class TestOrder:
    def test_by_hand(self) -> None:
        assert order(np.array([[0.1, 0.9], [-0.5, 0.3]])).tolist() == [1, 3, 0, 2]

    @given(arrays.arrays(np.float32, (4, 5), elements=st.integers(-2, 2).map(float)), st.integers(0, 1000))
    def test_falls_and_names_each_pixel_once(self, cam: Any, seed: int) -> None:
        found = order(cam, seed)
        assert sorted(found.tolist()) == list(range(20))
        assert (np.diff(cam.ravel()[found]) <= 0).all()
        assert order(cam, seed).tolist() == found.tolist()

    def test_ties_have_no_position(self) -> None:
        """Over many seeds each of the tied pixels comes first equally often."""
        cam = np.zeros((3, 3))
        cam[1, 1] = 1.0
        seconds = [int(order(cam, seed)[1]) for seed in range(2000)]
        counts = np.bincount(seconds, minlength=9)
        assert counts[4] == 0
        assert (abs(np.delete(counts, 4) - 250) < 5 * np.sqrt(250)).all()

    def test_of_a_map_that_is_not_finite(self) -> None:
        with pytest.raises(ValueError, match="the map is not finite"):
            order(np.array([[1.0, float("nan")]]))


class TestDrops:
    def test_by_hand(self) -> None:
        """A half is lost, nothing is lost, a tenth is lost."""
        whole, left = [0.8, 0.5, 1.0], [0.4, 0.9, 0.9]
        assert average_drop(whole, left) == pytest.approx((0.5 + 0.0 + 0.1) / 3)
        assert increase_rate(whole, left) == pytest.approx(1 / 3)

    def test_a_score_that_stays_has_not_risen(self) -> None:
        assert increase_rate([0.5, 0.5], [0.5, 0.5]) == 0.0

    @given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1))
    def test_are_shares(self, scores: list[tuple[float, float]]) -> None:
        whole, left = zip(*scores, strict=True)
        assert 0 <= average_drop(whole, left) <= 1
        assert 0 <= increase_rate(whole, left) <= 1

    @pytest.mark.parametrize("measure", [average_drop, increase_rate])
    @pytest.mark.parametrize(
        ("whole", "left", "message"),
        [
            ([], [], "give two for each image, and an image"),
            ([0.5], [0.5, 0.5], r"the scores are \(1,\) and \(2,\)"),
            ([float("nan")], [0.5], "the list of the whole images' scores is not finite"),
            ([0.5], [float("inf")], "the list of the explained images' scores is not finite"),
        ],
    )
    def test_are_refused(self, measure: Any, whole: Any, left: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            measure(whole, left)

    @pytest.mark.parametrize(("whole", "left"), [([0.0], [0.5]), ([-1.0], [0.5]), ([1.0], [-0.5])])
    def test_of_scores_that_are_no_probabilities_are_undefined(self, whole: Any, left: Any) -> None:
        with pytest.raises(ValueError, match="needs probabilities, above 0 for whole images"):
            average_drop(whole, left)
