"""`gradcam diff`: the baselines of two folders or revisions side by side, as a table, what differs most first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.commands.console import complain, ending_well, floored, say
from pytest_gradcam.baselines.commands.sources import Source, source_of
from pytest_gradcam.baselines.compare import Limits, compare, limits
from pytest_gradcam.baselines.format import loads
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.metrics.movement import movement
from pytest_gradcam.report.lines import printable

Kind: TypeAlias = Literal["same", "changed", "added", "removed", "unreadable"]
_ORDER: Final = ("changed", "added", "removed", "unreadable", "same")
_TROUBLE: Final = 2
_NUMBERS: Final = (1, 2)
_HEADS: Final = ("", "Pearson", "cells", "what changed", "")


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of one baseline.

    Attributes:
        path: of its file, from the folders that were compared.
        kind: of the difference.
        pearson: of the raw CAMs; NaN where none was compared, for the maps were made from something else.
        shift: 1-Wasserstein distance of the CAMs in cells; NaN likewise. Where it `stays`, an upper bound.
        stays: whether the distance alone would pass.
        what: in words: what has changed, or why the file cannot be read.
    """

    path: str
    kind: Kind
    pearson: float = float("nan")
    shift: float = float("nan")
    stays: bool = True
    what: str = ""


def run(before: str, after: str, folder: Path, floor: str) -> int:
    """Print what differs.

    Args:
        before: a folder, or a revision.
        after: likewise.
        folder: whose baselines of the revisions are compared.
        floor: how close two maps must be to count as the same.

    Returns:
        0 where nothing differs, 1 where something does, 2 where something cannot be had or read; 130 where it was
        interrupted.
    """
    return ending_well(lambda: _run(before, after, folder, floor), failed=_TROUBLE)


def _run(before: str, after: str, folder: Path, floor: str) -> int:
    wanted = limits(floor)
    old, new = source_of(before, folder), source_of(after, folder)
    problems = [*old.problems, *new.problems]
    for error in problems:
        complain(error)
    if not old.files and not new.files:
        raise BaselineError(f"there is no baseline in {before}, and none in {after}")
    if old.files and new.files and not old.files.keys() & new.files.keys():
        say(printable(f"no path is in both: are {before} and {after} the same folder of two checkouts?"))
    found = differences(old, new, wanted)
    for line in table(found):
        say(line)
    count = Counter(each.kind for each in found)
    counts = [f"{count[kind]} {kind}" for kind in ("same", "changed", "added", "removed")]
    counts += [f"{count['unreadable']} unreadable"] * bool(count["unreadable"])
    say(", ".join(counts))
    if count["unreadable"] or problems:
        return _TROUBLE
    return 1 if len(found) > count["same"] else 0


def differences(old: Source, new: Source, wanted: Limits) -> list[Difference]:
    """What became of every baseline, what differs most first.

    Args:
        old: where baselines were.
        new: where they are.
        wanted: how close two maps must be to count as the same.
    """
    found = [_difference(path, old, new, wanted) for path in {*old.files, *new.files}]
    return sorted(found, key=_rank)


def _rank(each: Difference) -> tuple[int, float, float, str]:
    if each.kind != "changed" or math.isnan(each.pearson):
        return _ORDER.index(each.kind), -math.inf, 0.0, each.path
    return _ORDER.index(each.kind), each.pearson, -each.shift, each.path


def _difference(path: str, old: Source, new: Source, wanted: Limits) -> Difference:
    try:
        was, is_now = (source.files[path]() if path in source.files else None for source in (old, new))
        before = _loaded(was, old)
        now = before if was == is_now else _loaded(is_now, new)
    except BaselineError as error:
        return Difference(path, "unreadable", what=str(error))
    if before is None or now is None:
        return Difference(path, "added" if before is None else "removed")
    compared = compare(before, now, wanted)
    if compared.passed:
        return Difference(path, "same")
    if compared.changes:
        return Difference(path, "changed", what=", ".join(name for name, _ in compared.changes))
    moved = movement(before.raw, now.raw)
    if moved is None:
        what = ""
    elif moved.source == moved.target:
        what = f"{moved.moved:.0%} inside {moved.source}"
    else:
        what = f"{moved.moved:.0%} {moved.source} → {moved.target}"
    return Difference(path, "changed", compared.pearson, compared.shift, compared.stays, what)


def _loaded(data: bytes | None, source: Source) -> Baseline | None:
    if data is None:
        return None
    try:
        return loads(data)
    except BaselineError as error:
        raise BaselineError(f"in {source.name}: {error}") from None


def table(differences: Sequence[Difference]) -> list[str]:
    """The lines of a table, in the order given; those that are the same are left out."""
    rows = [_HEADS, *(_row(each) for each in differences if each.kind != "same")]
    if len(rows) == 1:
        return []
    # What nothing stands in is no column.
    shown = [at for at in range(len(_HEADS)) if at in (0, len(_HEADS) - 1) or any(row[at] for row in rows[1:])]
    widths = {at: max(len(row[at]) for row in rows) for at in shown}
    lines = ["  ".join(_cell(row[at], at, widths[at]) for at in shown).rstrip() for row in rows]
    return lines if len(shown) > 2 else lines[1:]


def _row(each: Difference) -> tuple[str, ...]:
    has_numbers = not math.isnan(each.pearson)
    pearson = floored(each.pearson) if has_numbers else ""
    cells = f"{'≤ ' if each.stays else ''}{each.shift:.2f}" if has_numbers else ""
    if each.kind == "unreadable":  # as long as it is, at the end of the line
        return each.kind, pearson, cells, "", f"{printable(each.path)}: {printable(each.what)}"
    return each.kind, pearson, cells, printable(each.what), printable(each.path)


def _cell(text: str, at: int, width: int) -> str:
    return text.rjust(width) if at in _NUMBERS else text.ljust(width)
