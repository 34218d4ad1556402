"""Gathering: the annotations of one image, united class by class into what is asked of it. Knows no file format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pytest_gradcam.audit.data.sample import Asked
from pytest_gradcam.regions import Region
from pytest_gradcam.shapes import Mask, Shape

_SHOWN: Final = 3


@dataclass(slots=True)
class _Class:
    shapes: list[Shape] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Gathering:
    """The objects of an image while they are read, by class.

    One object that cannot be read leaves the region of its class unknown: a region without it would be too small, and
    a map that rests on it would be called wrong.
    """

    _classes: dict[int | None, _Class] = field(default_factory=dict)

    def add(self, cls: int | None, shapes: Iterable[Shape], notes: Iterable[str] = ()) -> None:
        """An object of a class, and what a person should know of it."""
        found = self._classes.setdefault(cls, _Class())
        found.shapes += shapes
        found.notes += (note for note in notes if note)

    def spoil(self, cls: int | None, why: str) -> None:
        """An object of a class that cannot be used, and why."""
        self._classes.setdefault(cls, _Class()).faults.append(why)

    def spoil_all(self, why: str) -> None:
        """An object that may be of any class, and why."""
        for cls in list(self._classes) or [None]:
            self.spoil(cls, why)

    def asked(self, notes: Iterable[str] = ()) -> tuple[Asked, ...]:
        """One for each class, in their order; that of the predicted class last.

        Args:
            notes: on the image, that hold for every class.
        """
        return tuple(_asked(cls, self._classes[cls], tuple(notes)) for cls in in_order(self._classes))


def in_order(classes: Iterable[int | None]) -> tuple[int | None, ...]:
    """Classes by their number; that of the predicted class last."""
    return tuple(sorted(classes, key=lambda cls: (cls is None, cls or 0)))


def _asked(cls: int | None, found: _Class, notes: tuple[str, ...]) -> Asked:
    notes = tuple(_few([*notes, *found.notes]))
    if found.faults:
        return Asked(cls, None, "; ".join(_few(found.faults)), notes)
    return Asked(cls, Region(tuple(_masks_joined(found.shapes))), "", notes)


def _masks_joined(shapes: list[Shape]) -> list[Shape]:
    """The same union with one mask for all masks, which all are of the image's size."""
    masks = [shape for shape in shapes if isinstance(shape, Mask)]
    if len(masks) < 2:
        return shapes
    bits = np.frombuffer(masks[0].bits, dtype=np.uint8)
    for mask in masks[1:]:
        bits = bits | np.frombuffer(mask.bits, dtype=np.uint8)
    joined = Mask(masks[0].height, masks[0].width, bits.tobytes(), int(np.unpackbits(bits).sum()))
    return [*(shape for shape in shapes if not isinstance(shape, Mask)), joined]


def _few(texts: list[str]) -> list[str]:
    different = list(dict.fromkeys(texts))
    rest = len(different) - _SHOWN
    return different if rest <= 0 else [*different[:_SHOWN], f"and {rest} more like these"]
