"""Audits that never were: folders with rows as an audit writes them, and what a page is told, made up by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_gradcam.audit.judging import Rule, judge
from pytest_gradcam.audit.report import AuditReport
from pytest_gradcam.audit.results import columns_of
from pytest_gradcam.audit.rows import Row, table
from pytest_gradcam.audit.store import Folder
from pytest_gradcam.audit.worst import Look
from pytest_gradcam.audit.writing import report_of, told_of

METRIC = "calibrated_energy"


def row(index: int, value: float | None = 0.5, cls: int = 0, **more: Any) -> Row:
    """A row that was measured, or one of another status."""
    grid = more.pop("grid", (4, 4))
    rng = np.random.default_rng(index)
    raw = more.pop("raw", None)
    made = Row(
        index=index,
        place=0,
        image=f"{index:04}.png",
        status="measured",
        cls=cls,
        label=f"class-{cls}",
        predicted=cls,
        predicted_label=f"class-{cls}",
        predicted_probability=0.9,
        probability=0.5 + index % 50 / 100,
        chance=0.1 + index % 7 / 50,
        filled=0.8,
        size=(32, 32),
        grid=grid,
        raw=rng.uniform(0.1, 1, grid).ravel().tolist() if raw is None else raw,
        values={} if value is None else {METRIC: value},
    )
    return replace(made, **more)


def audited(path: Path, rows: Sequence[Row], metrics: Sequence[str] = (METRIC,), **asked: Any) -> Path:
    """The folder of an audit with these rows."""
    folder = Folder(path)
    with folder.taken():
        folder.begin({"data set": "made", "method": "auto", **asked})
        parts: dict[int, range] = {}
        for _, run in groupby(enumerate(sorted({each.index for each in rows})), lambda pair: pair[1] - pair[0]):
            indices = [index for _, index in run]
            parts[len(parts)] = range(indices[0], indices[-1] + 1)
        ordered = sorted(rows, key=lambda each: (each.index, each.place))
        for number, images in parts.items():
            folder.keep(number, table([each for each in ordered if each.index in images], metrics))
        folder.finish(parts, metrics)
        folder.tell({"versions": {"torch": "2"}, "device": "cpu", "remarks": []})
    return path


def reported(
    path: Path,
    baseline: Path | AuditReport | None = None,
    slices: Sequence[str] = (),
    rule: Rule | None = None,
    look: Look | None = None,
) -> AuditReport:
    """The report of such a folder."""
    rule = rule or Rule()
    columns = columns_of(path / "results.parquet", rule.metric, slices)
    return report_of(path, judge(columns, rule, slices), baseline, look)


def told(report: AuditReport, look: Look | None = None) -> dict[str, Any]:
    """What the page of it is told."""
    slices = [group.slice for group in report.slices]
    return told_of(report, columns_of(report.folder / "results.parquet", report.judged.rule.metric, slices), look)


def blobs(
    rng: np.random.Generator, count: int, centre: tuple[float, float] | None, width: tuple[float, float], noise: float
) -> npt.NDArray[np.float32]:
    """Maps (count, 64) with one warm place each, on a grid of 8 by 8: anywhere, or about a centre (x, y)."""
    y, x = (np.mgrid[:8, :8] + 0.5) / 8
    found = []
    for _ in range(count):
        at = rng.uniform(0.15, 0.85, 2) if centre is None else np.array(centre) + rng.normal(0, 0.03, 2)
        spread = rng.uniform(*width)
        map_ = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 2 / spread**2) * rng.uniform(0.5, 2)
        found.append(np.maximum(map_ + noise * rng.normal(0, 0.3, (8, 8)), 1e-9).ravel())
    return np.asarray(found, np.float32)


def mixed(values: Iterable[float], about: Mapping[str, str] | None = None, start: int = 0) -> list[Row]:
    """Rows with these values, of one class."""
    return [row(start + i, value, about=about or {}) for i, value in enumerate(values)]
