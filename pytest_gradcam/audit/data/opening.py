"""A data set by its path: what is there decides how it is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pytest_gradcam.audit.data.coco import CocoSource
from pytest_gradcam.audit.data.folder import FolderSource
from pytest_gradcam.audit.data.pictures import shown
from pytest_gradcam.audit.data.sample import DataSetError, Source
from pytest_gradcam.audit.data.table import TableSource
from pytest_gradcam.audit.data.voc import VocSource

_SERVED: Final = (
    "a data set is a COCO file (.json), a table of boxes (.csv), a Pascal VOC folder (Annotations, or files .xml) or a "
    "list in its ImageSets/Main (.txt), or a folder with images and masks in it"
)


def open_source(data: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> Source:
    """The data set that lies at a path.

    Args:
        data: a COCO file, `.json`; a table, `.csv`; a Pascal VOC folder, its `Annotations`, or one of the lists of
            `ImageSets/Main`; a folder with `images` and `masks` in it, or one of masks, if `images` is given.
        images: folder of the pictures. None: where data sets of that kind have it.

    Raises:
        DataSetError: there is none, it cannot be read, or is of none of these kinds.
    """
    path = Path(os.fsdecode(data))
    folder = None if images is None else Path(os.fsdecode(images))
    suffix = path.suffix.lower()
    if os.path.isfile(path):
        if suffix == ".json":
            return CocoSource(path, folder)
        if suffix == ".csv":
            return TableSource(path, folder)
        if suffix == ".txt" and path.parent.name == "Main" and path.parent.parent.name == "ImageSets":
            return VocSource(path.parents[2], folder, split=path)
        raise DataSetError(f"{shown(str(path))} is of no kind that is read: {_SERVED}")
    if not os.path.isdir(path):
        raise DataSetError(f"there is no {shown(str(path))}: {_SERVED}")
    if os.path.isdir(path / "Annotations") or _has_xml(path):
        return VocSource(path, folder)
    if folder is not None:
        return FolderSource(folder, path / "masks" if os.path.isdir(path / "masks") else path)
    if os.path.isdir(path / "images") and os.path.isdir(path / "masks"):
        return FolderSource(path / "images", path / "masks")
    raise DataSetError(f"the folder {shown(str(path))} holds no data set that is read: {_SERVED}")


def _has_xml(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.lower().endswith(".xml") for entry in entries)
    except OSError as error:
        raise DataSetError(f"the folder {shown(str(folder))} cannot be read: {error.strerror}") from error
