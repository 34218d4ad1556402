"""What `gradcam compare` tells a person: a table, the worst first, and the counts. Values in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_gradcam.comparison.rows import Row
from pytest_gradcam.report.summary import told_apart

HEAD = ("Pearson", "cells", "attention moved", "prediction", "picture")
NOTES = 5  # of each kind that are shown; all are in the report


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What was found on all pictures.

    Attributes:
        worst: the rows with maps, the worst first, as many as are shown.
        without: the first of those that were not compared.
        notes: what was different in how the maps were made, each once.
        read: where the first model was read, and how.
        counts: of each status, and of the pictures whose prediction `changed`.
        count: of all pictures.
        below: how many correlations are below the floor.
        median: of the correlations; None where there are none.
        floor: the least correlation that passes.
    """

    worst: Sequence[Row]
    without: Sequence[Row]
    notes: Sequence[str]
    read: Sequence[str]
    counts: Mapping[str, int]
    count: int
    below: int
    median: float | None
    floor: float

    @property
    def is_good(self) -> bool:
        """Whether all pictures were compared, and none is below the floor."""
        return self.below == 0 and self.counts["compared"] == self.count


def lines_of(told: Told) -> list[str]:
    """The lines of the table, and of what is said besides."""
    lines = [f"read at  {each}" for each in told.read[:NOTES]]
    lines += [f"note     {note}" for note in told.notes[:NOTES]]
    if told.worst:
        rows = [HEAD, *(_cells(row, told.floor) for row in told.worst)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines.append("")
        for row in rows:
            left = f"{row[0]:>{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:<{widths[3]}}"
            lines.append(f"{left}  {row[4]}".rstrip())
    if told.without:
        lines += ["", "not compared:"]
        lines += [f"  {row.name}: {row.status}: {row.reason.partition(chr(10))[0]}" for row in told.without]
        left_out = told.count - told.counts["compared"] - len(told.without)
        lines += [f"  and {left_out} more, see the report"] if left_out else []
    return [*lines, ""]


def count_line(told: Told, floor: str) -> str:
    """One line with the counts, how many are below the floor, and the median."""
    counts = told.counts
    parts = [
        f"{counts['compared']} compared",
        f"{told.below} below {told.floor:g} ({floor})",
        *(
            f"{counts[status]} {said}"
            for status, said in (
                ("no evidence", "without evidence"),
                ("not explained", "not explained"),
                ("unreadable", "unreadable"),
            )
            if counts[status]
        ),
    ]
    if counts["changed"]:
        parts.append(f"{counts['changed']} with another prediction")
    median = "" if told.median is None else f"; median Pearson {told_apart(told.median, told.floor)[0]}"
    return f"{told.count} picture{'' if told.count == 1 else 's'}: {', '.join(parts)}{median}"


def _cells(row: Row, floor: float) -> tuple[str, str, str, str, str]:
    assert row.maps is not None  # rows without are not in the table
    a, b = row.maps
    before, after = (each.predicted_label or str(each.predicted) for each in (a, b))
    if a.predicted != b.predicted and before == after:
        before, after = str(a.predicted), str(b.predicted)
    prediction = f"{before} -> {after}" if row.is_changed else "same"
    if row.status != "compared":
        return "-", "-", row.status, prediction, row.name
    return told_apart(row.pearson, floor)[0], f"{row.distance:.2f}", _moved(row), prediction, row.name


def _moved(row: Row) -> str:
    moved = row.movement
    if moved is None:
        return "nowhere"
    if moved.source == moved.target:
        return f"within the {moved.source} ({moved.moved:.0%})"
    return f"{moved.source} -> {moved.target} ({moved.moved:.0%})"
