"""`gradcam diff`: folders and revisions of git, compared by path, and what is said of each baseline."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pytest_gradcam import cli
from pytest_gradcam.baselines.names import CheckName
from tests.baselines.received_files import Project, project, spot

FOLDER = "tests/__gradcam__/test_cats"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2048\n"


def named(test: str) -> CheckName:
    return CheckName("test_cats.py", test)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True, env=os.environ
    )
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "-A", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", "baselines")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def own_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A git that knows nothing of whose machine this is."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("GIT_DIR", raising=False)


def earlier(root: Path) -> Project:
    made = project(root)
    for test in ("test_a", "test_b", "test_c"):
        made.keep(named(test))
    made.keep(named("test_gone"))
    made.keep(named("test_near"))
    made.keep(named("test_layer"))
    made.keep(named("test_far"))
    return made


def later(made: Project) -> None:
    """One is gone, one is new, three are others, one is the same but for rounding."""
    made.target(named("test_gone")).unlink()
    made.keep(named("test_near"), spot(1, 1.6))
    made.keep(named("test_layer"), layer="layer3", layers=("layer3",), method="layer-cam")
    made.keep(named("test_far"), spot(5, 5))
    made.keep(named("test_new"))
    made.keep(named("test_c"), spot(1, 1) * np.float32(1.0001))


EXPECTED = f"""\
         Pearson  cells  what changed
changed                  method, layer                {FOLDER}/test_layer.safetensors
changed  -0.3439   4.98  97% top left → bottom right  {FOLDER}/test_far.safetensors
changed   0.9241   0.46  18% top left → top           {FOLDER}/test_near.safetensors
added                                                 {FOLDER}/test_new.safetensors
removed                                               {FOLDER}/test_gone.safetensors
3 same, 3 changed, 1 added, 1 removed
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = earlier(tmp_path / "before")
    shutil.copytree(made.root, tmp_path / "after")
    later(Project(tmp_path / "after"))
    return tmp_path


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HEAD~1 and HEAD are as `before` and `after`."""
    root = tmp_path / "repository"
    made = earlier(root)
    monkeypatch.chdir(root)
    git(root, "init", "-q", "-b", "main")
    commit(root)
    later(made)
    commit(root)
    return root


def said(capsys: pytest.CaptureFixture[str]) -> str:
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def test_two_folders(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "before", "after"]) == 1
    assert said(capsys) == EXPECTED


def test_two_revisions(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "HEAD~1", "HEAD"]) == 1
    assert said(capsys) == EXPECTED


def test_a_revision_and_the_folder_as_it_is(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "main~1", "."]) == 1
    assert said(capsys) == EXPECTED


def test_the_other_way_round(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "after", "before"]) == 1
    out = said(capsys)
    assert "97% bottom right → top left" in out
    assert f"removed                                               {FOLDER}/test_new.safetensors" in out
    assert out.endswith("3 same, 3 changed, 1 added, 1 removed\n")


def test_a_wider_floor(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "before", "after", "--floor", "retrained"]) == 1
    assert said(capsys) == "".join(
        line for line in EXPECTED.splitlines(keepends=True) if "test_near" not in line
    ).replace("3 same, 3 changed", "4 same, 2 changed")


@pytest.mark.parametrize("pair", [("before", "before"), ("HEAD", "HEAD")])
def test_nothing_differs(repository: Path, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(repository / "tests", repository / "before" / "tests")
    assert cli.main(["diff", *pair]) == 0
    assert said(capsys) == "7 same, 0 changed, 0 added, 0 removed\n"


def test_the_folder_itself_may_be_one(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "before/tests/__gradcam__", "after/tests"]) == 1
    assert said(capsys) == EXPECTED.replace("tests/__gradcam__", "__gradcam__")
    assert cli.main(["diff", "before/tests/__gradcam__/test_cats", "after/tests/__gradcam__"]) == 1
    assert said(capsys) == EXPECTED.replace("tests/__gradcam__", "__gradcam__")


@pytest.mark.parametrize("below", ["tests", "tests/__gradcam__"])
def test_a_folder_of_the_revisions(repository: Path, below: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "HEAD~1", "HEAD", "--folder", below]) == 1
    assert said(capsys) == EXPECTED.replace("tests/__gradcam__", "__gradcam__")


def test_from_elsewhere(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert cli.main(["diff", "HEAD~1", "HEAD", "--folder", str(repository)]) == 1
    assert said(capsys) == EXPECTED


def test_a_folder_wins_over_a_revision(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(repository, "branch", "tests")
    assert cli.main(["diff", "tests", "tests"]) == 0
    shutil.rmtree(repository / FOLDER)
    capsys.readouterr()
    assert cli.main(["diff", "tests", "main", "--folder", "tests"]) == 1
    assert said(capsys).endswith("0 same, 0 changed, 7 added, 0 removed\n")


def test_maps_that_wait_are_no_baselines_but_can_be_compared(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Project(folders / "before")
    made.receive(named("test_a"))
    assert cli.main(["diff", "before", "before"]) == 0
    assert said(capsys).startswith("7 same")
    assert cli.main(["diff", "before", "before/gradcam-report/received"]) == 1
    out = said(capsys)
    assert out.endswith("0 same, 1 changed, 0 added, 6 removed\n")
    assert "97% top left → bottom right" in out


def test_hidden_folders_drafts_and_other_files_are_left_alone(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (".venv/__gradcam__/test_x", f"{FOLDER}/.old", "weights", "tests/test_cats"):
        folder = repository / place
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"something else")
    (repository / FOLDER / ".gradcam-0.tmp").write_bytes(b"half")
    (repository / FOLDER / "test_a.png").write_bytes(b"a picture")
    commit(repository)
    assert cli.main(["diff", "HEAD", "."]) == 0
    assert said(capsys) == "7 same, 0 changed, 0 added, 0 removed\n"


class TestWhatCannotBeRead:
    """Is told with the others, and the exit code is that of diff(1) for trouble."""

    def test_pointers_of_git_lfs(self, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (repository / FOLDER / "test_a.safetensors").write_text(POINTER)
        commit(repository)
        assert cli.main(["diff", "HEAD~2", "HEAD"]) == 2
        out = said(capsys)
        assert f"{FOLDER}/test_a.safetensors: in HEAD: it is a pointer of Git LFS, not the file: run `git lfs" in out
        assert out.endswith("2 same, 3 changed, 1 added, 1 removed, 1 unreadable\n")
        assert cli.main(["diff", "HEAD", "HEAD"]) == 2

    def test_a_file_that_was_cut_off(self, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = folders / "before" / FOLDER / "test_a.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        assert cli.main(["diff", "before", "after"]) == 2
        assert "in before: it is cut off" in said(capsys)

    @pytest.mark.parametrize("revisions", [("HEAD~1", "HEAD"), ("HEAD~1", ".")])
    def test_links(self, repository: Path, revisions: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        path = repository / FOLDER / "test_a.safetensors"
        path.unlink()
        path.symlink_to("test_b.safetensors")
        commit(repository)
        assert cli.main(["diff", *revisions]) == 2
        assert "test_a.safetensors is no baseline: it is a link" in said(capsys)

    @pytest.mark.parametrize("revisions", [("HEAD~1", "HEAD"), ("HEAD~1", ".")])
    def test_files_that_are_too_large(
        self, repository: Path, revisions: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        os.truncate(repository / FOLDER / "test_a.safetensors", 65 * 2**20)
        commit(repository)
        assert cli.main(["diff", *revisions]) == 2
        assert "it has more than 67108864 bytes" in said(capsys)

    def test_names_that_steer_a_terminal(self, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in (b"\x1b[2J\n.safetensors", b"\xff\xfe.safetensors"):
            with open(os.path.join(os.fsencode(repository), os.fsencode(FOLDER), name), "wb") as file:
                file.write(b"nothing")
        commit(repository)
        assert cli.main(["diff", "HEAD~1", "HEAD"]) == 2
        out = said(capsys)
        assert "/\\x1b[2J\\n.safetensors: in HEAD: it has 7 bytes" in out
        assert "/\\udcff\\udcfe.safetensors: " in out
        assert "\x1b" not in out


class TestWhatCannotBeHad:
    """Ends with 2 and one line."""

    def trouble(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        assert cli.main(["diff", *arguments]) == 2
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.startswith("BaselineError: ")
        assert found.err.count("\n") == 1
        return found.err

    @pytest.mark.parametrize(
        "revision",
        ["HEAD~9", "nowhere", "HEAD:tests", "", "HEAD..HEAD", "^HEAD", "--all", "-x", "--help", "a\0b", "\x1b[2J"],
    )
    def test_a_revision(self, repository: Path, revision: str, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.trouble(["--", revision, "HEAD"], capsys)
        assert "is neither a folder nor a revision" in said
        assert "\x1b" not in said

    def test_a_revision_runs_nothing(self, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.trouble(["--", "--output=owned", "HEAD"], capsys)
        self.trouble(["--", "$(touch owned)", "; touch owned"], capsys)
        assert not (repository / "owned").exists()

    def test_a_repository(self, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "is in no repository of git" in self.trouble(["HEAD", "before"], capsys)

    def test_git(self, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("PATH", str(repository))
        assert "git is not installed" in self.trouble(["HEAD", "HEAD"], capsys)

    def test_a_folder_for_revisions(self, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.trouble(["HEAD", "HEAD", "--folder", "missing"], capsys)
        assert "there is no folder missing" in said

    def test_any_baseline(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.trouble([str(tmp_path), str(tmp_path)], capsys)
        assert "there is no baseline in" in said


def test_different_folders_are_told(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", "before", "after/tests"]) == 1
    assert said(capsys).startswith("no path is in both: are before and after/tests the same folder of two checkouts?")


def test_a_revision_without_any(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All have been added since."""
    shutil.rmtree(repository / "tests")
    commit(repository)
    assert cli.main(["diff", "HEAD", "HEAD~1"]) == 1
    assert said(capsys).endswith("\n0 same, 0 changed, 7 added, 0 removed\n")


def test_a_reader_that_has_seen_enough_is_no_traceback(folders: Path) -> None:
    import sys

    command = [sys.executable, "-c", "import sys; from pytest_gradcam.cli import main; sys.exit(main())", "diff"]
    with subprocess.Popen(
        [*command, "before", "after"], cwd=folders, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141
