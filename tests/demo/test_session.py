"""What the demo makes of what happened: exit code 0 for the story that it tells, 1 and the reason for any other."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_gradcam.demo.session import Ending, differences, own_environment, story, writable


def ending(test: str, model: str, outcome: str = "passed", picture: str = "", overlay: bool = False) -> Ending:
    return Ending(
        nodeid=f"test_demo.py::{test}[{model}{picture}]",
        test=test,
        model=model,
        outcome=outcome,  # type: ignore[arg-type]
        accuracy=1.0 if test == "test_accuracy" else None,
        overlay=overlay,
    )


AS_TOLD = (
    ending("test_accuracy", "honest"),
    ending("test_reads_the_object", "honest", picture="-cat-001"),
    ending("test_reads_the_object", "honest", picture="-cup-002"),
    ending("test_accuracy", "shortcut"),
    ending("test_reads_the_object", "shortcut", "caught", "-cat-001", overlay=True),
    ending("test_reads_the_object", "shortcut", "caught", "-cup-002", overlay=True),
)


def test_the_story_as_told_has_no_differences() -> None:
    assert differences(AS_TOLD, pytest.ExitCode.TESTS_FAILED) == []


@pytest.mark.parametrize("place", range(len(AS_TOLD)))
def test_any_test_that_broke_is_named_with_what_broke_it(place: int) -> None:
    endings = list(AS_TOLD)
    endings[place] = replace(
        endings[place], outcome="broken", detail="failed in its setup phase, OSError: no such file"
    )
    (line,) = differences(endings, pytest.ExitCode.TESTS_FAILED)
    assert endings[place].nodeid in line
    assert "OSError: no such file" in line


@pytest.mark.parametrize(("place", "outcome"), [(1, "caught"), (2, "caught"), (4, "passed"), (5, "passed")])
def test_a_wrong_verdict_on_a_single_picture_is_a_difference(place: int, outcome: str) -> None:
    endings = list(AS_TOLD)
    endings[place] = replace(endings[place], outcome=outcome, overlay=True)  # type: ignore[arg-type]
    (line,) = differences(endings, pytest.ExitCode.TESTS_FAILED)
    assert endings[place].nodeid in line


@pytest.mark.parametrize("place", [0, 3])
def test_an_accuracy_test_that_failed_by_attention_is_a_difference(place: int) -> None:
    endings = list(AS_TOLD)
    endings[place] = replace(endings[place], outcome="caught", overlay=True)
    assert len(differences(endings, pytest.ExitCode.TESTS_FAILED)) == 1


def test_a_caught_picture_without_an_overlay_is_a_difference() -> None:
    endings = [*AS_TOLD[:-1], replace(AS_TOLD[-1], overlay=False)]
    (line,) = differences(endings, pytest.ExitCode.TESTS_FAILED)
    assert "no overlay" in line


@pytest.mark.parametrize("missing", ["test_accuracy", "test_reads_the_object"])
@pytest.mark.parametrize("model", ["honest", "shortcut"])
def test_a_test_that_did_not_run_is_a_difference(missing: str, model: str) -> None:
    endings = [ending for ending in AS_TOLD if (ending.test, ending.model) != (missing, model)]
    assert differences(endings, pytest.ExitCode.TESTS_FAILED) == [f"{missing} did not run for the model {model}"]


@pytest.mark.parametrize("status", [status for status in pytest.ExitCode if status != pytest.ExitCode.TESTS_FAILED])
def test_any_other_exit_status_of_pytest_is_a_difference(status: pytest.ExitCode) -> None:
    (line,) = differences(AS_TOLD, status)
    assert f"exit status {int(status)}" in line


def test_the_story_says_where_the_overlays_are_and_how_many(tmp_path: Path) -> None:
    text = "\n".join(story(AS_TOLD, [], tmp_path))
    assert str(tmp_path / "test_demo.py") in text
    assert "(2 overlays)" in text
    assert "honest       100.0%   2 of 2 pictures pass" in text
    assert "shortcut     100.0%   0 of 2 pictures pass" in text


def test_a_story_with_differences_claims_nothing_and_lists_them(tmp_path: Path) -> None:
    text = "\n".join(story(AS_TOLD, ["the sky fell"], tmp_path))
    assert "  - the sky fell" in text
    assert "cannot tell" not in text


def test_a_missing_folder_is_made_and_writable(tmp_path: Path) -> None:
    assert writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_in_the_folders_place_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "gradcam-report").write_text("mine")
    assert writable(tmp_path / "gradcam-report") is None
    assert (tmp_path / "gradcam-report").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert writable(tmp_path) is None
    assert writable(tmp_path / "inside") is None


def test_the_users_pytest_variables_are_put_aside_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--maxfail=1")
    monkeypatch.setenv("PYTEST_PLUGINS", "not_there")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    before = dict(os.environ)
    with own_environment():
        assert "PYTEST_ADDOPTS" not in os.environ
        assert "PYTEST_PLUGINS" not in os.environ
        assert os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] == "1"
    assert dict(os.environ) == before
