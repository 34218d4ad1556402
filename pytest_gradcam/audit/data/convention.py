"""Data sets of `(image, target)` as torchvision has them, made a Source or a Stream; `targets` reads the targets.

https://docs.pytorch.org/vision/stable/transforms.html describes the convention.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_gradcam.audit.data.pictures import shown
from pytest_gradcam.audit.data.sample import DataSetError, Sample, SampleError, Source, Stream
from pytest_gradcam.audit.data.targets import picture_of, target_of
from pytest_gradcam.errors import GradcamError, said_by

_WANTED = "a data set gives (image, target) for each index and has a length, or is an iterable of (image, target)"


def source_of(dataset: object) -> Source | Stream:
    """A data set as an audit reads it.

    Args:
        dataset: a `torch.utils.data.Dataset`, or anything else with `__getitem__` and `__len__`, of `(image, target)`;
            or an iterable of them; or a Source or Stream, which is returned as it is. The class indices of targets are
            the model's.

    Raises:
        DataSetError: it is neither.
    """
    if isinstance(dataset, (Source, Stream)):
        return dataset
    kind = type(dataset).__name__
    if isinstance(dataset, (str, bytes, os.PathLike)):
        raise DataSetError(f"{shown(dataset)} is a path: read it with open_source(path)")
    if _is_loader(dataset):
        raise DataSetError(f"a {kind} gives batches: pass the data set that it loads, loader.dataset")
    if isinstance(dataset, Mapping) or _is_array(dataset):
        raise DataSetError(f"a {kind} is no data set: {_WANTED}")
    # torch's IterableDataset inherits a __getitem__ that only raises.
    by_index = hasattr(dataset, "__getitem__") and not _is_iterable_dataset(dataset)
    if by_index and hasattr(dataset, "__len__"):
        return IndexedData(dataset)
    if by_index and not hasattr(dataset, "__iter__"):
        raise DataSetError(f"the {kind} has no length: {_WANTED}; give it __len__")
    if isinstance(dataset, Iterable):
        return StreamedData(dataset)
    raise DataSetError(f"{shown(dataset)} of type {kind} is no data set: {_WANTED}")


class IndexedData:
    """A data set with a length; the key of an image is its index.

    Its fingerprint is its type and length: a data set that gives other images under the same indices looks the same.
    """

    categories: tuple[str, ...] | None = None

    def __init__(self, dataset: Any) -> None:
        """Take a data set.

        Args:
            dataset: with `__getitem__` and `__len__`; what it gives is looked at when it is asked for.

        Raises:
            DataSetError: it has no length after all.
        """
        self._dataset = dataset
        try:
            self._length = len(dataset)
        except Exception as error:  # the user's code; torch has data sets whose length only raises
            raise DataSetError(
                f"the {type(dataset).__name__} does not tell its length ({said_by(error)}): {_WANTED}"
            ) from error
        self.fingerprint = f"{type(dataset).__module__}.{type(dataset).__qualname__} of {self._length} images"

    def __len__(self) -> int:
        return self._length

    def key(self, index: int) -> str:
        """The index, as text."""
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        """One image.

        Raises:
            SampleError: the data set raises, or what it gives is not `(image, target)` as torchvision has it.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"image {index} of a data set of {self._length}")
        try:
            item = self._dataset[index]
        except (GradcamError, MemoryError):
            raise
        except Exception as error:  # the user's code: whatever one image makes it raise, the others can be audited
            raise SampleError(f"the data set raised {said_by(error)}") from error
        return _sample(self.key(index), item)


class StreamedData:
    """A data set that can only be gone through from its beginning; the key of an image is its place.

    Its iterator goes on after a `SampleError`: `next` gives the image after the one that cannot be used.
    """

    categories: tuple[str, ...] | None = None

    def __init__(self, dataset: Iterable[Any]) -> None:
        self._dataset = dataset
        self._is_spent = False
        self.fingerprint = f"a stream of {type(dataset).__module__}.{type(dataset).__qualname__}"

    def __iter__(self) -> Iterator[Sample]:
        """The images.

        Raises:
            DataSetError: it has been gone through, and cannot be again; or it raises, which ends it.
        """
        try:
            items = iter(self._dataset)
        except Exception as error:  # the user's code
            raise DataSetError(f"the data set cannot be gone through: {said_by(error)}") from error
        if items is self._dataset:
            if self._is_spent:
                raise DataSetError(f"the {type(items).__name__} has been gone through: it can be only once")
            self._is_spent = True
        return _Samples(items)


class _Samples(Iterator[Sample]):
    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._place = -1

    def __next__(self) -> Sample:
        self._place += 1
        try:
            item = next(self._items)
        except (StopIteration, MemoryError):
            raise
        except Exception as error:  # the user's code; an iterator that raised tells nothing of where it stands
            raise DataSetError(f"the data set raised {said_by(error)} for image {self._place}") from error
        return _sample(str(self._place), item)


def _sample(key: str, item: object) -> Sample:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise SampleError(f"the data set gave a {type(item).__name__}{size}: it must give (image, target)")
    try:
        image, frame = picture_of(item[0])
        asked, about = target_of(item[1], frame)
    except (GradcamError, MemoryError):
        raise
    except Exception as error:  # the user's objects: a tensor without data, a mapping that opens a file
        raise SampleError(f"what the data set gave cannot be read: {said_by(error)}") from error
    return Sample(key, image, asked, about)


def _is_loader(dataset: object) -> bool:
    # By what it has: torch's loader, and those that wrap it.
    return all(hasattr(dataset, name) for name in ("dataset", "batch_size", "__iter__")) and not hasattr(
        dataset, "__getitem__"
    )


def _is_array(dataset: object) -> bool:
    return hasattr(dataset, "dtype") and hasattr(dataset, "shape")


def _is_iterable_dataset(dataset: object) -> bool:
    known = sys.modules.get("torch.utils.data")
    return known is not None and isinstance(dataset, known.IterableDataset)
