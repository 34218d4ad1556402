"""From samples to blocks: images made model input, and their regions carried there; what cannot be is a row already.

Runs in the loader's worker processes: all that a dataset costs is paid here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pytest_gradcam.audit.data.sample import NO_REGION, Asked, Sample, SampleError, Source
from pytest_gradcam.audit.rows import Row, Status
from pytest_gradcam.errors import ImageError, RegionError, SettingsError, said_by
from pytest_gradcam.geometry import geometric_steps
from pytest_gradcam.images import Prepared, carry_region, prepare, prepare_trusting
from pytest_gradcam.pictures import load
from pytest_gradcam.probes import Probe, probe
from pytest_gradcam.regions import Region
from pytest_gradcam.transforms import Transform

# How a slice is made of an image: its text, or None where the image is in none.
SliceOf: TypeAlias = Callable[[Sample], "str | bool | int | None"]

Steps: TypeAlias = list[Callable[[Image.Image], Image.Image]]

# Whether a transform is random, and where it puts pixels, is looked at with these images and every so many after them;
# the others are pushed through it once, and their region once, as a plain loop over the data would.
FIRST: Final = 8
EVERY: Final = 100
# Probes of frame sizes that are kept: photos come in few sizes, or in so many that no store would hold them.
PROBES: Final = 8
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
    _probes: dict[tuple[int, int], Probe] = field(default_factory=dict)
    _steps: tuple[Steps | None] | None = None

    def one(self, index: int, key: str, get: Callable[[], Sample]) -> One:
        """One image, made ready; whatever goes wrong with it is a row.

        Args:
            index: of the image in the data set.
            key: of the image, where it cannot be read.
            get: reads it.
        """
        try:
            sample = get()
        except Exception as error:  # of ours, or of the user's own data set, which may raise anything
            return One(None, [], [_refused(index, 0, key, "unreadable", said_by(error))])
        about = dict(sample.about)
        try:
            about |= {name: text for name, made in self.slices.items() if (text := _text(made(sample))) is not None}
        except Exception as error:  # of the user's own function
            return One(None, [], [_refused(index, 0, sample.key, "unreadable", f"a slice raised {said_by(error)}")])
        about = {name[:LONGEST]: text[:LONGEST] for name, text in about.items()}
        if not sample.asked:
            return One(None, [], [_refused(index, 0, sample.key, "no region", NO_REGION, about)])
        closely = index < FIRST or index % EVERY == 0
        try:
            prepared = self._prepared(sample.image, closely=closely)
        except Exception as error:  # of ours, of PIL, or of the user's transform
            said = said_by(error)
            rows = [
                _refused(index, place, sample.key, "unreadable", said, about, each.cls)
                for place, each in enumerate(sample.asked)
            ]
            return One(None, [], rows)
        return self._with_regions(index, sample, about, prepared, closely=closely)

    def _with_regions(
        self, index: int, sample: Sample, about: Mapping[str, str], prepared: Prepared, *, closely: bool
    ) -> One:
        digest = _digest_of(prepared.tensor)
        ready, refused = [], []
        for place, asked in enumerate(sample.asked):
            notes = "; ".join(asked.notes)[:LONGEST]
            try:
                cls = self.class_of(asked)
                if asked.region is None:
                    refused.append(_refused(index, place, sample.key, _lacking(asked), asked.why, about, cls, notes))
                    continue
                mask = self._carried(asked.region, prepared, closely=closely)
            except Exception as error:  # of ours, or of the user's transform
                status: Status = "unusable region" if isinstance(error, RegionError) else "unreadable"
                refused.append(_refused(index, place, sample.key, status, said_by(error), about, asked.cls, notes))
                continue
            known = _digest(digest, mask)
            one = Ready(index, place, sample.key, cls, asked.region, prepared.frame, about, known, notes)
            ready.append((one, mask))
        return One(prepared.tensor if ready else None, ready, refused)

    def _carried(self, region: Region, prepared: Prepared, *, closely: bool) -> npt.NDArray[np.float32]:
        return carry_region(region, prepared, trusting=not closely)

    def _geometric(self) -> Steps | None:
        if self._steps is None:
            found = None if self.transform is None else geometric_steps(self.transform)
            self._steps = (found,)
        return self._steps[0]

    def class_of(self, asked: Asked) -> int | None:
        """The model's class that is asked for; None for the predicted one.

        Raises:
            SampleError: the data set names no such category.
        """
        if asked.cls is None or self.classes is None:
            return asked.cls
        if not 0 <= asked.cls < len(self.classes):
            raise SampleError(f"category {asked.cls} is none of the {len(self.classes)} that the data set names")
        return self.classes[asked.cls]

    def prepared(self, image: object) -> Prepared:
        """One image made ready, as `explain` would."""
        return self._prepared(image, closely=True)

    def _prepared(self, image: object, *, closely: bool) -> Prepared:
        if isinstance(image, Tensor):
            return prepare(image)
        if self.transform is None:
            raise ImageError(self.why)
        if closely:
            return prepare(image, transform=self.transform)
        rgb = load(image)
        between = None if self._geometric() is not None else self._probe((rgb.shape[0], rgb.shape[1]))
        return prepare_trusting(rgb, self.transform, between)

    def _probe(self, frame: tuple[int, int]) -> Probe:
        assert self.transform is not None  # only pictures come here
        found = self._probes.pop(frame, None)
        if found is None:
            found = probe(self.transform, *frame)
        self._probes[frame] = found
        while len(self._probes) > PROBES:
            self._probes.pop(next(iter(self._probes)))
        return found


class Items(Dataset[One]):
    """The images of a source, made ready one by one: what torch's `DataLoader` loads."""

    def __init__(self, source: Source, preparer: Preparer) -> None:
        self.source = source
        self.preparer = preparer

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> One:
        return self.preparer.one(index, self.source.key(index), lambda: self.source[index])


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


def _text(value: object) -> str | None:
    """A slice that a function puts an image in."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    raise SettingsError(f"{value!r}, which is no text, number, True, False or None")


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
    return Row(index, place, key, status, reason=reason, notes=notes, cls=cls, about=about or {})
