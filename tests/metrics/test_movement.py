"""Where mass went: known pictures, whole numbers of cells, and formulas written out."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pytest_gradcam.metrics.movement import PARTS, Movement, movement

Floats = npt.NDArray[np.float64]
CENTRES = dict(zip(PARTS, itertools.product((1, 4, 7), repeat=2), strict=True))


def spot(*cells: tuple[int, int], shape: tuple[int, int] = (9, 9)) -> Floats:
    """A map with the same mass at each of these (row, column), and none elsewhere."""
    values = np.zeros(shape)
    for cell in cells:
        values[cell] = 1.0
    return values


def moved(before: Floats, after: Floats) -> Movement:
    found = movement(before, after)
    assert found is not None
    return found


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(PARTS, 2)))
def test_all_mass_from_one_part_to_another(source: str, target: str) -> None:
    (row, column), (to_row, to_column) = CENTRES[source], CENTRES[target]
    found = moved(spot((row, column)), spot((to_row, to_column)))
    assert (found.source, found.target, found.moved) == (source, target, 1.0)
    assert (found.dx, found.dy) == pytest.approx((to_column - column, to_row - row))


def test_the_parts_are_named_by_where_a_person_sees_them() -> None:
    found = moved(spot((0, 8)), spot((8, 4)))  # rows go down, columns to the right
    assert (found.source, found.target) == ("top right", "bottom")


def test_the_most_is_named_and_the_share_is_the_total_variation() -> None:
    before = 5 * spot((0, 0)) + 3 * spot((0, 4)) + 2 * spot((4, 4))
    after = 2 * spot((0, 0)) + 2 * spot((0, 4)) + 2 * spot((4, 4)) + 1 * spot((8, 8)) + 3 * spot((4, 8))
    found = moved(before, after)
    assert (found.source, found.target) == ("top left", "right")
    assert found.moved == pytest.approx(0.4)  # .3 of the top left and .1 of the top, of 1


@pytest.mark.parametrize("seed", range(4))
def test_signed_maps_of_any_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    a, b = (np.clip(each, 0, None) / np.clip(each, 0, None).sum() for each in (before, after))
    found = moved(before, after)
    assert found.moved == pytest.approx(1 - np.minimum(a, b).sum())  # what does not overlap
    (ya, xa), (yb, xb) = ndimage.center_of_mass(a), ndimage.center_of_mass(b)
    assert (found.dx, found.dy) == pytest.approx((xb - xa, yb - ya))
    other = moved(1e30 * before, 1e-30 * after)
    assert (other.source, other.target) == (found.source, found.target)
    assert other.moved == pytest.approx(found.moved)
    # Repeating cells until thirds end at their edges divides the cells that lie across them.
    fine = (np.kron(b, np.ones((3, 3))) - np.kron(a, np.ones((3, 3)))).reshape(3, 7, 3, 5).sum((1, 3)).ravel()
    assert (found.source, found.target) == (PARTS[fine.argmin()], PARTS[fine.argmax()])


def test_the_way_back_is_the_way_turned_round() -> None:
    before, after = spot((0, 0), (4, 4)), spot((4, 4), (8, 0), (8, 1))
    there, back = moved(before, after), moved(after, before)
    assert (there.source, there.target) == (back.target, back.source)
    assert (there.dx, there.dy, there.moved) == pytest.approx((-back.dx, -back.dy, back.moved))


def test_inside_of_one_part() -> None:
    found = moved(spot((0, 6)), spot((2, 8)))
    assert (found.source, found.target, found.dx, found.dy) == ("top right", "top right", 2.0, 2.0)


def test_a_map_of_one_row_has_no_top_and_no_bottom() -> None:
    found = moved(spot((0, 0), shape=(1, 9)), spot((0, 8), shape=(1, 9)))
    assert (found.source, found.target) == ("left", "right")


def test_a_coarse_grid_has_parts_too() -> None:
    found = moved(spot((0, 0), shape=(2, 2)), spot((1, 1), shape=(2, 2)))
    assert (found.source, found.target) == ("top left", "bottom right")


def test_negative_values_have_no_mass() -> None:
    before, after = spot((0, 0)), spot((4, 4))
    assert movement(before - 5 * spot((8, 8)), after - 7 * spot((8, 0))) == movement(before, after)


def test_what_did_not_move_or_has_no_mass_says_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(6, 6))
    assert movement(values, 3.0 * values) is None
    assert movement(values, values.astype(np.float32)) is None
    assert movement(values, -np.abs(values)) is None
    assert movement(np.zeros((6, 6)), values) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), "the same rows and columns"),
        (np.zeros((2, 3)), np.ones((3, 2)), "the same rows and columns"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "the first map is not finite"),
        (np.zeros((2, 2)), np.array([[1.0, np.inf], [0.0, 0.0]]), "the second map is not finite"),
        (np.zeros((2, 2)), np.full((2, 2), -np.inf), "the second map is not finite"),
        (np.ones(4), np.ones(4), "rows and columns, and some"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "rows and columns, and some"),
    ],
)
def test_what_is_no_pair_of_maps(before: Floats, after: Floats, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        movement(before, after)


def test_it_is_told_in_words() -> None:
    assert str(Movement("left", "top right", 0.4, 2.0, -3.0)) == "from the left to the top right"
    assert str(Movement("left", "left", 0.4, 0.1, 0.0)) == "inside the left"
