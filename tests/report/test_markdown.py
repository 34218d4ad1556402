"""The step summary: what it counts and lists, in which order, and that a parser sees nothing but text in hostile text.

The parser is markdown-it, a reading of CommonMark with GitHub's tables that is not ours.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pytest_gradcam.report.markdown import step_summary
from tests.report.hostile_texts import HOSTILE

# What GitHub makes links of, outside of code, when Markdown is HTML already.
LINKED = re.compile(r"://|www\.\w|@\w|#\d|:\w+:")


def record(**changes: Any) -> dict[str, Any]:
    return {
        "metric": "calibrated_energy",
        "value": -0.26,
        "threshold": 0.15,
        "chance": 0.0,
        "at_most": False,
        "outcome": "failed",
        "failed": True,
        "nodeid": "test_demo.py::test_it[cup-017]",
        "message": "class 3 (rocket) is not explained by the box: calibrated energy -0.26, needs 0.15",
        "baseline": None,
        "received": None,
        **changes,
    }


def passed(**changes: Any) -> dict[str, Any]:
    return record(**{"outcome": "passed", "failed": False, "value": 0.8, "message": "fine", **changes})


def tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def cells(text: str) -> list[list[str]]:
    """The text of each cell of each row, without the head; code and prose alike, as a reader sees it."""
    rows: list[list[str]] = []
    for before, token in zip(tokens(text), tokens(text)[1:], strict=False):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in token.children or ()))
    return [row for row in rows if row[1] != "value"]


def test_a_run() -> None:
    second = record(value=0.11, nodeid="test_demo.py::test_it[cat-004]", message="a `b`")
    text = step_summary([passed(), second, record()], title="Attention")
    assert text == (
        "## Attention\n\n"
        "❌ **3 judged**: 2 failed, 1 passed\n\n"
        "| | value | | needs | test | |\n"
        "|:-:|--:|:--|:--|:--|:--|\n"
        "| ❌ | -0.26 | `░░░░░░░▐██│░░░░░░░░░░` | at least 0.15 | `test_demo.py::test_it[cup-017]` | "
        "class 3 (rocket) is not explained by the box: calibrated energy -0.26, needs 0.15 |\n"
        "| ❌ | 0.11 | `░░░░░░░░░░│█▏░░░░░░░░` | at least 0.15 | `test_demo.py::test_it[cat-004]` | ``a `b` `` |\n\n"
        "<details><summary>1 passed</summary>\n\n"
        "| | value | | needs | test | |\n"
        "|:-:|--:|:--|:--|:--|:--|\n"
        "| ✅ | 0.80 | `░░░░░░░░░░│████████░░` | at least 0.15 | `test_demo.py::test_it[cup-017]` | fine |\n\n"
        "</details>\n"
    ).replace("``a `b` ``", "`` a `b` ``")


def test_the_order_is_failed_then_unsure_then_expected_then_passed_and_in_each_the_worst_first() -> None:
    records = [
        passed(nodeid="far above", value=0.9),
        record(nodeid="expected", failed=False),
        record(nodeid="by 0.1", value=0.05),
        record(nodeid="unsure", outcome="inconclusive", failed=False, value=0.2),
        passed(nodeid="just above", value=0.16),
        record(nodeid="by 0.5", value=0.6, threshold=0.1, at_most=True),
    ]
    text = step_summary(records, title="t")
    names = [row[4] for row in cells(text)]
    assert names == ["by 0.5", "by 0.1", "unsure", "expected", "just above", "far above"]
    assert [row[0] for row in cells(text)] == ["❌", "❌", "⚠️", "☑️", "✅", "✅"]
    assert "❌ **6 judged**: 2 failed, 1 failed as expected, 1 inconclusive, 2 passed" in text
    assert text.index("unsure") < text.index("<details>") < text.index("just above")
    assert "at most 0.10" in text


@pytest.mark.parametrize(
    ("records", "mark"),
    [
        ([passed()], "✅"),
        ([passed(), record(failed=False)], "☑️"),
        ([passed(), record(outcome="inconclusive", failed=False)], "⚠️"),
        ([passed(), record()], "❌"),
    ],
)
def test_the_headline_has_the_mark_of_the_worst(records: list[dict[str, Any]], mark: str) -> None:
    assert step_summary(records, title="t").splitlines()[2].startswith(f"{mark} **")


def test_nothing_judged() -> None:
    assert step_summary([], title="t") == "## t\n\nnothing was judged\n"


def test_50_rows_and_how_many_more() -> None:
    text = step_summary([record(nodeid=f"t{i:03}") for i in range(58)], title="t")
    assert [row[4] for row in cells(text)] == [f"t{i:03}" for i in range(50)]
    assert "\n\n… and 8 more\n" in text
    text = step_summary([record() for _ in range(50)], title="t")
    assert len(cells(text)) == 50 and "more" not in text
    text = step_summary([*(record() for _ in range(45)), *(passed() for _ in range(9))], title="t")
    assert len(cells(text)) == 50 and "… and 4 more\n\n</details>" in text


def test_baselines_that_wait() -> None:
    waits = record(baseline="test_a.py::test_it@x", received="gradcam-report/received/x.gradcam")
    text = step_summary([waits, waits, record(baseline="test_a.py::other")], title="t")
    assert "**1 baseline waits** to be looked at: `gradcam review`\n\n- `test_a.py::test_it@x`\n" in text
    assert "- `test_a.py::other`" not in text
    many = [record(baseline=f"b{i:02}", received="r") for i in range(53)]
    text = step_summary(many, title="t")
    assert "**53 baselines wait** to be" in text and "- … and 3 more" in text and "`b49`" in text and "b50" not in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_is_a_row_as_others(value: float) -> None:
    assert cells(step_summary([record(value=value)], title="t"))[0][1:3] == [str(value), ""]


def shown(text: str) -> str:
    """What a reader should see: as it is, but for characters that cannot be seen, which are spelt out; cut at 300."""
    spelt = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return spelt if len(spelt) <= 300 else f"{spelt[:149]}…{spelt[-150:]}"


def check(text: str, hostile: str) -> None:
    """A summary of one hostile record, with that text everywhere, is read as text alone."""
    text.encode("utf-8")
    (row,) = cells(text)
    assert len(row) == 6
    assert row[4] == shown(hostile)
    seen = {"heading_open": 0, "table_open": 0, "list_item_open": 0, "link_open": 0, "html_block": 0, "image": 0}
    for token in tokens(text):
        for each in (token, *(token.children or ())):
            seen[each.type] = seen.get(each.type, 0) + 1
            if each.type == "text":
                assert not LINKED.search(each.content), f"{each.content!r} could become a link"
    assert (seen["heading_open"], seen["table_open"], seen["list_item_open"]) == (1, 1, 1)
    assert not {"link_open", "image", "html_block", "html_inline", "fence", "hr", "em_open"} & {
        kind for kind, count in seen.items() if count
    }
    assert seen["strong_open"] == 2  # the count of verdicts, and of baselines


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text(hostile: str) -> None:
    waits = record(nodeid=hostile, message=hostile, baseline=hostile, received="r")
    check(step_summary([waits], title=hostile), hostile)


@given(st.text(st.sampled_from("`|\\<>&@:/.#*_~[]()! \n\rw1a-=\x1b\ud800é"), min_size=1, max_size=12))
def test_any_text_is_text(hostile: str) -> None:
    waits = record(nodeid=hostile, message=hostile, baseline=hostile, received="r")
    check(step_summary([waits], title=hostile), hostile)


def test_the_first_line_of_a_message() -> None:
    assert cells(step_summary([record(message="first\nsecond")], title="t"))[0][5] == "first"


def test_it_stays_far_below_what_github_takes() -> None:
    long = [
        record(nodeid=f"{i}{text}", message=text, baseline=f"{i}{text}", received="r")
        for text in HOSTILE[-5:]
        for i in range(500)
    ]
    assert len(step_summary(long, title="x" * 10_000).encode("utf-8")) < 2**20 / 4


def test_it_needs_neither_numpy_nor_torch() -> None:
    code = (
        "import sys\nimport pytest_gradcam.report.markdown, pytest_gradcam.report.github, pytest_gradcam.report.junit\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'cv2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
