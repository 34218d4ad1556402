"""What `gradcam audit` does: loads the model and the data set, audits, tells what was found."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pytest_gradcam.errors import GradcamError, SettingsError
from pytest_gradcam.report.lines import tell

CODES: Final[Mapping[str, int]] = {"passed": 0, "failed": 1, "inconclusive": 3}
WRONG: Final = 2
LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line; names as there, and as `audit` has them."""

    model: str
    checkpoint: str | None
    transform: str | None
    data: str
    images: Path | None
    labels: Path | None
    metric: list[str] | None
    threshold: float | None
    pass_rate: float
    confidence: float
    slice: list[str]
    bad: Any
    method: str
    layer: str | None
    device: str
    batch_size: int
    workers: int | None
    baseline: Path | None
    engine: str
    address: str | None
    actors: int | None
    out: Path


def run(wanted: Wanted) -> int:
    """Audit, and print what was found.

    Returns:
        0 where it passed, 1 where it failed, 3 where it cannot tell, 2 where something was wrong with what was given.
    """
    try:
        report = _audited(wanted)
    except GradcamError as error:
        for line in str(error).splitlines():
            tell(f"gradcam audit: {line}", sys.stderr)
        return WRONG
    except OSError as error:
        tell(f"gradcam audit: the results cannot be written: {error}", sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        tell(f"gradcam audit: stopped; what is done is in {wanted.out}, and the same command goes on", sys.stderr)
        return 130
    for line in _lines(report):
        tell(line, sys.stdout)
    return CODES[report.outcome]


def _audited(wanted: Wanted) -> Any:
    if missing := [name for name in ("pyarrow", "sklearn") if find_spec(name) is None]:
        raise SettingsError(
            f'an audit needs {" and ".join(missing)}: pip install "pytest-gradcam[audit]", or [ray] for many machines'
        )
    from pytest_gradcam.audit.run import audit  # needs what was looked for
    from pytest_gradcam.loading import load_model, load_object

    transform = None if wanted.transform is None else load_object(wanted.transform)
    labels = None if wanted.labels is None else _labels(wanted.labels)
    cluster = {"address": wanted.address, "actors": wanted.actors}
    return audit(
        load_model(wanted.model, wanted.checkpoint),
        _data(wanted.data, load_object),
        metrics=wanted.metric or ("calibrated_energy",),
        slices=wanted.slice,
        batch_size=wanted.batch_size,
        baseline=wanted.baseline,
        threshold=wanted.threshold,
        pass_rate=wanted.pass_rate,
        confidence=wanted.confidence,
        bad=wanted.bad,
        images=wanted.images,
        out=wanted.out,
        workers=wanted.workers,
        engine=wanted.engine,
        cluster={name: value for name, value in cluster.items() if value is not None},
        method=wanted.method,
        layer=wanted.layer,
        transform=transform,
        device=wanted.device,
        labels=labels,
    )


def _data(data: str, load_object: Any) -> Any:
    """A path, or the data set that `module:attribute` names, or gives when it is called."""
    if ":" not in data or Path(data).exists():
        return data
    held = load_object(data)
    return held() if callable(held) and not hasattr(held, "__getitem__") and not hasattr(held, "__iter__") else held


def _labels(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the labels {str(path)!r} cannot be read: {error}") from error


def _lines(report: Any) -> list[str]:
    from pytest_gradcam.audit.judging import worst_first  # as above

    groups = worst_first([*report.slices, *report.classes])
    rows = [("pass rate", "between", "images", "mean", "outcome", "group")]
    for group in [report.overall, *groups[:LISTED]]:
        if group.rate is None or group.interval is None:
            rows.append(("-", "-", "0", "-", group.outcome, str(group)))
            continue
        mean = "-" if group.mean is None else f"{group.mean:.2f}"
        between = f"{group.interval.low:.0%} and {group.interval.high:.0%}"
        outcome = group.outcome if group.is_judged else f"({group.outcome})"
        rows.append((f"{group.rate:.1%}", between, str(group.images), mean, outcome, str(group)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(f"{cell:>{width}}" for cell, width in zip(row[:5], widths, strict=True)), row[5]]) for row in rows
    ]
    if len(groups) > LISTED:
        lines.append(f"and {len(groups) - LISTED} more, see the report")
    if report.overall.bad:
        lines.append("not measured: " + ", ".join(f"{count} {status}" for status, count in report.overall.bad.items()))
    lines += [f"note: {remark}" for remark in report.about.get("remarks") or ()]
    if report.comparison is not None:
        lines.append(_since(report.comparison))
    return [*lines, "", report.message, f"report: {report.folder / 'index.html'}"]


def _since(comparison: Any) -> str:
    """What changed since the earlier audit; it does not change the exit code."""
    change = comparison.overall
    means = "" if change.now is None else f", mean {change.before:.2f} then, {change.now:.2f} now"
    p = "p < 0.0001" if change.p < 1e-4 else f"p = {change.p:.4f}"
    counts = f"{change.images} images, {change.lost} pass no more, {change.gained} pass that did not"
    groups = [str(each) for each in (*comparison.slices, *comparison.classes) if each.outcome == "worse"]
    worse = f"; worse in {', '.join(groups[:LISTED])}" if groups else ""
    return f"since the baseline: {change.outcome} ({p}{means}): {counts}{worse}"
