"""VocSource: a data set as Pascal VOC has it, one XML file for each picture; http://host.robots.ox.ac.uk/pascal/VOC/.

Reads all XML files at once; the pictures are only looked at when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from pytest_gradcam.audit.data.clipping import fitted_box
from pytest_gradcam.audit.data.gathering import Gathering
from pytest_gradcam.audit.data.pictures import (
    agreed_frame,
    digest,
    files_below,
    keys,
    number,
    picture_in,
    require_folder,
    sayable,
    shown,
)
from pytest_gradcam.audit.data.sample import DataSetError, Sample, SampleError
from pytest_gradcam.errors import RegionError

_LARGEST: Final = 16 * 2**20  # bytes of an XML file
_EDGES: Final = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _Object:
    """An object as it stands in the file."""

    name: str
    edges: tuple[str, ...]
    is_difficult: bool


@dataclass(frozen=True, slots=True)
class _Image:
    """What an XML file says of its picture; `fault` says why that cannot be read."""

    stem: str
    file_name: str = ""
    width: float | None = None
    height: float | None = None
    objects: tuple[_Object, ...] = ()
    fault: str = ""


class VocSource:
    """The images of a Pascal VOC folder, sorted by their names or as a list has them; of each, every class in it.

    Boxes there are 1-based and closed: `xmin` 1 is the first column, `xmax` the last one inside. An image's region of
    a class is the union of all its objects, difficult ones too. A picture is found by the stem of its XML file's name,
    as VOC has it; by the `filename` inside, where no picture has that stem.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        split: str | os.PathLike[str] | None = None,
    ) -> None:
        """Read the annotations.

        Args:
            folder: with `Annotations` in it, or itself one of XML files.
            images: folder of the pictures. None: `JPEGImages`, beside the annotations or above; else their own folder.
            split: a list of stems, one a line, as `ImageSets/Main` has them. None: all.

        Raises:
            DataSetError: there are no annotations, or no such folder or list.
        """
        root = Path(folder).absolute()
        annotations = root / "Annotations" if os.path.isdir(root / "Annotations") else root
        files = files_below(annotations, (".xml",))
        if not files:
            raise DataSetError(f"there are no XML files in {shown(str(annotations))}")
        self._folder = _images_of(annotations) if images is None else Path(images).absolute()
        require_folder(self._folder, "folder of images")
        self._pictures: dict[str, list[str]] = {}
        for picture in files_below(self._folder):
            self._pictures.setdefault(os.path.splitext(picture)[0], []).append(picture)
        stems = [file[: -len(".xml")] for file in files]
        wanted = stems if split is None else _listed(Path(split))
        known = dict(zip(stems, files, strict=True))
        self._images: list[_Image] = []
        self.fingerprint = f"Pascal VOC sha256:{digest(self._read(annotations, known, wanted))}"
        self.categories = tuple(sorted({one.name for image in self._images for one in image.objects if one.name}))
        self._keys = keys((self._picture_name(image), place) for place, image in enumerate(self._images))
        self._places = {name: place for place, name in enumerate(self.categories)}

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """The file's name; of a picture that is missing, as the annotations have it."""
        return self._keys[index]

    def said(self, index: int) -> tuple[tuple[int | None, ...], Mapping[str, str]]:
        """The classes that are asked for in an image, and what it is about, whether or not it can be read."""
        image = self._images[index]
        return tuple(sorted({self._places[one.name] for one in image.objects if one.name})), _about(image)

    def __getitem__(self, index: int) -> Sample:
        """One image.

        Raises:
            SampleError: its XML file is broken, the picture is missing, not sure, or of another size.
        """
        image = self._images[index]
        if image.fault:
            raise SampleError(image.fault)
        path = picture_in(self._folder, self._sure_name(image))
        # Some programs write 0 for the size of a picture that they have not opened.
        frame = agreed_frame(path, image.width or None, image.height or None)
        objects = Gathering()
        # Those without a name, which may be of any class, last, when all classes are known.
        for place, one in sorted(enumerate(image.objects), key=lambda pair: not pair[1].name):
            if not one.name:
                objects.spoil_all(f"object {place}: it has no name")
                continue
            cls = self._places[one.name]
            try:
                box, note = fitted_box(_corners(one.edges), frame.size)
            except RegionError as error:
                objects.spoil(cls, f"object {place}: {error}")
            else:
                objects.add(cls, [box], [note, "a difficult object is part of the region" if one.is_difficult else ""])
        return Sample(self._keys[index], path, objects.asked(frame.notes), _about(image))

    def _read(self, folder: Path, files: Mapping[str, str], stems: list[str]) -> Iterator[bytes]:
        """Take up the annotations, file by file, and give what tells one state of them from another."""
        for stem in stems:
            content = _content(folder, files.get(stem))
            self._images.append(_parsed(stem, content))
            data = content if isinstance(content, bytes) else b""
            yield f"{sayable(stem)}\0{len(data)}\0".encode()
            yield data

    def _picture_name(self, image: _Image) -> str:
        """Of those that have the stem, the one that the file says, or the first; else what it says; else the stem."""
        found = self._pictures.get(image.stem, [image.file_name or image.stem])
        return image.file_name if image.file_name in found else found[0]

    def _sure_name(self, image: _Image) -> str:
        found = self._pictures.get(image.stem, [])
        if len(found) > 1 and image.file_name not in found:
            raise SampleError(f"there are {len(found)} pictures of the name {shown(image.stem)}: {', '.join(found)}")
        # Files that were renamed, with their annotations or without: if both names are there, neither is sure.
        other = image.file_name
        if found and other not in ("", *found) and other in self._pictures.get(os.path.splitext(other)[0], []):
            raise SampleError(
                f"the annotations are called {shown(image.stem)} and say that they are of {shown(other)}, and both "
                "pictures are there: rename one, or mend the filename"
            )
        return self._picture_name(image)


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds no document that declares types: entities in them can grow beyond memory, or name other files."""

    def doctype(self, *_: object) -> None:
        raise ValueError("it has a DOCTYPE, which no annotations need: remove it")


def _images_of(annotations: Path) -> Path:
    for folder in (annotations / "JPEGImages", annotations.parent / "JPEGImages", annotations.parent / "images"):
        if os.path.isdir(folder):
            return folder
    return annotations


def _listed(file: Path) -> list[str]:
    """The stems of a list; those for one class have a number behind each stem, -1 where the class is not there."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataSetError(f"the list of images {shown(str(file))} cannot be read: {error}") from error
    stems = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    if not stems:
        raise DataSetError(f"the list of images {shown(str(file))} is empty")
    return stems


def _content(folder: Path, file: str | None) -> bytes | str:
    """The bytes of an XML file, or why there are none."""
    if file is None:
        return "there is no XML file of this name among the annotations"
    try:
        if os.path.getsize(folder / file) > _LARGEST:
            return f"the XML file {shown(file)} has more than {_LARGEST >> 20} MiB"
        return (folder / file).read_bytes()
    except OSError as error:
        return f"the XML file {shown(file)} cannot be read: {error.strerror or error}"


def _parsed(stem: str, content: bytes | str) -> _Image:
    if isinstance(content, str):
        return _Image(stem, fault=content)
    try:
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError, MemoryError) as error:
        return _Image(stem, fault=f"the XML file of {shown(stem)} cannot be read: {str(error) or 'it is too large'}")
    if root.tag != "annotation":
        return _Image(stem, fault=f"the XML file of {shown(stem)} holds {shown(root.tag)}, and not an annotation")
    objects = tuple(_object(element) for element in root.findall("object"))
    width, height = number(_text(root, "size/width")), number(_text(root, "size/height"))
    return _Image(stem, _text(root, "filename"), width, height, objects)


def _object(element: ElementTree.Element) -> _Object:
    edges = tuple(_text(element, f"bndbox/{edge}")[:40] for edge in _EDGES)
    return _Object(sayable(_text(element, "name")), edges, _text(element, "difficult") not in ("", "0"))


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _corners(edges: tuple[str, ...]) -> tuple[float, float, float, float]:
    values = [number(edge) for edge in edges]
    for name, edge, value in zip(_EDGES, edges, values, strict=True):
        if value is None:
            raise RegionError(f"its {name} is {shown(edge)}: it must be a number of pixels")
    x0, y0, x1, y1 = (value for value in values if value is not None)
    if x1 < x0 or y1 < y0:
        raise RegionError(f"its box is inside out: {', '.join(map('='.join, zip(_EDGES, edges, strict=True)))}")
    return x0 - 1, y0 - 1, x1, y1


def _about(image: _Image) -> dict[str, str]:
    if not image.objects:
        return {}
    difficult = sum(one.is_difficult for one in image.objects)
    return {"difficult": "none" if not difficult else "all" if difficult == len(image.objects) else "some"}
