"""The baselines of one test: where each lies, whether it may be written, and what happened to it. Judges nothing."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Final, Literal, TypeAlias

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.format import Received, digest_of
from pytest_gradcam.baselines.names import FOLDER, CheckName, checked_name
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.files import make_ignored
from pytest_gradcam.report.overlay import is_overlay, save_preview
from pytest_gradcam.verdicts import Sight

RECEIVED: Final = "received"
Happened: TypeAlias = Literal["compared", "created", "updated", "missing", "changed"]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The baselines of one run of one test.

    Attributes:
        beside: the folder that the test's file lies in; the baselines lie in `__gradcam__` in it.
        module: name of the test's file.
        test: classes, function and parameters, after dots.
        id: the test's node id, for a person.
        root: pytest's rootdir, from which received files name their targets.
        received: folder of the files that wait to be approved.
        update: which baselines may be written: None, `new`, `all`; `prune` writes none.
        previews: whether a picture lies beside each baseline.
        shown: how a path is spelt for a person.
        is_over: whether the test has ended, after which nothing is told to anybody.
        is_shared: whether another test of the module has the same name.
        tell: is told of everything that happens: `path`, `id`, `happened`, and `received` where a file waits.
        taken: whose each file is, of all tests of the run, by how a file system that folds case would call it.
    """

    beside: Path
    module: str
    test: str
    id: str
    root: Path
    received: Path
    update: str | None
    previews: bool
    shown: Callable[[Path], str]
    tell: Callable[[dict[str, Any]], None]
    is_over: Callable[[], bool] = lambda: False
    is_shared: bool = False
    taken: MutableMapping[str, tuple[str, CheckName]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def slot(self, name: object) -> Slot:
        """The place of one check's baseline.

        Args:
            name: what tells it from other checks of the test; None for the only one.

        Raises:
            BaselineError: the name is no name, or the file is another check's.
        """
        check = CheckName(self.module, self.test, checked_name(name))
        path = self.beside / FOLDER / check.file
        if self.is_over():
            raise BaselineError(
                f"{self.id} has ended, and its `gradcam` fixture asks for a baseline: do not keep the fixture, ask for "
                "it in each test"
            )
        if self.is_shared:
            raise BaselineError(
                f"two tests are called {self.id}, and would share the baseline {check.file}: give their parameters ids "
                "that tell them apart"
            )
        # Through links, too: two folders may be one.
        folded = unicodedata.normalize("NFC", os.path.join(os.path.realpath(path.parent), path.name)).casefold()
        if folded in self.asked:
            raise BaselineError(
                f"two checks of {self.id} would share the baseline {check.file}: give each a name, "
                "gradcam.check(…, name='left')"
            )
        owner = self.taken.setdefault(folded, (self.id, check))
        if owner != (self.id, check):
            raise BaselineError(
                f"{self.id} and {owner[0]} would share the baseline {check.file}, through a link or where case is "
                "ignored: rename one of them"
            )
        self.asked.add(folded)
        return Slot(self, check, path)


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one check's baseline.

    Attributes:
        shelf: the baselines of its test.
        check: whose it is.
        path: of its file.
    """

    shelf: Shelf
    check: CheckName
    path: Path

    @property
    def id(self) -> str:
        """The test's node id, and the check's name where it has one."""
        return self.shelf.id + (f"@{self.check.name}" if self.check.name else "")

    @property
    def target(self) -> str:
        """Path of the file from pytest's rootdir, with `/`; it starts with `..` where the test lies outside."""
        try:
            return Path(os.path.relpath(self.path, self.shelf.root)).as_posix()
        except ValueError:  # another drive
            return self.path.as_posix()

    @property
    def waiting(self) -> Path | None:
        """Path of the file that waits to be approved in its stead; None where the test lies outside of rootdir."""
        target = self.target
        if target.startswith(("../", "/")) or PureWindowsPath(target).drive:  # of Windows, another drive
            return None
        return self.shelf.received / target

    def read(self) -> Baseline | None:
        """The baseline; None where there is none. What an earlier run left to be approved is removed.

        Raises:
            BaselineError: the file cannot be read, is no baseline, or is another check's.
        """
        waiting = self.waiting
        if waiting is not None and self._is_received(waiting):
            store.remove(waiting)
        found = store.read(self.path)
        if found is not None and found.check != self.check:
            raise BaselineError(
                f"{self.path} is the baseline of {found.check}, not of {self.check}: it was copied or renamed. Remove "
                "it, and write it anew with --gradcam-update=new"
            )
        return found

    def _is_received(self, path: Path) -> bool:
        """Whether a file waits to be approved, and is no baseline, wherever the folder of received files may lie."""
        try:
            store.read_received(path)
        except BaselineError:
            return False
        return os.path.realpath(path) != os.path.realpath(self.path)

    def may_write(self, is_new: bool) -> bool:
        """Whether the run was told to write this baseline."""
        return self.shelf.update == "all" or (self.shelf.update == "new" and is_new)

    def write(self, baseline: Baseline, sight: Sight, is_new: bool) -> Baseline:
        """Write the baseline and, where pictures are wanted, the one beside it; returns what was read back.

        Raises:
            BaselineError: it cannot be written, or what is read back is something else.
        """
        picture = self.path.with_suffix(store.PREVIEW)
        if self.shelf.previews and os.path.lexists(picture) and not is_overlay(picture):
            raise BaselineError(f"{picture} is no picture of ours, and nothing was written: move it away")
        store.write(self.path, baseline)
        self._tell("created" if is_new else "updated")
        if self.shelf.previews or is_overlay(picture):  # an old one would show what is no longer so
            _preview(sight, picture)
        written = store.read(self.path)
        if written is None or written.check != baseline.check:
            raise BaselineError(f"{self.path} was written, and then changed or removed by somebody else")
        return written

    def receive(self, baseline: Baseline, sight: Sight, is_new: bool) -> str:
        """Leave the map to be approved; returns the path of the file, or why there is none.

        It raises nothing: a disk that is full must not hide what the model did.
        """
        happened: Happened = "missing" if is_new else "changed"
        waiting = self.waiting
        if waiting is None:
            self._tell(happened)
            return f"none: {self.path} lies outside of pytest's rootdir"
        try:
            before = store.read_bytes(self.path)
            received = Received(
                self.target, self.id, "" if before is None else digest_of(before), preview=self.shelf.previews
            )
            if os.path.realpath(waiting) == os.path.realpath(self.path):
                raise BaselineError("the folder of received files is that of the baselines")
            make_ignored(self.shelf.received.parent)
            store.write(waiting, baseline, received)
            _preview(sight, waiting.with_suffix(store.PREVIEW))
        except (BaselineError, OSError) as error:
            self._tell(happened)
            return f"not written: {error}"
        self._tell(happened, received=str(waiting))
        return self.shelf.shown(waiting)

    def compared(self) -> None:
        """Note that the baseline was compared with, and nothing was written."""
        self._tell("compared")

    def _tell(self, happened: Happened, **more: str) -> None:
        self.shelf.tell({"path": str(self.path), "id": self.id, "happened": happened, **more})


def _preview(sight: Sight, path: Path) -> None:
    """A picture beside a baseline; what stands in its place and is no picture of ours is left alone."""
    try:
        save_preview(sight, path)
    except OSError as error:
        raise BaselineError(f"the picture {path} cannot be written: {error.strerror or error}") from None
