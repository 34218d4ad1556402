"""What the records of a run come to: outcomes as a person counts them, their order, and `results.json`.

Standard library only. What a record holds is told by `docs/reports.md`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

Record: TypeAlias = Mapping[str, Any]
Category: TypeAlias = Literal["failed", "inconclusive", "expected", "passed"]

SCHEMA: Final = 1
CATEGORIES: Final[tuple[Category, ...]] = ("failed", "inconclusive", "expected", "passed")
_LEFT_OUT: Final = ("pictures", "maps")


def category(record: Record) -> Category:
    """What the verdict counts as; `expected` is one that failed in a test that did not."""
    if record["outcome"] == "inconclusive":
        return "inconclusive"
    if record["passed"]:
        return "passed"
    return "failed" if record["failed"] else "expected"


def worst_first(records: Sequence[Record]) -> list[Record]:
    """The records as a person wants to see them: by what they count as, then by how far they are off, then by name."""
    return sorted(records, key=lambda each: (CATEGORIES.index(category(each)), -_off(each), each["nodeid"]))


def counts(records: Sequence[Record]) -> dict[str, int]:
    """How many verdicts were judged, how many of each category there are, and how many maps wait to be approved."""
    found = dict.fromkeys(map(str, CATEGORIES), 0)
    for record in records:
        found[category(record)] += 1
    return {
        "judged": len(records),
        **found,
        "waiting": len({record["baseline"] for record in records if waits(record)}),
    }


def waits(record: Record) -> bool:
    """Whether a new map waits to be approved."""
    return bool(record.get("received")) and bool(record.get("baseline"))


def results(records: Sequence[Record], about: Mapping[str, Any]) -> bytes:
    """`results.json`: strict JSON, in ASCII, without pictures. Records stand by node id, whatever ran first.

    Args:
        records: all verdicts of the run.
        about: of the run: versions, platform, when it started, how long it took.
    """
    verdicts = [
        {name: value for name, value in record.items() if name not in _LEFT_OUT} | {"category": category(record)}
        for record in sorted(records, key=lambda each: str(each["nodeid"]))
    ]
    # What tells this file from anybody else's stands first.
    whole = {"schema": SCHEMA, "made_by": "pytest-gradcam", "about": about, "counts": counts(records)}
    return json.dumps(strict({**whole, "verdicts": verdicts}), indent=1, allow_nan=False).encode("ascii") + b"\n"


def strict(value: Any) -> Any:
    """The value as JSON knows it: numbers that are not finite are null, and whatever has no place in it is a text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): strict(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [strict(each) for each in value]
    return str(value)


def finite(value: Any) -> float | None:
    """The number, or None where it is none that can be drawn or compared."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def shortfall(record: Record) -> float | None:
    """How far the value is on the wrong side of its threshold; None where one of them is no finite number."""
    value, threshold = finite(record.get("value")), finite(record.get("threshold"))
    if value is None or threshold is None:
        return None
    return value - threshold if record.get("at_most") else threshold - value


def _off(record: Record) -> float:
    short = shortfall(record)
    return math.inf if short is None else short
