"""The pictures of a data set as files: where they lie, how large they are, what they are called. Decodes none."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Final

from PIL import ExifTags, Image

from pytest_gradcam.audit.data.sample import DataSetError, SampleError
from pytest_gradcam.comparison.folder import SUFFIXES
from pytest_gradcam.pictures import refuse_bomb

_LONGEST_TEXT: Final = 200  # characters of what slices are made of
_SHOWN: Final = 120
_SIDEWAYS: Final = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_EXIF_OF_PNG: Final = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


def picture_in(folder: Path, name: object) -> Path:
    """The path of a picture that a file of annotations names.

    Links are followed: the pictures of a large data set often lie on another disk.

    Raises:
        SampleError: no name, one that leads out of the folder, or there is no such file.
    """
    if not isinstance(name, str) or not name:
        raise SampleError(f"the picture has no file name, but {shown(name)}: write its path, relative to {folder}")
    windows = PureWindowsPath(name)  # takes / and \ for separators, so that no system finds a way out
    if windows.drive or windows.root or ".." in windows.parts:
        raise SampleError(
            f"the file name {shown(name)} leads out of the folder of pictures, {folder}: write it relative to that, "
            "without '..'"
        )
    path = folder / name
    if not os.path.isfile(path):
        raise SampleError(f"there is no picture {shown(name)} in {folder}")
    return path


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a picture that is in a file.

    Attributes:
        height, width: in pixels, upright by its EXIF orientation, as the model gets it.
        orientation: that one; 1 is upright as it is.
    """

    height: int
    width: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of regions in it."""
        if self.orientation == 1:
            return ()
        return (
            f"the picture is turned upright by its EXIF orientation, {self.orientation}: the regions are taken to be "
            "drawn on it upright",
        )


def frame_of(path: Path) -> Frame:
    """The size of a picture, from the head of its file.

    Raises:
        SampleError: it cannot be opened.
    """
    try:
        with Image.open(path) as picture:
            refuse_bomb(picture)  # its regions would take as much memory
            orientation = _orientation(picture)
            width, height = _unturned(picture)
    except Exception as error:  # only PIL is at work here, and broken files make it raise a dozen kinds
        raise SampleError(f"the picture {shown(path.name)} cannot be opened: {error}") from error
    if orientation in _SIDEWAYS:
        width, height = height, width
    return Frame(height, width, orientation)


def agreed_frame(path: Path, width: object, height: object) -> Frame:
    """The size of a picture, which is what its annotations were drawn on.

    Args:
        path: of the picture.
        width: that the annotations state; None where they state none.
        height: the same.

    Raises:
        SampleError: they state another size, or one that is none; or the picture cannot be opened.
    """
    frame = frame_of(path)
    if width is None and height is None:
        return frame
    stated = whole(height), whole(width)
    if stated == frame.size:
        return frame
    said = f"the annotations are for a picture {shown(width)} wide and {shown(height)} high"
    if frame.orientation in _SIDEWAYS and stated == (frame.width, frame.height):
        raise SampleError(
            f"{said}, and {shown(path.name)} has that size before its EXIF orientation, {frame.orientation}, turns it "
            f"upright: it is {frame.width} wide and {frame.height} high then. Save the picture without orientation, or "
            "turn the annotations"
        )
    raise SampleError(f"{said}, and {shown(path.name)} is {frame.width} wide and {frame.height} high")


def _unturned(picture: Image.Image) -> tuple[int, int]:
    """Width and height of the pixels in the file."""
    if picture.format != "TIFF":
        return picture.size
    tags: Any = getattr(picture, "tag_v2", {})  # PIL turns TIFF by itself: from version 11 on when it opens it
    return int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])


def _orientation(picture: Image.Image) -> int:
    # PIL decodes the whole of a PNG to look for EXIF behind its pixels, where hardly a program writes it.
    if picture.format == "PNG" and not any(name in picture.info for name in _EXIF_OF_PNG):
        return 1
    orientation: Any = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def files_below(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """The files of a folder and of those below it, by their suffixes, sorted: relative paths with `/`.

    Links to folders are followed, each folder once; what begins with a dot is left out, as systems hide it.

    Raises:
        DataSetError: there is no such folder, or one in it cannot be read.
    """
    require_folder(folder, "folder")

    def refuse(error: OSError) -> None:
        raise DataSetError(f"the folder {shown(str(error.filename))} cannot be read ({error.strerror})")

    found = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        near = Path(parent).relative_to(folder)
        found += [
            (near / name).as_posix()
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    return sorted(found)


def require_folder(folder: Path, what: str) -> None:
    """Nothing, if there is such a folder.

    Raises:
        DataSetError: there is not.
    """
    if not os.path.isdir(folder):
        state = "is a file" if os.path.isfile(folder) else "does not exist"
        raise DataSetError(f"the {what} {shown(str(folder))} {state}")


def keys(names: Iterable[tuple[object, object]]) -> tuple[str, ...]:
    """What the images of a data set are called, each by another name.

    Args:
        names: of each image its file's name, and its id, which tells images of the same name.
    """
    pairs = [(PurePath(name).as_posix() if isinstance(name, str) and name else "", one) for name, one in names]
    counted = Counter(name for name, _ in pairs)
    taken: set[str] = set()
    result = []
    for place, (name, one) in enumerate(pairs):
        key = sayable(name if name and counted[name] == 1 else f"{name}#{one}")
        while key in taken:
            key = f"{key}#{place}"
        taken.add(key)
        result.append(key)
    return tuple(result)


def about_of(entries: Iterable[tuple[object, object]]) -> dict[str, str]:
    """What slices can be made of, of the entries that describe an image: short texts, numbers, yes and no."""
    return {sayable(str(name)): text for name, value in entries if (text := _text(value))}


def _text(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, int) and not -(10**18) < value < 10**18:  # Python refuses to write out the largest
        return ""
    text = sayable(str(value)) if isinstance(value, (str, int, float)) else ""
    return text if len(text) <= _LONGEST_TEXT else ""


def whole(value: object) -> int | None:
    """A whole number, also one that a file has as 3.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(text: str) -> float | None:
    """The number that a text is, also one that is not finite; None for any other text."""
    try:
        return float(text)
    except ValueError:
        return None


def sayable(text: str) -> str:
    """The text as UTF-8 can hold it: a file's name need not be text, nor need what stands in a JSON file."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown(value: object) -> str:
    """A value as messages show it, cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists in lists in lists
        text = f"a {type(value).__name__}"
    return sayable(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def digest(parts: Iterable[bytes]) -> str:
    """What tells one state of a data set from another."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def listed(folder: Path, names: Iterable[str]) -> Iterator[bytes]:
    """Names and sizes of files, for `digest`."""
    for name in names:
        try:
            size = os.stat(folder / name).st_size
        except OSError:  # a link that leads nowhere
            size = -1
        yield f"{sayable(name)}\0{size}\0".encode()
