"""`gradcam demo` as a user runs it: what it shows and leaves on the disk, and its exit code if something is off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest

from pytest_gradcam.demo.session import Watcher, differences

WEIGHTS = Path(__file__).parents[2] / "pytest_gradcam" / "demo" / "weights"
USERS_TROUBLE = {
    "pytest.ini": "[pytest]\naddopts = --no-such-option\n",
    "conftest.py": "raise RuntimeError('the conftest of the user')\n",
    "test_of_the_user.py": "def test_of_the_user(): raise RuntimeError\n",
}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    seconds: float


def processor_seconds() -> float:
    """Processor time of the processes that have run for this one: a busy machine does not stretch it."""
    times = os.times()
    return times.children_user + times.children_system


def gradcam_demo(folder: Path, *, weights: Path | None = None, **variables: str) -> Done:
    """Run `gradcam demo` in a process of its own, in `folder`, with these environment variables, and other weights."""
    lines = ["from pathlib import Path", "from pytest_gradcam.cli import main"]
    if weights is not None:
        lines += ["from pytest_gradcam.demo import models", f"models.WEIGHTS = Path({str(weights)!r})"]
    code = "\n".join([*lines, "raise SystemExit(main(['demo']))"])
    before = processor_seconds()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return Done(done.returncode, done.stdout, processor_seconds() - before)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user whose own pytest configuration would break the demo."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in USERS_TROUBLE.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def demo(where: Path) -> Done:
    return gradcam_demo(where, PYTEST_ADDOPTS="--maxfail=1 --no-such-option", PYTEST_PLUGINS="not_there")


def test_it_ends_with_0_whatever_the_user_has_configured(demo: Done) -> None:
    assert demo.code == 0, demo.out


@pytest.mark.skipif(sys.platform == "win32", reason="no processor time of child processes there")
def test_it_takes_at_most_20_seconds(demo: Done) -> None:
    assert 0.5 < demo.seconds <= 20


def test_it_shows_what_each_test_did(demo: Done) -> None:
    for model in ("honest", "shortcut"):
        assert re.search(rf"^test_demo\.py::test_accuracy\[{model}\] PASSED", demo.out, re.MULTILINE)
    for model, outcome in (("honest", "PASSED"), ("shortcut", "FAILED")):
        lines = re.findall(rf"^test_demo\.py::test_reads_the_object\[{model}-\w+-\d+\] (\w+)", demo.out, re.MULTILINE)
        assert lines == [outcome] * 8


def test_it_shows_one_failure_in_full_with_its_map(demo: Done) -> None:
    messages = re.findall(r"^E +.*AttentionError: class \d \(\w+\) is not explained by the box", demo.out, re.MULTILINE)
    assert len(messages) == 1
    rows = re.findall(r"^E +│(.{44})│$", demo.out, re.MULTILINE)
    assert len(rows) >= 10
    assert any("┌" in row and "┐" in row for row in rows)  # the box
    assert any("@" in row for row in rows)  # the map's maximum


def test_it_names_overlays_that_exist_and_are_pictures(demo: Done, where: Path) -> None:
    overlays = sorted((where / "gradcam-report" / "test_demo.py").glob("*.png"))
    assert [overlay.name.split("-")[0] for overlay in overlays] == ["test_reads_the_object[shortcut"] * 8
    for overlay in overlays:
        pixels = cv2.imread(str(overlay))
        assert pixels is not None
        assert pixels.std() > 10
    (named,) = re.findall(r"^E +overlay +(.+)$", demo.out, re.MULTILINE)
    assert where / named.strip() in overlays  # as the user types it, in the user's folder
    assert f"look   {where / 'gradcam-report' / 'test_demo.py'}" in demo.out


def test_it_leaves_nothing_else_in_the_users_folder(demo: Done, where: Path) -> None:
    assert {path.name for path in where.iterdir()} == {*USERS_TROUBLE, "gradcam-report"}


def test_it_says_what_to_do_next(demo: Done) -> None:
    (line,) = re.findall(r"^  copy   (.+)$", demo.out, re.MULTILINE)
    assert "assert_attention_in_region" in Path(line.strip()).read_text(encoding="utf-8")


def test_without_a_writable_folder_the_overlays_go_to_a_temporary_one(tmp_path: Path) -> None:
    project, temporary = tmp_path / "project", tmp_path / "temporary"
    project.mkdir()
    temporary.mkdir()
    (project / "gradcam-report").write_text("a file in the folder's place")
    done = gradcam_demo(project, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
    assert done.code == 0, done.out
    (folder,) = temporary.glob("gradcam-report-*")
    assert f"gradcam-report cannot be written: the overlays go to {folder}" in done.out
    assert len(list(folder.rglob("*.png"))) == 8


def test_models_that_changed_places_end_with_1(tmp_path: Path) -> None:
    """The accuracy test cannot see it: only the attention test does."""
    for name, other in (("honest", "shortcut"), ("shortcut", "honest")):
        (tmp_path / f"{name}.safetensors").write_bytes((WEIGHTS / f"{other}.safetensors").read_bytes())
    done = gradcam_demo(tmp_path, weights=tmp_path)
    assert done.code == 1
    assert "This is not what the demo should show:" in done.out
    assert (
        len(re.findall(r"^  - test_demo\.py::test_reads_the_object\[honest-.* was to be passed", done.out, re.M)) == 8
    )
    assert (
        len(re.findall(r"^  - test_demo\.py::test_reads_the_object\[shortcut-.* was to be caught", done.out, re.M)) == 8
    )
    assert "test_accuracy[honest] was to be" not in done.out


def test_weights_that_are_missing_end_with_1_and_are_named(tmp_path: Path) -> None:
    (tmp_path / "honest.safetensors").write_bytes((WEIGHTS / "honest.safetensors").read_bytes())
    done = gradcam_demo(tmp_path, weights=tmp_path)
    assert done.code == 1
    assert re.search(r"^  - test_demo\.py::test_accuracy\[shortcut\] .*shortcut\.safetensors", done.out, re.MULTILINE)


ENDINGS = """
import pytest
from pytest_gradcam import AttentionError

VERDICT = object()

@pytest.fixture
def broken():
    raise AttentionError("in a fixture", VERDICT)

@pytest.fixture
def broken_later():
    yield
    raise OSError("in the teardown")

@pytest.mark.parametrize("model", ["honest"])
class Test:
    def test_passes(self, model, record_property): record_property("accuracy", 0.75)
    def test_caught(self, model): raise AttentionError("it looks elsewhere", VERDICT)
    def test_no_verdict(self, model): raise AttentionError("no map")
    def test_other_error(self, model): raise ValueError("two\\nlines")
    def test_plain_assertion(self, model): assert model == "shortcut"
    def test_skipped(self, model): pytest.skip("not today")
    def test_in_the_setup(self, model, broken): pass
    def test_caught_then_broken(self, model, broken_later): raise AttentionError("it looks elsewhere", VERDICT)
    def test_in_the_teardown(self, model, broken_later): pass
"""


def test_only_a_verdict_in_the_test_itself_counts_as_caught(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_endings=ENDINGS)
    watcher = Watcher(pytester.path)
    pytester.inline_run("-q", plugins=[watcher])
    outcomes = {ending.nodeid.split("::")[-1].split("[")[0]: ending.outcome for ending in watcher.endings()}
    assert outcomes.pop("test_passes") == "passed"
    assert outcomes.pop("test_caught") == "caught"
    assert len(outcomes) == 7
    assert set(outcomes.values()) == {"broken"}
    assert watcher.endings()[0].accuracy == 0.75
    assert differences(watcher.endings(), 1) != []
    details = [ending.detail for ending in watcher.endings()]
    assert "failed in its call phase, ValueError: two" in details
    assert "failed in its setup phase, AttentionError: in a fixture" in details
