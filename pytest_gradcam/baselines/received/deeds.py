"""Approving and rejecting what waits: files written whole, and received ones removed once they are done with."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import SUFFIX
from pytest_gradcam.baselines.received.foreign import entries_below
from pytest_gradcam.baselines.received.proposals import propose
from pytest_gradcam.baselines.received.waiting import Waiting
from pytest_gradcam.files import is_draft, remove_drafts
from pytest_gradcam.report.overlay import is_overlay


def approve(waiting: Waiting, root: Path) -> Path:
    """Write the baseline, and the picture beside it where one belongs there; returns its path.

    Killed at any moment, it leaves a whole baseline, old or new, and what is left to do waits still.

    Args:
        waiting: what is approved.
        root: pytest's rootdir.

    Raises:
        BaselineError: as for `propose`, and nothing has changed; or a file cannot be written or removed.
    """
    proposal = propose(waiting, root)
    if not proposal.is_written:
        store.write(proposal.target, proposal.baseline)
    if proposal.picture is not None:
        store.put(proposal.target.with_suffix(store.PREVIEW), proposal.picture)
    discard(waiting)
    return proposal.target


def discard(waiting: Waiting) -> None:
    """Remove a received file, the picture beside it, and the folders that are empty then.

    Raises:
        BaselineError: it cannot be removed.
    """
    store.remove(waiting.path)
    _remove_empty(waiting.path.parents[: waiting.place.count("/") + 1])


def tidy(received: Path, targets: Iterable[Path]) -> None:
    """Remove what killed approvals have left.

    Args:
        received: the folder of received files, in which pictures may have lost theirs.
        targets: baselines that were written.
    """
    for folder in {target.parent for target in targets}:
        remove_drafts(folder)
    if received.is_symlink():
        return
    for entry in list(entries_below(received, [])):
        path = Path(entry.path)
        if is_draft(entry.name):
            remove_drafts(path.parent)
        elif entry.name.endswith(store.PREVIEW) and not path.with_suffix(SUFFIX).exists() and is_overlay(path):
            with suppress(OSError):
                path.unlink()
                _remove_empty([parent for parent in path.parents if parent.is_relative_to(received)])


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, innermost first, as long as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:  # somebody was faster
            continue
        except OSError:
            return
