"""Baselines on the disk: read, written whole or not at all, listed, removed. What the bytes mean is `format`'s."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.format import MOST_BYTES, Received, dumps, loads, loads_received
from pytest_gradcam.baselines.names import SUFFIX
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.files import is_draft, remove_drafts, write_whole
from pytest_gradcam.report.overlay import is_overlay

PREVIEW = ".png"


def read_bytes(path: Path) -> bytes | None:
    """The bytes of a file; None where there is none.

    Raises:
        BaselineError: it is no plain file, too large for a baseline, or cannot be read.
    """
    try:
        # Without waiting: opening a pipe that somebody placed here would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BaselineError(f"{path} is no baseline: it is no plain file")
            if status.st_size > MOST_BYTES:
                raise BaselineError(f"{path} is no baseline: it has {status.st_size} bytes, more than any baseline")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MOST_BYTES + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BaselineError(f"{path} cannot be read: {error.strerror or error}") from None


def read(path: Path) -> Baseline | None:
    """The baseline in a file; None where there is no file.

    Raises:
        BaselineError: it cannot be read, or is no baseline of ours as it was written.
    """
    data = read_bytes(path)
    if data is None:
        return None
    with naming(path):
        return loads(data)


def read_received(path: Path) -> tuple[Baseline, Received]:
    """A map that waits to be approved.

    Raises:
        BaselineError: there is none, it cannot be read, or it is no received file as it was written.
    """
    data = read_bytes(path)
    if data is None:
        raise BaselineError(f"there is no {path}")
    with naming(path):
        return loads_received(data)


def write(path: Path, baseline: Baseline, received: Received | None = None) -> bytes:
    """Write a baseline, whole or not at all; folders are made. Returns its bytes.

    Raises:
        BaselineError: it cannot be written; what was there is there still.
    """
    data = dumps(baseline, received)
    put(path, data)
    return data


def put(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; folders are made.

    Raises:
        BaselineError: it cannot be written; what was there is there still.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be written: {error.strerror or error}; what was there before is there still"
        ) from None


def listed(folder: Path) -> list[Path]:
    """All files of baselines under a folder, those in links aside, sorted."""
    return sorted(path for path in _walk(folder) if path.name.endswith(SUFFIX) and not is_draft(path.name))


def clean(folder: Path) -> None:
    """Remove what killed runs have left of files that they were writing, in a folder and those below it."""
    for each in _folders(folder):
        remove_drafts(each)


def remove(path: Path) -> None:
    """Remove a baseline and the picture beside it, and its folder once it is empty.

    Raises:
        BaselineError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        preview = path.with_suffix(PREVIEW)
        if is_overlay(preview):
            preview.unlink()
    except OSError as error:
        raise BaselineError(f"{path} cannot be removed: {error.strerror or error}") from None
    for folder in (path.parent, path.parent.parent):
        try:
            folder.rmdir()
        except OSError:  # there is more in it
            return


def _walk(folder: Path) -> Iterator[Path]:
    for each in _folders(folder):
        with suppress(OSError), os.scandir(each) as entries:
            yield from [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]


def _folders(folder: Path) -> Iterator[Path]:
    """A folder and those below it, without those behind links."""
    left = [folder]
    while left:
        each = left.pop()
        yield each
        with suppress(OSError), os.scandir(each) as entries:
            left += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors about a file's bytes that are raised inside name the file, and say what may be done."""
    try:
        yield
    except BaselineError as error:
        raise BaselineError(
            f"{path} cannot be used: {error}. Nothing was changed: restore it, or remove it and write it anew with "
            "--gradcam-update=new"
        ) from None
