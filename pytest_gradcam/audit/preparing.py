"""From samples to blocks: images made model input, and their regions carried there; what cannot be is a row already.

Runs in the loader's worker processes: all that a dataset costs is paid here.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pytest_gradcam.audit.data.sample import NO_REGION, Asked, DataSetError, Sample, Source
from pytest_gradcam.audit.rows import Row, Status
from pytest_gradcam.errors import ImageError, RegionError, SettingsError, said_by
from pytest_gradcam.geometry import geometric_steps
from pytest_gradcam.images import Prepared, carry_region, prepare, prepare_trusting
from pytest_gradcam.pictures import load
from pytest_gradcam.regions import Region
from pytest_gradcam.transforms import Transform

# How a slice is made of an image: its text, or None where the image is in none.
SliceOf: TypeAlias = Callable[[Sample], "str | bool | int | None"]

# What is asked of an image, by category, and what it is about: known without reading it.
Said: TypeAlias = tuple[tuple[int | None, ...], Mapping[str, str]]

# What a device says that has run out of memory, or that will not answer any more until the process ends.
_OF_DEVICE: Final = re.compile(r"CUDA error|out of memory|CUBLAS_STATUS|CUDNN_STATUS|device-side assert")
LONGEST: Final = 500  # characters of a reason, a note or a text that slices are made of


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """One class in one image, ready to be explained; image and mask are in the block."""

    index: int
    place: int
    key: str
    cls: int | None
    region: Region
    frame: tuple[int, int]
    about: Mapping[str, str]
    digest: str
    notes: str


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images of one size, that go through the model together.

    Attributes:
        inputs: (N, C, H, W), each image once.
        masks: float32 (M, H, W) in [0, 1], the regions in the input frame.
        rows: M, what is asked, in the order of the data set.
        images: for each row, which of the inputs it is of.
    """

    inputs: Tensor
    masks: Tensor
    rows: list[Ready]
    images: list[int]

    def row(self, place: int) -> Part:
        """One of the rows alone."""
        image = self.images[place]
        return Part(self.inputs[image : image + 1], self.masks[place : place + 1], [self.rows[place]], [0])


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive images of a data set.

    Attributes:
        count: how many images.
        parts: what is to be explained, by the size of the input.
        refused: what cannot be.
    """

    count: int
    parts: list[Part]
    refused: list[Row]


@dataclass(frozen=True, slots=True, eq=False)
class One:
    """One image of a data set, made ready."""

    inputs: Tensor | None
    ready: list[tuple[Ready, npt.NDArray[np.float32]]]
    refused: list[Row]


@dataclass(slots=True, eq=False)
class Preparer:
    """How samples are made ready.

    Attributes:
        transform: picture → model input; None where there is none, and only model input can be used.
        why: what to say then.
        classes: the model's class for each category of the source; None: what the source says are the model's.
        slices: what is added to what an image is about.
    """

    transform: Transform | None
    why: str
    classes: Sequence[int] | None = None
    slices: Mapping[str, SliceOf] = field(default_factory=dict)

    def one(self, index: int, key: str, get: Callable[[], Sample], said: Callable[[], Said] | None = None) -> One:
        """One image, made ready; whatever is wrong with it is a row, whatever is wrong with more than it is raised.

        Args:
            index: of the image in the data set.
            key: of the image, where it cannot be read.
            get: reads it.
            said: what is asked of it, where it cannot be read; None where that cannot be told.

        Raises:
            DataSetError: the data set cannot be read.
            Exception: what a function that makes slices raises, or memory that is short.
        """
        try:
            sample = get()
        except Exception as error:  # of ours, or of the user's own data set, which may raise anything
            refuse_fatal(error)
            return self._unread(index, key, said_by(error), said)
        about = self._about(sample)
        if not sample.asked:
            return One(None, [], [_refused(index, 0, sample.key, "no region", NO_REGION, about)])
        asked = self.mapped(sample.asked)
        try:
            prepared = self._prepared(sample.image)
        except Exception as error:  # of ours, of PIL, or of the user's transform
            refuse_fatal(error)
            why = said_by(error)
            return One(
                None, [], [_unreadable(index, i, sample.key, why, about, each.cls) for i, each in enumerate(asked)]
            )
        return self._with_regions(index, sample.key, asked, about, prepared)

    def _unread(self, index: int, key: str, why: str, said: Callable[[], Said] | None) -> One:
        classes, about = ((), {}) if said is None else said()
        asked = self.mapped([Asked(cls, None, why) for cls in classes]) or [Asked(None, None, why)]
        with suppress(Exception):  # of the user's function, which may look at the image
            about = self._about(Sample(key, None, tuple(asked), about))
        return One(None, [], [_unreadable(index, i, key, why, about, each.cls) for i, each in enumerate(asked)])

    def _about(self, sample: Sample) -> dict[str, str]:
        made = {name: _text(name, of(sample)) for name, of in self.slices.items()}
        about = {**sample.about, **{name: text for name, text in made.items() if text is not None}}
        return {name[:LONGEST]: text[:LONGEST] for name, text in about.items()}

    def _with_regions(
        self, index: int, key: str, asked: Sequence[Asked], about: Mapping[str, str], prepared: Prepared
    ) -> One:
        digest = _digest_of(prepared.tensor)
        ready, refused = [], []
        for place, each in enumerate(asked):
            notes = "; ".join(each.notes)[:LONGEST]
            if each.region is None:
                refused.append(_refused(index, place, key, _lacking(each), each.why, about, each.cls, notes))
                continue
            try:
                mask = carry_region(each.region, prepared)
            except Exception as error:  # of ours, or of the user's transform
                refuse_fatal(error)
                status: Status = "unusable region" if isinstance(error, RegionError) else "unreadable"
                refused.append(_refused(index, place, key, status, said_by(error), about, each.cls, notes))
                continue
            known = _digest(digest, mask)
            ready.append((Ready(index, place, key, each.cls, each.region, prepared.frame, about, known, notes), mask))
        return One(prepared.tensor if ready else None, ready, refused)

    def mapped(self, asked: Sequence[Asked]) -> list[Asked]:
        """What is asked, by classes of the model; categories that are one class of it are asked together."""
        by_class: dict[int | None, list[Asked]] = {}
        for each in asked:
            by_class.setdefault(self._class_of(each.cls), []).append(each)
        return [_united(cls, alike) for cls, alike in by_class.items()]

    def _class_of(self, cls: int | None) -> int | None:
        return cls if cls is None or self.classes is None else self.classes[cls]

    def prepared(self, image: object) -> Prepared:
        """One image made ready, as `explain` would."""
        if isinstance(image, Tensor):
            return prepare(image)
        if self.transform is None:
            raise ImageError(self.why)
        return prepare(image, transform=self.transform)

    def _prepared(self, image: object) -> Prepared:
        """The same; a transform whose steps are known is not called again and again to see what it does."""
        if self.transform is None or isinstance(image, Tensor) or geometric_steps(self.transform) is None:
            return self.prepared(image)
        return prepare_trusting(load(image), self.transform)


class Items(Dataset[One]):
    """The images of a source, made ready one by one: what torch's `DataLoader` loads."""

    def __init__(self, source: Source, preparer: Preparer) -> None:
        self.source = source
        self.preparer = preparer

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> One:
        said = getattr(self.source, "said", None)  # a user's own source need not know
        told = None if said is None else partial(said, index)
        return self.preparer.one(index, self.source.key(index), lambda: self.source[index], told)


def collate(ones: Sequence[One]) -> Block:
    """Images made ready, as a block."""
    by_kind: dict[tuple[Any, ...], list[One]] = {}
    for one in ones:
        if one.inputs is not None:
            by_kind.setdefault((*one.inputs.shape, one.inputs.dtype), []).append(one)
    parts = []
    for alike in by_kind.values():
        rows = [(ready, mask, place) for place, one in enumerate(alike) for ready, mask in one.ready]
        parts.append(
            Part(
                inputs=torch.cat([one.inputs for one in alike if one.inputs is not None]),
                masks=torch.from_numpy(np.stack([mask for _, mask, _ in rows])),
                rows=[ready for ready, _, _ in rows],
                images=[place for _, _, place in rows],
            )
        )
    return Block(len(ones), parts, [row for one in ones for row in one.refused])


def slices_of(slices: Sequence[str] | Mapping[str, SliceOf] | None) -> dict[str, SliceOf]:
    """The slices that are made by functions, by name.

    Raises:
        SettingsError: they are no names, and no functions by name.
    """
    if slices is None:
        return {}
    if isinstance(slices, Mapping):
        odd = next((name for name, made in slices.items() if not (isinstance(name, str) and callable(made))), None)
        if odd is not None:
            raise SettingsError(f"slice {odd!r} is no callable (sample) → text: pass a mapping of names to callables")
        return dict(slices)
    if isinstance(slices, str) or not all(isinstance(name, str) for name in slices):
        raise SettingsError(f"slices is {slices!r}: pass a list of names, or a mapping of names to callables")
    return {}


def refuse_fatal(error: Exception) -> None:
    """Raise again what is no fault of one image: as a row, it would be said of images that nothing is wrong with."""
    if isinstance(error, DataSetError | MemoryError | torch.OutOfMemoryError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error
    if isinstance(error, RuntimeError) and _OF_DEVICE.search(str(error)):
        raise error


def _united(cls: int | None, alike: Sequence[Asked]) -> Asked:
    """One class, of one category or several: where one of their regions is not known, nor is that of the class."""
    notes = tuple(dict.fromkeys(note for each in alike for note in each.notes))
    without = [each for each in alike if each.region is None]
    if without:
        return Asked(cls, None, without[0].why, notes)
    return Asked(cls, Region.union(*(each.region for each in alike)), "", notes)


def _text(name: str, value: object) -> str | None:
    """A slice that a function puts an image in.

    Raises:
        SettingsError: it gave no text, number, True, False or None.
    """
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    raise SettingsError(
        f"the slice {name!r} gave {value!r}: a slice is a text, a whole number, True, False, or None for no slice"
    )


def _lacking(asked: Asked) -> Status:
    return "no region" if asked.why.startswith(NO_REGION) else "unusable region"


def _digest_of(tensor: Tensor) -> hashlib._Hash:
    """Of the model input; processors have instructions for SHA-256."""
    held = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(held.shape)} {held.dtype}".encode())
    digest.update(held.view(torch.uint8).numpy().data)
    return digest


def _digest(digest: hashlib._Hash, mask: npt.NDArray[np.float32]) -> str:
    """Of the model input and the region."""
    both = digest.copy()
    both.update(np.ascontiguousarray(mask).data)
    return both.hexdigest()[:32]


def _refused(
    index: int,
    place: int,
    key: str,
    status: Status,
    reason: str,
    about: Mapping[str, str] | None = None,
    cls: int | None = None,
    notes: str = "",
) -> Row:
    reason = " ".join(reason.split())[:LONGEST]
    return Row(index, place, key, status, reason=reason, notes=notes, cls=cls, asked=cls, about=about or {})


def _unreadable(index: int, place: int, key: str, why: str, about: Mapping[str, str], cls: int | None) -> Row:
    return _refused(index, place, key, "unreadable", why, about, cls)
