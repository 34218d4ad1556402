"""Baselines that no test uses: found by what is known, removed only where they are ours."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import CheckName
from pytest_gradcam.baselines.orphans import GONE, NO_MODULE, NOT_ASKED, Orphan, find, prune, tidy
from pytest_gradcam.errors import BaselineError
from tests.baselines.made import baseline


class Project:
    """A folder with test files, and baselines of their checks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "__gradcam__"

    def module(self, name: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text("")

    def store(self, test: str, name: str = "", module: str = "test_a.py") -> Path:
        check = CheckName(module, test, name)
        store.write(self.base / check.file, baseline(check=check))
        return self.base / check.file

    def find(
        self, tests: Iterable[str], *, ran: Iterable[str] | None = None, used: Iterable[Path] = ()
    ) -> dict[Path, Orphan]:
        """What is found where `test_a.py` was collected whole; all its tests ran and passed unless it is said."""
        folder, tests = str(self.base / "test_a"), set(tests)
        passed = {(folder, test) for test in (tests if ran is None else ran)}
        return {Path(each.path): each for each in find({folder: tests}, passed, {str(path) for path in used})}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "tests")
    made.module("test_a.py")
    return made


def why(found: dict[Path, Orphan]) -> dict[Path, str]:
    return {path: each.why for path, each in found.items()}


class TestFinding:
    def test_what_was_used_is_no_orphan(self, project: Project) -> None:
        paths = [project.store("test_x", name) for name in ("", "left", "right")]
        assert project.find({"test_x"}, used=paths) == {}

    def test_of_a_test_that_is_gone(self, project: Project) -> None:
        gone, kept = project.store("test_old[a]", "left"), project.store("test_x")
        assert why(project.find({"test_x"}, used=[kept])) == {gone: GONE}

    def test_of_a_check_that_its_test_no_longer_asks(self, project: Project) -> None:
        left, right = project.store("test_x", "left"), project.store("test_x", "right")
        assert why(project.find({"test_x"}, used=[left])) == {right: NOT_ASKED}

    def test_of_a_test_that_failed_skipped_or_did_not_run(self, project: Project) -> None:
        """It may not have come to its check."""
        project.store("test_x", "left")
        assert project.find({"test_x"}, ran=()) == {}

    def test_a_test_of_the_same_name_in_another_module_that_ran_says_nothing(self, project: Project) -> None:
        project.store("test_x")
        folder, other = str(project.base / "test_a"), str(project.base / "test_b")
        project.module("test_b.py")
        assert find({folder: {"test_x"}, other: {"test_x"}}, {(other, "test_x")}, ()) == []

    def test_modules_that_were_not_collected_whole_are_left_alone(self, project: Project) -> None:
        project.module("test_b.py")
        project.store("test_gone", module="test_b.py")
        assert project.find({"test_x"}) == {}
        assert find({}, (), ()) == []

    def test_of_a_module_that_is_gone(self, project: Project) -> None:
        path = project.store("test_x", module="test_old.py")
        assert why(project.find(())) == {path: NO_MODULE}

    def test_of_modules_with_any_name(self, project: Project) -> None:
        for module in ("test é.py", "guide.md", "TEST_B.py", "test_b.txt.py"):
            project.module(module)
            project.store("test_x", module=module)
        assert project.find(()) == {}
        (project.root / "guide.md").unlink()
        assert list(why(project.find(())).values()) == [NO_MODULE]

    @pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="needs names of any bytes")
    def test_beside_a_file_whose_name_is_no_text(self, project: Project) -> None:
        (project.root / os.fsdecode(b"test_\xff.py")).write_text("")
        path = project.store("test_gone")
        assert why(project.find(())) == {path: GONE}

    def test_a_copy_under_another_name_is_an_orphan(self, project: Project) -> None:
        path = project.store("test_x")
        copy = path.with_name("test_y.safetensors")
        copy.write_bytes(path.read_bytes())
        assert why(project.find({"test_x", "test_y"}, ran=(), used=[path])) == {copy: GONE}

    def test_what_cannot_be_read_is_told_and_is_not_ours(self, project: Project) -> None:
        path = project.store("test_x")
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
        elsewhere = project.store("test_y", module="test_old.py")
        elsewhere.write_bytes(b"notes")
        found = project.find({"test_x"})
        assert set(found) == {path, elsewhere}
        assert not any(each.is_ours for each in found.values())
        assert f"{path} cannot be used: it is a pointer of Git LFS" in found[path].why

    def test_links_and_other_files_are_not_looked_at(self, project: Project) -> None:
        outside = project.root.parent / "outside"
        store.write(outside / "x.safetensors", baseline(check=CheckName("test_a.py", "test_gone")))
        kept = project.store("test_x")
        (kept.parent / "link.safetensors").symlink_to(outside / "x.safetensors")
        (kept.parent / "linked").symlink_to(outside)
        (project.base / "test_linked").symlink_to(outside)
        (kept.parent / "notes.txt").write_text("")
        (project.base / "loose.safetensors").write_bytes(b"")
        assert project.find({"test_x"}, used=[kept]) == {}

    def test_baselines_beside_other_folders_are_left_alone(self, project: Project) -> None:
        other = Project(project.root / "sub")
        other.module("test_a.py")
        sibling = Project(project.root.parent / "tests2")
        for each in (other, sibling):
            each.store("test_gone")
        assert project.find({"test_x"}) == {}

    def test_they_are_sorted_whatever_the_disk_says(self, project: Project) -> None:
        paths = [project.store(f"test_{name}") for name in "cab"]
        paths.append(project.store("test_x", module="test_0.py"))
        folder = str(project.base / "test_a")
        assert [each.path for each in find({folder: ()}, (), ())] == sorted(map(str, paths))

    def test_what_somebody_removes_meanwhile_is_none(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        project.store("test_gone")
        project.store("test_x", module="test_old.py")
        listed = store.listed

        def removed(folder: Path) -> list[Path]:
            found = listed(folder)
            for path in found:
                path.unlink()
            return found

        monkeypatch.setattr(store, "listed", removed)
        assert project.find(()) == {}


class TestPruning:
    def test_ours_are_removed_and_told(self, project: Project) -> None:
        gone, kept = project.store("test_gone"), project.store("test_x")
        old = project.store("test_x", module="test_old.py")
        found = project.find({"test_x"}, used=[kept]).values()
        assert prune(found) == [replace(each, removed=True) for each in found]
        assert not gone.exists() and not old.parent.exists()
        assert store.listed(project.base) == [kept]

    def test_what_is_not_ours_stays(self, project: Project) -> None:
        broken, kept = project.store("test_gone"), project.store("test_x")
        broken.write_bytes(b"<<<<<<< HEAD")
        found = list(project.find({"test_x"}, used=[kept]).values())
        assert prune(found) == found and not found[0].removed
        assert broken.read_bytes() == b"<<<<<<< HEAD"

    def test_one_that_cannot_be_removed_does_not_keep_the_others(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = [project.store(f"test_{name}") for name in "abc"]
        remove = store.remove

        def stubborn(path: Path) -> None:
            if path == paths[1]:
                raise BaselineError(f"{path} cannot be removed: Permission denied")
            remove(path)

        monkeypatch.setattr(store, "remove", stubborn)
        done = prune(project.find(()).values())
        assert [each.removed for each in done] == [True, False, True]
        assert done[1].why == f"{paths[1]} cannot be removed: Permission denied"
        assert store.listed(project.base) == [paths[1]]


def test_drafts_of_killed_runs_are_removed_and_nothing_else(project: Project) -> None:
    kept = project.store("test_x")
    other = project.store("test_x", module="test_b.py")
    for path in (kept, other):
        (path.parent / ".gradcam-0123.tmp").write_bytes(b"half")
    tidy([str(kept.parent), str(project.base / "nowhere")])
    assert os.listdir(kept.parent) == [kept.name]
    assert sorted(os.listdir(other.parent)) == [".gradcam-0123.tmp", other.name]
