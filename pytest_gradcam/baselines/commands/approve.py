"""`gradcam approve`: maps that wait become baselines, or are discarded, by name or as a file of decisions has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from pytest_gradcam.baselines.commands.console import complain, counted, ending_well, say
from pytest_gradcam.baselines.received.decisions import read_approvals
from pytest_gradcam.baselines.received.deeds import approve, discard, tidy
from pytest_gradcam.baselines.received.proposals import propose
from pytest_gradcam.baselines.received.waiting import Found, Waiting, find, named, with_ids
from pytest_gradcam.baselines.shelf import RECEIVED
from pytest_gradcam.errors import BaselineError, SettingsError
from pytest_gradcam.report.lines import printable

_JSON: Final = ".json"


def run(report: Path, root: Path, everything: bool, asked: Sequence[str]) -> int:
    """Approve what is asked for, and say what was done.

    Args:
        report: folder of the report, which holds that of the received files.
        root: pytest's rootdir.
        everything: approve all that waits.
        asked: what to approve, as `waiting.named` has it, or the path of one file of decisions.

    Returns:
        0 where all was done; 1 where something was refused or cannot be read, or something waits and nothing was asked
        for; 130 where it was interrupted.
    """
    return ending_well(lambda: _run(report, root, everything, asked))


def found_in(report: Path, root: Path) -> Found:
    """What waits; says what cannot be read of it, and that nothing waits where that is so.

    Raises:
        GradcamError: there is no such rootdir, or the folder is a link.
    """
    if not root.is_dir():
        raise SettingsError(f"there is no folder {root}: name pytest's rootdir with --rootdir")
    received = report / RECEIVED
    found = find(received)
    for error in found.unusable:
        complain(error)
    if not found.waiting:
        where = str(received) if received.is_dir() else f"{received}, which does not exist"
        say(printable(f"nothing waits in {where}: run it where pytest's rootdir is, or pass --rootdir and --report"))
    return found


def _run(report: Path, root: Path, everything: bool, asked: Sequence[str]) -> int:
    found = found_in(report, root)
    approved, rejected = list(found.waiting), list[Waiting]()
    if asked:
        approved, rejected = _decided(found.waiting, asked, root)
    approved, refused = _tenable(approved, root)
    for error in refused:
        complain(error)
    if found.waiting and not everything and not asked:
        _say_what_waits(approved)
        return 1
    count: Counter[str] = Counter(refused=len(refused))
    deeds: list[tuple[str, Waiting, Callable[[], object]]]
    deeds = [("rejected", each, partial(discard, each)) for each in rejected]
    deeds += [("approved", each, partial(approve, each, root)) for each in approved]
    try:
        for verb, each, do in deeds:
            try:
                do()
            except BaselineError as error:
                complain(error)
                verb = "refused"
            else:
                say(printable(f"{verb}  {each.id}"))
            count[verb] += 1
    except KeyboardInterrupt:
        say()
        raise
    finally:
        tidy(report / RECEIVED, [root / each.received.target for each in approved])
        if found.waiting:
            count["left"] = len(found.waiting) - count.total()
            say(counted(count, ("approved", "rejected", "refused", "left")))
    return 1 if count["refused"] or found.unusable else 0


def _decided(waiting: Sequence[Waiting], asked: Sequence[str], root: Path) -> tuple[list[Waiting], list[Waiting]]:
    """What becomes of what: approved ones, and rejected ones.

    Raises:
        GradcamError: a name that nothing has, or the file of decisions is none.
    """
    files = [name for name in asked if name.endswith(_JSON) and Path(name).exists()]
    if not files:
        return named(waiting, asked, root), []
    if len(asked) > 1:
        raise SettingsError(f"{files[0]} holds decisions: give it alone, without ids or other files")
    decisions = read_approvals(Path(files[0]))
    with_ids(waiting, (*decisions.approved, *decisions.rejected))  # unknown ones of both are told at once
    return with_ids(waiting, decisions.approved), with_ids(waiting, decisions.rejected)


def _tenable(waiting: Iterable[Waiting], root: Path) -> tuple[list[Waiting], list[BaselineError]]:
    """Those that may be approved, and why others may not."""
    tenable, refused = [], []
    for each in waiting:
        try:
            propose(each, root)
            tenable.append(each)
        except BaselineError as error:
            refused.append(error)
    return tenable, refused


def _say_what_waits(waiting: Sequence[Waiting]) -> None:
    for each in waiting:
        say(printable(f"{'changed' if each.received.replaces else 'new':<7}  {each.id}"))
    if waiting:
        say()
        say("approve them with `gradcam approve --all`, or some by their ids; `gradcam review` shows them one by one")
