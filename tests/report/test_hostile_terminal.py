"""Names, labels and messages are data: none steers the terminal, or names a file outside of the report's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_gradcam.baselines.summary import summary as baselines_summary
from pytest_gradcam.report.names import artifact_name
from pytest_gradcam.report.records import to_record
from pytest_gradcam.report.summary import summary
from pytest_gradcam.report.terminal import failure_text
from tests.report.hostile_texts import HOSTILE
from tests.report.synthetic import verdict


def steers(text: str) -> bool:
    """Whether a text holds anything but printable characters and the line breaks that are ours."""
    return not all(character.isprintable() for character in text.replace("\n", ""))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
class TestNothing:
    def test_in_a_failure_steers_the_terminal(self, text: str) -> None:
        shown = verdict()
        sight = shown.sights[0]
        explained = replace(sight.explanation, label=text, predicted_label=text, layer=text)
        hostile = replace(
            shown, sights=(replace(sight, explanation=explained, title=text),), message=text, facts=((text, text),)
        )
        said = failure_text(hostile, text)
        assert not steers(said)
        lines = failure_text(shown, "x").count("\n")
        assert said.count("\n") <= lines + 3  # its own line breaks are spelt out

    def test_at_the_end_of_a_run_steers_it(self, text: str) -> None:
        record = {**to_record(verdict(), text), "failed": True, "folder": "f", "overlay": "o"}
        title, lines = summary([record], "report")
        assert not any(map(steers, [title, *lines]))
        event = {"path": text, "id": text, "happened": "created"}
        title, lines = baselines_summary(
            [event], [(text, text, False)], update="new", orphans="report", in_ci=True, received="r"
        )
        assert not any(map(steers, [title, *lines]))

    def test_names_a_file_outside(self, text: str, tmp_path: Path) -> None:
        for nodeid in (text, f"test_a.py::test[{text}]", f"{text}::test"):
            target = Path(tmp_path, *artifact_name(nodeid).split("/"))
            assert target.resolve().is_relative_to(tmp_path)
            assert target != tmp_path


def test_the_check_can_fail() -> None:
    assert steers("\x1b[31mred") and steers("a\u202eb") and not steers("Ünï\ncode │▀")
