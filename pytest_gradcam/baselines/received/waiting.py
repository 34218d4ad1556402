"""What a run has left to be approved: found in the folder of received files, and chosen by the names that people use.

Nothing that a received file says is believed here but its name; what approving it would do is checked by `proposals`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.format import MOST_BYTES, Received, loads_received
from pytest_gradcam.baselines.names import AT, SUFFIX, CheckName
from pytest_gradcam.baselines.received.foreign import entries_below, read_at_most
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.files import is_draft

_FOLLOW: Final = ("::", "[", AT)  # what may follow the name of a file, class or test in an id
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Waiting:
    """A map that waits to be approved.

    Attributes:
        path: of the received file.
        place: the same from the folder of received files, with `/`.
        received: what it says that approving it would do.
        check: whose it says that it is.
    """

    path: Path
    place: str
    received: Received
    check: CheckName

    @property
    def id(self) -> str:
        """The test's node id, and the check's name after `@`, as the file says."""
        return self.received.id

    def read(self) -> tuple[Baseline, Received]:
        """The map, and what approving it would do.

        Raises:
            BaselineError: the file cannot be read any more, or is another by now.
        """
        baseline, received = _read(self.path)
        if received != self.received or baseline.check != self.check:
            raise BaselineError(f"{self.path} was changed meanwhile")
        return baseline, received


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder of received files.

    Attributes:
        waiting: in the order of their places.
        unusable: why files that should be received ones are none.
    """

    waiting: tuple[Waiting, ...]
    unusable: tuple[BaselineError, ...]


def find(folder: Path) -> Found:
    """All that waits in a folder of received files; one that is missing is empty.

    Raises:
        BaselineError: the folder is a link: it might be that of another project.
    """
    if folder.is_symlink():
        raise BaselineError(f"{folder} is a link: name the folder that it leads to, with --report")
    waiting: list[Waiting] = []
    unusable: list[BaselineError] = []
    for entry in sorted(entries_below(folder, unusable), key=lambda entry: entry.path):
        path = Path(entry.path)
        if entry.is_symlink() and (entry.name.endswith(SUFFIX) or entry.is_dir()):
            unusable.append(BaselineError(f"{path} is no received file: it is a link"))
        elif entry.name.endswith(SUFFIX) and not is_draft(entry.name):
            try:
                baseline, received = _read(path)
            except BaselineError as error:
                unusable.append(error)
            else:
                waiting.append(Waiting(path, path.relative_to(folder).as_posix(), received, baseline.check))
    return Found(tuple(waiting), tuple(unusable))


def _read(path: Path) -> tuple[Baseline, Received]:
    data = read_at_most(path, MOST_BYTES, "received file")
    try:
        return loads_received(data)
    except BaselineError as error:
        raise BaselineError(f"{path} is no received file: {error}. Run the tests again") from None


def named(waiting: Sequence[Waiting], asked: Iterable[str], root: Path) -> list[Waiting]:
    """Those that are named, each once, in the order in which they were found.

    Args:
        waiting: those to choose from.
        asked: node ids, the beginnings of some up to `::`, `[` or `@`, or paths of baselines or received files.
        root: pytest's rootdir.

    Raises:
        BaselineError: a name that nothing of what waits has.
    """
    chosen: set[Path] = set()
    unknown = []
    for name in asked:
        matching = [each.path for each in waiting if _is_named(each, name, root)]
        chosen.update(matching)
        if not matching:
            unknown.append(name)
    _refuse_unknown(unknown)
    return [each for each in waiting if each.path in chosen]


def with_ids(waiting: Sequence[Waiting], ids: Iterable[str]) -> list[Waiting]:
    """Those with exactly these ids, in the order in which they were found.

    Raises:
        BaselineError: an id that nothing of what waits has.
    """
    wanted = list(ids)
    known = {each.id for each in waiting}
    _refuse_unknown([each for each in wanted if each not in known])
    chosen = set(wanted)
    return [each for each in waiting if each.id in chosen]


def _is_named(each: Waiting, name: str, root: Path) -> bool:
    if each.id == name or any(each.id.startswith(name + follow) for follow in _FOLLOW):
        return bool(name)
    if not name.endswith(SUFFIX):
        return False
    path = os.path.abspath(name) if "\0" not in name else ""
    return name == each.received.target or path in (
        os.path.abspath(root / each.place),
        os.path.abspath(each.path),
    )


def _refuse_unknown(names: Sequence[str]) -> None:
    if not names:
        return
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    raise BaselineError(
        f"nothing that waits is called {shown}: nothing was changed. `gradcam approve` alone lists what waits"
    )
