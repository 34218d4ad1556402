"""What a comparison of two audits found, as values; `compare` finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pytest_gradcam.audit.judging import Kind
from pytest_gradcam.audit.rows import Status
from pytest_gradcam.statistics import Interval

Outcome: TypeAlias = Literal["worse", "better", "no difference shown"]


@dataclass(frozen=True, slots=True)
class Change:
    """Images that are in both audits, together.

    Attributes:
        kind: `all`, `class` or `slice`.
        name: as of `judging.Group`.
        images: how many count in both.
        measured: how many of them have a value in both.
        before: mean of the metric in the earlier audit, over what is measured in both.
        now: the same of this one.
        difference: `now - before`.
        interval: of that mean difference.
        lost: images that passed and do not any more.
        gained: images that did not pass and do now.
        p_passes: how likely `lost` and `gained` are so far apart where nothing changed (McNemar, exact).
        p: how likely differences lean so far to one side where nothing changed (Wilcoxon), corrected for all groups.
        outcome: what is decided by `p`.
    """

    kind: Kind
    name: str
    images: int
    measured: int
    before: float | None
    now: float | None
    difference: float | None
    interval: Interval | None
    lost: int
    gained: int
    p_passes: float
    p: float
    outcome: Outcome

    def __str__(self) -> str:
        return {"all": "all images", "class": f"class {self.name}"}.get(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Moved:
    """One class in one image, measured in both audits.

    Attributes:
        row: place among the rows of this audit.
        row_before: place among the rows of the earlier one.
        image: its key.
        cls: its class, for a person.
        before: value of the metric then.
        now: value now.
    """

    row: int
    row_before: int
    image: str
    cls: str
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class Turned:
    """Rows that are in another status now.

    Attributes:
        before: the status then.
        now: the status now.
        rows: how many.
        images: keys of the first.
    """

    before: Status
    now: Status
    rows: int
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed since an earlier audit.

    Attributes:
        folder: of the earlier audit.
        overall: all images that are in both.
        classes: each class.
        slices: each slice that was asked for.
        worse: what became worse the most, the worst first.
        better: what became better the most.
        only_now: rows that the earlier audit has not.
        only_before: rows that this one has not.
        examples: keys of the first images of both.
        turned: rows in another status, the most frequent change first.
        remarks: what was asked otherwise, so that a difference need not be the model's.
    """

    folder: Path
    overall: Change
    classes: tuple[Change, ...]
    slices: tuple[Change, ...]
    worse: tuple[Moved, ...]
    better: tuple[Moved, ...]
    only_now: int
    only_before: int
    examples: Mapping[str, tuple[str, ...]]
    turned: tuple[Turned, ...]
    remarks: tuple[str, ...]
