"""Attention over a whole data set: an audit, and its decisions as one verdict."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.together import Claim, message_of_many
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import clopper_pearson
from pytest_gradcam.verdicts import Fact, Sight, Verdict

if TYPE_CHECKING:
    from pytest_gradcam.audit.judging import Group
    from pytest_gradcam.audit.preparing import SliceOf
    from pytest_gradcam.audit.report import AuditReport
    from pytest_gradcam.audit.work import Work

NEEDS = ("pyarrow", "sklearn")
LISTED = 5
# Of a data set more is asked than of a suite of tests, whose setting has the same name and another default.
PASS_RATE = 0.9
EXPLAIN = ("method", "layer", "transform", "device", "labels", "forward")


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """The data set that an assertion is about, and how it is read; as `audit` has them."""

    data: object
    images: str | os.PathLike[str] | None = None
    categories: Mapping[str, int | str] | None = None
    slices: Sequence[str] | Mapping[str, SliceOf] | None = None
    bad: Literal["failed", "excluded"] = "failed"
    batch_size: int = 32
    workers: int | None = None
    out: str | os.PathLike[str] | None = None


def judge_dataset(asking: Asking, model: ModelLike, dataset: DataSet, *, pass_rate: float) -> Verdict:
    """Whether enough images of a data set, and of each slice that is named, have their attention where it should be.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        dataset: what is audited.
        pass_rate: least share of the images that must pass.

    Raises:
        SettingsError: what audits need is not installed, or a value is not served.
        GradcamError: as for `audit`.
    """
    __tracebackhide__ = True
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise SettingsError(
            f'assert_dataset_attention needs {" and ".join(missing)}: pip install "pytest-gradcam[audit]"'
        )
    from pytest_gradcam.audit.run import audited  # an extra of its own

    settings = asking.settings
    if settings.engine != "hooks":
        raise SettingsError(f"engine is {settings.engine!r}, and a data set is explained by hooks: both give one map")
    with _folder(dataset.out) as folder:
        report, work = audited(
            model,
            dataset.data,
            {name: getattr(settings, name) for name in EXPLAIN},
            metrics=(settings.metric,),
            slices=dataset.slices,
            batch_size=dataset.batch_size,
            baseline=None,
            threshold=settings.threshold,
            pass_rate=pass_rate,
            confidence=settings.confidence,
            bad=dataset.bad,
            images=dataset.images,
            categories=dataset.categories,
            out=folder,
            workers=dataset.workers,
            engine="local",
            cluster=None,
            progress=None,
            is_written=dataset.out is not None,
        )
        return _verdict(asking, report, work, is_kept=dataset.out is not None)


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder of the results; one of its own, removed in the end, where none is named."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="gradcam-audit-") as folder:
        yield Path(folder)


def _verdict(asking: Asking, report: AuditReport, work: Work, *, is_kept: bool) -> Verdict:
    import pyarrow.compute as pc

    from pytest_gradcam.audit.results import columns_of
    from pytest_gradcam.audit.store import RESULTS
    from pytest_gradcam.audit.worst import worst_rows

    overall, rule = report.overall, report.judged.rule
    metric = METRICS[rule.metric]
    interval = clopper_pearson(overall.passed, overall.images, rule.confidence)
    rate = overall.passed / overall.images
    claim = Claim(
        metric=rule.metric,
        title=metric.title,
        at_most=False,
        sentence=lambda measured, passed: "",
        of_many="the classes are explained by their regions",
        not_of_many="the classes are not explained by their regions",
    )
    failing = [group for group in report.judged.judged if group.outcome == "failed"]
    message = message_of_many(
        claim,
        overall.outcome,
        overall.images,
        f"{metric.title} passes on",
        rate,
        (interval.low, interval.high),
        rule.pass_rate,
        at_most=False,
        by_rate=True,
        confidence=rule.confidence,
    )
    if failing:
        too_few = f"too few pass of {', '.join(map(_said, failing[:LISTED]))}{' …' if len(failing) > LISTED else ''}"
        message = f"{message}; {too_few}" if overall.outcome == "failed" else f"{too_few}; {message}"
    rows = report.rows(["index", "place", "image", "status", rule.metric])
    worst = worst_rows(columns_of(report.folder / RESULTS, rule.metric), rule, LISTED)
    named = [(rows["image"][i].as_py(), rows[rule.metric][i].as_py()) for i in worst]
    sights = [_sight(work, rows["index"][i].as_py(), rows["place"][i].as_py()) for i in worst[:1]]
    return Verdict(
        assertion=asking.assertion,
        outcome=report.outcome,
        metric="pass_rate",
        value=rate,
        values=tuple(rows[rule.metric].filter(pc.equal(rows["status"], "measured")).to_pylist()),
        chance=0.0,
        threshold=rule.pass_rate,
        at_most=False,
        interval=(interval.low, interval.high),
        confidence=rule.confidence,
        sights=tuple(sight for sight in sights if sight is not None),
        worst=0,
        message=message,
        facts=_facts(report, failing, named, is_kept=is_kept),
    )


def _sight(work: Work, index: int, place: int) -> Sight | None:
    """The picture of an image that was measured; the verdict stands without it."""
    try:
        return work.sight(index, place)
    except Exception:  # whatever made it unreadable since: of ours, or of the user's data set
        return None


def _facts(
    report: AuditReport, failing: Sequence[Group], worst: Sequence[tuple[str, float]], *, is_kept: bool
) -> tuple[Fact, ...]:
    facts: list[Fact] = []
    judged = list(report.judged.judged)
    if judged:
        unsure = [group for group in judged if group.outcome == "inconclusive"]
        facts.append(("slices", f"{len(judged)} judged, corrected for their number: {len(failing)} failed"))
        if unsure:
            names = ", ".join(map(str, unsure[:LISTED])) + (" …" if len(unsure) > LISTED else "")
            facts.append(("unsure", f"{len(unsure)} cannot tell, for too few images or a rate too near: {names}"))
    if report.overall.bad:
        became = "count as failed" if report.judged.rule.bad == "failed" else "are left out"
        counts = ", ".join(f"{count} {status}" for status, count in report.overall.bad.items())
        facts.append(("lacking", f"{counts}; they {became}, copies are left out"))
    listed = ", ".join(f"{key} ({value:.2f})" for key, value in worst)
    facts.append(("worst", listed if worst else "none was measured"))
    if is_kept:
        facts.append(("results", str(report.folder)))
    return tuple(facts)


def _said(group: Group) -> str:
    return f"{group} ({group.passed} of {group.images})"
