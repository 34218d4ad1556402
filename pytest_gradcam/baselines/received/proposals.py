"""What approving a received file would do, checked in every way before anything is done.

Received files come from other machines, such as the artifact of a CI run: whoever made one may want to write where no
baseline of that test belongs. So each is held against its own place, its id, its test and the disk; one that does not
fit changes nothing.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.format import digest_of, dumps
from pytest_gradcam.baselines.names import AT, FOLDER, CheckName
from pytest_gradcam.baselines.received.pictures import may_be_replaced, picture_at
from pytest_gradcam.baselines.received.waiting import Waiting
from pytest_gradcam.errors import BaselineError


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What approving a received file does.

    Attributes:
        baseline: that is written.
        target: of its file, which lies in pytest's rootdir.
        is_new: whether there was none.
        is_written: whether it is there already: an earlier approval was killed before it came to its end.
        picture: bytes of the picture that is written beside it; None: none is.
    """

    baseline: Baseline
    target: Path
    is_new: bool
    is_written: bool
    picture: bytes | None


def propose(waiting: Waiting, root: Path) -> Proposal:
    """What approving would do, now.

    Args:
        waiting: what is to be approved.
        root: pytest's rootdir.

    Raises:
        BaselineError: it must not be done: the file would write where it may not, or the baseline is no longer the one
            that the run has compared with.
    """
    baseline, received = waiting.read()
    target = target_of(waiting, root)
    before = store.read_bytes(target)
    is_written = before == dumps(baseline)
    if not is_written and ("" if before is None else digest_of(before)) != received.replaces:
        raise BaselineError(f"{waiting.id}: its baseline has changed since the run: run the tests again")
    picture = None
    if received.preview:
        there = target.with_suffix(store.PREVIEW)
        if not may_be_replaced(there):
            raise BaselineError(f"{waiting.id}: its picture cannot be written: {there} is no picture of ours")
        picture = picture_at(waiting.path.with_suffix(store.PREVIEW))
    return Proposal(baseline, target, not received.replaces, is_written, picture)


def target_of(waiting: Waiting, root: Path) -> Path:
    """The file that approving would write.

    Raises:
        BaselineError: it is not the one of its test, in pytest's rootdir.
    """
    try:
        return _target(waiting, root)
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, no Unicode
        raise BaselineError(f"{waiting.path} cannot be approved: {error}") from None


def _target(waiting: Waiting, root: Path) -> Path:
    target, check = waiting.received.target, waiting.check
    parts = target.split("/")
    windows = PureWindowsPath(target)
    if {"", ".", ".."} & set(parts) or {"\0", "\\"} & set(target) or windows.drive or windows.root:
        raise BaselineError(f"its target {target!r} is no path inside of pytest's rootdir")
    if FOLDER not in parts:
        raise BaselineError(f"its target {target!r} lies in no {FOLDER} folder")
    if parts[-3:] != [FOLDER, *check.file.split("/")] or not _is_file_name(check.module):
        raise BaselineError(f"its target {target!r} is not that of its test, {check}")
    if _composed(waiting.place) != _composed(target):
        raise BaselineError(f"it lies in the place of {waiting.place}, and its target is {target!r}")
    beside = parts[:-3]
    if waiting.id.replace("::", ".") != _id_of(check, beside):
        raise BaselineError(f"its id {waiting.id!r} is not that of its target {target!r}")
    home = root.resolve(strict=True)
    module = home.joinpath(*beside, check.module)
    if not module.is_file():
        raise BaselineError(f"its test's file {module} does not exist. Name pytest's rootdir with --rootdir")
    found = home / target
    if not found.resolve().is_relative_to(home):
        raise BaselineError(f"its target {target!r} leads out of {home}, through a link")
    return found


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)  # some file systems spell names their own way


def _id_of(check: CheckName, beside: list[str]) -> str:
    """The id of a check, with `.` for `::`: which dots once stood for something else is not stored."""
    return ".".join(["/".join([*beside, check.module]), check.test]).replace("::", ".") + (
        f"{AT}{check.name}" if check.name else ""
    )
