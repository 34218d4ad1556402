"""Similarity of maps against scipy, and against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize, spatial, stats

from pytest_gradcam.metrics import SIMILARITIES, cosine, pearson, rmse, shift, wasserstein
from pytest_gradcam.metrics.similarity import EXACT

Floats = npt.NDArray[np.float64]


def drawn(shape: tuple[int, int], seed: int) -> tuple[Floats, Floats]:
    """Two signed maps that have something in common."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=shape)
    return common + rng.normal(size=shape), common + rng.normal(size=shape) + 0.5


def relu_mass(values: Floats) -> Floats:
    positive = np.clip(values, 0, None)
    return np.asarray(positive / positive.sum())


def whole_transport(a: Floats, b: Floats) -> float:
    """The textbook's linear program over every pair of cells, with nothing taken out beforehand."""
    size = a.size
    places = np.stack(np.unravel_index(np.arange(size), a.shape), 1)
    ways = spatial.distance.cdist(places, places)
    sums = np.zeros((2 * size, size, size))
    sums[np.arange(size), np.arange(size), :] = 1  # what leaves each cell
    sums[size + np.arange(size), :, np.arange(size)] = 1  # what arrives at each cell
    found = optimize.linprog(
        ways.ravel(),
        A_eq=sums.reshape(2 * size, -1),
        b_eq=np.concatenate([relu_mass(a).ravel(), relu_mass(b).ravel()]),
        method="highs",
    )
    return float(found.fun)


@pytest.mark.parametrize("seed", range(4))
class TestAgainstScipy:
    def test_pearson(self, seed: int) -> None:
        a, b = drawn((5, 7), seed)
        assert pearson(a, b) == pytest.approx(stats.pearsonr(a.ravel(), b.ravel())[0], abs=1e-12)

    def test_cosine(self, seed: int) -> None:
        a, b = drawn((5, 7), seed)
        assert cosine(a, b) == pytest.approx(1 - spatial.distance.cosine(a.ravel(), b.ravel()), abs=1e-12)

    def test_wasserstein(self, seed: int) -> None:
        a, b = drawn((4, 6), seed)
        places = np.stack(np.unravel_index(np.arange(a.size), a.shape), 1)
        expected = stats.wasserstein_distance_nd(places, places, relu_mass(a).ravel(), relu_mass(b).ravel())
        assert wasserstein(a, b) == pytest.approx(expected, abs=1e-7)

    def test_wasserstein_of_one_row(self, seed: int) -> None:
        """Along a line it is the area between the cumulated masses."""
        a, b = drawn((1, EXACT), seed)
        expected = stats.wasserstein_distance(range(EXACT), range(EXACT), relu_mass(a)[0], relu_mass(b)[0])
        assert wasserstein(a, b) == pytest.approx(expected, abs=1e-9)
        assert wasserstein(a.T, b.T) == pytest.approx(expected, abs=1e-9)

    def test_wasserstein_leaves_out_only_what_need_not_move(self, seed: int) -> None:
        a, b = drawn((5, 4), seed)
        assert wasserstein(a, b) == pytest.approx(whole_transport(a, b), abs=1e-7)

    def test_centres_of_mass(self, seed: int) -> None:
        from scipy import ndimage

        a, b = drawn((5, 7), seed)
        (ya, xa), (yb, xb) = (ndimage.center_of_mass(np.clip(map_, 0, None)) for map_ in (a, b))
        assert shift(a, b) == pytest.approx((xb - xa, yb - ya), abs=1e-12)


class TestByHand:
    A = np.array([[0.0, 2.0], [0.0, 0.0]])
    B = np.array([[0.0, 0.5], [0.5, -1.0]])

    def test_rmse(self) -> None:
        """Divided by their maxima: (0, 1, 0, 0) and (0, 1, 1, -2)."""
        assert rmse(self.A, self.B) == pytest.approx(math.sqrt((1 + 4) / 4))

    def test_wasserstein(self) -> None:
        """Half of the mass goes over the diagonal; the negative cell has none."""
        assert wasserstein(self.A, self.B) == pytest.approx(0.5 * math.sqrt(2))

    def test_shift(self) -> None:
        assert shift(self.A, self.B) == pytest.approx((-0.5, 0.5))

    def test_cosine(self) -> None:
        assert cosine(self.A, self.B) == pytest.approx(0.5 / math.sqrt(1.5))

    def test_opposite_corners_are_the_farthest(self) -> None:
        a, b = np.zeros((5, 9)), np.zeros((5, 9))
        a[0, 0] = b[4, 8] = 1.0
        assert wasserstein(a, b) == pytest.approx(SIMILARITIES["wasserstein"].farthest((5, 9)))

    def test_opposite_maps_are_the_farthest(self) -> None:
        a = np.array([[1.0, -2.0], [3.0, 0.0]])
        for name in ("pearson", "cosine"):
            assert SIMILARITIES[name].measure(a, -a) == SIMILARITIES[name].farthest((2, 2)) == -1.0

    def test_close_enough_is_at_the_threshold_or_closer(self) -> None:
        pearsons, ways = SIMILARITIES["pearson"], SIMILARITIES["wasserstein"]
        assert [pearsons.passes(value, 0.9) for value in (0.95, 0.9, 0.85)] == [True, True, False]
        assert [ways.passes(value, 0.9) for value in (0.95, 0.9, 0.85)] == [False, True, True]


def blob(size: int, x: float, y: float) -> Floats:
    ys, xs = np.indices((size, size))
    return np.asarray(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * (size / 10) ** 2)))


class TestWassersteinOfLargeMaps:
    def test_is_counted_in_their_own_cells(self) -> None:
        """112 cells a side are averaged to 16, seven to one: a blob 14 cells on is still 14 cells away."""
        assert EXACT == 16
        assert wasserstein(blob(112, 45, 55), blob(112, 59, 55)) == pytest.approx(14.0, abs=0.1)

    @pytest.mark.parametrize("size", [17, 24])
    def test_is_off_by_an_averaged_cells_diagonal_at_most(self, size: int) -> None:
        """Against the same program on all cells, which takes seconds at these sizes: along one row it does not."""
        rng = np.random.default_rng(size)
        a, b = rng.random((1, size)) ** 4, rng.random((1, size)) ** 4
        exact = stats.wasserstein_distance(range(size), range(size), a[0], b[0])
        assert abs(wasserstein(a, b) - exact) <= size / EXACT

    def test_takes_no_more_than_a_moment(self) -> None:
        """A CAM at the size of a model's input; that it ends at all is what is tested."""
        rng = np.random.default_rng(0)
        assert 0 < wasserstein(rng.random((224, 224)), rng.random((224, 224))) < 20

    def test_small_differences_are_not_lost_in_the_solvers_tolerance(self) -> None:
        a = np.ones((12, 12))
        b = a.copy()
        b[0, 0] += 1e-8
        b[0, 1] -= 1e-8
        assert wasserstein(a, b) == pytest.approx(1e-8 / 144, rel=1e-4)


class TestWhatCannotBeCompared:
    @pytest.mark.parametrize("measure", [pearson, cosine, wasserstein, rmse, shift])
    @pytest.mark.parametrize(
        ("a", "message"),
        [
            (np.zeros((3, 3)), r"^the first map is (zero everywhere|constant)|^the first map has no positive value"),
            (np.full((3, 3), np.nan), "^the first map is not finite"),
            (np.array([[np.inf, -np.inf, 0.0]] * 3), "^the first map is not finite"),
        ],
    )
    def test_is_named(self, measure: Any, a: Floats, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            measure(a, np.eye(3))
        with pytest.raises(ValueError, match=message.replace("first", "second")):
            measure(np.eye(3), a)

    def test_another_grid(self) -> None:
        for measure in (pearson, cosine, wasserstein, rmse, shift):
            with pytest.raises(ValueError, match=r"^the maps are \(4, 4\) and \(3, 3\): only maps on the same grid"):
                measure(np.eye(4), np.eye(3))

    @pytest.mark.parametrize("value", [0.1, 1.0, -3.0])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_constant_map_correlates_with_nothing(self, value: float, dtype: Any) -> None:
        """Also where its mean is not exactly its value: rounding has no correlation."""
        with pytest.raises(ValueError, match=r"^the second map is constant: it has no variance to correlate"):
            pearson(np.eye(7), np.full((7, 7), value, dtype))

    def test_nor_does_one_that_differs_by_rounding_alone(self) -> None:
        noise = np.random.default_rng(0).uniform(-1, 1, (7, 7))
        with pytest.raises(ValueError, match=r"^the first map is constant"):
            pearson(1 + 1e-7 * noise, np.eye(7))
        assert abs(pearson(1 + 1e-5 * noise, noise)) == pytest.approx(1.0)

    @pytest.mark.parametrize("measure", [wasserstein, rmse, shift])
    def test_a_map_that_speaks_only_against_has_no_mass(self, measure: Any) -> None:
        with pytest.raises(ValueError, match=r"^the first map has no positive value"):
            measure(-np.eye(3), np.eye(3))

    @pytest.mark.parametrize("shape", [(4,), (0, 4), (1, 2, 2)])
    def test_what_has_no_rows_and_columns(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="each must have rows and columns"):
            pearson(np.ones(shape), np.ones(shape))
