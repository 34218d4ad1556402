"""A COCO data set in which everything is wrong that can be, each thing in an image of its own; and bombs.

Imports no pytest: other processes run it too.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from tests.audit.scenes import SIDE

BOX: Final = (8, 8, 24, 24)  # x, y, width, height


@dataclass(frozen=True)
class Case:
    """An image of the data set, and what must be said of it.

    Attributes:
        name: of its file.
        status: of its row.
        said: a regular expression that its reason, or else its notes, must match.
        annotations: what it is annotated with.
        entry: what else its entry has, or has otherwise.
    """

    name: str
    status: str
    said: str = ""
    annotations: Sequence[dict[str, Any]] = field(default_factory=lambda: [{"bbox": [*BOX]}])
    entry: dict[str, Any] = field(default_factory=dict)


def _box(*bbox: float, **others: Any) -> list[dict[str, Any]]:
    return [{"bbox": [*bbox], **others}]


def _runs(*counts: int) -> list[dict[str, Any]]:
    return _box(*BOX, iscrowd=1, segmentation={"size": [SIDE, SIDE], "counts": [*counts]})


_BEFORE: Final = 8 * SIDE
_CROWD: Final = (_BEFORE, 24 * SIDE, SIDE * SIDE - _BEFORE - 24 * SIDE)

CASES: Final = (
    Case("good.png", "measured", "^$"),
    Case("missing.jpg", "unreadable", r"^there is no picture 'missing.jpg' in "),
    Case("../outside.jpg", "unreadable", r"leads out of the folder of pictures"),
    Case("empty-box.png", "unusable region", r"width and height must be above 0", _box(8, 8, 0, 24)),
    Case("inverted-box.png", "unusable region", r"width and height must be above 0", _box(40, 40, -24, -24)),
    Case("no-box.png", "unusable region", r"neither a segmentation nor a bbox", [{}]),
    Case("nan-box.png", "unusable region", r"holds nan: every coordinate must be", _box(8, 8, float("nan"), 24)),
    Case("no-annotation.png", "no region", r"gives no region", []),
    Case("crowd.png", "measured", r"a crowd \(iscrowd\) is part of the region", _runs(*_CROWD)),
    Case("short-runs.png", "unusable region", r"run lengths of its segmentation fill 30 pixels", _runs(10, 20)),
    Case("outside-box.png", "unusable region", r"lies outside the image", _box(100, 100, 24, 24)),
    Case("overhanging-box.png", "measured", r"was clipped to the image", _box(50, 8, 24, 24)),
    Case("other-size.png", "unreadable", r"is 64 wide and 64 high$", entry={"width": 640, "height": 480}),
    Case("twice.png", "unreadable", r"^image id 1 is there twice", [], entry={"id": 1}),
    Case("pixel.png", "unusable region", r"cannot be told from the rest", _box(0, 0, 1, 1)),
    Case("cmyk.jpg", "measured", "^$"),
    Case("sixteen-bits.png", "unreadable", r"has mode I;16, 16-bit grey: scale it to 0\.\.255"),
    Case("transparent.png", "unreadable", r"has transparency"),
    Case("truncated.jpg", "unreadable", r"cannot be decoded: .*truncated"),
    Case("empty.jpg", "unreadable", r"^the picture 'empty.jpg' cannot be opened"),
    Case("text.jpg", "unreadable", r"^the picture 'text.jpg' cannot be opened"),
    # Of the first of these PIL only warns, unless it is told otherwise.
    Case("bomb-12000.png", "unreadable", r"Image size \(144000000 pixels\) exceeds limit of", _box(8, 8, 2400, 2400)),
    Case("bomb-20000.png", "unreadable", r"Image size \(400000000 pixels\) exceeds limit of", _box(8, 8, 2400, 2400)),
    Case("bomb-12000.jpg", "unreadable", r"Image size \(144000000 pixels\) exceeds limit of", _box(8, 8, 2400, 2400)),
    Case("bomb-20000.jpg", "unreadable", r"Image size \(400000000 pixels\) exceeds limit of", _box(8, 8, 2400, 2400)),
)


def broken_data_set(folder: Path, cases: Sequence[Case] = CASES) -> Path:
    """The COCO file; its pictures lie in `images` beside it."""
    (folder / "images").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, case in enumerate(cases, start=1):
        side = _make(folder / "images" / case.name, number)
        entry = {"id": number, "file_name": case.name, "width": side, "height": side} | case.entry
        entries.append(entry)
        for each in case.annotations:
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append(one | each)
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    file = folder / "objects.json"
    file.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": categories}))
    return file


def to_input(picture: Image.Image) -> torch.Tensor:
    """A picture as the reader of red and green takes it."""
    pixels = np.asarray(picture.resize((SIDE, SIDE)), np.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255.0))


def _make(path: Path, number: int) -> int:
    """The file of a case, and its side in pixels."""
    name = path.name
    if name.startswith("bomb"):
        side = int(path.stem.removeprefix("bomb-"))
        path.write_bytes(b"".join(_png(side)) if path.suffix == ".png" else _jpeg(path, side))
        return side
    side = 1 if name == "pixel.png" else SIDE
    pixels = np.full((side, side, 3), number, np.uint8)
    pixels[8:32, 8:32] = 220, 0, 0
    picture = Image.fromarray(pixels)
    if name == "cmyk.jpg":
        picture = picture.convert("CMYK")
    elif name == "sixteen-bits.png":
        picture = Image.fromarray(np.full((side, side), 40_000, np.uint16))
    elif name == "transparent.png":
        picture.putalpha(128)
    if name in ("missing.jpg", "outside.jpg"):
        return side
    picture.save(path)
    if name == "truncated.jpg":
        path.write_bytes(path.read_bytes()[:-40])
    elif name in ("empty.jpg", "text.jpg"):
        path.write_bytes(b"" if name == "empty.jpg" else b"not a picture")
    return side


def _png(side: int) -> Iterator[bytes]:
    """A black square, a bit to a pixel: 400 million of them are 50 KB."""
    row, packer = bytes(1 + (side + 7) // 8), zlib.compressobj(9)
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    yield b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")):
        yield struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _jpeg(path: Path, side: int) -> bytes:
    """A small picture that says it is a large one."""
    Image.new("RGB", (16, 16)).save(path)
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0")  # SOF0: length, bits, height, width
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)
