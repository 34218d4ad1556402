"""From rows to decisions: the rate of images that pass, of all, of each class, of each slice; corrected for how many.

What is claimed is always the same: of the images such as these, at least `pass_rate` pass. A group fails where that is
shown to be wrong, passes where it is shown to be right, and else cannot tell. Arrays in, values out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_gradcam.audit.rows import STATUSES, Status
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import Decision, Interval, holm, rate_p, skewed_interval, wilson

Bad: TypeAlias = Literal["failed", "excluded"]
BAD: Final = ("failed", "excluded")
Kind: TypeAlias = Literal["all", "class", "slice"]
# The slice of the classes that are asked for.
CLASS: Final = "class"
# What there is nothing to say of: a copy is the same evidence again, and counts neither way.
_NEVER: Final[Status] = "copy"

Flags: TypeAlias = npt.NDArray[np.bool_]
Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of an image, and of many.

    Attributes:
        metric: what is measured.
        threshold: least value of an image that passes (`mass_outside`: most); None for the metric's default.
        pass_rate: least share of the images that must pass.
        confidence: of each decision.
        bad: what becomes of an image of which nothing could be measured: it counts as `failed`, or it is `excluded`.

    Raises:
        SettingsError: a value that is not served.
    """

    metric: str = "calibrated_energy"
    threshold: float | None = None
    pass_rate: float = 0.9
    confidence: float = 0.95
    bad: Bad = "failed"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise SettingsError(f"unknown metric {self.metric!r}: the metrics are {', '.join(METRICS)}")
        if self.bad not in BAD:
            raise SettingsError(f"bad is {self.bad!r}: an image without a measurement counts as {' or is '.join(BAD)}")
        if not 0 < self.pass_rate < 1:
            raise SettingsError(f"pass_rate is {self.pass_rate}: give a share above 0 and below 1, such as 0.9")
        if not 0.5 < self.confidence < 1:
            raise SettingsError(f"confidence is {self.confidence}: give one above 0.5 and below 1, such as 0.95")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise SettingsError(f"threshold is {self.threshold}: give a finite number")

    @property
    def wanted(self) -> float:
        """The threshold that holds."""
        return METRICS[self.metric].inside if self.threshold is None else self.threshold


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The rows of an audit, column by column, in the order of the data set: what decisions and reports are made of.

    Attributes:
        index: int64 (n,), of the image.
        status: (n,) of `rows.STATUSES`.
        value: float64 (n,), the metric that is judged; NaN where nothing was measured.
        chance: float64 (n,), NaN where not known.
        filled: float64 (n,), NaN where not known.
        cls: (n,) names of the classes: label, else index; "" where none is known.
        about: for each name of a slice (n,) texts, "" where the image has none.
    """

    index: npt.NDArray[np.int64]
    status: npt.NDArray[np.str_]
    value: Values
    chance: Values
    filled: Values
    cls: npt.NDArray[np.str_]
    about: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True)
class Group:
    """Images judged together.

    Attributes:
        kind: `all`, `class` or `slice`.
        name: of the class; of a slice `name = text`; empty of all.
        images: how many count.
        passed: how many of them pass.
        bad: of each status but `measured`, how many rows have it.
        rate: share that passes; None without images.
        interval: of the rate, by Wilson: to be shown.
        mean: of the metric over what was measured; None without.
        mean_interval: of that mean.
        p_below: how likely so few would pass if the true rate were `pass_rate`, corrected for all that was asked.
        p_above: how likely so many would.
        outcome: what is decided.
        is_judged: whether it counts towards the outcome of the audit, or is only shown.
    """

    kind: Kind
    name: str
    images: int
    passed: int
    bad: Mapping[Status, int]
    rate: float | None
    interval: Interval | None
    mean: float | None
    mean_interval: Interval | None
    p_below: float
    p_above: float
    outcome: Decision
    is_judged: bool

    def __str__(self) -> str:
        return {"all": "all images", "class": f"class {self.name}"}.get(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Judged:
    """The decisions of an audit.

    Attributes:
        rule: by which they were made.
        overall: all images.
        classes: each class, by name.
        slices: each slice that was asked for, in the order of their names and texts.
        outcome: failed where all images or one of what is judged fails; passed where all images pass and nothing
            fails; else inconclusive.
    """

    rule: Rule
    overall: Group
    classes: tuple[Group, ...]
    slices: tuple[Group, ...]
    outcome: Decision

    @property
    def judged(self) -> Iterator[Group]:
        """What counts towards the outcome besides all images."""
        return (group for group in (*self.classes, *self.slices) if group.is_judged)


def judge(columns: Columns, rule: Rule, slices: Sequence[str] = ()) -> Judged:
    """Decide over the rows of an audit.

    Of a claim that a group is below `pass_rate`, the family is all images and all that is judged, so that whatever is
    right is called wrong with a probability of at most 1 - confidence, in all of them together. Classes that are only
    shown are a family of their own.

    Args:
        columns: the rows.
        rule: what is asked of them.
        slices: what is judged besides all images: names in `columns.about`, and `class`.

    Raises:
        SettingsError: a slice that no image knows, or no image counts.
    """
    for name in slices:
        if name != CLASS and not (name in columns.about and (columns.about[name] != "").any()):
            known = ", ".join(sorted({CLASS, *(each for each in columns.about if each != CLASS)}))
            raise SettingsError(f"no image says anything of the slice {name!r}: known are {known}")
    passes, counts = passing(columns, rule), counting(columns, rule)
    every = np.ones(len(columns), np.bool_)
    asked: list[tuple[Kind, str, Flags]] = [("all", "", every)]
    shown: list[tuple[Kind, str, Flags]] = [
        ("class", name, columns.cls == name) for name in _sorted(columns.cls) if name
    ]
    if CLASS in slices:
        asked, shown = asked + shown, []
    for name in slices:
        if name != CLASS:
            texts = columns.about[name]
            asked += [("slice", f"{name} = {text}", texts == text) for text in _sorted(texts) if text]
    groups = [
        *_groups(columns, rule, passes, counts, asked, is_judged=True),
        *_groups(columns, rule, passes, counts, shown, is_judged=False),
    ]
    overall = groups[0]
    if overall.images == 0:
        said = ", ".join(f"{number} {status}" for status, number in overall.bad.items())
        raise SettingsError(f"no image counts ({said or 'there are none'}): nothing can be decided")
    fails = any(group.outcome == "failed" for group in groups if group.is_judged)
    return Judged(
        rule=rule,
        overall=overall,
        classes=tuple(group for group in groups if group.kind == "class"),
        slices=tuple(group for group in groups if group.kind == "slice"),
        outcome="failed" if fails else overall.outcome,
    )


def passing(columns: Columns, rule: Rule) -> Flags:
    """Which rows pass: their value is enough, and a map that knows nothing would not have been enough."""
    metric, wanted = METRICS[rule.metric], rule.wanted
    found = np.zeros(len(columns), np.bool_)
    for i in np.flatnonzero((columns.status == "measured") & np.isfinite(columns.value)):
        by_chance = metric.at_chance(float(columns.chance[i]), float(columns.filled[i]))
        found[i] = metric.passes(float(columns.value[i]), wanted, inside=True) and not metric.passes(
            by_chance, wanted, inside=True
        )
    return found


def counting(columns: Columns, rule: Rule) -> Flags:
    """Which rows count."""
    if rule.bad == "excluded":
        return np.asarray(columns.status == "measured")
    return np.asarray(columns.status != _NEVER)


def _groups(
    columns: Columns,
    rule: Rule,
    passes: Flags,
    counts: Flags,
    asked: Sequence[tuple[Kind, str, Flags]],
    *,
    is_judged: bool,
) -> list[Group]:
    found = [(*_images(columns, passes, counts & inside), inside) for _, _, inside in asked]
    tails = [rate_p(passed, n, rule.pass_rate) if n else (1.0, 1.0) for n, passed, _ in found]
    below, above = (holm([tail[side] for tail in tails]) for side in (0, 1))
    groups = []
    for place, ((kind, name, inside), (n, passed, _)) in enumerate(zip(asked, found, strict=True)):
        # That all images pass is one claim, whatever is asked besides.
        p_above = tails[place][1] if kind == "all" else float(above[place])
        outcome = _decide(float(below[place]), p_above, rule.confidence)
        groups.append(
            Group(
                kind=kind,
                name=name,
                images=n,
                passed=passed,
                p_below=float(below[place]),
                p_above=p_above,
                outcome=outcome,
                is_judged=is_judged,
                **_numbers(columns, rule, inside, n, passed),
            )
        )
    return groups


def _images(columns: Columns, passes: Flags, counts: Flags) -> tuple[int, int]:
    """How many images count, and how many of them pass: those of which everything that is asked passes.

    Classes in one picture share it; as rows of their own they would pretend to be more pictures than there are.
    """
    indices = columns.index[counts]
    images = np.unique(indices)
    failing = np.unique(indices[~passes[counts]])
    return images.size, images.size - failing.size


def _numbers(columns: Columns, rule: Rule, inside: Flags, n: int, passed: int) -> dict[str, Any]:
    measured = columns.value[inside & (columns.status == "measured") & np.isfinite(columns.value)]
    statuses, numbers = np.unique(columns.status[inside], return_counts=True)
    counted = dict(zip(statuses.tolist(), numbers.tolist(), strict=True))
    return {
        "bad": {status: counted[status] for status in STATUSES if status != "measured" and status in counted},
        "rate": passed / n if n else None,
        "interval": wilson(passed, n, rule.confidence) if n else None,
        "mean": float(measured.mean()) if measured.size else None,
        "mean_interval": skewed_interval(measured, rule.confidence) if measured.size else None,
    }


def _decide(p_below: float, p_above: float, confidence: float) -> Decision:
    if p_below <= 1 - confidence:
        return "failed"
    return "passed" if p_above <= 1 - confidence else "inconclusive"


def _sorted(names: npt.NDArray[np.str_]) -> list[str]:
    """Each name once: numbers by their value, then the others."""
    found = np.unique(names).tolist()
    return sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
