"""TableSource: a CSV file with a box in each row. The pictures are only looked at when they are asked for."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from pytest_gradcam.audit.data.clipping import fitted_box
from pytest_gradcam.audit.data.gathering import Gathering, in_order
from pytest_gradcam.audit.data.pictures import (
    about_of,
    digest,
    frame_of,
    keys,
    number,
    picture_in,
    require_folder,
    sayable,
    shown,
)
from pytest_gradcam.audit.data.sample import DataSetError, Sample, SampleError
from pytest_gradcam.errors import RegionError

_EDGES: Final = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "width", "height"))
_IMAGE: Final = ("image",)
_CLASS: Final = ("class", "label")
_WANTED: Final = (
    "the first line names the columns: image, and x0,y0,x1,y1 or xmin,ymin,xmax,ymax or x,y,width,height, in pixels, "
    "0-based, the right and lower edge outside the box; class or label, if there are classes; others describe the image"
)
_INDEX: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it stands in the file; `fault` says why it cannot be read."""

    line: int
    cls: str
    edges: tuple[str, ...]
    fault: str = ""


@dataclass(slots=True)
class _Image:
    name: str
    rows: list[_Row] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a row stands what; `edges` four places, `has_sizes` where the last two are a width and a height."""

    image: int
    edges: tuple[int, ...]
    has_sizes: bool
    cls: int | None
    others: Mapping[str, int]
    number: int


class TableSource:
    """The images of a CSV file, in the order that they first stand there; of each, every class that it has rows of.

    Columns are `image`; `x0,y0,x1,y1` or `xmin,ymin,xmax,ymax` or `x,y,width,height`, in pixels, 0-based, half-open;
    `class` or `label`, if there are classes; and any others, which describe the image where all its rows agree. Rows of
    the same image and class are united. A row with neither class nor box says that there is nothing in the image.

    Where every class is a whole number they are the model's indices, and `categories` is None; else they are names.
    Without a column of classes, the region is asked of the class that the model predicts.
    """

    def __init__(self, file: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> None:
        """Read the table.

        Args:
            file: of the table: UTF-8, with commas.
            images: folder that the file names are relative to. None: that of the table; else `images` beside it.

        Raises:
            DataSetError: it cannot be read, lacks columns or rows, or there is no such folder.
        """
        path = Path(file).absolute()
        content = _content(path)
        self.fingerprint = f"CSV sha256:{digest([content])}"
        lines = _lines(content, shown(str(path)))
        first = next(lines, None)
        if first is None:
            raise DataSetError(f"the table {shown(str(path))} is empty: {_WANTED}")
        columns = _columns(first[1], shown(str(path)))
        self._images = _images(lines, columns)
        if not self._images:
            raise DataSetError(f"the table {shown(str(path))} has no rows below its names of columns")
        self._has_sizes = columns.has_sizes
        self._has_classes = columns.cls is not None
        names = sorted({row.cls for image in self._images for row in image.rows if row.cls})
        self._are_indices = all(_INDEX.fullmatch(name) for name in names)
        self._places = {name: int(name) if self._are_indices else place for place, name in enumerate(names)}
        self.categories = None if self._are_indices else tuple(names)
        self._folder = _folder_of(path, self._images) if images is None else Path(images).absolute()
        require_folder(self._folder, "folder of images")
        self._keys = keys(
            (image.name or f"line {image.rows[0].line}", place) for place, image in enumerate(self._images)
        )

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        """The file's name; of a row without one, its line."""
        return self._keys[index]

    def said(self, index: int) -> tuple[tuple[int | None, ...], Mapping[str, str]]:
        """The classes that are asked for in an image, and what it is about, whether or not it can be read."""
        image = self._images[index]
        found = {self._places.get(row.cls) for row in image.rows if row.cls or any(row.edges)}
        return in_order(found), image.about

    def __getitem__(self, index: int) -> Sample:
        """One image.

        Raises:
            SampleError: its row names no picture, or the picture is missing or cannot be opened.
        """
        image = self._images[index]
        if not image.name:
            raise SampleError(f"line {image.rows[0].line} of the table names no image")
        path = picture_in(self._folder, image.name)
        frame = frame_of(path)
        objects = Gathering()
        # Those that may be of any class last, when all classes are known.
        for row in sorted(image.rows, key=self._is_unclear):
            cls = self._places.get(row.cls)
            if self._is_unclear(row):
                objects.spoil_all(f"line {row.line}: {row.fault or 'it names no class'}")
                continue
            if not row.cls and not any(row.edges):
                continue
            try:
                box, note = fitted_box(self._corners(row), frame.size)
            except RegionError as error:
                objects.spoil(cls, f"line {row.line}: {error}")
            else:
                objects.add(cls, [box], [note])
        return Sample(self._keys[index], path, objects.asked(frame.notes), image.about)

    def _is_unclear(self, row: _Row) -> bool:
        return bool(row.fault or (self._has_classes and not row.cls and any(row.edges)))

    def _corners(self, row: _Row) -> tuple[float, float, float, float]:
        values = [number(edge) for edge in row.edges]
        if any(value is None for value in values):
            raise RegionError(f"its box is {shown(', '.join(row.edges))}: it must be 4 numbers of pixels")
        x0, y0, x1, y1 = (value for value in values if value is not None)
        if not self._has_sizes:
            return x0, y0, x1, y1
        if x1 <= 0 or y1 <= 0:
            raise RegionError(f"its box is {shown(', '.join(row.edges))}: width and height must be above 0")
        return x0, y0, x0 + x1, y0 + y1


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a path with NUL in it is a ValueError
        raise DataSetError(f"the table {shown(str(path))} cannot be read: {error}") from error


def _lines(content: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its last line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataSetError(f"the table {where} is not UTF-8 in line {line}: save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if any(value.strip() for value in row):
                yield reader.line_num, [value.strip() for value in row]
    except csv.Error as error:
        raise DataSetError(f"the table {where} cannot be read in line {reader.line_num}: {error}") from error


def _columns(header: Sequence[str], where: str) -> _Columns:
    names = [name.lower() for name in header]
    whole = [edges for edges in _EDGES if set(edges) <= set(names)]
    classes = [name for name in _CLASS if name in names]
    if "image" not in names or len(whole) != 1 or len(classes) > 1:
        mend = "; it looks separated by semicolons: save it with commas" if ";" in header[0] else ""
        raise DataSetError(f"the table {where} has the columns {shown(','.join(header))}{mend}: {_WANTED}")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataSetError(f"the table {where} has two columns {shown(twice)}")
    used = {"image", *whole[0], *classes}
    return _Columns(
        names.index("image"),
        tuple(names.index(edge) for edge in whole[0]),
        "width" in whole[0],
        names.index(classes[0]) if classes else None,
        {header[place]: place for place, name in enumerate(names) if name and name not in used},
        len(header),
    )


def _images(lines: Iterator[tuple[int, list[str]]], columns: _Columns) -> list[_Image]:
    images: dict[str, _Image] = {}
    for line, values in lines:
        missing = columns.number - len(values)
        fault = f"it has {len(values)} values for {columns.number} columns" if missing else ""
        values += [""] * missing
        name = values[columns.image]
        # A row without a name is an image of its own, so that it is not lost.
        one = PurePath(name).as_posix() if name else f"\0{line}"
        cls = "" if columns.cls is None or fault else sayable(values[columns.cls])
        row = _Row(line, cls, tuple(values[place] for place in columns.edges), fault)
        about = about_of((other, values[place]) for other, place in columns.others.items())
        if one not in images:
            images[one] = _Image(name, [row], about)
            continue
        image = images[one]
        image.rows.append(row)
        image.about = {other: text for other, text in image.about.items() if about.get(other) == text}
    return list(images.values())


def _folder_of(file: Path, images: list[_Image]) -> Path:
    first = next((image.name for image in images if image.name), "")
    beside = file.parent / "images"
    return beside if first and not os.path.isfile(file.parent / first) and os.path.isdir(beside) else file.parent
