"""Whether a folder's rows are of the images that are there now: some of them are read again, and compared.

What tells two data sets apart at little cost, annotations or a length, says nothing of the pixels; and an audit
that is done, or half done, would give the numbers of images that are there no more.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from pytest_gradcam.audit.data.sample import Source, Stream
from pytest_gradcam.audit.preparing import Items, One
from pytest_gradcam.audit.store import AuditError, Folder
from pytest_gradcam.audit.work import Work, given, some

# Images that are read again, drawn by lot, so that no order of the data can hide from it; of a stream, those that it
# begins with.
CHECKED: Final = 32

_COLUMNS: Final = ("index", "place", "asked", "digest", "about")

# What tells the rows of an image: for each place what was asked, of which picture and region, and what it is about.
Told: TypeAlias = list[tuple[int, int | None, str, dict[str, str]]]


def rechecked(work: Work, folder: Folder, done: AbstractSet[int]) -> Work:
    """The work, once it was seen that the images that have rows are those that are there now.

    Args:
        work: what is audited now.
        folder: what was audited before.
        done: numbers of the parts that have rows.

    Raises:
        AuditError: one of them is another.
    """
    if isinstance(work.source, Source):
        items = Items(work.source, work.preparer)
        for number in random.SystemRandom().sample(sorted(done), min(CHECKED, len(done))):
            images = work.indices(number)
            before = _told(folder, number)
            for index in random.SystemRandom().sample(images, min(-(-CHECKED // len(done)), len(images))):
                _compare(before.get(index, []), work.source.key(index), items[index])
        return work
    begun = Begun(work.source)
    before = _told(folder, 0) if 0 in done else {}
    for index, sample in enumerate(begun.first):
        if index in before:
            _compare(before[index], str(index), work.preparer.one(index, str(index), partial(given, sample)))
    return replace(work, source=begun)


class Begun:
    """A stream whose beginning was read, and is given again: it may be one that can be gone through only once."""

    def __init__(self, source: Stream) -> None:
        self.categories = source.categories
        self.fingerprint = source.fingerprint
        self._rest = iter(source)
        self.first = list(some(self._rest, CHECKED))

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain(self.first, self._rest)


def _told(folder: Folder, number: int) -> dict[int, Told]:
    """For each image of a part, what its rows were made of."""
    found: dict[int, Told] = {}
    for row in folder.rows_of(number, _COLUMNS).to_pylist():
        found.setdefault(row["index"], []).append((row["place"], row["asked"], row["digest"], dict(row["about"])))
    return found


def _compare(before: Told, key: str, one: One) -> None:
    rows = [(each.place, each.cls, each.digest, dict(each.about)) for each, _ in one.ready]
    rows += [(each.place, each.asked, each.digest, dict(each.about)) for each in one.refused]
    if sorted(rows, key=lambda row: row[0]) != before:
        raise AuditError(
            f"image {key} is another than when it was audited, or something else is said of it: give another folder, "
            "or remove this one where it is wanted no more"
        )
