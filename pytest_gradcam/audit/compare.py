"""An audit held against an earlier one, image by image: what became worse, what better, and what is in one of both.

What decides is Wilcoxon's signed-rank test: it sees a map that lost half its energy and still passes, which a count of
passes and failures does not; it needs no shape of the differences but their symmetry where nothing changed; and an
image that has no measurement any more is to it one that changed as far as can be. The mean difference is shown beside
it, and the images that pass no more, with their own exact test (McNemar's).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pytest_gradcam.audit.changes import Change, Comparison, Moved, Outcome, Turned
from pytest_gradcam.audit.judging import Columns, Judged, Kind, Rule, Texts, counting, passing
from pytest_gradcam.audit.paired import mcnemar, signed_rank
from pytest_gradcam.audit.results import columns_of, read
from pytest_gradcam.audit.rows import SCHEMA
from pytest_gradcam.audit.store import RESULTS, AuditError, Folder
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import holm, skewed_interval

Places: TypeAlias = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

MOST: Final = 8  # images that changed most, each way
EXAMPLES: Final = 5
# What is told where both audits were not asked the same; another model is what audits are compared for.
_TOLD: Final = ("data set", "images", "method", "layer", "transform", "engine", "forward", "labels", "classes")
_LONGEST: Final = 80


def earlier(baseline: str | os.PathLike[str] | Any, metric: str, own: Path) -> Path:
    """The folder of the audit to compare with, once it was seen to serve.

    Args:
        baseline: the folder, or an `AuditReport`, which knows its own.
        metric: that is judged.
        own: the folder of this audit.

    Raises:
        AuditError: it holds no audit that is done, one of another version or without that metric, or it is this one.
    """
    path = Path(getattr(baseline, "folder", baseline))
    if path.resolve() == own.resolve():
        raise AuditError(f"baseline and out are the same folder, {str(path)!r}: give the audit another one")
    about = Folder(path).about()
    if about is None or not (path / RESULTS).is_file():
        raise AuditError(f"the baseline {str(path)!r} holds no audit that is done: give the folder of one")
    if about.get("schema") != SCHEMA:
        raise AuditError(f"the baseline {str(path)!r} was written by another version: audit the earlier model again")
    try:
        known = pq.read_schema(path / RESULTS).names
    except (OSError, pa.ArrowException) as error:
        raise AuditError(f"the results of the baseline {str(path)!r} cannot be read: {error}") from error
    if metric not in known:
        raise AuditError(
            f"{metric!r} was not measured in the baseline {str(path)!r}: audit the earlier model again with it, or "
            "judge another metric"
        )
    return path


def compare(own: Path, now_columns: Columns, judged: Judged, before: Path) -> Comparison:
    """What changed from an earlier audit to this one.

    Rows are the same where the key of the image and the class that was asked for are, or, where none was named, the
    place among what was asked: which class was predicted is the model's affair, and what is compared. A row of an image
    of which nothing was known but that it cannot be read is the same as each that the other audit has of that image.
    Of what one of both has twice, copies are left out. Classes in one picture are one image, with the mean of their
    differences.

    Args:
        own: the folder of this audit.
        now_columns: its rows.
        judged: what was decided over it.
        before: the folder of the earlier one.

    Raises:
        AuditError: the results cannot be read, or the metric was not measured.
    """
    rule = judged.rule
    before_columns = columns_of(before / RESULTS, rule.metric, sorted({group.slice for group in judged.slices}))
    keys = [_keys(folder, columns) for folder, columns in ((own, now_columns), (before, before_columns))]
    now, then = _paired(*keys)
    pairs = _Pairs.of(rule, now_columns, before_columns, now, then)
    groups = _groups(judged, now_columns, before_columns, now, then, pairs)
    table = read(own / RESULTS, ["image"])
    worse, better = (_moved(table, now_columns.cls, pairs, now, then, side) for side in (-1, 1))
    left = [_left(key["row"].to_numpy(), found) for key, found in zip(keys, (now, then), strict=True)]
    examples = {
        name: _first_images(folder, rows)
        for name, folder, rows in (("only_now", own, left[0]), ("only_before", before, left[1]))
    }
    return Comparison(
        folder=before,
        overall=groups[0],
        classes=tuple(group for group in groups if group.kind == "class"),
        slices=tuple(group for group in groups if group.kind == "slice"),
        worse=worse,
        better=better,
        only_now=left[0].size,
        only_before=left[1].size,
        examples=examples,
        turned=_turned(table, now_columns.status[now], before_columns.status[then], now),
        remarks=tuple(_remarks(Folder(own).about() or {}, Folder(before).about() or {})),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Rows that are in both audits: which image each is of, and what is known of it then and now."""

    index: npt.NDArray[np.int64]
    before: Values
    now: Values
    change: Values  # for the better, infinite where a measurement is there in one of both; NaN where there is nothing
    counts: Flags
    passed: Flags
    passes: Flags

    @classmethod
    def of(cls, rule: Rule, now: Columns, before: Columns, rows: Places, rows_before: Places) -> _Pairs:
        sign = 1.0 if METRICS[rule.metric].higher_is_inside else -1.0
        values = [
            np.where(columns.status == "measured", columns.value, np.nan)[at]
            for columns, at in ((now, rows), (before, rows_before))
        ]
        counts = counting(now, rule)[rows] & counting(before, rule)[rows_before]
        change = sign * (values[0] - values[1])
        has = [np.isfinite(each) for each in values]
        change[counts & has[1] & ~has[0]] = -math.inf
        change[counts & has[0] & ~has[1]] = math.inf
        return cls(
            index=now.index[rows],
            before=values[1],
            now=values[0],
            change=change,
            counts=counts,
            passed=passing(before, rule)[rows_before],
            passes=passing(now, rule)[rows],
        )


def _keys(folder: Path, columns: Columns) -> pa.Table:
    """What rows are told by, and their places; copies are left out."""
    path = folder / RESULTS
    has_asked = "asked" in pq.read_schema(path).names
    table = read(path, ["image", "place", "asked" if has_asked else "cls"])
    asked = table[2].cast(pa.int64())
    is_named = pc.is_valid(asked)
    images = table["image"].combine_chunks().dictionary_encode()
    only = np.bincount(images.indices, minlength=len(images.dictionary))[images.indices] == 1
    # Nothing is known of such an image: not even what would have been asked of it.
    is_whole = only & (columns.status == "unreadable") & ~np.asarray(is_named)
    keys = pa.table(
        {
            "image": table["image"],
            "named": is_named,
            "number": pc.coalesce(asked, table["place"].cast(pa.int64())),
            "whole": pa.array(is_whole),
            "row": pa.array(np.arange(len(table)), pa.int64()),
        }
    )
    return keys.filter(pa.array(columns.status != "copy"))


def _paired(now: pa.Table, before: pa.Table) -> tuple[Places, Places]:
    """Places of the rows that are in both, in the order of this audit; a row may be the same as several."""
    exact = _joined(now, before, ["image", "named", "number"])
    _, first = np.unique(exact[0], return_index=True)
    images, images_before = (table.select(["image", "row"]) for table in (now, before))
    whole = [
        _joined(images.filter(now["whole"]), images_before, ["image"]),
        _joined(images, images_before.filter(before["whole"]), ["image"]),
    ]
    found = np.concatenate([exact[:, first], *whole], axis=1)
    rows, rows_before = np.unique(found, axis=1)
    return rows, rows_before


def _joined(now: pa.Table, before: pa.Table, keys: list[str]) -> Places:
    """(2, n), rows of both."""
    joined = now.join(before, keys, join_type="inner", right_suffix=" before")
    return np.stack([np.asarray(joined[name].to_numpy(), np.int64) for name in ("row", "row before")])


def _groups(
    judged: Judged, now_columns: Columns, before_columns: Columns, now: Places, then: Places, pairs: _Pairs
) -> list[Change]:
    """All images, classes and slices: what is judged is one family, classes that are only shown another."""
    found, families = [], []
    members = _members(judged, now_columns, before_columns, now, then)
    for group, inside in zip((judged.overall, *judged.classes, *judged.slices), members, strict=True):
        found.append(_change(group.kind, group.name, pairs, inside, judged.rule.confidence))
        families.append(group.is_judged)
    adjusted = np.ones(len(found))
    for family in (True, False):
        places = [place for place, each in enumerate(families) if each is family]
        adjusted[places] = holm([found[place][0]["p"] for place in places])
    return [
        Change(**{**numbers, "p": p, "outcome": _outcome(p, lean, judged.rule.confidence)})
        for (numbers, lean), p in zip(found, adjusted.tolist(), strict=True)
    ]


def _members(judged: Judged, columns: Columns, before: Columns, now: Places, then: Places) -> Iterator[Places]:
    """The pairs that belong to all images, to each class, and to each slice, as places."""
    yield np.arange(len(now))
    classes = _split(columns.cls, before.cls, now, then)
    yield from (classes[group.name] for group in judged.classes)
    name = ""
    for group in judged.slices:
        if group.slice != name:
            name = group.slice
            slices = _split(columns.about[name], before.about[name], now, then)
        yield slices[group.text]


def _split(column: Texts, before: Texts, now: Places, then: Places) -> dict[str, Places]:
    """The pairs of each text; of a row that has none now, the earlier one decides."""
    numbers = {text: number for number, text in enumerate(column.texts)}
    earlier_codes = np.asarray([*(numbers.get(text, -1) for text in before.texts), -1])  # the last is of those without
    codes = np.where(column.codes[now] >= 0, column.codes[now], earlier_codes[before.codes[then]])
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(numbers) + 1))
    return {text: order[ends[number] : ends[number + 1]] for text, number in numbers.items()}


def _change(kind: Kind, name: str, pairs: _Pairs, inside: Places, confidence: float) -> tuple[dict[str, Any], float]:
    """The numbers of a group, its p-value not corrected yet; and which way it leans."""
    inside = inside[pairs.counts[inside]]
    images, place = np.unique(pairs.index[inside], return_inverse=True)
    passed, passes = (
        np.bincount(place, ~flags[inside], images.size) == 0 for flags in (pairs.passed, pairs.passes)
    )  # an image passes where all that is asked of it does
    change = pairs.change[inside]
    known = ~np.isnan(change)
    with np.errstate(invalid="ignore"):  # what is infinitely worse and infinitely better is neither
        means = np.nan_to_num(_means(place[known], change[known], images.size), nan=0.0, posinf=np.inf, neginf=-np.inf)
    both = np.isfinite(change)
    before, now = (_means(place[both], values[inside][both], images.size) for values in (pairs.before, pairs.now))
    measured = np.isfinite(before)
    before, now = before[measured], now[measured]
    p, lean = signed_rank(means)
    lost, gained = int((passed & ~passes).sum()), int((passes & ~passed).sum())
    some = before.size > 0
    numbers: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "images": images.size,
        "measured": before.size,
        "before": float(before.mean()) if some else None,
        "now": float(now.mean()) if some else None,
        "difference": float((now - before).mean()) if some else None,
        "interval": skewed_interval(now - before, confidence) if some else None,
        "lost": lost,
        "gained": gained,
        "p_passes": mcnemar(lost, gained),
        "p": p,
    }
    return numbers, lean


def _means(place: Places, values: Values, size: int) -> Values:
    """Mean of the values of each image; NaN where it has none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(place, values, size) / np.bincount(place, minlength=size), np.float64)


def _outcome(p: float, lean: float, confidence: float) -> Outcome:
    if p > 1 - confidence or lean == 0:
        return "no difference shown"
    return "better" if lean > 0 else "worse"


def _moved(table: pa.Table, classes: Texts, pairs: _Pairs, now: Places, then: Places, side: int) -> tuple[Moved, ...]:
    """What changed most to one side: -1 for the worse, 1 for the better."""
    gain = np.where(np.isfinite(pairs.change), side * pairs.change, -math.inf)
    chosen = [place for place in np.argsort(-gain, kind="stable")[:MOST].tolist() if gain[place] > 0]
    images = table["image"].take(pa.array(now[chosen], pa.int64())).to_pylist()
    return tuple(
        Moved(
            row=int(now[place]),
            row_before=int(then[place]),
            image=image,
            cls=classes[now[place]],
            before=float(pairs.before[place]),
            now=float(pairs.now[place]),
        )
        for place, image in zip(chosen, images, strict=True)
    )


def _turned(
    table: pa.Table, now: npt.NDArray[np.str_], before: npt.NDArray[np.str_], rows: Places
) -> tuple[Turned, ...]:
    places = np.flatnonzero(now != before)
    changes, which = np.unique(np.stack([before[places], now[places]]), axis=1, return_inverse=True)
    found = []
    for number, (was, is_now) in enumerate(changes.T.tolist()):
        those = places[which.ravel() == number]
        keys = table["image"].take(pa.array(rows[those[:EXAMPLES]], pa.int64())).to_pylist()
        found.append(Turned(was, is_now, those.size, tuple(keys)))
    return tuple(sorted(found, key=lambda each: -each.rows))


def _left(rows: Places, paired: Places) -> Places:
    return np.setdiff1d(rows, paired)


def _first_images(folder: Path, rows: Places) -> tuple[str, ...]:
    keys = read(folder / RESULTS, ["image"])["image"].take(pa.array(rows[:EXAMPLES], pa.int64()))
    return tuple(keys.to_pylist())


def _remarks(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    asked, asked_before = (each.get("asked") or {} for each in (now, before))
    if asked.get("model") is not None and asked.get("model") == asked_before.get("model"):
        yield "both audits are of the same model: all its weights are the same"
    pairs: list[tuple[str, Any, Any]] = [(name, asked_before.get(name), asked.get(name)) for name in _TOLD]
    versions, versions_before = (each.get("versions") or {} for each in (now, before))
    pairs += [(f"version of {name}", versions_before.get(name), versions.get(name)) for name in versions]
    pairs.append(("device", before.get("device"), now.get("device")))
    for name, was, is_now in pairs:
        if was != is_now:
            yield f"another {name}: {_short(was)} then, {_short(is_now)} now; a difference need not be the model's"


def _short(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} of them"
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
