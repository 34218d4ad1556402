"""The pictures of a folder, and the names of those that are written about them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_gradcam.errors import ImageError
from pytest_gradcam.report.names import artifact_name
from pytest_gradcam.report.overlay import is_overlay

SUFFIXES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of the folder: its path, and its name relative to the folder, with `/` between the parts."""

    path: Path
    name: str


def pictures_in(folder: Path) -> list[Picture]:
    """The pictures in a folder and those below it, by their suffixes, sorted; those that we made are left out.

    Raises:
        ImageError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ImageError(f"the folder of pictures {str(folder)!r} {what}: give a folder with pictures in it")

    def refuse(error: OSError) -> None:
        raise ImageError(f"the folder {str(error.filename)!r} cannot be read ({error.strerror}): make it readable")

    found = []
    for parent, _folders, files in os.walk(folder, onerror=refuse):
        for file in files:
            path = Path(parent, file)
            if path.suffix.lower() in SUFFIXES and not is_overlay(path):
                found.append(Picture(path, path.relative_to(folder).as_posix()))
    if not found:
        raise ImageError(f"the folder {str(folder)!r} holds no pictures: none of {', '.join(SUFFIXES)} in it or below")
    return sorted(found, key=lambda picture: picture.name)


def file_name(name: str) -> str:
    """Name of the PNG file about a picture: one component, safe on any file system, and no other picture's.

    Args:
        name: of the picture, relative to the folder.
    """
    # The last component ends with a hash of all of them: a path with another suffix than `.py` is no plain id.
    return f"{artifact_name(name).rpartition('/')[2].lstrip('.')}.png"
