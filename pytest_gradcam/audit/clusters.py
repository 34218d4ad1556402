"""Ways of looking that the maps of a class fall into: spectral clusters of its CAMs, as SpRAy finds unknown shortcuts.

S. Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn", Nature Communications
10 (2019) 1096: maps are joined to their nearest neighbours, and the eigenvalues of the graph's Laplacian tell into how
many parts it falls. Maps that gather in a corner, whatever the object does, come out as a part of their own.

A gap between eigenvalues can always be found, so it must be wide before anything is said. Where maps vary without
falling apart, as an object that may be anywhere makes them, eigenvalues grow as the squares 1, 4, 9 … of whole numbers
along one direction of change, and more slowly along several (Weyl's law): none is more than 4 times the one before.
From `GAP` times on, maps are said to fall into clusters; below, they are one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, laplacian
from scipy.sparse.linalg import eigsh

from pytest_gradcam.audit.judging import Columns, Rule, passing
from pytest_gradcam.audit.results import in_batches, numbers, read
from pytest_gradcam.metrics.maps import area_average
from pytest_gradcam.metrics.movement import PARTS

Maps: TypeAlias = npt.NDArray[np.float32]
Places: TypeAlias = npt.NDArray[np.int64]

GAP: Final = 6.0  # between eigenvalues; see above
LEAST: Final = 100  # maps of a class: in fewer, gaps come by chance
MOST_MAPS: Final = 2000  # of a class; of more, a sample
MOST_CLASSES: Final = 50
MOST_CLUSTERS: Final = 8
FINEST: Final = 16  # cells of a map's longer side: larger ones are made coarser, so that memory is bounded
EXAMPLES: Final = 4
_SMALLEST: Final = (5, 0.02)  # a cluster has that many maps, and that share of them
_ROUNDING: Final = 1e-6  # eigenvalues below are those of pieces that nothing joins


@dataclass(frozen=True, slots=True)
class Example:
    """A map that is near the mean of its cluster.

    Attributes:
        row: its place among the rows.
        value: of the metric.
    """

    row: int
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Maps of a class that look alike.

    Attributes:
        maps: how many.
        share: of the maps of the class that were looked at.
        passed: how many of them pass.
        value: mean of the metric.
        mean: float32 (h, w), their mean, each map with a sum of 1.
        place: where the mass of the mean map is, in words.
        examples: nearest to the mean.
    """

    maps: int
    share: float
    passed: int
    value: float
    mean: Maps
    place: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ClassClusters:
    """What the maps of a class fall into.

    Attributes:
        cls: the class, for a person.
        measured: how many maps it has.
        maps: how many were looked at.
        grid: (h, w) of these; maps on other grids were not.
        other_grids: how many maps are on others.
        apart: how many of those looked at are like too few others to be a cluster.
        gap: how many times an eigenvalue is the one before, at the widest; what is below `GAP` is no finding.
        clusters: the one with the least share of passes first; one alone where nothing was found.
    """

    cls: str
    measured: int
    maps: int
    grid: tuple[int, int]
    other_grids: int
    apart: int
    gap: float
    clusters: tuple[Cluster, ...]

    @property
    def found(self) -> bool:
        """Whether the maps fall into clusters."""
        return len(self.clusters) > 1


def clusters_of(path: Path, columns: Columns, rule: Rule) -> tuple[ClassClusters, ...]:
    """The clusters of each class that has 100 maps or more; of more than 50 such classes, those that pass least often.

    Of a class with more than 2,000 maps, so many are looked at, spread evenly over the data set.

    Args:
        path: of the results.
        columns: the same rows.
        rule: what passes.

    Raises:
        AuditError: the results cannot be read.
    """
    passes = passing(columns, rule)
    chosen = [*_chosen(path, columns, passes)]
    found = []
    for (cls, rows, grid, measured, other), maps in zip(chosen, _maps(path, chosen), strict=True):
        labels, gap = cluster(maps)
        groups = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
        clusters = [_cluster(maps, grid, members, columns.value[rows], passes[rows], rows) for members in groups]
        clusters.sort(key=lambda each: (each.passed / each.maps, -each.maps))
        apart = int((labels < 0).sum())
        found.append(ClassClusters(cls, measured, len(rows), grid, other, apart, gap, tuple(clusters)))
    return tuple(found)


def cluster(maps: Maps) -> tuple[npt.NDArray[np.int64], float]:
    """Into which clusters maps fall, and how wide the gap is that says so.

    Args:
        maps: (n, cells), not negative, each with some mass; n at least 100.

    Returns:
        (n,) numbers of clusters from 0, all 0 where nothing was found, -1 of maps that are in none: pieces and clusters
        that are too small, by number or share, are none, and where one alone is left nothing was found; and how many
        times an eigenvalue of the normalised Laplacian is the one before, at its widest.
    """
    from sklearn.cluster import SpectralClustering  # slow to import, as is all of scikit-learn

    labels = np.full(len(maps), -1, np.int64)
    graph = _graph(maps)
    smallest = max(_SMALLEST[0], math.ceil(_SMALLEST[1] * len(maps)))
    _, pieces = connected_components(graph, directed=False)
    kept = np.flatnonzero(np.bincount(pieces)[pieces] >= smallest)
    if kept.size < LEAST // 2:  # near copies in many small heaps: no structure of the class
        labels[:] = 0
        return labels, 1.0
    graph = graph[kept][:, kept]
    count, gap = _count(graph)
    if count == 1:
        labels[:] = 0  # then nothing is apart either
        return labels, gap
    how = SpectralClustering(count, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")  # so it falls apart the more clearly
        found = how.fit_predict(graph)
    enough = np.bincount(found)[found] >= smallest
    if np.unique(found[enough]).size < 2:  # one cluster and what is left of it are no ways of looking
        labels[:] = 0
        return labels, gap
    _, labels[kept[enough]] = np.unique(found[enough], return_inverse=True)
    return labels, gap


def place_of(mean: Maps) -> str:
    """Where the mass of a map is, in words: `62% of it in the bottom left`.

    Args:
        mean: (h, w), not negative, with some mass.
    """
    shares = area_average(mean / mean.sum(), (3, 3)).ravel() * (mean.size / 9.0)
    most = int(shares.argmax())
    return f"{shares[most]:.0%} of it in the {PARTS[most]}"


def _chosen(
    path: Path, columns: Columns, passes: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, Places, tuple[int, int], int, int]]:
    """Class, rows, grid, how many maps there are, and how many on other grids."""
    sizes = read(path, ["grid_height", "grid_width"])
    heights, widths = (np.nan_to_num(numbers(sizes[name])).astype(np.int64) for name in ("grid_height", "grid_width"))
    usable = (columns.status == "measured") & np.isfinite(columns.value) & (columns.cls.codes >= 0) & (heights > 0)
    names = columns.cls.texts
    which = np.where(usable, columns.cls.codes, -1)
    order = np.argsort(which, kind="stable")
    counts = np.bincount(which[usable], minlength=len(names))
    passed = np.bincount(which[usable], passes[usable], len(names))
    starts = np.concatenate([[0], np.cumsum(counts)]) + int((~usable).sum())
    enough = [number for number in range(len(names)) if counts[number] >= LEAST]
    enough.sort(key=lambda number: (passed[number] / counts[number], -counts[number]))
    for number in enough[:MOST_CLASSES]:
        rows = order[starts[number] : starts[number + 1]]
        grids, grid_of, how_many = np.unique(
            np.stack([heights[rows], widths[rows]]), axis=1, return_inverse=True, return_counts=True
        )
        commonest = int(how_many.argmax())
        alike = rows[grid_of.ravel() == commonest]
        if alike.size < LEAST:
            continue
        some = alike[np.arange(min(alike.size, MOST_MAPS)) * alike.size // min(alike.size, MOST_MAPS)]
        height, width = grids[:, commonest].tolist()
        yield names[number], some, (height, width), rows.size, rows.size - alike.size


def _maps(path: Path, chosen: list[tuple[str, Places, tuple[int, int], int, int]]) -> list[Maps]:
    """The maps of each class, (n, cells), with a sum of 1 each."""
    coarse = [_coarser(grid) for _, _, grid, _, _ in chosen]
    found = [
        np.empty((len(rows), h * w), np.float32) for (_, rows, _, _, _), (h, w) in zip(chosen, coarse, strict=True)
    ]
    if not chosen:
        return found
    wanted = np.concatenate([rows for _, rows, _, _, _ in chosen])
    owners = np.concatenate([np.full(len(rows), number) for number, (_, rows, _, _, _) in enumerate(chosen)])
    within = np.concatenate([np.arange(len(rows)) for _, rows, _, _, _ in chosen])
    order = np.argsort(wanted, kind="stable")
    at = start = 0
    for batch in in_batches(path, ["raw"]):
        end = start + batch.num_rows
        while at < len(order) and wanted[order[at]] < end:
            place = order[at]
            owner = int(owners[place])
            raw = np.asarray(batch.column(0)[int(wanted[place]) - start].values, np.float32)
            cells = np.maximum(raw, 0.0).reshape(chosen[owner][2])
            if coarse[owner] != chosen[owner][2]:
                cells = area_average(cells, coarse[owner]).astype(np.float32)
            found[owner][within[place]] = (cells / cells.sum()).ravel()
            at += 1
        start = end
    return found


def _coarser(grid: tuple[int, int]) -> tuple[int, int]:
    longer = max(grid)
    return grid if longer <= FINEST else (max(1, grid[0] * FINEST // longer), max(1, grid[1] * FINEST // longer))


def _graph(maps: Maps) -> csr_matrix:
    """Each map joined to its nearest neighbours, by the angle between them; (n, n), symmetric, 0 and 1."""
    from sklearn.neighbors import kneighbors_graph

    neighbours = min(len(maps) - 1, max(7, math.ceil(1.5 * math.log(len(maps)))))
    nearest = kneighbors_graph(maps / np.linalg.norm(maps, axis=1, keepdims=True), neighbours)
    return csr_matrix(nearest.maximum(nearest.T))


def _count(graph: csr_matrix) -> tuple[int, float]:
    """How many clusters, and the gap: the widest between the second eigenvalue and the ninth."""
    matrix = laplacian(graph.tocsc(), normed=True).tocsc()
    start = np.random.default_rng(0).uniform(0.5, 1.5, graph.shape[0])  # the same in every run
    values = eigsh(matrix, k=MOST_CLUSTERS + 1, sigma=-1e-3, which="LM", v0=start, return_eigenvectors=False)
    values = np.maximum(np.sort(values), _ROUNDING)
    gaps = values[2:] / values[1:-1]
    widest = int(gaps.argmax())
    gap = float(gaps[widest])
    return (widest + 2 if gap >= GAP else 1), gap


def _cluster(
    maps: Maps,
    grid: tuple[int, int],
    members: Places,
    values: npt.NDArray[np.float64],
    passes: npt.NDArray[np.bool_],
    rows: Places,
) -> Cluster:
    mean = maps[members].mean(axis=0)
    nearest = members[np.argsort(np.linalg.norm(maps[members] - mean, axis=1), kind="stable")[:EXAMPLES]]
    shaped = mean.reshape(_coarser(grid))
    return Cluster(
        maps=len(members),
        share=len(members) / len(maps),
        passed=int(passes[members].sum()),
        value=float(values[members].mean()),
        mean=shaped,
        place=place_of(shaped),
        examples=tuple(Example(int(rows[each]), float(values[each])) for each in nearest),
    )
