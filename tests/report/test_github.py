"""Annotations: read back as GitHub's runner reads them, whatever is in a verdict.

The reader is written after actions/runner, `ActionCommand.TryParseV2`, and knows nothing of how we write.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from pytest_gradcam.report import github
from tests.report.hostile_texts import HOSTILE


def record(**changes: Any) -> dict[str, Any]:
    return {
        "value": -0.26,
        "threshold": 0.15,
        "at_most": False,
        "outcome": "failed",
        "failed": True,
        "nodeid": "tests/test_a.py::test_it[cup-017]",
        "file": "tests/test_a.py",
        "line": 12,
        "message": "class 3 is not explained by the box",
        "facts": [],
        "overlay": None,
        **changes,
    }


def unsure(**changes: Any) -> dict[str, Any]:
    return record(**{"outcome": "inconclusive", "failed": False, **changes})


def commands(output: str) -> list[tuple[str, dict[str, str], str]]:
    """The commands in what a step wrote: name, properties, message."""
    found = []
    for line in re.split(r"\r\n|\r|\n", output):
        text = line.lstrip()
        if not text.startswith("::") or (end := text.find("::", 2)) < 0:
            assert "##[" not in line
            continue
        name, _, given = text[2:end].partition(" ")
        properties = {}
        for pair in filter(None, (each.strip() for each in given.split(","))):
            key, _, value = pair.partition("=")
            assert key not in properties
            properties[key] = unescaped(value.replace("%3A", ":").replace("%2C", ","))
        found.append((name, properties, unescaped(text[end + 2 :])))
    return found


def unescaped(text: str) -> str:
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def spelt(text: str) -> str:
    """What cannot be seen spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def test_a_failed_verdict_is_an_error_on_the_tests_line() -> None:
    assert github.annotations([record()]) == [
        "::error file=tests/test_a.py,line=12,title=tests/test_a.py%3A%3Atest_it[cup-017]::"
        "class 3 is not explained by the box"
    ]


def test_what_else_is_known_follows_in_lines_of_their_own() -> None:
    (line,) = github.annotations([record(facts=[["moved", "left -> right, 50%"]], overlay="gradcam-report/a.png")])
    assert line.endswith(
        "::class 3 is not explained by the box%0Amoved: left -> right, 50%25%0Aoverlay: gradcam-report/a.png"
    )


def test_one_that_cannot_tell_is_a_warning_whether_or_not_its_test_failed() -> None:
    lines = github.annotations([unsure(), unsure(failed=True, nodeid="b"), record()])
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::warning"]


def test_what_passed_or_was_expected_to_fail_is_no_annotation() -> None:
    assert github.annotations([record(outcome="passed", failed=False), record(failed=False)]) == []
    assert github.annotations([]) == []


@pytest.mark.parametrize("missing", [{"line": None}, {"file": None, "line": None}])
def test_a_place_that_is_not_known_is_left_out(missing: dict[str, None]) -> None:
    ((_, properties, _),) = commands(github.annotations([record(**missing)])[0])
    assert set(properties) == {"file", "line", "title"} - set(missing)


@pytest.mark.parametrize(("make", "command"), [(record, "error"), (unsure, "warning")])
def test_github_shows_ten_the_worst_first_and_how_many_more(make: Any, command: str) -> None:
    records = [make(value=-i / 100, nodeid=f"t{i:02}") for i in range(14)]
    lines = github.annotations(records)
    found = commands("\n".join(lines))
    assert [properties["title"] for _, properties, _ in found[:9]] == [f"t{i:02}" for i in range(13, 4, -1)]
    assert len(found) == 10 and {name for name, _, _ in found} == {command}
    assert found[9][2].startswith("5 more verdicts")
    assert [p["title"] for _, p, _ in commands("\n".join(github.annotations(records[:10])))] == [
        f"t{i:02}" for i in range(9, -1, -1)
    ]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_begins_nothing_of_its_own(hostile: str) -> None:
    check(hostile)


@given(st.text(st.sampled_from(":%,=\r\n# [0DAa\x85\u2028\x1b\ud800é"), min_size=1, max_size=16))
def test_any_text_begins_nothing_of_its_own(hostile: str) -> None:
    check(hostile)


def check(hostile: str) -> None:
    made = record(nodeid=hostile, file=hostile, message=hostile, facts=[["fact", hostile]], overlay=hostile or None)
    lines = github.annotations([made])
    written = "\n".join(lines)
    written.encode("utf-8")
    assert len(lines) == 1 and written.isprintable()
    ((name, properties, message),) = commands(written)
    assert name == "error" and set(properties) <= {"file", "line", "title"}
    assert properties["line"] == "12"
    for value in (properties["title"], properties["file"]):  # the runner strips what surrounds a property
        assert value == spelt(hostile).rstrip() or len(hostile) > 400
    assert len(message) <= 2000
    lines_of = [spelt(line) for line in hostile.splitlines()]
    assert message.split("\n")[: len(lines_of)] == lines_of or len(hostile) > 400
