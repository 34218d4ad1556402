"""Baselines that no test uses any more: found, and removed on request. Decides from names and sets alone; no pytest."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import FOLDER, folder_of
from pytest_gradcam.errors import BaselineError

GONE: Final = "its test is gone"
NOT_ASKED: Final = "its test ran, and did not ask for it"
NO_MODULE: Final = "its module is gone"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A baseline that no test uses.

    Attributes:
        path: of its file.
        why: how that is known, or why it cannot be.
        is_ours: whether it could be read: another file is never removed.
        removed: whether it was.
    """

    path: str
    why: str
    is_ours: bool = True
    removed: bool = False


def find(
    folders: Mapping[str, Collection[str]], ran: Collection[tuple[str, str]], used: Collection[str]
) -> list[Orphan]:
    """The baselines that no test uses, sorted by path.

    Args:
        folders: of the modules that were collected whole, and all their tests.
        ran: (folder, test) of the tests that ran and passed; one that failed may not have come to its check.
        used: paths of the baselines that were compared, written or missed.
    """
    found = []
    spelt = {unicodedata.normalize("NFC", path) for path in used}  # some file systems spell names their own way
    for folder, tests in folders.items():
        for path in store.listed(Path(folder)):
            if unicodedata.normalize("NFC", str(path)) not in spelt:
                orphan = _judge(path, folder, tests, ran)
                if orphan is not None:
                    found.append(orphan)
    for parent in {Path(folder).parent for folder in folders}:
        found += _without_module(parent)
    return sorted(found, key=lambda orphan: orphan.path)


def _judge(path: Path, folder: str, tests: Collection[str], ran: Collection[tuple[str, str]]) -> Orphan | None:
    try:
        baseline = store.read(path)
    except BaselineError as error:
        return Orphan(str(path), str(error), is_ours=False)
    if baseline is None:  # somebody else has removed it meanwhile
        return None
    check = baseline.check
    if check.test not in tests or Path(folder).parent / check.file != path:
        return Orphan(str(path), GONE)
    return Orphan(str(path), NOT_ASKED) if (folder, check.test) in ran else None


def _without_module(parent: Path) -> list[Orphan]:
    """Baselines in `__gradcam__` of modules that no longer lie beside it."""
    try:
        modules = {folder_of(name) for name in os.listdir(parent.parent) if name != FOLDER}
        folders = [entry.path for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = []
    for folder in folders:
        if os.path.basename(folder) in modules:
            continue
        for path in store.listed(Path(folder)):
            try:
                if store.read(path) is not None:
                    found.append(Orphan(str(path), NO_MODULE))
            except BaselineError as error:
                found.append(Orphan(str(path), str(error), is_ours=False))
    return found


def prune(orphans: Iterable[Orphan]) -> list[Orphan]:
    """Remove those that are ours; returns all, with what became of each."""
    done = []
    for orphan in orphans:
        if orphan.is_ours:
            try:
                store.remove(Path(orphan.path))
                orphan = replace(orphan, removed=True)
            except BaselineError as error:
                orphan = replace(orphan, why=str(error))
        done.append(orphan)
    return done


def tidy(folders: Iterable[str]) -> None:
    """Remove what killed runs have left in these folders of files that they were writing."""
    for folder in folders:
        store.clean(Path(folder))
