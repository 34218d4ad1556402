"""Energy and calibrated energy: rows 32 and 33 of the CAM facts, on drawn maps and regions of every kind."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, strategies as st

from pytest_gradcam.metrics import calibrated_energy, chance, energy, filled
from pytest_gradcam.regions import Region
from pytest_gradcam.strategies import boxes, maps, regions
from tests.properties.oracle import Array, bilinear, counterexample, some

HEIGHT, WIDTH = 24, 32
MAPS = maps(HEIGHT, WIDTH)
MASKS = regions(HEIGHT, WIDTH).map(lambda region: region.rasterise(HEIGHT, WIDTH))
GRIDS = st.tuples(st.integers(2, 12), st.integers(2, 12))
# float32 maps and masks round at 6e-8 a pixel.
TOLERANCE = 1e-6
# Below this distance a difference of energies is mostly rounding.
ABOVE_CHANCE = 0.01


def area_average(mask: Array, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The mean of the mask over each cell, each pixel cut into as many strips as make cells end between strips."""
    (height, width), (h, w) = mask.shape, grid
    fine = np.repeat(np.repeat(mask.astype(np.float64), h, axis=0), w, axis=1)  # (height·h, width·w)
    averaged: npt.NDArray[np.float64] = fine.reshape(h, height, w, width).mean(axis=(1, 3))
    return averaged


def filling_map(mask: Array, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The region's own mask, as a map on this grid would show it."""
    return bilinear(area_average(mask, grid), *mask.shape)


@some
@given(MAPS, MASKS)
def test_energy_is_the_share_of_mass_inside(cam: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> None:
    """Row 32: Σ cam·mask / Σ cam, added up exactly."""
    inside = sum(Fraction(float(c)) * Fraction(float(m)) for c, m in zip(cam.flat, mask.flat, strict=True))
    total = sum(Fraction(float(c)) for c in cam.flat)
    assert abs(energy(cam, mask) - float(inside / total)) <= TOLERANCE
    assert 0 <= energy(cam, mask) <= 1 + TOLERANCE


@some
@given(MAPS, MASKS)
def test_region_and_rest_share_the_energy(cam: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> None:
    """Row 32: energy(R) + energy(not R) = 1."""
    assert abs(energy(cam, mask) + energy(cam, 1 - mask) - 1) <= TOLERANCE


@some
@given(MAPS, MASKS, st.floats(1e-3, 1e3))
def test_energy_does_not_know_the_scale_of_the_map(
    cam: npt.NDArray[np.float32], mask: npt.NDArray[np.float32], factor: float
) -> None:
    """Row 32: unchanged when the map is scaled; calibrated energy with it."""
    scaled = cam * np.float32(factor)
    assert abs(energy(scaled, mask) - energy(cam, mask)) <= TOLERANCE
    grid = (6, 8)
    assume(filled(mask, grid) - chance(mask) > ABOVE_CHANCE)
    assert abs(calibrated_energy(scaled, mask, grid) - calibrated_energy(cam, mask, grid)) <= TOLERANCE / ABOVE_CHANCE


def test_subtracting_the_minimum_changes_energy() -> None:
    """Negative control of row 32: a map that is shifted, as min-max normalisation does, has another energy."""

    def changes(drawn: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> bool:
        cam, mask = drawn
        shifted = cam - cam.min()
        return bool(shifted.any()) and abs(energy(shifted, mask) - energy(cam, mask)) > 0.05

    counterexample(st.tuples(MAPS, MASKS), changes)


@some
@given(MAPS, boxes(HEIGHT, WIDTH), boxes(HEIGHT, WIDTH))
def test_a_larger_region_holds_no_less(
    cam: npt.NDArray[np.float32], first: tuple[int, int, int, int], second: tuple[int, int, int, int]
) -> None:
    """Row 32: energy grows with the region, and the union holds what both hold, less what they share."""
    a, b = (Region.of(box).rasterise(HEIGHT, WIDTH) for box in (first, second))
    union = Region.union(first, second).rasterise(HEIGHT, WIDTH)
    assert energy(cam, union) >= max(energy(cam, a), energy(cam, b))
    assert abs(energy(cam, union) - (energy(cam, a) + energy(cam, b) - energy(cam, a * b))) <= TOLERANCE


@some
@given(MASKS, GRIDS, st.floats(0.01, 1.0))
def test_a_uniform_map_is_at_chance(mask: npt.NDArray[np.float32], grid: tuple[int, int], level: float) -> None:
    """Row 33, filled > chance: the calibrated energy of a uniform map is 0, and its energy is the region's area."""
    assume(filled(mask, grid) - chance(mask) > ABOVE_CHANCE)
    uniform = np.full(mask.shape, level, np.float32)
    assert abs(energy(uniform, mask) - float(mask.sum(dtype=np.float64)) / mask.size) <= TOLERANCE
    assert abs(calibrated_energy(uniform, mask, grid)) <= TOLERANCE / ABOVE_CHANCE


@some
@given(MASKS, GRIDS)
def test_the_regions_own_mask_fills_it(mask: npt.NDArray[np.float32], grid: tuple[int, int]) -> None:
    """Row 33, filled > chance: the region's mask, averaged to the grid and resized back, has calibrated energy 1."""
    assume(filled(mask, grid) - chance(mask) > ABOVE_CHANCE)
    own = filling_map(mask, grid)
    assert abs(energy(own, mask) - filled(mask, grid)) <= TOLERANCE
    assert abs(calibrated_energy(own, mask, grid) - 1) <= TOLERANCE / ABOVE_CHANCE


@some
@given(MAPS, MASKS, GRIDS)
def test_calibrated_energy_is_the_way_from_chance_to_filled(
    cam: npt.NDArray[np.float32], mask: npt.NDArray[np.float32], grid: tuple[int, int]
) -> None:
    """Row 33, filled > chance: (energy − chance) / (filled − chance), each of the three written out."""
    assume(filled(mask, grid) - chance(mask) > ABOVE_CHANCE)
    c, m, own = cam.astype(np.float64), mask.astype(np.float64), filling_map(mask, grid)
    at_chance, at_filled = m.mean(), (own * m).sum() / own.sum()
    expected = ((c * m).sum() / c.sum() - at_chance) / (at_filled - at_chance)
    assert abs(calibrated_energy(cam, mask, grid) - expected) <= (1 + abs(expected)) * TOLERANCE / ABOVE_CHANCE


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.ones((HEIGHT, WIDTH), np.float32), id="the whole image"),
        pytest.param(np.tile(np.array([0, 1], np.float32), (HEIGHT, WIDTH // 2)), id="stripes finer than a cell"),
    ],
)
def test_a_region_that_no_map_can_fill_is_not_measured(mask: npt.NDArray[np.float32]) -> None:
    """Negative control of row 33: where filled is not above chance there is nothing to divide by, and no number."""
    with pytest.raises(ValueError, match="not above chance"):
        calibrated_energy(np.ones_like(mask), mask, (6, 8))
