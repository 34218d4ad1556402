"""Localisation metrics against values worked out by hand, and against slow loops that follow the definitions."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from pytest_gradcam.metrics import (
    calibrated_energy,
    chance,
    distance_to,
    energy,
    filled,
    filling,
    inside,
    iou,
    lift,
    mass_outside,
    peak,
    pointing_game,
    rank_accuracy,
)
from tests.metrics.figures import MASKS, Floats, box, cell_means, resized

GRIDS = [(4, 4), (7, 7), (3, 5), (1, 4), (24, 18)]


def filled_by_hand(mask: Floats, h: int, w: int) -> float:
    back = resized(cell_means(mask, h, w), *mask.shape)
    return float((back * mask).sum() / back.sum())


class TestEnergy:
    def test_by_hand(self) -> None:
        cam = np.array([[0.0, 1.0], [0.5, 0.5]])
        assert energy(cam, np.array([[0.0, 1.0], [0.0, 0.0]])) == 0.5
        assert energy(cam, np.array([[1.0, 0.0], [0.0, 0.0]])) == 0.0
        assert energy(cam, np.array([[0.0, 0.0], [1.0, 0.5]])) == 0.375
        assert energy(cam, np.ones((2, 2))) == 1.0

    def test_of_a_float32_map_is_summed_in_float64(self) -> None:
        """A sum of ten million float32 pixels in float32 would lose the last three digits."""
        cam = np.full((4000, 2500), 0.1, np.float32)
        mask = np.zeros_like(cam)
        mask[:, :1] = 1.0
        assert energy(cam, mask) == pytest.approx(1 / 2500, rel=1e-9)

    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    def test_of_a_uniform_map_is_chance(self, mask: Floats) -> None:
        assert energy(np.full(mask.shape, 0.3), mask) == pytest.approx(chance(mask), rel=1e-12)
        assert chance(mask) == pytest.approx(sum(mask.ravel().tolist()) / mask.size)


class TestFilled:
    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    def test_follows_the_definition(self, mask: Floats, grid: tuple[int, int]) -> None:
        assert filled(mask, grid) == pytest.approx(filled_by_hand(mask, *grid), rel=1e-5)
        assert filled(mask.astype(np.float32), grid) == pytest.approx(filled_by_hand(mask, *grid), rel=1e-5)

    def test_by_hand(self) -> None:
        """One of 2×2 cells on 4×4 pixels: weights 1, 1, .75, .25 along each axis, in both directions."""
        weights = np.array([1.0, 0.75, 0.25, 0.0])
        total, inside = weights.sum() ** 2, (1.0 + 0.75) ** 2
        assert filled(box(4, 4, 0, 0, 2, 2), (2, 2)) == pytest.approx(inside / total, rel=1e-6)

    def test_of_a_grid_as_fine_as_the_image_is_all(self) -> None:
        assert filled(box(8, 8, 2, 3, 5, 7), (8, 8)) == pytest.approx(1.0)

    @pytest.mark.parametrize("grid", GRIDS)
    def test_is_the_energy_of_the_map_that_fills_the_region(self, grid: tuple[int, int]) -> None:
        mask = MASKS["a box across cells"]
        np.testing.assert_allclose(filling(mask, grid), resized(cell_means(mask, *grid), 24, 24), atol=1e-6)
        assert filled(mask, grid) == energy(filling(mask, grid), mask)

    def test_falls_with_the_grid(self) -> None:
        values = [filled(box(96, 96, 32, 32, 56, 56), (g, g)) for g in (24, 12, 6, 3)]
        assert values == sorted(values, reverse=True) and values[-1] < 0.5 < values[0]


class TestCalibratedEnergy:
    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    def test_is_0_for_a_uniform_map_and_1_for_a_filled_one(self, mask: Floats, grid: tuple[int, int]) -> None:
        assert calibrated_energy(np.ones(mask.shape), mask, grid) == pytest.approx(0.0, abs=1e-6)
        back = resized(cell_means(mask, *grid), *mask.shape)
        assert calibrated_energy(back, mask, grid) == pytest.approx(1.0, abs=1e-4)

    def test_by_hand(self) -> None:
        """All mass in the region's one corner pixel: energy 1, chance 1/4, filled 3.0625 / 4."""
        cam = box(4, 4, 0, 0, 1, 1)
        expected = (1.0 - 0.25) / (3.0625 / 4.0 - 0.25)
        assert calibrated_energy(cam, box(4, 4, 0, 0, 2, 2), (2, 2)) == pytest.approx(expected, rel=1e-6)
        avoided = (0.0 - 0.25) / (3.0625 / 4.0 - 0.25)
        assert calibrated_energy(box(4, 4, 3, 3, 4, 4), box(4, 4, 0, 0, 2, 2), (2, 2)) == pytest.approx(avoided)

    def test_exceeds_1_for_a_map_in_the_regions_middle(self) -> None:
        assert calibrated_energy(box(24, 24, 11, 11, 13, 13), box(24, 24, 6, 6, 18, 18), (4, 4)) > 1

    def test_is_undefined_for_the_whole_picture(self) -> None:
        with pytest.raises(ValueError, match=r"has energy 1, not above chance 1"):
            calibrated_energy(np.ones((4, 4)), np.ones((4, 4)), (2, 2))


class TestPointingGame:
    @pytest.mark.parametrize(
        ("cam", "hit"),
        [
            ([[0.0, 1.0], [0.2, 0.3]], 1.0),
            ([[0.9, 0.8], [1.0, 0.0]], 0.0),
            ([[0.0, 1.0], [0.0, 1.0]], 0.0),
            ([[0.0, 1.0], [0.0, 1.0 - 1e-7]], 0.0),
            ([[0.0, 1.0], [0.0, 1.0 - 1e-5]], 1.0),
            ([[1.0, 1.0], [1.0, 1.0]], 0.0),
            ([[1e-30, 2e-30], [1e-30, 0.0]], 1.0),
        ],
    )
    def test_only_if_every_tied_maximum_is_inside(self, cam: Any, hit: float) -> None:
        assert pointing_game(np.array(cam), np.array([[0.0, 1.0], [0.0, 0.0]])) == hit

    def test_tied_maxima_that_are_all_inside_hit(self) -> None:
        assert pointing_game(box(8, 8, 2, 2, 4, 4), box(8, 8, 1, 1, 5, 5)) == 1.0

    @pytest.mark.parametrize(("share", "hit"), [(0.49, 0.0), (0.5, 1.0), (0.51, 1.0)])
    def test_half_a_pixel_is_inside(self, share: float, hit: float) -> None:
        mask = np.maximum(box(4, 4, 3, 3, 4, 4), share * box(4, 4, 1, 1, 2, 2))
        assert pointing_game(box(4, 4, 1, 1, 2, 2), mask) == hit

    @pytest.mark.parametrize("share", [0.01, 0.3, 0.49])
    def test_a_region_that_covers_no_pixel_by_half_can_be_hit(self, share: float) -> None:
        """Else nothing could ever point at it, and a forbidden one would never be caught."""
        mask = share * box(8, 8, 2, 1, 3, 6)
        assert pointing_game(box(8, 8, 2, 3, 3, 4), mask) == 1.0
        assert pointing_game(box(8, 8, 3, 3, 4, 4), mask) == 0.0
        assert distance_to(mask, (2, 3)) == 0.0

    @pytest.mark.parametrize(
        ("point", "tolerance", "hit"),
        [
            ((4, 3), 0, 1.0),
            ((6, 3), 0, 0.0),
            ((6, 3), 1.9, 0.0),
            ((6, 3), 2, 1.0),
            ((7, 7), 4.2, 0.0),  # three to the right, three down: √18 = 4.243
            ((7, 7), 18**0.5, 1.0),
            ((23, 23), 1000, 1.0),
        ],
    )
    def test_a_tolerance_is_measured_from_pixel_to_pixel(
        self, point: tuple[int, int], tolerance: float, hit: float
    ) -> None:
        mask = box(24, 24, 2, 2, 5, 5)
        cam = box(24, 24, point[0], point[1], point[0] + 1, point[1] + 1)
        assert pointing_game(cam, mask, tolerance) == hit
        assert (distance_to(mask, point) <= tolerance) == (hit == 1.0)

    def test_every_tied_maximum_must_be_within_the_tolerance(self) -> None:
        cam = box(24, 24, 5, 3, 6, 4) + box(24, 24, 9, 3, 10, 4)
        assert [pointing_game(cam, box(24, 24, 2, 2, 5, 5), tolerance) for tolerance in (1, 4, 5)] == [0, 0, 1]

    @pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
    def test_a_tolerance_is_a_number_of_pixels(self, tolerance: float) -> None:
        with pytest.raises(ValueError, match="give a number of pixels, 0 or more"):
            pointing_game(np.ones((4, 4)), np.ones((4, 4)), tolerance)


class TestLift:
    def test_by_hand(self) -> None:
        """Half of the mass in a quarter of the picture."""
        cam = np.array([[0.0, 1.0], [0.5, 0.5]])
        assert lift(cam, np.array([[0.0, 1.0], [0.0, 0.0]])) == 2.0

    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    def test_of_a_uniform_map_is_1(self, mask: Floats) -> None:
        assert lift(np.full(mask.shape, 0.3), mask) == pytest.approx(1.0, rel=1e-12)


class TestMassOutside:
    def test_by_hand(self) -> None:
        cam = np.array([[0.0, 1.0], [0.5, 0.5]])
        assert mass_outside(cam, np.array([[0.0, 1.0], [0.0, 0.5]])) == 0.375
        assert mass_outside(cam, np.zeros((2, 2))) == 1.0


def mean_over_all_orders(cam: Floats, mask: Floats) -> float:
    """Rank accuracy of every ranking that agrees with the map, averaged: what a lot among ties means. Hard masks."""
    places = int(mask.sum())
    found = []
    for ranking in permutations(range(cam.size)):
        values = cam.ravel()[list(ranking)]
        if (np.diff(values) <= 0).all():
            found.append(mask.ravel()[list(ranking[:places])].sum() / places)
    return float(np.mean(found))


class TestRankAccuracy:
    def test_by_hand(self) -> None:
        """Of the three highest pixels, two are inside."""
        cam = np.array([[0.9, 0.8, 0.1], [0.7, 0.2, 0.0]])
        assert rank_accuracy(cam, np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])) == pytest.approx(2 / 3)

    @pytest.mark.parametrize("seed", range(8))
    def test_ties_are_drawn_by_lot(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        cam, mask = rng.integers(0, 3, (2, 3)) / 2 + 1e-3, rng.permutation([1.0, 1, 1, 0, 0, 0]).reshape(2, 3)
        assert rank_accuracy(cam, mask) == pytest.approx(mean_over_all_orders(cam, mask), rel=1e-12)

    def test_where_the_map_lies_among_its_ties_does_not_matter(self) -> None:
        """One cell of sixteen is lit, the region has four: the other three places are drawn from fifteen zeros."""
        for x, y in [(0, 0), (3, 3)]:
            expected = (0 + 3 * 4 / 15) / 4 if (x, y) == (3, 3) else (1 + 3 * 3 / 15) / 4
            assert rank_accuracy(box(4, 4, x, y, x + 1, y + 1), box(4, 4, 0, 0, 2, 2)) == pytest.approx(expected)

    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    def test_of_a_uniform_map_is_chance(self, mask: Floats) -> None:
        assert rank_accuracy(np.full(mask.shape, 0.3, np.float32), mask) == pytest.approx(chance(mask), rel=1e-12)

    def test_of_a_soft_mask_counts_parts_of_pixels(self) -> None:
        """One and a half places: all of the first pixel, which is inside, and half of the next, of which half is."""
        cam, mask = np.array([[0.9, 0.8, 0.1]]), np.array([[1.0, 0.5, 0.0]])
        assert rank_accuracy(cam, mask) == pytest.approx((1.0 + 0.5 * 0.5) / 1.5)

    def test_a_pixel_is_either_hit_or_not(self) -> None:
        mask = box(8, 8, 2, 3, 3, 4)
        assert rank_accuracy(mask + 0.1, mask) == 1.0
        assert rank_accuracy(box(8, 8, 3, 3, 4, 4), mask) == 0.0

    def test_rounding_breaks_no_tie(self) -> None:
        cam = np.ones((4, 4)) - 1e-8 * np.arange(16).reshape(4, 4)
        assert rank_accuracy(cam, box(4, 4, 0, 0, 4, 1)) == pytest.approx(0.25)


class TestIoU:
    def test_by_hand(self) -> None:
        """Two pixels reach half of the maximum, one of them is among the region's two."""
        cam = np.array([[1.0, 0.5], [0.49, 0.0]])
        assert iou(cam, np.array([[1.0, 0.0], [1.0, 0.0]])) == 1 / 3
        assert iou(cam, np.array([[1.0, 0.0], [1.0, 0.0]]), 0.4) == 2 / 3
        assert iou(cam, np.array([[1.0, 0.0], [1.0, 0.0]]), 1.0) == 1 / 2

    def test_of_a_soft_mask_is_the_sum_of_the_smaller_by_that_of_the_larger(self) -> None:
        cam, mask = np.array([[1.0, 0.9], [0.1, 0.0]]), np.array([[1.0, 0.25], [0.5, 0.0]])
        part = np.array([[1.0, 1.0], [0.0, 0.0]])
        assert iou(cam, mask) == pytest.approx(np.minimum(part, mask).sum() / np.maximum(part, mask).sum(), rel=1e-12)

    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    @pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
    def test_of_a_uniform_map_is_chance(self, mask: Floats, share: float) -> None:
        assert iou(np.full(mask.shape, 0.3), mask, share) == pytest.approx(chance(mask), rel=1e-12)

    def test_the_pixels_at_the_share_belong_to_the_map_up_to_rounding(self) -> None:
        cam = np.array([[1.0, 0.5 - 1e-8, 0.5 - 1e-4]])
        assert iou(cam, np.array([[1.0, 1.0, 0.0]])) == 1.0

    @pytest.mark.parametrize("share", [0.0, -0.5, 1.1, float("nan")])
    def test_a_share_lies_between_nothing_and_all(self, share: float) -> None:
        with pytest.raises(ValueError, match="give one above 0 and at most 1"):
            iou(np.ones((4, 4)), np.ones((4, 4)), share)


class TestThePeak:
    def test_is_the_maximum(self) -> None:
        cam = np.zeros((5, 7))
        cam[3, 6] = 0.5
        assert peak(cam) == (6, 3)

    def test_of_tied_maxima_is_the_one_nearest_their_centre(self) -> None:
        assert peak(box(9, 9, 2, 4, 7, 5)) == (4, 4)

    @pytest.mark.parametrize(
        ("point", "distance"), [((3, 3), 0.0), ((1, 3), 1.0), ((0, 0), 8**0.5), ((7, 9), 5.0), ((4, 9), 4.0)]
    )
    def test_is_so_far_from_the_region(self, point: tuple[int, int], distance: float) -> None:
        assert distance_to(box(12, 12, 2, 2, 5, 6), point) == pytest.approx(distance)

    def test_has_no_distance_to_a_region_without_pixels(self) -> None:
        with pytest.raises(ValueError, match="zero everywhere"):
            distance_to(np.zeros((4, 4)), (0, 0))


class TestInside:
    @pytest.mark.parametrize(
        ("mask", "wanted"),
        [
            ([0.0, 0.49, 0.5, 1.0], [False, False, True, True]),
            ([0.0, 0.1, 0.2, 0.4], [False, False, True, True]),
            ([0.0, 0.0, 0.0, 0.0], [False, False, False, False]),
            ([0.0, 0.5, 1.0, 1.0 + 1e-6], [False, True, True, True]),  # a quotient may pass 1 by rounding
        ],
    )
    def test_is_half_of_what_the_mask_has_at_most(self, mask: list[float], wanted: list[bool]) -> None:
        assert inside(np.array([mask]))[0].tolist() == wanted


MEASURES = [energy, mass_outside, lift, pointing_game, rank_accuracy, iou]


class TestWhatCannotBeMeasured:
    @pytest.mark.parametrize("measure", MEASURES)
    def test_another_shape(self, measure: Any) -> None:
        with pytest.raises(ValueError, match=r"^the map is \(4, 4\), the region's mask \(4, 5\)"):
            measure(np.ones((4, 4)), np.ones((4, 5)))

    @pytest.mark.parametrize("measure", MEASURES)
    def test_a_map_without_mass(self, measure: Any) -> None:
        """Never a hit, and never a miss."""
        with pytest.raises(ValueError, match="the map has no mass"):
            measure(np.zeros((4, 4)), np.ones((4, 4)))
        with pytest.raises(ValueError, match="the map has no mass"):
            calibrated_energy(np.zeros((4, 4)), box(4, 4, 0, 0, 2, 2), (2, 2))

    def test_a_map_that_is_not_finite(self) -> None:
        """Never a number that a threshold is compared with."""
        for value in (float("nan"), float("inf")):
            cam = np.ones((4, 4))
            cam[1, 1] = value
            for measure in MEASURES:
                with pytest.raises(ValueError, match="the map is not finite"):
                    measure(cam, box(4, 4, 0, 0, 2, 2))

    @pytest.mark.parametrize("measure", MEASURES)
    def test_a_map_with_negative_values(self, measure: Any) -> None:
        """A raw CAM: shares of it leave [0, 1]."""
        with pytest.raises(ValueError, match=r"^the map goes down to -0\.5: shares of a signed map mean nothing"):
            measure(np.array([[1.0, -0.5]]), np.array([[1.0, 0.0]]))

    @pytest.mark.parametrize("measure", MEASURES)
    def test_a_region_that_is_not_finite(self, measure: Any) -> None:
        with pytest.raises(ValueError, match="the region's mask is not finite"):
            measure(np.ones((1, 2)), np.array([[1.0, float("nan")]]))

    @pytest.mark.parametrize("measure", [lift, pointing_game, rank_accuracy, iou])
    def test_an_empty_region(self, measure: Any) -> None:
        with pytest.raises(ValueError, match="the region's mask is zero everywhere"):
            measure(np.ones((4, 4)), np.zeros((4, 4)))
