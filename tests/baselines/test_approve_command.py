"""`gradcam approve`: what waits becomes the baseline, by name or by decision, and what must not stays as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_gradcam import cli
from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import CheckName
from tests.baselines.received_files import Project, baseline, bytes_of, project, snapshot, spot

TABBY = CheckName("test_cats.py", "test_reads[tabby]")
EARS = CheckName("test_cats.py", "TestCat.test_reads[a.b]", "ears")
DOGS = CheckName("test_dogs.py", "test_reads")
TABBY_ID = "tests/test_cats.py::test_reads[tabby]"
EARS_ID = "tests/test_cats.py::TestCat::test_reads[a.b]@ears"
DOGS_ID = "tests/test_dogs.py::test_reads"


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two changed maps and a new one, in two test files."""
    made = project(tmp_path, "test_cats.py", "test_dogs.py")
    monkeypatch.chdir(tmp_path)
    made.keep(TABBY)
    made.keep(EARS)
    for check in (TABBY, EARS, DOGS):
        made.receive(check)
    return made


def approved(waiting: Project) -> set[CheckName]:
    """The checks whose baseline is, to the byte, what waited."""
    new = {check: bytes_of(baseline(check, spot(5, 5))) for check in (TABBY, EARS, DOGS)}
    return {check for check in new if store.read_bytes(waiting.target(check)) == new[check]}


def left(waiting: Project) -> set[str]:
    return {path.name for path in waiting.report.rglob("*") if path.is_file()}


def test_all_become_baselines_without_a_trace_of_having_waited(
    waiting: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = {path.name: path.read_bytes() for path in waiting.received.rglob("*.png")}
    assert cli.main(["approve", "--all"]) == 0
    assert approved(waiting) == {TABBY, EARS, DOGS}
    assert not waiting.received.exists()
    assert waiting.report.exists()
    for check in (TABBY, EARS, DOGS):
        there = waiting.target(check).with_suffix(".png")
        assert there.read_bytes() == pictures[there.name]
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "3 approved"
    assert all(f"approved  {each}\n" in out for each in (TABBY_ID, EARS_ID, DOGS_ID))


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ([TABBY_ID], {TABBY}),
        (["tests/test_cats.py::test_reads"], {TABBY}),
        ([EARS_ID], {EARS}),
        (["tests/test_cats.py::TestCat::test_reads[a.b]"], {EARS}),
        (["tests/test_cats.py::TestCat"], {EARS}),
        (["tests/test_cats.py"], {TABBY, EARS}),
        (["tests/test_dogs.py", TABBY_ID], {DOGS, TABBY}),
        (["tests/__gradcam__/test_cats/test_reads[tabby].safetensors"], {TABBY}),
        (["./tests/../tests/__gradcam__/test_dogs/test_reads.safetensors"], {DOGS}),
        (["gradcam-report/received/tests/__gradcam__/test_dogs/test_reads.safetensors"], {DOGS}),
    ],
)
def test_names_choose(waiting: Project, asked: list[str], wanted: set[CheckName]) -> None:
    assert cli.main(["approve", *asked]) == 0
    assert approved(waiting) == wanted
    assert len([name for name in left(waiting) if name.endswith(".safetensors")]) == 3 - len(wanted)


@pytest.mark.parametrize(
    "unknown", ["tests/test_cat", "tests/test_cats.py::test_read", "", "tests", "x\0.safetensors", "nowhere.json"]
)
def test_a_name_that_nothing_has_is_told_and_nothing_is_done(
    waiting: Project, unknown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(waiting.root)
    assert cli.main(["approve", TABBY_ID, unknown]) == 1
    assert snapshot(waiting.root) == before
    said = capsys.readouterr().err
    assert said.startswith("BaselineError: nothing that waits is called ")
    assert unknown.replace("\0", "\\x00") in said


def test_without_arguments_lists_what_waits(waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(waiting.root)
    assert cli.main(["approve"]) == 1
    assert snapshot(waiting.root) == before
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines[:3]) == [f"changed  {EARS_ID}", f"changed  {TABBY_ID}", f"new      {DOGS_ID}"]
    assert "gradcam approve --all" in lines[-1]


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["approve", *arguments]) == 0
    assert capsys.readouterr().out == (
        "nothing waits in gradcam-report/received, which does not exist: run it where pytest's rootdir is, or pass "
        "--rootdir and --report\n"
    )


def test_report_and_rootdir_are_named_from_elsewhere(
    waiting: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    artifact = waiting.root / "artifact"
    waiting.report.rename(artifact)
    assert cli.main(["approve", "--all", "--report", str(artifact), "--rootdir", str(waiting.root)]) == 0
    assert approved(waiting) == {TABBY, EARS, DOGS}


def test_a_wrong_rootdir_is_told(waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(waiting.root)
    assert cli.main(["approve", "--all", "--rootdir", "tests"]) == 1
    assert "Name pytest's rootdir with --rootdir" in capsys.readouterr().err
    assert cli.main(["approve", "--all", "--rootdir", "missing"]) == 1
    assert capsys.readouterr().err.startswith("SettingsError: there is no folder missing")
    assert snapshot(waiting.root) == before


def test_all_and_ids_together_are_no_command_line(waiting: Project) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["approve", "--all", TABBY_ID])
    assert ended.value.code == 2


class TestABaselineThatChangedSinceTheRun:
    """It is refused; the others go on."""

    def refused(self, waiting: Project, capsys: pytest.CaptureFixture[str], check: CheckName, id: str) -> None:
        before = store.read_bytes(waiting.target(check))
        assert cli.main(["approve", "--all"]) == 1
        assert store.read_bytes(waiting.target(check)) == before
        assert approved(waiting) == {TABBY, EARS, DOGS} - {check}
        said = capsys.readouterr()
        assert said.err == f"BaselineError: {id}: its baseline has changed since the run: run the tests again\n"
        assert said.out.splitlines()[-1] == "2 approved, 1 refused"
        assert f"{check.stem}.safetensors" in left(waiting)

    def test_in_its_map(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        waiting.keep(TABBY, spot(3, 3))
        self.refused(waiting, capsys, TABBY, TABBY_ID)

    def test_by_vanishing(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        waiting.target(EARS).unlink()
        self.refused(waiting, capsys, EARS, EARS_ID)

    def test_by_appearing(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        waiting.keep(DOGS)
        self.refused(waiting, capsys, DOGS, DOGS_ID)


def test_a_corrupt_file_is_named_and_the_others_go_on(waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
    corrupt = waiting.received / "tests" / "__gradcam__" / DOGS.file
    corrupt.write_bytes(corrupt.read_bytes()[:-9])
    assert cli.main(["approve", "--all"]) == 1
    assert approved(waiting) == {TABBY, EARS}
    assert "test_dogs/test_reads.safetensors is no received file: it is cut off" in capsys.readouterr().err


def test_a_baseline_among_the_received_files_is_none(waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (waiting.received / "stray.safetensors").write_bytes(bytes_of(baseline(TABBY)))
    assert cli.main(["approve", "--all"]) == 1
    assert "stray.safetensors is no received file" in capsys.readouterr().err
    assert approved(waiting) == {TABBY, EARS, DOGS}


class TestThePicture:
    def test_stays_away_where_none_is_wanted(self, waiting: Project) -> None:
        waiting.receive(TABBY, preview=False)
        assert cli.main(["approve", TABBY_ID]) == 0
        assert not waiting.target(TABBY).with_suffix(".png").exists()
        assert f"{TABBY.stem}.png" not in left(waiting)

    def test_replaces_one_of_ours(self, waiting: Project) -> None:
        assert cli.main(["approve", TABBY_ID]) == 0
        first = waiting.target(TABBY).with_suffix(".png").read_bytes()
        waiting.receive(TABBY, spot(2, 5))
        assert cli.main(["approve", TABBY_ID]) == 0
        assert waiting.target(TABBY).with_suffix(".png").read_bytes() != first

    def test_of_somebody_elses_stops_the_approval(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        waiting.target(TABBY).with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\nholiday")
        before = snapshot(waiting.root)
        assert cli.main(["approve", TABBY_ID]) == 1
        assert snapshot(waiting.root) == before
        assert "is no picture of ours" in capsys.readouterr().err

    def test_that_was_lost_stops_the_approval(self, waiting: Project) -> None:
        (waiting.received / "tests" / "__gradcam__" / TABBY.file).with_suffix(".png").unlink()
        before = snapshot(waiting.root)
        assert cli.main(["approve", TABBY_ID]) == 1
        assert snapshot(waiting.root) == before


def test_a_folder_without_write_permission_loses_nothing(waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        waiting.target(DOGS).parent.parent.joinpath("test_dogs").write_text("a file where a folder belongs")
    else:
        waiting.target(TABBY).parent.parent.chmod(0o555)
    assert cli.main(["approve", "--all"]) == 1
    waiting.target(TABBY).parent.parent.chmod(0o755)
    assert approved(waiting) == {TABBY, EARS}
    assert f"{DOGS.stem}.safetensors" in left(waiting)
    assert "BaselineError: " in capsys.readouterr().err


class TestDecisions:
    """approvals.json, as the page of the report saves it."""

    def decide(self, waiting: Project, **about: Any) -> list[str]:
        (waiting.root / "approvals.json").write_text(json.dumps(about))
        return ["approve", "approvals.json"]

    def test_approve_and_reject(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        kept = store.read_bytes(waiting.target(EARS))
        assert cli.main(self.decide(waiting, schema=1, approved=[TABBY_ID], rejected=[EARS_ID])) == 0
        assert approved(waiting) == {TABBY}
        assert store.read_bytes(waiting.target(EARS)) == kept
        assert left(waiting) == {"test_reads.safetensors", "test_reads.png"}
        assert capsys.readouterr().out.splitlines()[-1] == "1 approved, 1 rejected, 1 left"

    def test_are_spelt_in_full(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        before = snapshot(waiting.root / "tests")
        assert cli.main(self.decide(waiting, schema=1, approved=["tests/test_cats.py"], rejected=["tests"])) == 1
        assert "is called tests/test_cats.py, tests:" in capsys.readouterr().err
        assert snapshot(waiting.root / "tests") == before
        assert len(left(waiting)) == 6

    def test_of_nothing_do_nothing(self, waiting: Project) -> None:
        assert cli.main(self.decide(waiting, schema=1, approved=[], rejected=[])) == 0
        assert approved(waiting) == set()
        assert len(left(waiting)) == 6

    def test_come_alone(self, waiting: Project, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = self.decide(waiting, schema=1, approved=[TABBY_ID], rejected=[])
        assert cli.main([*arguments, DOGS_ID]) == 1
        assert capsys.readouterr().err.startswith("SettingsError: approvals.json holds decisions: give it alone")
        assert approved(waiting) == set()

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "holds no approvals"),
            ("[]", "must be an object"),
            ("null", "must be an object"),
            ('{"approved": [], "rejected": []}', "must be an object"),
            ('{"schema": true, "approved": [], "rejected": []}', "schema True is none"),
            ('{"schema": 0, "approved": [], "rejected": []}', "schema 0 is none"),
            ('{"schema": 1.0, "approved": [], "rejected": []}', "schema 1.0 is none"),
            ('{"schema": 2, "decisions": {}}', "upgrade pytest-gradcam"),
            ('{"schema": 1, "approved": []}', "it has the keys"),
            ('{"schema": 1, "approved": [], "rejected": [], "all": true}', "it has the keys"),
            ('{"schema": 1, "approved": "tests", "rejected": []}', "'approved' must be a list of ids"),
            ('{"schema": 1, "approved": [], "rejected": {}}', "'rejected' must be a list of ids"),
            ('{"schema": 1, "approved": [1], "rejected": []}', "'approved' must be a list of ids"),
            ('{"schema": 1, "approved": [""], "rejected": []}', "'approved' must be a list of ids"),
            (f'{{"schema": 1, "approved": ["{DOGS_ID}", "{DOGS_ID}"], "rejected": []}}', "stands in it twice"),
            (f'{{"schema": 1, "approved": ["{DOGS_ID}"], "rejected": ["{DOGS_ID}"]}}', "stands in it twice"),
            ('{"schema": 1, "approved": [], "approved": [], "rejected": []}', "a key stands in it twice"),
            ('{"schema": 1, "approved": ' + "[" * 100_000, "nest without end"),
            ('{"schema": ' + "1" * 10_000 + ', "approved": [], "rejected": []}', "holds no approvals"),
            ("\x80", "holds no approvals"),
            (" " * (16 * 2**20 + 1), "has more than"),
        ],
    )
    def test_that_are_none_are_refused(
        self, waiting: Project, text: str, why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (waiting.root / "approvals.json").write_bytes(text.encode("latin-1"))
        before = snapshot(waiting.root)
        assert cli.main(["approve", "approvals.json"]) == 1
        assert snapshot(waiting.root) == before
        said = capsys.readouterr().err
        assert said.startswith("BaselineError: approvals.json ")
        assert why in said
        assert said.count("\n") == 1

    @pytest.mark.parametrize("kind", ["pipe", "folder"])
    def test_in_no_plain_file_are_refused(self, waiting: Project, kind: str) -> None:
        path = waiting.root / "approvals.json"
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
        assert cli.main(["approve", "approvals.json"]) == 1


def test_names_with_characters_that_steer_a_terminal_are_spelt_out(
    waiting: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["approve", "\x1b[2Jnothing\r"]) == 1
    said = capsys.readouterr()
    assert "\\x1b[2Jnothing\\r" in said.err
    assert "\x1b" not in said.err + said.out


def test_maps_come_back_as_they_were(waiting: Project) -> None:
    assert cli.main(["approve", "--all"]) == 0
    found = store.read(waiting.target(EARS))
    assert found is not None
    assert found.check == EARS
    np.testing.assert_array_equal(found.raw, spot(5, 5))
