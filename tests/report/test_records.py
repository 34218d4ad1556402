"""Records: plain values that cross to another process, overlays by number, and a disk that may fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pytest_gradcam.report.maps import colour_map, plain_map
from pytest_gradcam.report.records import recorder, to_record
from tests.report.synthetic import explanation, verdict

NODEID = "test_demo.py::test_it[a]"


def keep_in(folder: Path, nodeid: str = NODEID) -> tuple[Any, list[dict[str, Any]]]:
    kept: list[dict[str, Any]] = []

    def keep(values: dict[str, Any], _verdict: object) -> None:
        kept.append(values)

    return recorder(nodeid, folder, keep, lambda path: path.relative_to(folder.parent).as_posix()), kept


def overlays(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png") if path.is_file())


class TestToRecord:
    def test_it_is_the_verdicts_own_values_and_whose_it_is(self) -> None:
        record = to_record(verdict(), NODEID)
        assert record["nodeid"] == NODEID
        assert {name: record[name] for name in verdict().to_json()} == verdict().to_json()

    def test_a_failed_one_brings_its_map_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLORTERM", "truecolor")
        shown = verdict()
        seen = shown.explanation
        record = to_record(shown, NODEID)
        (drawn,) = record["maps"]
        assert drawn["plain"] == plain_map(seen.cam, shown.mask)
        assert drawn["colour"] == colour_map(seen.image, seen.cam, shown.mask)

    @pytest.mark.parametrize("terminal", ["", "yes"])
    def test_a_terminal_that_does_not_claim_truecolor_gets_256_colours(
        self, terminal: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLORTERM", terminal)
        text = "".join(to_record(verdict(), NODEID)["maps"][0]["colour"])
        assert "38;5;" in text
        assert "38;2;" not in text

    def test_a_passed_one_travels_light(self) -> None:
        record = to_record(verdict(outcome="passed"), NODEID)
        assert record["maps"] == []

    def test_numpy_scalars_become_plain_ones(self) -> None:
        """Whatever crosses from an xdist worker must be of a built-in type, not of a subclass of one."""
        shown = verdict(
            value=np.float64(0.5),
            chance=np.float32(0.25),
            peak=(np.int64(3), np.int64(4)),
            explanation=explanation(cls=np.int64(3)),
        )
        record = to_record(shown, NODEID)
        assert (record["value"], record["region_share"], record["passed"]) == (0.5, 0.25, False)
        assert (record["peak"], record["cls"]) == ([3, 4], 3)
        for value in (record["value"], record["region_share"], record["passed"], *record["peak"], record["cls"]):
            assert type(value) in (int, float, bool)
        assert json.loads(json.dumps(record)) == record


class TestRecorder:
    def test_a_failed_verdict_is_drawn_and_its_place_returned(self, tmp_path: Path) -> None:
        record, kept = keep_in(tmp_path / "report")
        assert record(verdict()) == "report/test_demo.py/test_it[a].png"
        assert kept[0]["overlay"] == "report/test_demo.py/test_it[a].png"
        assert kept[0]["folder"] == "report"
        assert overlays(tmp_path / "report") == ["test_demo.py/test_it[a].png"]

    def test_a_passed_verdict_is_recorded_and_not_drawn(self, tmp_path: Path) -> None:
        record, kept = keep_in(tmp_path / "report")
        assert record(verdict(outcome="passed")) is None
        assert [entry["overlay"] for entry in kept] == [None]
        assert not (tmp_path / "report").exists()

    def test_more_than_one_failed_verdict_of_a_test_is_numbered(self, tmp_path: Path) -> None:
        record, _ = keep_in(tmp_path / "report")
        for shown in (verdict(), verdict(outcome="passed"), verdict(), verdict()):
            record(shown)
        assert overlays(tmp_path / "report") == [
            "test_demo.py/test_it[a]-2.png",
            "test_demo.py/test_it[a]-3.png",
            "test_demo.py/test_it[a].png",
        ]

    def test_a_tests_own_overlays_of_an_earlier_run_are_removed_and_no_others(self, tmp_path: Path) -> None:
        for nodeid in (NODEID, "test_demo.py::test_it", "test_demo.py::test_it[a]-2", "test_demo.py::test_it[ab]"):
            record, _ = keep_in(tmp_path, nodeid)
            for _ in range(3):
                record(verdict())
        (tmp_path / "mine.png").write_bytes(b"")
        before = set(overlays(tmp_path))
        keep_in(tmp_path)
        assert before - set(overlays(tmp_path)) == {
            "test_demo.py/test_it[a].png",
            "test_demo.py/test_it[a]-2.png",
            "test_demo.py/test_it[a]-3.png",
        }

    def test_a_picture_of_the_users_is_neither_removed_nor_replaced(self, tmp_path: Path) -> None:
        """By its mark, not by its name: the user's file has the very name of the test's overlay."""
        mine = tmp_path / "test_demo.py" / "test_it[a].png"
        mine.parent.mkdir()
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(mine)
        before = mine.read_bytes()
        for _ in range(2):  # the second run finds the first one's overlay behind the user's file
            record, kept = keep_in(tmp_path)
            assert overlays(tmp_path) == ["test_demo.py/test_it[a].png"]
            assert record(verdict()) == f"{tmp_path.name}/test_demo.py/test_it[a]-2.png"
            assert kept[0]["overlay"] == f"{tmp_path.name}/test_demo.py/test_it[a]-2.png"
            assert mine.read_bytes() == before
        keep_in(tmp_path)
        assert overlays(tmp_path) == ["test_demo.py/test_it[a].png"]

    def test_a_link_and_a_folder_in_the_way_stay_what_they_are(self, tmp_path: Path) -> None:
        folder, elsewhere = tmp_path / "test_demo.py", tmp_path / "elsewhere.png"
        folder.mkdir()
        (folder / "test_it[a].png").symlink_to(elsewhere)
        (folder / "test_it[a]-2.png").mkdir()
        record, _ = keep_in(tmp_path)
        assert record(verdict()) == f"{tmp_path.name}/test_demo.py/test_it[a]-3.png"
        assert (folder / "test_it[a].png").is_symlink() and not elsewhere.exists()
        assert (folder / "test_it[a]-2.png").is_dir()

    def test_git_ignores_a_folder_that_was_made_here_and_no_other(self, tmp_path: Path) -> None:
        record, _ = keep_in(tmp_path / "build" / "report")
        record(verdict())
        assert (tmp_path / "build" / "report" / ".gitignore").read_text() == "*\n"
        record, _ = keep_in(tmp_path)
        record(verdict())
        assert not (tmp_path / ".gitignore").exists()
        assert not (tmp_path / "build" / ".gitignore").exists()

    def test_a_folder_that_cannot_be_made_is_a_reason_and_not_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "report").write_text("a file where the folder should be")
        record, kept = keep_in(tmp_path / "report")
        said = record(verdict())
        assert said.startswith("not written: ")
        assert said.endswith(" (report/test_demo.py/test_it[a].png)")
        assert kept[0]["overlay"] is None
        assert (tmp_path / "report").read_text() == "a file where the folder should be"

    def test_the_reason_is_the_systems_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(source: os.PathLike[str], target: os.PathLike[str]) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "replace", denied)
        record, _ = keep_in(tmp_path / "report")
        assert record(verdict()) == "not written: Permission denied (report/test_demo.py/test_it[a].png)"
