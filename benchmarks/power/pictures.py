"""The benchmark's pictures: an object that names the class, and three bystanders that a plant may tie to the class.

Every picture has all four: an object (a disc or block of stripes; its shape, place, size and colours say nothing), a
coloured patch in a corner, a watermark in the same border and a background texture. What is random in a picture is
fixed by `(seed, number)`; another class, patch, watermark or texture changes that one thing and nothing else, so that a
swap is an experiment. Nothing here knows models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

CLASSES = 4
SIZE = 48
PATCH = 9  # side in pixels: a cell of the network is 8, a token of the transformer 4
PERIOD = 4.0  # of the object's stripes, in pixels
WORDS = ("LILI", "OCOC", "XVXV", "EHEH")  # strokes that differ even at 8 pixels' height
BAND = 11  # rows of the border that patch and watermark keep to; no object reaches into it

Cue = Literal["object", "patch", "watermark", "texture"]
CUES: tuple[Cue, ...] = ("object", "patch", "watermark", "texture")
Box = tuple[int, int, int, int]
Pixels = npt.NDArray[np.float32]

PATCH_COLOURS = ((230, 30, 30), (30, 200, 40), (40, 60, 240), (240, 220, 20))


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        image: uint8 (S, S, 3) RGB.
        shown: which class each cue shows.
        boxes: where object, patch and watermark are, xyxy in pixels, half-open; the texture is everywhere else.
    """

    image: npt.NDArray[np.uint8]
    shown: dict[Cue, int]
    boxes: dict[Cue, Box]

    @property
    def cls(self) -> int:
        return self.shown["object"]


def compose(number: int, *, seed: int, shown: dict[Cue, int], contrast: float) -> Picture:
    """Picture `number` of the series `seed`.

    Args:
        number: 0 or more; with `seed` it fixes everything that is random.
        seed: 0 or more.
        shown: the class that each of `CUES` shows.
        contrast: of the object's two colours, in levels: how easy the object is to read.
    """
    random = np.random.default_rng((seed, number))
    canvas = _background(random, shown["texture"])
    _clutter(random, canvas)
    boxes: dict[Cue, Box] = {}
    at_bottom, at_right = (bool(flag) for flag in random.integers(2, size=2))  # where patch and watermark are
    boxes["object"] = _object(random, canvas, shown["object"], at_bottom, contrast)
    boxes["patch"] = _patch(random, canvas, shown["patch"], at_bottom, at_right)
    boxes["watermark"] = _watermark(canvas, shown["watermark"], at_bottom, at_right)
    canvas += random.normal(0.0, 5.0, canvas.shape).astype(np.float32)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Picture(image, dict(shown), boxes)


def draw(
    number: int,
    *,
    seed: int,
    contrast: float,
    doses: Mapping[Cue, float] | None = None,
    agree: bool = False,
    swap: Sequence[Cue] = (),
) -> Picture:
    """Picture `number` of a series in which all classes come in turn.

    Args:
        number: 0 or more.
        seed: of the series.
        contrast: as for `compose`.
        doses: for each cue the probability that it shows the object's class; else it shows a random one.
        agree: every cue shows the object's class: what a plain test set from the same source has.
        swap: cues that show another class than they would; nothing else in the picture changes.
    """
    random = np.random.default_rng((seed, number, 1))
    cls = number % CLASSES
    shown: dict[Cue, int] = {"object": cls}
    for cue in CUES[1:]:
        agrees = random.random() < (doses or {}).get(cue, 0.0)
        drawn = int(random.integers(CLASSES))
        shown[cue] = cls if agree or agrees else drawn
    others = random.integers(1, CLASSES, size=len(CUES))
    for cue in swap:
        shown[cue] = (shown[cue] + int(others[CUES.index(cue)])) % CLASSES
    return compose(number, seed=seed, shown=shown, contrast=contrast)


def _background(random: np.random.Generator, texture: int) -> Pixels:
    """A tinted field, (S, S, 3): smooth, grained, blotched or ruled."""
    tint = random.uniform(80, 170, size=3).astype(np.float32)
    slope = random.uniform(-0.6, 0.6, size=2).astype(np.float32)
    steps = np.arange(SIZE, dtype=np.float32) - SIZE / 2
    field = slope[0] * steps[:, None] + slope[1] * steps[None, :]
    fine = random.normal(0.0, 1.0, (SIZE, SIZE)).astype(np.float32)
    coarse = cv2.resize(random.normal(0.0, 1.0, (8, 8)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    phase = random.uniform(0, 2 * np.pi)
    if texture == 1:
        field = field + 24.0 * fine
    elif texture == 2:
        field = field + 34.0 * np.sign(coarse)
    elif texture == 3:
        rings = np.hypot(steps[:, None] - random.uniform(-40, 40), steps[None, :] - random.uniform(-40, 40))
        field = field + 26.0 * np.sin(rings * (2 * np.pi / 8.0) + phase)
    return np.ascontiguousarray(tint + field[..., None], np.float32)


def _clutter(random: np.random.Generator, canvas: Pixels) -> None:
    """Dull discs, bars and lines of no meaning."""
    for _ in range(int(random.integers(3, 7))):
        grey = random.uniform(60, 190)
        colour = tuple(float(level) for level in grey + random.uniform(-25, 25, size=3))
        x, y, u, v = (int(place) for place in random.integers(SIZE, size=4))
        kind = int(random.integers(3))
        if kind == 0:
            cv2.circle(canvas, (x, y), 2 + u // 10, colour, -1)
        elif kind == 1:
            cv2.rectangle(canvas, (x, y), (x + 2 + u // 6, y + 2 + v // 6), colour, -1)
        else:
            cv2.line(canvas, (x, y), (u, v), colour, 1 + u % 3)


def _object(random: np.random.Generator, canvas: Pixels, cls: int, at_bottom: bool, contrast: float) -> Box:
    """A disc or block of pattern in two random colours; what the pattern is, is the class."""
    width, height = (int(extent) for extent in random.integers(15, 27, size=2))
    left = int(random.integers(1, SIZE - 1 - width + 1))
    first, last = (1, SIZE - BAND - 1) if at_bottom else (BAND + 1, SIZE - 1)
    top = int(random.integers(first, last - height + 1))
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    phase, _ = random.uniform(0, PERIOD, size=2)
    along = {0: ys, 1: xs, 2: (xs + ys) / np.sqrt(2), 3: (xs - ys) / np.sqrt(2)}[cls]
    wave = np.sin((along + phase) * (2 * np.pi / PERIOD))
    colours = _two_colours(random, contrast)
    pattern = colours[0] + (0.5 + 0.5 * wave[..., None]) * (colours[1] - colours[0])
    shape = np.ones((height, width), bool)
    if random.random() < 0.5:
        shape = ((xs + 0.5) / width - 0.5) ** 2 + ((ys + 0.5) / height - 0.5) ** 2 <= 0.25
    canvas[top : top + height, left : left + width][shape] = pattern[shape]
    return left, top, left + width, top + height


def _two_colours(random: np.random.Generator, contrast: float) -> Pixels:
    """Two colours of different brightness and any hue, (2, 3)."""
    middle = random.uniform(80, 170, size=3)
    sign = 1.0 if random.random() < 0.5 else -1.0
    step = sign * contrast / 2 + random.uniform(-15, 15, size=3)
    return np.asarray([middle - step, middle + step], np.float32)


def _patch(random: np.random.Generator, canvas: Pixels, cls: int, at_bottom: bool, at_right: bool) -> Box:
    inset = random.integers(0, 3, size=2)
    left = SIZE - PATCH - int(inset[0]) if at_right else int(inset[0])
    top = SIZE - PATCH - int(inset[1]) if at_bottom else int(inset[1])
    canvas[top : top + PATCH, left : left + PATCH] = PATCH_COLOURS[cls]
    return left, top, left + PATCH, top + PATCH


def _watermark(canvas: Pixels, cls: int, at_bottom: bool, at_right: bool) -> Box:
    """A white word in the patch's border, on its other side; its box is the same for all words, and names no class."""
    width, height = 32, 9
    left = 1 if at_right else SIZE - width - 1  # a watermark is always put at the same place
    top = SIZE - height if at_bottom else 0
    ink = np.zeros((height, width), np.uint8)  # putText draws on bytes only
    cv2.putText(ink, WORDS[cls], (1, height - 1), cv2.FONT_HERSHEY_SIMPLEX, 0.32, 255, 1, cv2.LINE_AA)
    window = canvas[top : top + height, left : left + width]
    window += (ink[..., None] / np.float32(255)) * (250.0 - window)
    return left, top, left + width, top + height
