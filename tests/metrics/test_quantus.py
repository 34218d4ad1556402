"""The same numbers as Quantus, where Quantus is right; and where it is not, what it says beside what we say.

Quantus (Hedström et al., 2023) brings `opencv-python`, whose files lie over those of `opencv-python-headless`; so it is
no part of the `test` extra, and these tests are skipped where it is missing.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_gradcam.metrics import METRICS, cosine, energy, lift, pearson, pointing_game, rank_accuracy
from tests.metrics.figures import box

quantus = pytest.importorskip("quantus", reason="needs quantus, which the bench extra brings")

Floats = npt.NDArray[np.float64]

SIZE = (8, 9)


def by_quantus(metric: str, cams: Floats, masks: Floats, **keywords: Any) -> list[float]:
    """What a metric of Quantus says of maps and masks, (N, H, W) each, with nothing done to the maps beforehand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that maps are not normalised, that masks are empty, that it divided by zero
        measure = getattr(quantus, metric)(abs=False, normalise=False, disable_warnings=True, **keywords)
        found = measure(
            model=None,
            x_batch=np.zeros((len(cams), 3, *cams.shape[1:])),
            y_batch=np.zeros(len(cams), int),
            a_batch=cams[:, None],
            s_batch=masks[:, None].astype(int),
        )
    return [float(value) for value in found]


@pytest.fixture
def maps() -> Floats:
    """Sixteen maps (16, H, W) without a tie or a zero."""
    return np.random.default_rng(0).random((16, *SIZE)) + 0.01


@pytest.fixture
def masks() -> Floats:
    """Sixteen regions (16, H, W), hard, none empty or full."""
    return (np.random.default_rng(1).random((16, *SIZE)) > 0.6).astype(float)


class TestTheSame:
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("PointingGame", pointing_game),
            ("RelevanceMassAccuracy", energy),
            ("AttributionLocalisation", energy),
            ("RelevanceRankAccuracy", rank_accuracy),
        ],
    )
    def test_metrics(self, theirs: str, ours: Any, maps: Floats, masks: Floats) -> None:
        expected = [ours(cam, mask) for cam, mask in zip(maps, masks, strict=True)]
        assert len(set(expected)) > 1
        # AttributionLocalisation adds 1e-9 to the mass that it divides by.
        assert by_quantus(theirs, maps, masks) == pytest.approx(expected, rel=1e-8)

    def test_top_k_intersection_with_k_of_the_region_is_rank_accuracy(self, maps: Floats, masks: Floats) -> None:
        for cam, mask in zip(maps, masks, strict=True):
            found = by_quantus("TopKIntersection", cam[None], mask[None], k=int(mask.sum()))
            assert found == pytest.approx([rank_accuracy(cam, mask)])

    def test_similarities(self, maps: Floats) -> None:
        theirs = quantus.functions.similarity_func
        for a, b in zip(maps[:8], maps[8:], strict=True):
            assert pearson(a, b) == pytest.approx(theirs.correlation_pearson(a.ravel(), b.ravel()))
            # What they call cosine is the distance.
            assert cosine(a, b) == pytest.approx(1 - theirs.cosine(a.ravel(), b.ravel()))


class TestWhereQuantusIsWrong:
    """Two images each, of which the second is an ordinary one: a batch of nothing but zeros it refuses."""

    CAM = box(*SIZE, 2, 2, 5, 4) + 0.5 * box(*SIZE, 3, 3, 7, 7)
    REGION = box(*SIZE, 2, 2, 6, 6)

    def first(self, metric: str, cam: Floats, mask: Floats, **keywords: Any) -> float:
        return by_quantus(metric, np.stack([cam, self.CAM]), np.stack([mask, self.REGION]), **keywords)[0]

    def test_an_empty_region_is_a_hit(self) -> None:
        """It writes NaN into an array of booleans, where NaN is true."""
        empty = np.zeros(SIZE)
        assert self.first("PointingGame", self.CAM, empty) == 1.0
        for name in METRICS:
            with pytest.raises(ValueError, match=r"the region's mask is zero everywhere|the map has no mass"):
                METRICS[name].measure(self.CAM, empty, (4, 4))

    @pytest.mark.parametrize(
        ("metric", "value"),
        [("PointingGame", 1.0), ("AttributionLocalisation", 0.0), ("RelevanceMassAccuracy", math.nan)],
    )
    def test_a_map_of_zeros_is_a_hit_a_miss_or_nan(self, metric: str, value: float) -> None:
        assert self.first(metric, np.zeros(SIZE), self.REGION) == pytest.approx(value, nan_ok=True)
        for measure in (pointing_game, energy, rank_accuracy):
            with pytest.raises(ValueError, match="the map has no mass"):
                measure(np.zeros(SIZE), self.REGION)

    def test_one_tied_maximum_of_many_is_enough(self) -> None:
        """A uniform map wins the game for any region whatever."""
        corner = box(*SIZE, 0, 0, 1, 1)
        uniform = np.full(SIZE, 0.5)
        assert self.first("PointingGame", uniform, corner) == 1.0
        assert pointing_game(uniform, corner) == 0.0

    def test_ties_are_ranked_by_position(self) -> None:
        """Of a uniform map, any order is as good as any: its regions should all have chance, 8 of 72 pixels."""
        uniform = np.full(SIZE, 0.5)
        first, last = box(*SIZE, 0, 0, 8, 1), box(*SIZE, 1, 7, 9, 8)
        theirs = [self.first("RelevanceRankAccuracy", uniform, mask) for mask in (first, last)]
        assert theirs[0] != theirs[1]
        assert [rank_accuracy(uniform, mask) for mask in (first, last)] == pytest.approx([8 / 72, 8 / 72])

    def test_energy_of_a_signed_map_leaves_its_range(self) -> None:
        """As a share of 1 that lies in the region, and less than nothing outside."""
        signed = self.CAM - 0.2 * (self.CAM == 0)
        assert self.first("RelevanceMassAccuracy", signed, self.REGION) > 1
        with pytest.raises(ValueError, match="shares of a signed map mean nothing"):
            energy(signed, self.REGION)

    def test_weighted_localisation_depends_on_the_images_beside(self) -> None:
        """It multiplies where it should divide, and by a size of all images but two: alone, the value is infinite."""
        alone = by_quantus("AttributionLocalisation", self.CAM[None], self.REGION[None], weighted=True)
        three, six = (
            by_quantus("AttributionLocalisation", np.stack([self.CAM] * n), np.stack([self.REGION] * n), weighted=True)
            for n in (3, 6)
        )
        assert alone == [math.inf]
        assert three[0] == pytest.approx(4 * six[0])
        assert lift(self.CAM, self.REGION) == pytest.approx(energy(self.CAM, self.REGION) / (16 / 72))

    def test_the_weighted_pointing_game_cannot_be_played(self) -> None:
        """A share is written into an array of booleans, and of the wrong shape."""
        with pytest.raises(TypeError, match="boolean array indexing"):
            self.first("PointingGame", self.CAM, self.REGION, weighted=True)
