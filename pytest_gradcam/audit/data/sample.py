"""Sample: one image of a data set, and what is asked of it; Source: a data set as an audit reads it. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from pytest_gradcam.errors import GradcamError
from pytest_gradcam.regions import Region

# How a reason begins where nothing is wrong, and nothing is said either.
NO_REGION: Final = "the data set gives no region"


class SampleError(GradcamError, ValueError):
    """An image of a data set, or what is said of it, cannot be used; the audit records why, and goes on."""


class DataSetError(GradcamError, ValueError):
    """A data set as a whole cannot be used: nothing of it is audited."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One class that is asked for in an image.

    Attributes:
        cls: class index, of the model or, where the source has `categories`, a place among these; None for the class
            that the model predicts.
        region: where the object is, in the image frame; None where that cannot be told.
        why: why there is no region; else empty.
        notes: what a person should know of the region, and what does not keep it from being used.
    """

    cls: int | None
    region: Region | None
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image, and what is asked of it.

    Attributes:
        key: names the image, in this audit and in later ones of the same data: the file's path relative to the folder
            of images where there is one, with `/` between folders; else its index. Unique in the data set.
        image: path, `PIL.Image`, uint8 array (H, W, 3) or (H, W), which go through the transform; or a float tensor
            (C, H, W) that already is model input.
        asked: one for each class, each class once; empty where the data set says nothing of the image.
        about: what slices can be made of: names and texts.
    """

    key: str
    image: object
    asked: tuple[Asked, ...]
    about: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """A data set that knows how many images it has; it is pickled into worker processes.

    Attributes:
        categories: names of the classes that `Asked.cls` is a place among; None where that is an index of the model's.
        fingerprint: tells one state of a data set from another, as far as that can be told without reading every image.
    """

    @property
    def categories(self) -> tuple[str, ...] | None: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The key of an image; also of one that cannot be read."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """One image.

        A source may also have `said(index)`, the classes that are asked for in the image and what it is about, known
        without reading it: then an image that cannot be read counts in its classes and slices.

        Raises:
            SampleError: what is said of the image cannot be used.
            GradcamError: as for whatever else cannot be.
        """
        ...


@runtime_checkable
class Stream(Protocol):
    """A data set that can only be gone through from its beginning."""

    @property
    def categories(self) -> tuple[str, ...] | None: ...

    @property
    def fingerprint(self) -> str: ...

    def __iter__(self) -> Iterator[Sample]: ...
