"""Baselines to be compared: those of a folder, or those that a folder had in a revision of git. Bytes, unread.

Both are found by one rule: files in `__gradcam__` folders, none of which lies in a folder whose name starts with a dot,
under their paths from the folder, with `/`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from pytest_gradcam.baselines.format import MOST_BYTES, loads_received
from pytest_gradcam.baselines.names import FOLDER, SUFFIX
from pytest_gradcam.baselines.received.foreign import entries_below, read_at_most
from pytest_gradcam.baselines.shelf import RECEIVED
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.files import is_draft

_WHAT: Final = "baseline"
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}", re.ASCII)
_LINK: Final = "120000"  # git's mode of a symbolic link

_Value = TypeVar("_Value")
Read: TypeAlias = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """Where baselines come from.

    Attributes:
        name: as it was asked for.
        files: by their paths, what gives the bytes of each, or raises a `BaselineError`.
        problems: folders that could not be looked into.
    """

    name: str
    files: Mapping[str, Read]
    problems: Sequence[BaselineError] = ()


def source_of(name: str, folder: Path) -> Source:
    """The baselines of a folder of that name, or of a revision where there is no such folder.

    Args:
        name: of a folder, or of a revision of the repository that `folder` is in.
        folder: whose baselines of the revision are meant.

    Raises:
        BaselineError: there is neither, or git is missing.
    """
    if "\0" not in name and os.path.isdir(name):
        return _of_folder(name)
    return Source(name, _of_revision(name, folder))


def _of_folder(name: str) -> Source:
    folder = Path(name)
    problems: list[BaselineError] = []
    found: dict[str, Read] = {}
    for entry in entries_below(folder, problems, lambda name: not name.startswith(".")):
        path = Path(entry.path)
        found[path.relative_to(folder).as_posix()] = partial(read_at_most, path, MOST_BYTES, _WHAT)
    kept = _baselines_among(found, folder)
    return Source(name, {path: read for path, read in kept.items() if not _is_received(path, read)}, problems)


def _baselines_among(found: Mapping[str, _Value], folder: Path) -> dict[str, _Value]:
    """Of all files those of baselines; of a folder in or below `__gradcam__`, under their paths from beside that."""
    above = os.path.abspath(folder).split(os.sep)
    prefix = "/".join(above[above.index(FOLDER) :]) + "/" if FOLDER in above else ""
    kept = {}
    for path, value in found.items():
        *folders, name = (prefix + path).split("/")
        is_hidden = any(each.startswith(".") for each in folders)
        if FOLDER in folders and not is_hidden and name.endswith(SUFFIX) and not is_draft(name):
            kept[prefix + path] = value
    return kept


def _is_received(path: str, read: Read) -> bool:
    """Whether a file is one that waits in a report inside of the folder. A report that was itself asked for counts."""
    if RECEIVED not in path.split("/"):
        return False
    try:
        _, received = loads_received(read())
    except BaselineError:
        return False
    return path.endswith(f"/{received.target}")


def _of_revision(revision: str, folder: Path) -> dict[str, Read]:
    if not folder.is_dir():
        raise BaselineError(f"there is no folder {folder}, so it has no revision {revision}: name one with --folder")
    commit = _commit(revision, folder)
    # Run in the folder, git lists what is below it, under paths from there.
    listed = _git(folder, ["ls-tree", "-r", "-z", "-l", commit])
    blobs: dict[str, tuple[str, str, int]] = {}
    for line in listed.split(b"\0")[:-1]:
        about, _, path = line.partition(b"\t")
        mode, kind, blob, size = about.decode("ascii").split()
        if kind == "blob":
            blobs[os.fsdecode(path)] = (mode, blob, int(size))
    kept = _baselines_among(blobs, folder)
    contents = _contents(folder, sorted({blob for mode, blob, size in kept.values() if size <= MOST_BYTES}))
    return {path: partial(_blob, f"{revision}:{path}", *about, contents) for path, about in kept.items()}


def _commit(revision: str, folder: Path) -> str:
    """The full name of a revision's commit."""
    if "\0" in revision:
        raise BaselineError(f"{revision!r} is neither a folder nor a revision")
    try:
        _git(folder, ["rev-parse", "--git-dir"])
    except BaselineError as error:
        raise BaselineError(f"{revision!r} is no folder, and {folder} is in no repository of git: {error}") from None
    try:
        found = _git(folder, ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"])
    except BaselineError:
        found = b""
    commit = found.decode("ascii", "replace").strip()
    if not _COMMIT.fullmatch(commit):  # `^main` is known to git, and no commit
        raise BaselineError(f"{revision!r} is neither a folder nor a revision of the repository of {folder}")
    return commit


def _contents(folder: Path, blobs: Sequence[str]) -> dict[str, bytes]:
    """The bytes of blobs by their names, of those that the repository has."""
    if not blobs:
        return {}
    told = _git(folder, ["cat-file", "--batch"], "".join(f"{blob}\n" for blob in blobs).encode("ascii"))
    found: dict[str, bytes] = {}
    at = 0
    for blob in blobs:
        end = told.index(b"\n", at)
        head = told[at:end].split()
        at = end + 1
        if len(head) == 3:  # else it says `missing`
            size = int(head[2])
            found[blob] = told[at : at + size]
            at += size + 1
    return found


def _blob(name: str, mode: str, blob: str, size: int, contents: Mapping[str, bytes]) -> bytes:
    if mode == _LINK:
        raise BaselineError(f"{name} is no {_WHAT}: it is a link")
    if size > MOST_BYTES:
        raise BaselineError(f"{name} is no {_WHAT}: it has more than {MOST_BYTES} bytes")
    if blob not in contents:
        raise BaselineError(f"{name} cannot be read: the repository lacks it, as a partial clone does")
    return contents[blob]


def _git(folder: Path, arguments: Sequence[str], given: bytes = b"") -> bytes:
    """What git writes, run in a folder; it asks nobody for a password, and takes no lock."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, input=given, capture_output=True, env=environment, check=True
        )
    except FileNotFoundError:
        raise BaselineError("git is not installed, or not on the PATH") from None
    except OSError as error:
        raise BaselineError(f"git cannot be run in {folder}: {error.strerror or error}") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise BaselineError(f"git {arguments[0]} failed: {said or f'exit code {error.returncode}'}") from None
    return done.stdout
