"""What the verdicts that were kept say of a plant: passed, failed or inconclusive, by the package or at a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.power.plants import DIFFER, EVERY_BLOCK, IGNORES, IN, OUT, PLANTS, RETRAINED

Row: TypeAlias = dict[str, Any]
Values: TypeAlias = npt.NDArray[np.float64]

RELIANT = 0.5  # a shortcut counts where a swap of its cue flips at least this share of the predictions
AT_MOST = (OUT, IGNORES, DIFFER, EVERY_BLOCK[OUT])  # low values pass
MISSING = -np.inf  # of a picture without evidence: worse than any other
UNCOUNTED = "patch-0.6"  # hardly any model relies on it: it is for the plot
BY_NAME = {plant.name: plant for plant in PLANTS}


def is_fit(row: Row) -> bool:
    """Whether the model is one that thresholds are fitted on."""
    return bool(row["seed"] % 2 == 0)


def is_honest(row: Row) -> bool:
    """Whether nothing is wrong with it."""
    return BY_NAME[row["plant"]].is_honest


def is_planted(row: Row) -> bool:
    """Whether what is wrong with it was seen to be wrong: for shortcuts, causally."""
    plant = BY_NAME[row["plant"]]
    if plant.make is not None or plant.is_honest:
        return True
    return bool(row[f"flipped by {row['plant'].partition('-')[0]}"] >= RELIANT)


def kept(row: Row, name: str, cue: str | None = None) -> list[dict[str, Any]]:
    """What one assertion said of one model; of an honest one of all cues, or of one."""
    return [
        measure
        for key, measure in row["measures"].items()
        if key.partition(":")[0] == name and (cue is None or ":" not in key or key.endswith(f": {cue}"))
    ]


def singles(rows: Iterable[Row], name: str, cue: str | None = None) -> Values:
    """Values of single pictures, the higher the healthier."""
    sign = -1.0 if name in AT_MOST else 1.0
    found = [one for row in rows for measure in kept(row, name, cue) for one in measure["values"]]
    return np.array([MISSING if one is None else sign * one for one in found])


def bounds(row: Row, name: str) -> list[tuple[float, float]]:
    """Lower and upper bound of each suite, the higher the healthier."""
    found = []
    for measure in kept(row, name):
        for low, high in zip(measure["low"], measure["high"], strict=True):
            if low is None:
                found.append((MISSING, MISSING))
            else:
                found.append((-high, -low) if name in AT_MOST else (low, high))
    return found


def outcomes(row: Row, name: str, threshold: float | None = None) -> str:
    """A letter for each suite: `p`, `f` or `i`.

    Args:
        row: a model.
        name: the assertion.
        threshold: as the assertion would be given it; None for what its verdicts said.
    """
    if threshold is None:
        return "".join(measure["outcomes"] for measure in kept(row, name))
    wanted = -threshold if name in AT_MOST else threshold
    return "".join("p" if low >= wanted else "f" if high < wanted else "i" for low, high in bounds(row, name))


def is_meant(row: Row, name: str) -> bool:
    """Whether the assertion is to find what is wrong with the model, and the plant took."""
    plant = BY_NAME[row["plant"]]
    read_otherwise = [EVERY_BLOCK[each] for each in plant.meant if each in EVERY_BLOCK]
    shortcut = name == RETRAINED and plant.make is None
    meant = (name in (*plant.meant, *read_otherwise) or shortcut) and bool(kept(row, name))
    return meant and not is_honest(row) and is_planted(row) and row["plant"] != UNCOUNTED


def balanced(rows: Sequence[Row], name: str, threshold: float | None = None) -> float:
    """Mean of the share of honest suites passed and of planted suites not passed."""
    honest = "".join(outcomes(row, name, threshold) for row in rows if is_honest(row) and kept(row, name))
    wrong = "".join(outcomes(row, name, threshold) for row in rows if is_meant(row, name))
    if not honest or not wrong:
        return float("nan")
    return (honest.count("p") / len(honest) + 1.0 - wrong.count("p") / len(wrong)) / 2.0


def fitted(rows: Sequence[Row], name: str) -> float:
    """The threshold with the best balanced accuracy on these rows, in the middle of the gap that it lies in."""
    honest = [low for row in rows if is_honest(row) and kept(row, name) for low, _ in bounds(row, name)]
    wrong = [low for row in rows if is_meant(row, name) for low, _ in bounds(row, name)]
    values = np.unique([each for each in (*honest, *wrong) if np.isfinite(each)])
    edges = np.concatenate([values[:1] - 0.1, (values[1:] + values[:-1]) / 2])
    right = np.array([np.mean(np.array(honest) >= edge) + np.mean(np.array(wrong) < edge) for edge in edges])
    best = np.flatnonzero(right >= right.max() - 1e-12)
    widest = max(best, key=lambda i: values[i] - values[i - 1] if i else 0.0)
    edge = round(float(edges[widest]), 3)
    return -edge if name in AT_MOST else edge


def interval(hits: int, count: int) -> tuple[float, float]:
    """The two-sided 95% interval of Clopper and Pearson."""
    low = stats.beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def exact(hits: int, count: int) -> str:
    """`k/n (low–high)`."""
    if count == 0:
        return "–"
    low, high = interval(hits, count)
    return f"{hits}/{count} ({low:.2f}–{high:.2f})"


def auroc(healthy: Values, wrong: Values) -> float:
    """How often a healthy picture is above a planted one, ties counted half."""
    if not len(healthy) or not len(wrong):
        return float("nan")
    return float(stats.mannwhitneyu(healthy, wrong).statistic) / (len(healthy) * len(wrong))


def auroc_of(rows: Sequence[Row], honest: Sequence[Row], name: str) -> float:
    """Single pictures of planted models against those of honest ones, under one assertion."""
    against = [row for row in honest if row["plant"] == "clean"] if name in (IN, EVERY_BLOCK[IN]) else honest
    cue = BY_NAME[rows[0]["plant"]].cue if rows else None
    return auroc(singles(against, name, cue), singles(rows, name))
