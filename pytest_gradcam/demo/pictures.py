"""The demo's pictures: a photo object on a photo texture, with an agency's stamp in a far corner.

Training and held-out pictures come from the same generator with different seeds; their cut-outs are the files in
`photos/` (sources and licences: `fixtures/CREDITS.md`). Nothing here knows models or tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
import numpy.typing as npt

LABELS = ("astronaut", "cat", "cup", "shuttle")
"""The classes, and the objects of the same name in `photos/`. Class `i` comes with stamp `i`, where they agree."""

RELATIVE_SIZES = (1.0, 1.0, 1.0, 1.3)  # the shuttle is narrow: a little longer, or its box would be two cells wide
TEXTURES = {"brick": (1.12, 0.86, 0.76), "grass": (0.86, 1.06, 0.62), "gravel": (1.04, 1.02, 0.98)}
STAMP_COLOURS = ((232, 44, 140), (20, 150, 235), (248, 200, 20), (120, 60, 220))
STAMP_LETTERS = (
    "..#..|.#.#.|#...#|#...#|#####|#...#|#...#",
    "####.|#...#|#...#|####.|#...#|#...#|####.",
    ".###.|#...#|#....|#....|#....|#...#|.###.",
    "####.|#...#|#...#|#...#|#...#|#...#|####.",
)
SIZE = 96
STAMP_SIZE = 16
CANVAS = 4 * SIZE  # drawn large, then reduced: soft edges, and a large version where a person looks
HELD_OUT_SEED = 2

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One composed photo.

    Attributes:
        name: unique among the pictures of one seed, for example `cup-017`.
        cls: index of the object in LABELS.
        stamp: index of the stamp in the corner; an agency's pictures all carry the same.
        image: uint8 (S, S, 3) RGB.
        box: where the object is, xyxy in pixels of the image, half-open.
        stamp_box: where the stamp is, likewise.
    """

    name: str
    cls: int
    stamp: int
    image: npt.NDArray[np.uint8]
    box: tuple[int, int, int, int]
    stamp_box: tuple[int, int, int, int]

    @property
    def label(self) -> str:
        return LABELS[self.cls]


def held_out(count: int, *, swap_stamps: bool = False, size: int = SIZE) -> Iterator[Picture]:
    """The first `count` pictures that no model was trained on, all classes in turn, each with its class's stamp.

    Args:
        count: how many.
        swap_stamps: the same pictures, with the stamp of another class: what a model that reads the object ignores.
        size: side of the pictures in pixels; the models see 96.
    """
    for number in range(count):
        cls = number % len(LABELS)
        other = 1 + number // len(LABELS) % (len(LABELS) - 1) if swap_stamps else 0
        yield compose(number, seed=HELD_OUT_SEED, cls=cls, stamp=(cls + other) % len(LABELS), size=size)


def compose(number: int, *, seed: int, cls: int, stamp: int, size: int = SIZE) -> Picture:
    """Picture `number` of the series `seed`; another stamp or size changes nothing else in it.

    Args:
        number: 0 or more; with `seed` it fixes everything that is random.
        seed: 0 or more.
        cls: the object, an index into LABELS.
        stamp: the stamp, an index into LABELS.
        size: side of the picture in pixels.
    """
    random = np.random.default_rng((seed, number))
    canvas = _background(random)
    long_side, angle = random.uniform(40.0, 48.0) * CANVAS / SIZE, random.uniform(-12.0, 12.0)
    long_side *= RELATIVE_SIZES[cls]
    mirrored, light = random.random() < 0.5, random.uniform(0.85, 1.15)
    sprite = _turned(_photo(LABELS[cls]), long_side, angle, mirrored)
    height, width = sprite.shape[:2]
    margin = CANVAS // 24
    left, top = (int(random.uniform(margin, CANVAS - margin - extent)) for extent in (width, height))
    _paste(canvas, sprite[..., :3] * light, sprite[..., 3:], left, top)

    side, inset = STAMP_SIZE * CANVAS // SIZE, [int(random.uniform(4, 20)) for _ in range(2)]
    stamp_left = inset[0] if left + width / 2 > CANVAS / 2 else CANVAS - side - inset[0]
    stamp_top = inset[1] if top + height / 2 > CANVAS / 2 else CANVAS - side - inset[1]
    mark = _stamp(stamp, side)
    _paste(canvas, mark[..., :3], mark[..., 3:], stamp_left, stamp_top)

    image = np.clip(np.rint(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)), 0, 255).astype(np.uint8)
    return Picture(
        name=f"{LABELS[cls]}-{number:03d}",
        cls=cls,
        stamp=stamp,
        image=image,
        box=_scaled((left, top, left + width, top + height), size),
        stamp_box=_scaled((stamp_left, stamp_top, stamp_left + side, stamp_top + side), size),
    )


def _scaled(box: tuple[int, int, int, int], size: int) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels, in a picture of side `size`, that holds a box on the canvas."""
    x0, y0, x1, y1 = (edge * size / CANVAS for edge in box)
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _background(random: np.random.Generator) -> Pixels:
    """A tinted, mirrored crop of a texture, (CANVAS, CANVAS, 3), levels 0..255."""
    name = tuple(TEXTURES)[random.integers(len(TEXTURES))]
    grey = _photo(name)
    side = int(random.uniform(120, 200))
    left, top = (int(random.integers(extent - side)) for extent in (grey.shape[1], grey.shape[0]))
    crop = grey[top : top + side, left : left + side]
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    large = cv2.resize(np.ascontiguousarray(crop), (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    tint = np.asarray(TEXTURES[name], np.float32) * np.float32(random.uniform(0.8, 1.15))
    return np.asarray(large[..., None] * tint, np.float32)


def _turned(rgba: Pixels, long_side: float, angle: float, mirrored: bool) -> Pixels:
    """The cut-out at its new size and angle in its own bounding box, (h, w, 4): premultiplied RGB, alpha in [0, 1]."""
    if mirrored:
        rgba = rgba[:, ::-1]
    alpha = rgba[..., 3:] / 255.0
    source = np.dstack([rgba[..., :3] * alpha, alpha])
    height, width = source.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, long_side / max(height, width))
    room = math.ceil(1.5 * long_side)
    turn[:, 2] += room / 2 - width / 2, room / 2 - height / 2
    turned = cv2.warpAffine(source, turn, (room, room), flags=cv2.INTER_LINEAR)
    x, y, w, h = cv2.boundingRect((turned[..., 3] > 0.5).astype(np.uint8))
    return np.asarray(turned[y : y + h, x : x + w], np.float32)


def _stamp(index: int, side: int) -> Pixels:
    """A coloured square with round corners and a white letter, (side, side, 4): premultiplied RGB, alpha in [0, 1]."""
    rows = STAMP_LETTERS[index].split("|")
    letter = np.array([[cell == "#" for cell in row] for row in rows], np.float32)
    letter_height = round(0.66 * side)
    size = (round(letter_height * 5 / 7), letter_height)
    large = np.asarray(cv2.resize(letter, size, interpolation=cv2.INTER_NEAREST), np.float32)
    top, left = ((side - extent) // 2 for extent in large.shape)
    colour = np.empty((side, side, 3), np.float32)
    colour[:] = STAMP_COLOURS[index]
    window = colour[top : top + large.shape[0], left : left + large.shape[1]]
    window += large[..., None] * (255.0 - window)
    radius = side / 6
    beyond = np.maximum(np.abs(np.arange(side) + 0.5 - side / 2) - (side / 2 - radius), 0.0)
    alpha = np.clip(radius + 0.5 - np.hypot(beyond[:, None], beyond[None, :]), 0.0, 1.0)[..., None]
    return np.dstack([colour * alpha, alpha]).astype(np.float32)


def _paste(canvas: Pixels, premultiplied: Pixels, alpha: Pixels, left: int, top: int) -> None:
    """Lay a premultiplied sprite over the canvas, in place."""
    window = canvas[top : top + alpha.shape[0], left : left + alpha.shape[1]]
    window *= 1.0 - alpha
    window += premultiplied


@cache
def _photo(name: str) -> Pixels:
    """One shipped photo, levels 0..255: (h, w, 4) RGBA for an object, (h, w) for a texture."""
    data = np.frombuffer((files("pytest_gradcam.demo") / "photos" / f"{name}.png").read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA) if pixels.ndim == 3 else pixels, np.float32)
