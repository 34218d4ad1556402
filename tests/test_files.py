"""Files written whole or not at all: a failure at every step, a full disk, runs that are killed, runs that clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from pytest_gradcam import files
from pytest_gradcam.files import is_draft, remove_drafts, write_whole

OLD, NEW = b"old" * 100, b"new" * 5000
posix = pytest.mark.skipif(os.name != "posix", reason="locks, limits and pipes are those of POSIX")


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*args: object, **kwargs: object) -> Any:
        raise error

    return function


@contextmanager
def child(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this code, and is gone at the end."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["there is an old file", "there is none"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that may be there, in a folder of its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    if "old" in request.param:
        (folder / "file").write_bytes(OLD)
    return folder / "file"


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


class TestWriting:
    def test_the_new_bytes_replace_the_old(self, path: Path) -> None:
        write_whole(path, NEW)
        assert contents(path.parent) == {"file": NEW}

    def test_folders_are_made(self, tmp_path: Path) -> None:
        write_whole(tmp_path / "a/b/c", b"")
        assert (tmp_path / "a/b/c").read_bytes() == b""

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").write_bytes(OLD)
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        write_whole(tmp_path / "link", NEW)
        assert (tmp_path / "elsewhere").read_bytes() == OLD
        assert not (tmp_path / "link").is_symlink()

    def test_the_bytes_reach_the_disk_before_the_name_does(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[tuple[str, int]] = []
        fsync, replace = os.fsync, os.replace

        def noted_fsync(descriptor: int) -> None:
            done.append(("fsync", os.fstat(descriptor).st_size))
            fsync(descriptor)

        def noted_replace(source: Path, target: Path) -> None:
            done.append(("replace", source.stat().st_size))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "replace", noted_replace)
        write_whole(path, NEW)
        assert done == [("fsync", len(NEW)), ("replace", len(NEW))]


class TestAFailureAtEveryStep:
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
    @pytest.mark.parametrize("step", ["open", "lock", "write", "flush", "fsync", "replace"])
    def test_what_was_there_is_there_and_nothing_else(
        self, path: Path, step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = contents(path.parent)
        if step in ("fsync", "replace"):
            monkeypatch.setattr(os, step, raises(error))
        elif step == "lock":
            monkeypatch.setattr(files, "lock_file", raises(error))
        elif step == "open":
            monkeypatch.setattr(Path, "open", raises(error))
        else:
            opened = Path.open

            def broken(self: Path, *args: Any, **kwargs: Any) -> Any:
                return Broken(opened(self, *args, **kwargs), step, error)

            monkeypatch.setattr(Path, "open", broken)
        with pytest.raises(type(error)) as caught:
            write_whole(path, NEW)
        monkeypatch.undo()
        assert caught.value is error
        assert contents(path.parent) == before

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_an_interrupt_after_the_last_step_leaves_the_new_file(
        self, path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace = os.replace

        def late(source: Path, target: Path) -> None:
            replace(source, target)
            raise error

        monkeypatch.setattr(os, "replace", late)
        with pytest.raises(type(error)):
            write_whole(path, NEW)
        assert contents(path.parent) == {"file": NEW}

    @posix
    def test_a_full_disk(self, path: Path) -> None:
        """The limit of a file's size fails a write as a full disk does: amid the bytes."""
        code = """
            import resource, signal, sys
            from pathlib import Path
            from pytest_gradcam.files import write_whole
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            try:
                write_whole(Path(sys.argv[1]), b"new" * 5000)
            except OSError as error:
                print(error.strerror)
        """
        before = contents(path.parent)
        with child(code, path) as process:
            told, errors = process.communicate(timeout=60)
        assert (told, errors) == ("File too large\n", "")
        assert contents(path.parent) == before

    def test_below_a_file_there_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(OLD)
        with pytest.raises(OSError, match="file"):
            write_whole(tmp_path / "file" / "below", NEW)
        assert contents(tmp_path) == {"file": OLD}

    def test_in_place_of_a_folder_nothing_is_written(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError):
            write_whole(tmp_path / "folder", NEW)
        assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]

    @posix
    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write into any folder")
    def test_a_folder_that_is_read_only(self, path: Path) -> None:
        before = contents(path.parent)
        path.parent.chmod(0o500)
        try:
            with pytest.raises(PermissionError):
                write_whole(path, NEW)
        finally:
            path.parent.chmod(0o700)
        assert contents(path.parent) == before

    @pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody may write into")
    def test_a_folder_that_not_even_root_may_write_into(self) -> None:
        with pytest.raises(OSError):
            write_whole(Path("/proc/self/gradcam"), NEW)

    def test_a_draft_that_is_always_taken_away_ends_in_an_error(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, fsync = contents(path.parent), os.fsync

        def removed(descriptor: int) -> None:
            fsync(descriptor)
            for entry in path.parent.iterdir():
                if is_draft(entry.name):
                    entry.unlink()

        monkeypatch.setattr(os, "fsync", removed)
        with pytest.raises(OSError, match="the draft of file was removed 10 times"):
            write_whole(path, NEW)
        assert contents(path.parent) == before

    def test_a_folder_that_is_removed_meanwhile_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As by a worker that removes the last received file of a folder, and the folder with it."""
        path, mkdir = tmp_path / "a/b/file", Path.mkdir
        removed: list[Path] = []

        def undone(self: Path, *args: Any, **kwargs: Any) -> None:
            mkdir(self, *args, **kwargs)
            if self == path.parent and len(removed) < 3:
                self.rmdir()
                removed.append(self)

        monkeypatch.setattr(Path, "mkdir", undone)
        write_whole(path, NEW)
        assert path.read_bytes() == NEW
        assert len(removed) == 3


class Broken:
    """An open file of which one method fails."""

    def __init__(self, file: Any, step: str, error: BaseException) -> None:
        self._file, self._step, self._error = file, step, error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        if name == self._step:
            if name == "write":
                self._file.write(NEW[:1000])
            return raises(self._error)
        return getattr(self._file, name)


HOLDS = """
    import os, sys, time
    from pathlib import Path
    from pytest_gradcam.files import write_whole
    os.fsync = lambda descriptor: (print("writing", flush=True), sys.stdin.readline())
    write_whole(Path(sys.argv[1]), b"new" * 5000)
    print("written", flush=True)
"""
WRITES = """
    import sys
    from pathlib import Path
    from pytest_gradcam.files import write_whole
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(400):
        write_whole(Path(sys.argv[1]), sys.argv[2].encode() * (1000 + number))
    print("done", flush=True)
"""


@posix
class TestDrafts:
    def test_the_draft_of_a_run_that_lives_is_left(self, tmp_path: Path) -> None:
        with child(HOLDS, tmp_path / "file") as process:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == "writing\n"
            remove_drafts(tmp_path)
            assert [is_draft(entry.name) for entry in tmp_path.iterdir()] == [True]
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "written\n"
        assert contents(tmp_path) == {"file": NEW}

    def test_the_draft_of_a_run_that_was_killed_is_removed(self, path: Path) -> None:
        before = contents(path.parent)
        with child(HOLDS, path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        left = contents(path.parent)
        assert {name: data for name, data in left.items() if not is_draft(name)} == before
        assert len(left) == len(before) + 1
        remove_drafts(path.parent)
        assert contents(path.parent) == before

    def test_cleaning_in_a_loop_harms_nobody_who_writes_in_a_loop(self, tmp_path: Path) -> None:
        """A draft may be taken between its making and its locking, or between its closing and its renaming."""
        path = tmp_path / "file"
        with child(WRITES, path, "a") as one, child(WRITES, path, "b") as other:
            for process in (one, other):
                assert process.stdin is not None and process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.stdin.write("\n")
                process.stdin.flush()
            until = time.monotonic() + 60
            while None in (one.poll(), other.poll()) and time.monotonic() < until:
                remove_drafts(tmp_path)
                if path.exists():
                    data = path.read_bytes()
                    assert len(set(data)) == 1 and 1000 <= len(data) < 1400
            assert [process.communicate() for process in (one, other)] == [("done\n", "")] * 2
        assert len(path.read_bytes()) == 1399
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("moment", ["before it is locked", "before it is renamed"])
    def test_a_draft_that_is_taken_is_written_once_more(
        self, path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[str] = []
        step = "lock_file" if "locked" in moment else "replace"
        module: Any = files if step == "lock_file" else os
        original = getattr(module, step)

        def after_cleaning(*args: Any) -> Any:
            if len(taken) < 3:
                taken.extend(entry.name for entry in path.parent.iterdir() if is_draft(entry.name))
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(module, step, original)
                    remove_drafts(path.parent)
            return original(*args)

        monkeypatch.setattr(module, step, after_cleaning)
        write_whole(path, NEW)
        assert contents(path.parent) == {"file": NEW}
        assert len(taken) == len(set(taken)) == 3

    def test_nothing_else_is_removed(self, tmp_path: Path) -> None:
        names = ["file", ".gradcam-x", "x.tmp", "gradcam-x.tmp", ".gradcam", "baseline.safetensors"]
        for name in names:
            (tmp_path / name).write_bytes(OLD)
        (tmp_path / ".gradcam-folder.tmp").mkdir()
        (tmp_path / ".gradcam-link.tmp").symlink_to(tmp_path / "file")
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / ".gradcam-0.tmp").write_bytes(OLD)
        before = sorted(entry.name for entry in tmp_path.iterdir())
        remove_drafts(tmp_path)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == before
        assert (tmp_path / "below" / ".gradcam-0.tmp").exists()

    def test_a_pipe_with_the_name_of_a_draft_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / ".gradcam-0.tmp")
        code = "import sys; from pathlib import Path; from pytest_gradcam.files import remove_drafts"
        with child(f"{code}; remove_drafts(Path(sys.argv[1]))", tmp_path) as process:
            assert process.wait(30) == 0

    def test_a_folder_that_is_not_there_has_no_drafts(self, tmp_path: Path) -> None:
        remove_drafts(tmp_path / "nowhere")
        (tmp_path / "file").write_bytes(OLD)
        remove_drafts(tmp_path / "file")
        assert contents(tmp_path) == {"file": OLD}


def test_without_locks_drafts_are_removed_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to remove a file that anybody has open, whoever cleans included."""
    (tmp_path / ".gradcam-0.tmp").write_bytes(OLD)
    monkeypatch.setattr(files, "_FCNTL", None)
    monkeypatch.setattr(os, "open", raises(AssertionError("it was opened")))
    remove_drafts(tmp_path)
    assert contents(tmp_path) == {}
