"""Metrics against values worked out by hand, and against slow loops that follow the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from pytest_gradcam.metrics import (
    METRICS,
    calibrated_energy,
    chance,
    distance_to,
    energy,
    filled,
    inside,
    peak,
    pointing_game,
)

Floats = npt.NDArray[np.float64]


def box(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> Floats:
    mask = np.zeros((height, width))
    mask[y0:y1, x0:x1] = 1.0
    return mask


def resized(grid: Floats, height: int, width: int) -> Floats:
    """Bilinear, pixel centres, as torch has it."""
    tensor = torch.from_numpy(np.asarray(grid, np.float64))[None, None]
    return functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


def cell_means(mask: Floats, h: int, w: int) -> Floats:
    """The mean of the mask over each cell, by the area that each pixel shares with it."""
    height, width = mask.shape
    means = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            top, bottom, left, right = i * height / h, (i + 1) * height / h, j * width / w, (j + 1) * width / w
            tall = [max(0.0, min(bottom, y + 1) - max(top, y)) for y in range(height)]
            wide = [max(0.0, min(right, x + 1) - max(left, x)) for x in range(width)]
            means[i, j] = (mask * np.outer(tall, wide)).sum() / ((bottom - top) * (right - left))
    return means


def filled_by_hand(mask: Floats, h: int, w: int) -> float:
    back = resized(cell_means(mask, h, w), *mask.shape)
    return float((back * mask).sum() / back.sum())


MASKS: dict[str, Floats] = {
    "a box on whole cells": box(24, 24, 6, 6, 12, 18),
    "a box across cells": box(24, 24, 5, 7, 16, 13),
    "one pixel": box(24, 24, 10, 3, 11, 4),
    "a corner": box(24, 24, 0, 0, 4, 4),
    "all but a border": box(24, 24, 1, 1, 23, 23),
    "not square": box(18, 30, 4, 2, 21, 9),
    "soft": np.clip(np.add.outer(np.linspace(-1, 1, 24), np.linspace(-0.5, 1, 24)), 0, 1),
}
GRIDS = [(4, 4), (7, 7), (3, 5), (1, 4), (24, 18)]


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


class TestWhatCannotBeMeasured:
    @pytest.mark.parametrize("measure", [energy, pointing_game])
    def test_another_shape(self, measure: Any) -> None:
        with pytest.raises(ValueError, match=r"^the map is \(4, 4\), the region's mask \(4, 5\)"):
            measure(np.ones((4, 4)), np.ones((4, 5)))

    @pytest.mark.parametrize("measure", [energy, pointing_game])
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
            for measure in (energy, pointing_game):
                with pytest.raises(ValueError, match="the map is not finite"):
                    measure(cam, box(4, 4, 0, 0, 2, 2))


class TestTheRegistry:
    @pytest.mark.parametrize(
        ("name", "title", "uniform", "even", "inside", "outside"),
        [
            ("calibrated_energy", "calibrated energy", 0.0, 1.0, 0.15, 0.0),
            ("energy", "energy", 0.2, 0.7, 0.5, 0.2),
            ("pointing_game", "pointing game", 0.0, 1.0, 1.0, 0.0),
        ],
    )
    def test_defaults_and_bounds(
        self, name: str, title: str, uniform: float, even: float, inside: float, outside: float
    ) -> None:
        """At chance 0.2 and filled 0.7."""
        rule = METRICS[name]
        assert (rule.title, rule.inside, rule.outside(0.2, 0.7)) == (title, inside, outside)
        assert (rule.at_chance(0.2, 0.7), rule.at_filled(0.2, 0.7)) == (uniform, even)

    @pytest.mark.parametrize("mask", [MASKS["a box across cells"], MASKS["a corner"]])
    @pytest.mark.parametrize("name", METRICS)
    def test_bounds_are_what_the_metric_measures(self, name: str, mask: Floats) -> None:
        rule, grid = METRICS[name], (6, 6)
        by_chance, by_filling = chance(mask), filled(mask, grid)
        uniform = rule.measure(np.ones(mask.shape), mask, grid)
        even = rule.measure(resized(cell_means(mask, *grid), *mask.shape), mask, grid)
        assert uniform == pytest.approx(rule.at_chance(by_chance, by_filling), abs=1e-6)
        assert even == pytest.approx(rule.at_filled(by_chance, by_filling), abs=1e-4)
        assert rule.at_chance(by_chance, by_filling) < rule.inside <= 1

    @pytest.mark.parametrize("name", METRICS)
    def test_no_map_is_beyond_the_least_and_the_most(self, name: str) -> None:
        """Maps that lie wholly inside and wholly outside the region reach both."""
        rule, grid, mask = METRICS[name], (6, 6), MASKS["a box across cells"]
        by_chance, by_filling = chance(mask), filled(mask, grid)
        assert rule.measure(mask, mask, grid) == pytest.approx(rule.most(by_chance, by_filling))
        assert rule.measure(1 - mask, mask, grid) == pytest.approx(rule.least(by_chance, by_filling))
