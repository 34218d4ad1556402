"""`results.json`: strict, versioned, without pictures, the same whatever ran first."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_gradcam.report.page.page import write_page
from pytest_gradcam.report.page.results import category, counts, results, worst_first
from tests.report.pages import passed, record, waiting

DOCS = Path(__file__).parents[2] / "docs" / "reports.md"


def refused(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def read(data: bytes) -> Any:
    return json.loads(data.decode("ascii"), parse_constant=refused)


@pytest.mark.parametrize(
    ("outcome", "failed", "expected"),
    [
        ("failed", True, "failed"),
        ("failed", False, "expected"),
        ("inconclusive", True, "inconclusive"),
        ("inconclusive", False, "inconclusive"),
        ("passed", False, "passed"),
    ],
)
def test_a_verdict_counts_as(outcome: str, failed: bool, expected: str) -> None:
    """What failed where its test did not was expected to."""
    assert category({"outcome": outcome, "passed": outcome == "passed", "failed": failed}) == expected


def test_worst_stand_first() -> None:
    """Failed ones by how far they are off, on either side of the threshold; then passed ones, the closest first."""
    off = {
        "a": record("a", value=0.1),
        "b": record("b", value=-0.2),
        "c": record("c", value=0.9, threshold=0.2, at_most=True),
    }
    fine = {"d": passed("d", value=0.9), "e": passed("e", value=0.16)}
    unknown = record("f", value=math.nan)
    ordered = worst_first([*fine.values(), *off.values(), unknown])
    assert [each["nodeid"] for each in ordered] == ["f", "c", "b", "a", "e", "d"]


def test_counts() -> None:
    """A baseline that two verdicts wait for, in a test that ran twice, is one."""
    records = [record("a"), passed("b"), record("c", failed=False), waiting("d"), waiting("d")]
    assert counts(records) == {"judged": 5, "failed": 3, "inconclusive": 0, "expected": 1, "passed": 1, "waiting": 1}


class TestTheFile:
    def test_holds_a_record_for_each_verdict(self, tmp_path: Path) -> None:
        """All of them, though the page shows only those that failed."""
        write_page(tmp_path, [passed("b"), record("a")], title="x", about={"python": "3.11"}, keep="failed")
        found = read((tmp_path / "results.json").read_bytes())
        assert list(found) == ["schema", "made_by", "about", "counts", "verdicts"]
        assert (found["schema"], found["about"]) == (1, {"python": "3.11"})
        assert [(each["nodeid"], each["category"]) for each in found["verdicts"]] == [("a", "failed"), ("b", "passed")]
        assert found["verdicts"][0]["value"] == -0.26

    def test_holds_no_pictures(self) -> None:
        data = results([record(), waiting()], {})
        assert b"data:image" not in data
        assert all(not {"pictures", "maps"} & set(each) for each in read(data)["verdicts"])

    def test_is_the_same_whatever_ran_first(self) -> None:
        """Verdicts of one test keep their order; workers may end in any."""
        one, two, other = record("a", value=0.1), record("a", value=-0.1), record("b")
        assert results([one, other, two], {}) == results([other, one, two], {})
        assert [each["value"] for each in read(results([two, one], {}))["verdicts"]] == [-0.1, 0.1]

    def test_is_strict(self) -> None:
        """NaN and Infinity are none of JSON's; a lone surrogate is none of UTF-8's; a path is a text."""
        odd = record(
            "lone \ud800",
            value=math.nan,
            chance=math.inf,
            interval=[-math.inf, 1.0],
            folder=Path("x"),
            values=(1.0, math.nan),
        )
        found = read(results([odd], {"seconds": math.inf, 3: {"deep": (math.nan,)}}))  # type: ignore[dict-item]
        verdict = found["verdicts"][0]
        assert (verdict["value"], verdict["chance"], verdict["interval"]) == (None, None, [None, 1.0])
        assert (verdict["nodeid"], verdict["folder"], verdict["values"]) == ("lone \ud800", "x", [1.0, None])
        assert found["about"] == {"seconds": None, "3": {"deep": [None]}}

    def test_is_documented_field_by_field(self) -> None:
        """Every key of a record stands in the table of the docs."""
        rows = [line.split("|")[1] for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
        told = {name for row in rows for name in row.split("`")[1::2]}
        keys = set(read(results([waiting()], {}))["verdicts"][0]) | set(counts([]))
        assert keys <= told, sorted(keys - told)
