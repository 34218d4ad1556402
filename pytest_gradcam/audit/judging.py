"""From rows to decisions: the rate of images that pass, of all, of each class, of each slice; corrected for how many.

What is claimed is always the same: of the images such as these, at least `pass_rate` pass. A group fails where that is
shown to be wrong, passes where it is shown to be right, and else cannot tell. Arrays in, values out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_ORDER: Final[tuple[Decision, ...]] = ("failed", "inconclusive", "passed")

Flags: TypeAlias = npt.NDArray[np.bool_]
Values: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]


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
class Texts:
    """A column of texts, of which many are the same: a few bytes a row.

    Attributes:
        codes: int32 (n,), each a place in `texts`; -1 where there is none.
        texts: each once.
    """

    codes: npt.NDArray[np.int32]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str] | npt.NDArray[np.str_]) -> Texts:
        """Of one text a row, "" where there is none."""
        found, codes = np.unique(np.asarray(texts, np.str_), return_inverse=True)
        has_none = int(found.size > 0 and found[0] == "")  # it is the first in order
        return cls((codes - has_none).astype(np.int32), tuple(found[has_none:].tolist()))

    def __getitem__(self, row: int) -> str:
        code = int(self.codes[row])
        return "" if code < 0 else self.texts[code]

    def equal(self, text: str) -> Flags:
        """Which rows have that text."""
        code = self.texts.index(text) if text in self.texts else len(self.texts)
        return np.asarray(self.codes == code)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The rows of an audit, column by column, in the order of the data set: what decisions and reports are made of.

    Attributes:
        index: int64 (n,), of the image.
        status: (n,) of `rows.STATUSES`.
        value: float64 (n,), the metric that is judged; NaN where nothing was measured.
        chance: float64 (n,), NaN where not known.
        filled: float64 (n,), NaN where not known.
        cls: names of the classes: label, else index.
        about: for each slice that was read, what images are in it.
        known: names of all slices that an image says something of.
    """

    index: npt.NDArray[np.int64]
    status: npt.NDArray[np.str_]
    value: Values
    chance: Values
    filled: Values
    cls: Texts
    about: Mapping[str, Texts] = field(default_factory=dict)
    known: tuple[str, ...] = ()

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
        mean: of the metric over the images that were measured, each the mean of its rows; None without.
        mean_interval: of that mean.
        p_below: how likely so few would pass if the true rate were `pass_rate`, corrected for all that was asked.
        p_above: how likely so many would.
        outcome: what is decided.
        is_judged: whether it counts towards the outcome of the audit, or is only shown.
        p_alone: `p_below`, were this the only question.
        questions: for how many `p_below` is corrected.
        slice: name of the slice; empty of what is none.
        text: what its images say of it.
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
    p_alone: float
    questions: int
    slice: str = ""
    text: str = ""

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
    slices = tuple(dict.fromkeys(slices))
    for name in slices:
        if name != CLASS and not (name in columns.about and (columns.about[name].codes >= 0).any()):
            known = ", ".join(
                sorted({CLASS, *columns.known, *(each for each, held in columns.about.items() if held.texts)})
            )
            raise SettingsError(f"no image says anything of the slice {name!r}: known are {known}")
    counted = _Counted(columns, rule)
    classes = list(counted.groups("class", columns.cls))
    asked = list(counted.groups("all", Texts(np.zeros(len(columns), np.int32), ("",))))
    asked += classes if CLASS in slices else []
    for name in slices:
        if name != CLASS:
            asked += counted.groups("slice", columns.about[name], name)
    groups = _groups(asked, rule, is_judged=True)
    if CLASS not in slices:
        groups += _groups(classes, rule, is_judged=False)
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
    metric: Any = METRICS[rule.metric]  # its comparisons are of numbers, and of arrays as well
    by_chance = np.broadcast_to(metric.at_chance(columns.chance, columns.filled), len(columns))
    enough = [metric.passes(values, rule.wanted, inside=True) for values in (columns.value, by_chance)]
    return np.asarray((columns.status == "measured") & np.isfinite(columns.value) & enough[0] & ~enough[1])


def counting(columns: Columns, rule: Rule) -> Flags:
    """Which rows count."""
    if rule.bad == "excluded":
        return np.asarray(columns.status == "measured")
    return np.asarray(columns.status != _NEVER)


def worst_first(groups: Iterable[Group]) -> list[Group]:
    """Groups in the order in which a person wants to see them: what fails, what is judged, the lowest rate."""
    return sorted(
        groups,
        key=lambda group: (_ORDER.index(group.outcome), not group.is_judged, group.rate is None, group.rate or 0.0),
    )


def fails_alone(group: Group, rule: Rule) -> bool:
    """Whether a group would fail were it the only question, and does not, after the correction for all of them."""
    return group.outcome != "failed" and group.p_alone <= 1 - rule.confidence


class _Counted:
    """The rows, counted group by group, all groups of one column at a time."""

    def __init__(self, columns: Columns, rule: Rule) -> None:
        self._rule = rule
        self._passes, self._counts = passing(columns, rule), counting(columns, rule)
        self._measured = (columns.status == "measured") & np.isfinite(columns.value)
        self._value = columns.value
        images, image = np.unique(columns.index, return_inverse=True)
        self._images, self._image = max(1, images.size), image
        self._statuses, self._status = np.unique(columns.status, return_inverse=True)

    def groups(self, kind: Kind, column: Texts, name: str = "") -> Iterator[dict[str, Any]]:
        """What is known of each group before anything is corrected, in the order of their texts."""
        count = len(column.texts)
        codes = column.codes.astype(np.int64)
        # Classes in one picture share it; as rows of their own they would pretend to be more pictures than there are.
        pairs, place = self._by_image(codes, self._counts)
        fails = np.bincount(place, ~self._passes[self._counts & (codes >= 0)], pairs.size) > 0
        images = np.bincount(pairs // self._images, minlength=count)
        passed = np.bincount(pairs[~fails] // self._images, minlength=count)
        pairs, place = self._by_image(codes, self._measured)
        values = self._value[self._measured & (codes >= 0)]
        means = np.bincount(place, values, pairs.size) / np.bincount(place, minlength=pairs.size)
        ends = np.searchsorted(pairs // self._images, np.arange(count + 1))
        inside, kinds = codes >= 0, max(1, self._statuses.size)
        of_status = np.bincount(codes[inside] * kinds + self._status[inside], minlength=count * kinds)
        rows = of_status.reshape(-1, kinds)
        for code in _order(column.texts):
            if rows[code].any() or kind == "all":
                text = column.texts[code]
                yield {
                    "kind": kind,
                    "name": f"{name} = {text}" if kind == "slice" else text,
                    "slice": name,
                    "text": text if kind == "slice" else "",
                    **self._numbers(int(images[code]), int(passed[code]), means[ends[code] : ends[code + 1]]),
                    "bad": self._bad(rows[code]),
                }

    def _by_image(self, codes: Places, counts: Flags) -> tuple[Places, Places]:
        """Each group with each of its images, as one number, in order; and of the rows that count which they are of."""
        which = counts & (codes >= 0)
        pairs, place = np.unique(codes[which] * self._images + self._image[which], return_inverse=True)
        return pairs, place

    def _numbers(self, images: int, passed: int, means: Values) -> dict[str, Any]:
        confidence = self._rule.confidence
        return {
            "images": images,
            "passed": passed,
            "rate": passed / images if images else None,
            "interval": wilson(passed, images, confidence) if images else None,
            "mean": float(means.mean()) if means.size else None,
            "mean_interval": skewed_interval(means, confidence) if means.size else None,
        }

    def _bad(self, rows: Places) -> dict[Status, int]:
        found = dict(zip(self._statuses.tolist(), rows.tolist(), strict=bool(self._statuses.size)))
        return {status: found[status] for status in STATUSES if status != "measured" and found.get(status)}


def _groups(asked: Sequence[dict[str, Any]], rule: Rule, *, is_judged: bool) -> list[Group]:
    """One family of questions, decided."""
    tails = [rate_p(each["passed"], each["images"], rule.pass_rate) if each["images"] else (1.0, 1.0) for each in asked]
    below, above = (holm([tail[side] for tail in tails]).tolist() for side in (0, 1))
    groups = []
    for each, alone, p_below, p_above in zip(asked, tails, below, above, strict=True):
        # That all images pass is one claim, whatever is asked besides.
        high = alone[1] if each["kind"] == "all" else p_above
        groups.append(
            Group(
                **each,
                p_below=p_below,
                p_above=high,
                outcome=_decide(p_below, high, rule.confidence),
                is_judged=is_judged,
                p_alone=alone[0],
                questions=len(asked),
            )
        )
    return groups


def _decide(p_below: float, p_above: float, confidence: float) -> Decision:
    if p_below <= 1 - confidence:
        return "failed"
    return "passed" if p_above <= 1 - confidence else "inconclusive"


def _order(texts: Sequence[str]) -> list[int]:
    """Places of the texts in their order: numbers by their value, then the others."""

    def key(place: int) -> tuple[bool, int, str]:
        text = texts[place]
        return not text.isdecimal(), int(text) if text.isdecimal() else 0, text

    return sorted(range(len(texts)), key=key)
