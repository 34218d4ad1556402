"""Clusters of maps: planted ones are found with their members, and none is invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pytest_gradcam.audit import clusters as module
from pytest_gradcam.audit.clusters import ClassClusters, cluster, place_of
from pytest_gradcam.audit.rows import Row
from tests.audit.made import audited, blobs, reported, row

CORNER = (0.06, 0.94)


def planted(rng: np.random.Generator, count: int, share: float) -> npt.NDArray[np.float32]:
    """Maps of objects that are anywhere, and as the last of them a share that gathers in a corner."""
    some = int(share * count)
    honest = blobs(rng, count - some, None, (0.1, 0.25), 0.1)
    return np.vstack([honest, blobs(rng, some, CORNER, (0.08, 0.1), 0.1)])


def rows_of(maps: npt.NDArray[np.float32], corner: int, start: int = 0, cls: int = 0) -> list[Row]:
    """Rows with these maps; those in the corner, the last ones, fail."""
    return [
        row(start + i, -0.1 if i >= len(maps) - corner else 0.6, cls=cls, grid=(8, 8), raw=each.tolist())
        for i, each in enumerate(maps)
    ]


def found_in(tmp_path: Path, rows: list[Row]) -> tuple[ClassClusters, ...]:
    return reported(audited(tmp_path / "audit", rows)).clusters


class TestPlanted:
    @pytest.mark.parametrize("seed", range(5))
    def test_found_with_its_members(self, seed: int) -> None:
        maps = planted(np.random.default_rng(seed), 300, 0.15)
        labels, gap = cluster(maps)
        own = labels[-1]
        assert gap >= module.GAP and own >= 0
        inside = labels == own
        assert inside[-45:].mean() >= 0.95 and inside[-45:].sum() / inside.sum() >= 0.95

    def test_the_same_every_time(self) -> None:
        maps = planted(np.random.default_rng(0), 300, 0.15)
        first, second = cluster(maps), cluster(maps)
        assert (first[0] == second[0]).all() and first[1] == second[1]

    def test_what_is_told_of_it(self, tmp_path: Path) -> None:
        maps = planted(np.random.default_rng(0), 300, 0.15)
        (found,) = found_in(tmp_path, rows_of(maps, 45))
        worst, *others = found.clusters
        assert found.found and (found.cls, found.measured, found.maps, found.grid) == ("class-0", 300, 300, (8, 8))
        assert (worst.maps, worst.passed) == (45, 0) and worst.value == pytest.approx(-0.1)
        assert worst.share == pytest.approx(0.15) and "bottom left" in worst.place
        assert sum(each.maps for each in others) == 255 and all(each.passed == each.maps for each in others)
        assert {example.row >= 255 for example in worst.examples} == {True} and len(worst.examples) == 4
        normed = maps[255:] / maps[255:].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(worst.mean.ravel(), normed.mean(axis=0), atol=1e-6)
        nearest = np.argsort(np.linalg.norm(normed - normed.mean(axis=0), axis=1))[:4] + 255
        assert [example.row for example in worst.examples] == nearest.tolist()

    def test_each_class_by_itself(self, tmp_path: Path) -> None:
        """Rows of the classes alternate, and neither sees the other's maps; the class with fewer passes comes first."""
        rng = np.random.default_rng(2)
        honest, bad = blobs(rng, 150, None, (0.1, 0.25), 0.1), planted(rng, 150, 0.2)
        mixed = [each for pair in zip(honest, bad, strict=True) for each in pair]
        rows = [
            row(i, -0.1 if i % 2 and i >= 240 else 0.6, cls=i % 2, grid=(8, 8), raw=each.tolist())
            for i, each in enumerate(mixed)
        ]
        first, second = found_in(tmp_path, rows)
        assert (first.cls, second.cls) == ("class-1", "class-0")
        assert first.found and not second.found and first.clusters[0].maps == 30
        np.testing.assert_allclose(
            second.clusters[0].mean.ravel(), (honest / honest.sum(axis=1, keepdims=True)).mean(axis=0), atol=1e-6
        )


class TestNothing:
    @pytest.mark.parametrize("kind", ["anywhere", "along a line", "one place", "noise", "uneven"])
    def test_is_invented(self, kind: str) -> None:
        rng = np.random.default_rng(7)
        for _ in range(5):
            if kind == "noise":
                maps = rng.dirichlet(np.ones(64), 200).astype(np.float32)
            elif kind in ("along a line", "uneven"):
                places = [
                    (x, 0.5) if kind == "along a line" else tuple(rng.beta(2, 4, 2)) for x in rng.uniform(0.1, 0.9, 200)
                ]
                maps = np.vstack([blobs(rng, 1, (float(x), float(y)), (0.12, 0.14), 0.3) for x, y in places])
            else:
                maps = blobs(rng, 200, None if kind == "anywhere" else (0.5, 0.5), (0.1, 0.25), 0.3)
            labels, gap = cluster(maps)
            assert (labels == 0).all() and gap < module.GAP

    @pytest.mark.parametrize(("sizes", "wanted"), [((90, 57, 3), (3, 90, 57)), ((147, 3), (0, 150))])
    def test_a_few_maps_are_no_cluster(
        self, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], wanted: tuple[int, ...]
    ) -> None:
        """Three maps that the graph's cut leaves over are apart; where only one cluster is left, nothing was found."""
        cut = np.repeat(np.arange(len(sizes)), sizes)
        monkeypatch.setattr(module, "_count", lambda graph: (len(sizes), 10.0))
        monkeypatch.setattr("sklearn.cluster.SpectralClustering.fit_predict", lambda self, graph: cut)
        labels, gap = cluster(blobs(np.random.default_rng(0), 150, None, (0.1, 0.25), 0.1))
        assert tuple(np.bincount(labels + 1, minlength=len(wanted))) == wanted and gap == 10.0

    def test_equal_maps_are_one(self) -> None:
        labels, _ = cluster(np.ones((150, 16), np.float32))
        assert (labels == 0).all()


class TestBounds:
    def test_too_few_maps_are_not_looked_at(self, tmp_path: Path) -> None:
        assert found_in(tmp_path, [row(i) for i in range(module.LEAST - 1)]) == ()

    def test_a_sample_spread_evenly(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every third of 300 maps: the mean is of those alone."""
        monkeypatch.setattr(module, "MOST_MAPS", 100)
        maps = blobs(np.random.default_rng(2), 300, None, (0.1, 0.25), 0.1)
        (found,) = found_in(tmp_path, rows_of(maps, 0))
        assert (found.maps, found.measured) == (100, 300)
        normed = maps / maps.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.clusters[0].mean.ravel(), normed[::3].mean(axis=0), atol=1e-6)

    def test_the_commonest_grid_alone(self, tmp_path: Path) -> None:
        rows = [row(i, grid=(4, 4) if i < 120 else (2, 8)) for i in range(160)]
        (found,) = found_in(tmp_path, rows)
        assert (found.grid, found.maps, found.other_grids, found.measured) == ((4, 4), 120, 40, 160)

    def test_fine_grids_are_made_coarser(self, tmp_path: Path) -> None:
        raw = np.zeros((32, 20))
        raw[:2, :2] = 1.0
        rows = [row(i, grid=(32, 20), raw=raw.ravel().tolist()) for i in range(100)]
        (found,) = found_in(tmp_path, rows)
        (only,) = found.clusters
        assert only.mean.shape == (16, 10) and only.mean[0, 0] == pytest.approx(1.0) and found.grid == (32, 20)

    def test_what_was_not_measured_is_left_out(self, tmp_path: Path) -> None:
        rows = [row(i) if i < 110 else row(i, None, status="no evidence") for i in range(130)]
        (found,) = found_in(tmp_path, rows)
        assert found.measured == 110

    def test_negative_values_have_no_mass(self, tmp_path: Path) -> None:
        raw = np.full(16, -5.0)
        raw[3] = 2.0
        (found,) = found_in(tmp_path, [row(i, raw=raw.tolist()) for i in range(100)])
        assert found.clusters[0].mean.ravel().tolist() == [0, 0, 0, 1] + [0] * 12


def test_place_in_words() -> None:
    mean = np.zeros((6, 6), np.float32)
    mean[:2, 4:] = 0.6 / 4
    mean[2:4, 2:4] = 0.4 / 4
    assert place_of(mean) == "60% of it in the top right"
