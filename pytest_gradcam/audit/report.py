"""AuditReport: what an audit found, as a value; the rows themselves stay in its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_gradcam.audit.changes import Comparison
from pytest_gradcam.audit.clusters import ClassClusters
from pytest_gradcam.audit.judging import Group, Judged, fails_alone
from pytest_gradcam.audit.results import read
from pytest_gradcam.audit.store import RESULTS
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import Decision, Interval

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        folder: where its rows are.
        judged: the decisions.
        about: what was audited, and how.
        comparison: what changed since an earlier audit; None where none was given.
        clusters: what the maps of each class fall into.
    """

    folder: Path
    judged: Judged
    about: Mapping[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    clusters: tuple[ClassClusters, ...] = ()

    @property
    def outcome(self) -> Decision:
        """`passed`, `failed` or `inconclusive`."""
        return self.judged.outcome

    @property
    def passed(self) -> bool:
        """Whether it is shown that enough images pass, and nothing that was asked for fails."""
        return self.outcome == "passed"

    @property
    def overall(self) -> Group:
        """All images."""
        return self.judged.overall

    @property
    def classes(self) -> tuple[Group, ...]:
        """Each class."""
        return self.judged.classes

    @property
    def slices(self) -> tuple[Group, ...]:
        """Each slice that was asked for."""
        return self.judged.slices

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, in the order of the data set, as a pyarrow table: one for each class in each image.

        Args:
            columns: names, as `docs/audit.md` lists them; None for all of them, the maps too.

        Raises:
            AuditError: they cannot be read.
        """
        return read(self.folder / RESULTS, columns)

    def to_json(self) -> dict[str, Any]:
        """All but the rows, as plain values."""
        rule = self.judged.rule
        return {
            "outcome": self.outcome,
            "rule": {
                "metric": rule.metric,
                "title": METRICS[rule.metric].title,
                "at_most": not METRICS[rule.metric].higher_is_inside,
                "threshold": rule.wanted,
                "pass_rate": rule.pass_rate,
                "confidence": rule.confidence,
                "bad": rule.bad,
            },
            "overall": _group(self.overall),
            "classes": [_group(group) for group in self.classes],
            "slices": [_group(group) for group in self.slices],
            "comparison": plain(self.comparison),
            "clusters": plain(self.clusters),
            "about": dict(self.about),
        }

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """What was found, in a sentence."""
        overall, rule = self.overall, self.judged.rule
        assert overall.rate is not None and overall.interval is not None  # without images there is no report
        rate = f"{overall.passed} of {overall.images} images pass ({overall.rate:.1%})"
        bounds = f"between {overall.interval.low:.1%} and {overall.interval.high:.1%}"
        failing = [str(group) for group in self.judged.judged if group.outcome == "failed"]
        more = f"; too few pass in {', '.join(failing[:5])}{' …' if len(failing) > 5 else ''}" if failing else ""
        if fails_alone(overall, rule):
            more += f"; all images would fail, but not after the correction for {overall.questions} questions"
        sure = f"with {rule.confidence:.0%} confidence each way"
        return f"audit {self.outcome}: {rate}, {bounds} {sure}, needs {rule.pass_rate:.0%}{more}"


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses by their fields, intervals as two bounds; what is not finite is None."""
    if isinstance(value, Interval):
        return _bounds(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def _group(group: Group) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "name": group.name,
        "images": group.images,
        "passed": group.passed,
        "bad": dict(group.bad),
        "rate": group.rate,
        "interval": _bounds(group.interval),
        "mean": group.mean,
        "mean_interval": _bounds(group.mean_interval),
        "p_below": group.p_below,
        "p_above": group.p_above,
        "outcome": group.outcome,
        "judged": group.is_judged,
    }


def _bounds(interval: Interval | None) -> list[float | None] | None:
    """As JSON has it: a bound that is infinite is none."""
    if interval is None:
        return None
    return [bound if abs(bound) != float("inf") else None for bound in (interval.low, interval.high)]
