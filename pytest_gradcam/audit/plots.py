"""The numbers of a report's plots: how the metric lies by class, and against confidence and size. Columns in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from pytest_gradcam.audit.judging import Columns, Rule, passing
from pytest_gradcam.audit.results import numbers, read
from pytest_gradcam.metrics import METRICS

Values = npt.NDArray[np.float64]

MOST_CLASSES: Final = 30
MOST_POINTS: Final = 2000
BINS: Final = 8
SHARES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the metric lies in a class.

    Attributes:
        cls: the class.
        rows: how many values.
        quantiles: of the values, at `SHARES`.
    """

    cls: str
    rows: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose other number is in a range.

    Attributes:
        low: where it begins.
        high: where it ends.
        rows: how many.
        mean: of the metric.
        passed: how many pass.
    """

    low: float
    high: float
    rows: int
    mean: float
    passed: int


@dataclass(frozen=True, slots=True)
class Scatter:
    """The metric against another number.

    Attributes:
        points: (other number, value, whether it passes), at most 2,000, spread evenly over the data set.
        rows: of how many.
        bins: the same rows, about as many in each.
        correlation: Spearman's; None where one of both does not vary.
    """

    points: tuple[tuple[float, float, bool], ...]
    rows: int
    bins: tuple[Bin, ...]
    correlation: float | None


def distributions(columns: Columns, rule: Rule) -> tuple[tuple[Distribution, ...], int]:
    """The classes with the worst medians, at most 30, the worst first; and how many classes there are."""
    usable = (columns.status == "measured") & np.isfinite(columns.value) & (columns.cls.codes >= 0)
    classes, which = np.unique(columns.cls.codes[usable], return_inverse=True)
    values = columns.value[usable]
    order = np.argsort(which, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(which, minlength=len(classes)))[:-1])
    found = [
        Distribution(columns.cls.texts[cls], part.size, tuple(np.quantile(part, SHARES).tolist()))
        for cls, part in zip(classes.tolist(), parts, strict=bool(classes.size))
    ]
    sign = 1 if METRICS[rule.metric].higher_is_inside else -1
    found.sort(key=lambda each: sign * each.quantiles[2])
    return tuple(found[:MOST_CLASSES]), len(found)


def against(path: Path, columns: Columns, rule: Rule) -> dict[str, Scatter]:
    """The metric against `confidence`, the probability of the class that was asked for, and `size`, the region's share.

    Raises:
        AuditError: the results cannot be read.
    """
    passes = passing(columns, rule)
    probability = numbers(read(path, ["probability"])["probability"])
    return {
        name: _scatter(other, columns, passes)
        for name, other in (("confidence", probability), ("size", columns.chance))
    }


def _scatter(other: Values, columns: Columns, passes: npt.NDArray[np.bool_]) -> Scatter:
    usable = (columns.status == "measured") & np.isfinite(columns.value) & np.isfinite(other)
    x, y, passed = other[usable], columns.value[usable], passes[usable]
    some = np.arange(min(x.size, MOST_POINTS)) * x.size // max(1, min(x.size, MOST_POINTS))
    points = tuple(zip(x[some].tolist(), y[some].tolist(), passed[some].tolist(), strict=True))
    return Scatter(points, x.size, _bins(x, y, passed), _spearman(x, y))


def _bins(x: Values, y: Values, passed: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    if x.size == 0:
        return ()
    edges = np.unique(np.quantile(x, np.linspace(0, 1, min(BINS, x.size) + 1)))
    which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(0, len(edges) - 2))
    found = []
    for number in np.unique(which).tolist():
        inside = which == number
        high = edges[min(number + 1, len(edges) - 1)]
        found.append(
            Bin(
                float(edges[number]), float(high), int(inside.sum()), float(y[inside].mean()), int(passed[inside].sum())
            )
        )
    return tuple(found)


def _spearman(x: Values, y: Values) -> float | None:
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
