"""Data sets of coloured squares on textured ground, in every form that is read: pictures that are made, truth known.

The same arguments give the same files. Imports no pytest: benchmarks use it too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

_COLOURS = ((220, 40, 40), (40, 90, 220), (40, 180, 60), (230, 180, 30), (170, 60, 190), (30, 180, 180))


@dataclass(frozen=True, slots=True)
class Square:
    """An object: its class, and its corners in pixels, half-open."""

    cls: int
    x0: int
    y0: int
    x1: int
    y1: int


def class_name(cls: int) -> str:
    """What a class is called; the names are in the order of the classes."""
    return f"colour{cls:02d}"


def squares(index: int, size: tuple[int, int] = (480, 640), classes: int = 2) -> list[Square]:
    """The objects of a picture: one to three, of 15 to 35 % of its shorter side."""
    height, width = size
    rng = np.random.default_rng([17, index])
    found = []
    for _ in range(1 + int(rng.integers(3))):
        side = max(2, int(min(size) * rng.uniform(0.15, 0.35)))
        x0, y0 = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        found.append(Square(int(rng.integers(classes)), x0, y0, x0 + side, y0 + side))
    return found


def picture(index: int, size: tuple[int, int] = (480, 640), classes: int = 2) -> npt.NDArray[np.uint8]:
    """A picture with its objects, uint8 (H, W, 3); no two are the same."""
    height, width = size
    rng = np.random.default_rng([23, index])
    coarse = rng.integers(60, 200, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
    ground = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    for square in squares(index, size, classes):
        ground[square.y0 : square.y1, square.x0 : square.x1] = _COLOURS[square.cls % len(_COLOURS)]
    return ground


def coco_data_set(folder: Path, count: int, size: tuple[int, int] = (480, 640), classes: int = 2) -> tuple[Path, Path]:
    """A COCO file of boxes, and its folder of pictures.

    Args:
        folder: that they are made in.
        count: of pictures.
        size: (height, width) of each.
        classes: that objects are of, from the first on.

    Returns:
        Path of the JSON file, path of the folder of pictures.
    """
    images = _pictures(folder / "images", count, size, classes)
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        for square in squares(index, size, classes):
            side = square.x1 - square.x0
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": square.cls + 1,
                    "bbox": [square.x0, square.y0, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
    data = {
        "images": [
            {"id": index + 1, "file_name": _name(index), "width": size[1], "height": size[0], "light": _light(index)}
            for index in range(count)
        ],
        "annotations": annotations,
        "categories": [{"id": cls + 1, "name": class_name(cls)} for cls in range(classes)],
    }
    file = folder / "objects.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return file, images


def voc_data_set(folder: Path, count: int, size: tuple[int, int] = (480, 640), classes: int = 2) -> Path:
    """A Pascal VOC folder: `Annotations`, `JPEGImages`, and `ImageSets/Main/val.txt` with every other picture."""
    _pictures(folder / "JPEGImages", count, size, classes)
    (folder / "Annotations").mkdir(parents=True)
    for index in range(count):
        objects = "".join(
            f"<object><name>{escape(class_name(square.cls))}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{square.x0 + 1}</xmin><ymin>{square.y0 + 1}</ymin><xmax>{square.x1}</xmax><ymax>{square.y1}</ymax>"
            "</bndbox></object>"
            for square in squares(index, size, classes)
        )
        (folder / "Annotations" / f"{index:06d}.xml").write_text(
            f"<annotation><filename>{_name(index)}</filename><size><width>{size[1]}</width><height>{size[0]}</height>"
            f"<depth>3</depth></size>{objects}</annotation>",
            encoding="utf-8",
        )
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{index:06d}\n" for index in range(0, count, 2)), encoding="utf-8")
    return folder


def mask_data_set(folder: Path, count: int, size: tuple[int, int] = (480, 640), classes: int = 2) -> Path:
    """A folder with `images/<class>` and `masks/<class>`; of each picture the class of its first object is asked."""
    for index in range(count):
        found = squares(index, size, classes)
        mask = np.zeros(size, dtype=np.uint8)
        for square in found:
            if square.cls == found[0].cls:
                mask[square.y0 : square.y1, square.x0 : square.x1] = 255
        name = class_name(found[0].cls)
        for part in ("images", "masks"):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
        _save(folder / "images" / name / _name(index), picture(index, size, classes))
        Image.fromarray(mask).save(folder / "masks" / name / f"{index:06d}.png")
    return folder


def table_data_set(folder: Path, count: int, size: tuple[int, int] = (480, 640), classes: int = 2) -> tuple[Path, Path]:
    """A table of boxes, and its folder of pictures."""
    images = _pictures(folder / "images", count, size, classes)
    file = folder / "boxes.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(_rows(count, size, classes))
    return file, images


def _rows(count: int, size: tuple[int, int], classes: int) -> Iterator[tuple[object, ...]]:
    yield "image", "x0", "y0", "x1", "y1", "class", "light"
    for index in range(count):
        for square in squares(index, size, classes):
            corners = (square.x0, square.y0, square.x1, square.y1)
            yield _name(index), *corners, class_name(square.cls), _light(index)


def _pictures(folder: Path, count: int, size: tuple[int, int], classes: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        _save(folder / _name(index), picture(index, size, classes))
    return folder


def _save(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(path, quality=90)


def _name(index: int) -> str:
    return f"{index:06d}.jpg"


def _light(index: int) -> str:
    return ("day", "night")[index % 2]
