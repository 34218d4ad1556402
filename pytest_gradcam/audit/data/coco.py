"""CocoSource: a data set as a COCO file of objects has it, https://cocodataset.org/#format-data.

Reads the file whole; the pictures are only looked at when they are asked for.
"""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pytest_gradcam.audit.data.coco_shapes import Annotation, packed, shapes_of
from pytest_gradcam.audit.data.gathering import Gathering, in_order
from pytest_gradcam.audit.data.pictures import (
    about_of,
    agreed_frame,
    digest,
    keys,
    picture_in,
    require_folder,
    sayable,
    shown,
    whole,
)
from pytest_gradcam.audit.data.sample import DataSetError, Sample, SampleError
from pytest_gradcam.errors import RegionError

# What COCO's images have besides the file's name and size: it says nothing of what is in the picture.
_STANDARD: Final = frozenset(
    ("id", "file_name", "width", "height", "license", "flickr_url", "coco_url", "url", "date_captured")
)
_TRIED: Final = 20  # entries whose pictures are looked for, to find the folder
_PARTS: Final = ("images", "annotations", "categories")


@dataclass(slots=True)
class _Image:
    """An entry of `images` as it stands there.

    Attributes:
        unclear: what is said of annotations of it that may be of any category.
        fault: why it is no image.
    """

    id: int | str | None
    file_name: object = None
    width: object = None
    height: object = None
    about: Mapping[str, str] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    fault: str = ""


class CocoSource:
    """The images of a COCO file, in its order; of each, every category that it is annotated with.

    An image's region of a category is the union of all annotations of it, segmentations before boxes. What is wrong
    with one image or annotation is said where that image is asked for; `remarks` has what belongs to no image.
    """

    def __init__(self, file: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> None:
        """Read the annotations.

        Args:
            file: of the annotations, JSON.
            images: folder that the file names are relative to. None: that of the annotations; else, beside it or in it,
                `images`, or the folder that is called as the file is, after its last `_` (`val2017`); else what
                it lies in.

        Raises:
            DataSetError: it is no COCO file of objects, or there is no such folder.
        """
        if images is not None:
            require_folder(Path(images), "folder of images")
        data, self.fingerprint = _read(Path(file))
        self.categories, places = _categories(data["categories"])
        self._images, by_id = _images(data["images"])
        self._folder = (_folder_of(Path(file), self._images) if images is None else Path(images)).absolute()
        self.remarks = _give_annotations(data["annotations"], by_id, places)
        self._annotations = [_put_away(image) for image in self._images]
        self._keys = keys(
            (image.file_name, place if image.id is None else image.id) for place, image in enumerate(self._images)
        )

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """The file's name; where several entries have it, their ids too."""
        return self._keys[index]

    def said(self, index: int) -> tuple[tuple[int | None, ...], Mapping[str, str]]:
        """The classes that are asked for in an image, and what it is about, whether or not it can be read."""
        image = self._images[index]
        found = {annotation.category for annotation in pickle.loads(self._annotations[index])}
        return in_order(found), image.about

    def __getitem__(self, index: int) -> Sample:
        """One image.

        Raises:
            SampleError: its entry is broken or there twice, the picture is missing or of another size.
            DataSetError: pycocotools is needed, and not installed.
        """
        image = self._images[index]
        if image.fault:
            raise SampleError(image.fault)
        path = picture_in(self._folder, image.file_name)
        frame = agreed_frame(path, image.width, image.height)
        objects = Gathering()
        for annotation in pickle.loads(self._annotations[index]):
            try:
                objects.add(annotation.category, *shapes_of(annotation, frame.size))
            except RegionError as error:
                objects.spoil(annotation.category, f"{annotation.name}: {error}")
        for why in image.unclear:
            objects.spoil_all(why)
        return Sample(self._keys[index], path, objects.asked(frame.notes), image.about)


def _read(file: Path) -> tuple[dict[str, list[Any]], str]:
    where = shown(str(file))
    try:
        content = file.read_bytes()
        data = json.loads(content, object_hook=packed)
    except OSError as error:
        raise DataSetError(f"the annotations {where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        said = str(error) or type(error).__name__
        raise DataSetError(f"the annotations {where} are no JSON that can be read: {said}") from error
    if not isinstance(data, dict):
        raise DataSetError(f"{where} is no COCO file: it holds a {type(data).__name__}, and not an object")
    for part in _PARTS:
        if not isinstance(data.get(part), list):
            found = f"has no {part}" if part not in data else f"has for {part} a {type(data[part]).__name__}"
            raise DataSetError(f"{where} is no COCO file of objects: it {found}; a list each is wanted of {_PARTS}")
    if not data["images"]:
        raise DataSetError(f"the COCO file {where} has no images")
    return data, f"COCO sha256:{digest([content])}"


def _folder_of(file: Path, images: list[_Image]) -> Path:
    """The first of the usual folders that the first of the pictures lies in."""
    near, name = file.absolute().parent, file.stem.rpartition("_")[2]
    folders = [base / sub for base in (near, near.parent) for sub in (".", "images", name, f"images/{name}")]
    names = [image.file_name for image in images if isinstance(image.file_name, str)][:_TRIED]
    for wanted in names:
        for folder in folders:
            with suppress(SampleError):
                picture_in(folder, wanted)
                return folder
    looked = ", ".join(dict.fromkeys(shown(os.path.normpath(folder)) for folder in folders))
    raise DataSetError(f"the pictures of {shown(str(file))} are in none of {looked}: say in which folder they are")


def _categories(entries: list[Any]) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """The names of the categories in the order of their ids, and the place of each id."""
    names: dict[int | str, str] = {}
    for place, entry in enumerate(entries):
        one = _id(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if one is None or not isinstance(name, str) or not name:
            raise DataSetError(f"category {place} of the COCO file is {shown(entry)}: it needs an id and a name")
        if one in names:
            raise DataSetError(f"the COCO file has two categories of id {one}: {shown(names[one])} and {shown(name)}")
        names[one] = sayable(name)
    if not names:
        raise DataSetError("the COCO file has no categories")
    ids = sorted(names, key=lambda one: (isinstance(one, str), one))
    ordered = tuple(names[one] for one in ids)
    twice = next((name for name, times in Counter(ordered).items() if times > 1), None)
    if twice is not None:
        raise DataSetError(f"the COCO file has two categories of name {shown(twice)}: name them apart, or join them")
    return ordered, {one: place for place, one in enumerate(ids)}


def _images(entries: list[Any]) -> tuple[list[_Image], dict[int | str, _Image]]:
    """The images, and by its id each that annotations can belong to."""
    images: list[_Image] = []
    by_id: dict[int | str, _Image] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            images.append(_Image(None, fault=f"entry {place} of the images is {shown(entry)}, and no object"))
            continue
        one = _id(entry.get("id"))
        image = _Image(
            one,
            entry.get("file_name"),
            entry.get("width"),
            entry.get("height"),
            about_of((name, value) for name, value in entry.items() if name not in _STANDARD),
        )
        if one is None:
            image.fault = f"entry {place} of the images has for its id {shown(entry.get('id'))}"
        elif one in by_id:
            image.fault = f"image id {one} is there twice: the annotations of that id were given to the first"
        else:
            by_id[one] = image
        images.append(image)
    return images, by_id


def _give_annotations(
    entries: list[Any], images: Mapping[int | str, _Image], places: Mapping[int | str, int]
) -> tuple[str, ...]:
    """Give every annotation to its image; what is to be said of those that have none."""
    by_id: dict[int | str, tuple[_Image, int]] = {}
    strays: list[str] = []
    for place, entry in enumerate(entries):
        described = entry if isinstance(entry, dict) else {}
        one, owner = _id(described.get("id")), _id(described.get("image_id"))
        name = f"annotations[{place}]" if one is None else f"annotation {shown(one)}"
        if owner is None or owner not in images:
            strays.append(name)
            continue
        image = images[owner]
        if _id(described.get("category_id")) is None:
            image.unclear.append(f"{name}: its category_id is {shown(described.get('category_id'))}, which is no id")
            continue
        image.annotations.append(_annotation(name, described, places))
        if one is not None and one in by_id:
            _settle(*by_id[one], image)
        elif one is not None:
            by_id[one] = image, len(image.annotations) - 1
    if not strays:
        return ()
    few = ", ".join(strays[:3]) + (", …" if len(strays) > 3 else "")
    return (f"{len(strays)} of {len(entries)} annotations belong to no image of the file: {few}",)


def _annotation(name: str, entry: Mapping[str, Any], places: Mapping[int | str, int]) -> Annotation:
    category, crowd = _id(entry.get("category_id")), entry.get("iscrowd", 0)
    fault = ""
    if category not in places:
        fault = f"its category_id is {shown(category)}, and the file names no such category"
    elif crowd not in (0, 1, None):
        fault = f"its iscrowd is {shown(crowd)}: it must be 0 or 1"
    return Annotation(
        name,
        None if category is None else places.get(category),
        entry.get("bbox"),
        entry.get("segmentation"),
        crowd == 1,
        fault,
    )


def _settle(image: _Image, place: int, other: _Image) -> None:
    """Of two annotations of one id, the last of `other` being the second: one, if they are the same; else none."""
    first, second = image.annotations[place], other.annotations[-1]
    if image is other and replace(first, note="") == second:
        other.annotations.pop()
        image.annotations[place] = replace(first, note=f"{first.name} is there twice, and was counted once")
        return
    fault = "another annotation has the same id, and is not the same"
    image.annotations[place] = replace(first, fault=fault)
    other.annotations[-1] = replace(second, fault=fault)


def _put_away(image: _Image) -> bytes:
    """The annotations of an image as bytes, until they are asked for.

    Of 500,000 that takes half the memory (340 MB for 680), and workers get the source in 0.5 s and not in 18.
    """
    content = pickle.dumps(image.annotations, pickle.HIGHEST_PROTOCOL)
    image.annotations.clear()
    return content


def _id(value: object) -> int | str | None:
    """What images, categories and annotations are known by; None where it is no id."""
    return value if isinstance(value, str) else whole(value)
