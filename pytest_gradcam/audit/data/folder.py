"""FolderSource: pictures in one folder, and masks of the same names in another. Reads no pixels before it is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_gradcam.audit.data.gathering import Gathering
from pytest_gradcam.audit.data.pictures import digest, files_below, frame_of, keys, listed, picture_in, sayable, shown
from pytest_gradcam.audit.data.sample import DataSetError, Sample, SampleError
from pytest_gradcam.pictures import refuse_bomb
from pytest_gradcam.shapes import Mask


class FolderSource:
    """The pictures of a folder, sorted, each with a mask of its class.

    The class of `cat/1.jpg` is `cat`, its first folder; a picture that lies in none is asked for the class that the
    model predicts. Its mask has the same path with any suffix, `cat/1.png`, and is 0 outside and one other value
    inside. `categories` is None where no picture lies in a folder.
    """

    def __init__(self, images: str | os.PathLike[str], masks: str | os.PathLike[str]) -> None:
        """List the files.

        Args:
            images: folder of the pictures.
            masks: folder of the masks.

        Raises:
            DataSetError: there is no such folder, or no picture in it.
        """
        self._folder, self._mask_folder = Path(images).absolute(), Path(masks).absolute()
        self._names = files_below(self._folder)
        if not self._names:
            raise DataSetError(f"there are no pictures in {shown(str(self._folder))}")
        masks_listed = files_below(self._mask_folder)
        self._masks: dict[str, list[str]] = {}
        for name in masks_listed:
            self._masks.setdefault(os.path.splitext(name)[0], []).append(name)
        self._keys = keys((name, place) for place, name in enumerate(self._names))
        classes = sorted({name for name in map(_class_of, self._names) if name is not None})
        self._places = {name: place for place, name in enumerate(classes)}
        self.categories = tuple(map(sayable, classes)) or None
        parts = [*listed(self._folder, self._names), b"\0\0", *listed(self._mask_folder, masks_listed)]
        self.fingerprint = f"images and masks sha256:{digest(parts)}"

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        """The picture's path in its folder."""
        return self._keys[index]

    def said(self, index: int) -> tuple[tuple[int | None, ...], Mapping[str, str]]:
        """The classes that are asked for in an image, and what it is about, whether or not it can be read."""
        own = _class_of(self._names[index])
        return (None if own is None else self._places[own],), {}

    def __getitem__(self, index: int) -> Sample:
        """One image.

        Raises:
            SampleError: the picture or its mask cannot be read, or they are of different sizes.
        """
        name = self._names[index]
        path = picture_in(self._folder, name)
        frame = frame_of(path)
        own = _class_of(name)
        cls = None if own is None else self._places[own]
        objects = Gathering()
        stem = os.path.splitext(name)[0]
        found = self._masks.get(stem, [])
        if len(found) != 1:
            several = f"are {len(found)} masks" if found else "is no mask"
            objects.spoil(cls, f"there {several} of the name {shown(stem)} in {self._mask_folder}: one is wanted")
        else:
            flags = _flags(self._mask_folder, found[0])
            if flags.shape != frame.size:
                raise SampleError(
                    f"the mask {shown(found[0])} is {flags.shape[1]} wide and {flags.shape[0]} high, and its picture "
                    f"is {frame.width} wide and {frame.height} high"
                )
            if flags.any():
                objects.add(cls, [Mask.of(flags)])
            else:
                objects.spoil(cls, f"the mask {shown(found[0])} is 0 everywhere: it marks nothing")
        return Sample(self._keys[index], path, objects.asked(frame.notes))


def _class_of(name: str) -> str | None:
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else None


def _flags(folder: Path, name: str) -> npt.NDArray[np.bool_]:
    """A mask's file as booleans (H, W)."""
    path = picture_in(folder, name)
    try:
        with Image.open(path) as picture:
            refuse_bomb(picture)
            mode, pixels = picture.mode, np.asarray(picture)
    except Exception as error:  # only PIL is at work here, and broken files make it raise a dozen kinds
        raise SampleError(f"the mask {shown(name)} cannot be read: {error}") from error
    plane: npt.NDArray[Any] = pixels
    if pixels.ndim == 3 and mode == "RGB" and (pixels == pixels[..., :1]).all():
        plane = pixels[..., 0]
    if plane.ndim != 2:
        raise SampleError(f"the mask {shown(name)} has mode {mode}: save it with one channel, 0 outside the object")
    values = np.unique(plane)
    if len(values[values != 0]) > 1:
        few = ", ".join(map(str, values[:6].tolist())) + (", …" if len(values) > 6 else "")
        raise SampleError(
            f"the mask {shown(name)} holds {few}: it must be 0 outside the object, and one other value inside; masks "
            "are not saved as JPEG, which changes values"
        )
    flags: npt.NDArray[np.bool_] = plane != 0
    return flags
