"""Files written whole or not at all, whatever happens meanwhile. Knows bytes and paths, and not what is in them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final

# None on Windows: there a file that is open cannot be removed, which serves as well.
_FCNTL: Final[Any] = import_module("fcntl") if os.name == "posix" else None
_DRAFT: Final = ".gradcam-"
_DRAFT_SUFFIX: Final = ".tmp"
_TRIES: Final = 10


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it, and whatever kills us, finds the old one or the new one; folders are made.

    Raises:
        OSError: the folder or the file cannot be written, or the disk is full; then nothing has changed.
    """
    for _ in range(_TRIES):
        draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}{_DRAFT_SUFFIX}")
        try:
            # Another run took the draft for one that was left over, or the folder for one that is empty: once more.
            with suppress(FileNotFoundError):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_draft(draft, data)
                os.replace(draft, path)
                return
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
    raise OSError(f"the draft of {path.name} was removed {_TRIES} times while it was written")


@contextmanager
def replaced_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, which takes its name when all is written: until then the old one has it.

    Raises:
        OSError: it cannot be written; then nothing has changed.
    """
    draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}{_DRAFT_SUFFIX}")
    try:
        with draft.open("xb") as file:
            lock_file(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _write_draft(draft: Path, data: bytes) -> None:
    """The bytes on the disk. The file is locked until it is closed, so that `remove_drafts` can tell it is wanted."""
    with draft.open("xb") as file:
        lock_file(file.fileno())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # the new name must not reach the disk before the bytes do


def make_ignored(folder: Path) -> None:
    """Make a folder of things that a run leaves, which git ignores; whoever made it before decides what git sees of it.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def remove_drafts(folder: Path) -> None:
    """Remove the drafts that killed runs have left in a folder; those of runs that live are left alone."""
    try:
        entries = [entry.path for entry in os.scandir(folder) if is_draft(entry.name)]
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            if _FCNTL is None:
                os.unlink(entry)
                continue
            # Not opened through a link: whoever can place one here shall not have us lock what it leads to. Nor waited
            # for, as a pipe would have us wait for its other end.
            descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if lock_file(descriptor):
                    os.unlink(entry)
            finally:
                os.close(descriptor)


def is_draft(name: str) -> bool:
    """Whether a file of this name is a draft of ours."""
    return name.startswith(_DRAFT) and name.endswith(_DRAFT_SUFFIX)


def lock_file(descriptor: int) -> bool:
    """Lock an open file for us alone; whether that could be done. A process that ends gives its locks back."""
    if _FCNTL is None:
        return False
    try:
        _FCNTL.flock(descriptor, _FCNTL.LOCK_EX | _FCNTL.LOCK_NB)
    except OSError:
        return False
    return True
