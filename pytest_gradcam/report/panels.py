"""The pieces of a picture for a person: panels of a fitting size, strips of text, the outline of a region.

Arrays in, arrays out. What they show is decided by `overlay` and `beside`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.report.lines import in_ascii
from pytest_gradcam.report.maps import cells

Colour: TypeAlias = tuple[int, int, int]

GAP: Final = 8
PAPER: Final = 24
INK: Final = 225
LARGEST: Final = 1024  # more costs megabytes and shows no more of a coarse map

_SMALLEST: Final = 320  # pixels of a panel's longer side: less is hard to look at


def panel_size(frame: tuple[int, ...], largest: int = LARGEST) -> tuple[int, int]:
    """Height and width of a panel: the picture's, a whole multiple of it if it is small, a fraction if it is large."""
    height, width = frame[:2]
    longer = max(height, width)
    if longer < _SMALLEST:
        times = math.ceil(_SMALLEST / longer)
        return height * times, width * times
    if longer > largest:
        return max(1, round(height * largest / longer)), max(1, round(width * largest / longer))
    return height, width


def panel_of(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """The picture uint8 (H, W, 3) at the size of a panel; one that is enlarged keeps its pixels as squares."""
    how = cv2.INTER_NEAREST if height > image.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def in_a_row(panels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Panels of one size (H, W, 3) beside each other, with a gap around each."""
    height, width = panels[0].shape[:2]
    row = np.full((height + 2 * GAP, len(panels) * (width + GAP) + GAP, 3), PAPER, dtype=np.uint8)
    for i, panel in enumerate(panels):
        left = GAP + i * (width + GAP)
        row[GAP:-GAP, left : left + width] = panel
    return row


def text_strip(text: str, width: int) -> npt.NDArray[np.uint8]:
    """One line of text on a strip of that width, made smaller until it fits."""
    return strip([(text, (INK, INK, INK))], width)


def strip(pieces: Sequence[tuple[str, Colour]], width: int) -> npt.NDArray[np.uint8]:
    """Pieces of text, each in its colour, in one line on a strip (26, width, 3), made smaller until they fit."""
    # OpenCV draws ASCII only.
    texts = [in_ascii(text).encode("ascii", "replace").decode("ascii") for text, _ in pieces]
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    needed = sum(cv2.getTextSize(text, font, size, 1)[0][0] for text in texts)
    size *= max(0.0, min(1.0, (width - 2 * GAP) / max(needed, 1)))
    drawn = np.full((26, width, 3), PAPER, dtype=np.uint8)
    left = GAP
    for text, (_, colour) in zip(texts, pieces, strict=True):
        cv2.putText(drawn, text, (left, 15), font, size, colour, 1, cv2.LINE_AA)
        left += cv2.getTextSize(text, font, size, 1)[0][0]
    return drawn


def outline(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.float32], width: int | None = None
) -> npt.NDArray[np.uint8]:
    """The picture with the region outlined in white between two black lines, seen on any ground.

    Args:
        rgb: uint8 (H, W, 3).
        mask: float32 (h, w) in [0, 1], the region; h and w divide or are H and W.
        width: pixels of the white line; None: in keeping with the picture.
    """
    height, wide = rgb.shape[:2]
    shape = cells(mask, *mask.shape).astype(np.uint8)
    shape = np.asarray(cv2.resize(shape, (wide, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    width = width if width is not None else max(2, round(max(height, wide) / 160))
    casing = max(1, width // 2)
    # What lies beyond the picture is not the region: without the rim, a region at the edge would be left open there.
    shape = np.pad(shape, 1)
    line = (shape > 0) & (cv2.erode(shape, _square(width)) == 0)
    cased = cv2.dilate(line.astype(np.uint8), _square(casing)) > 0
    drawn = rgb.copy()
    drawn[cased[1:-1, 1:-1]] = 0
    drawn[line[1:-1, 1:-1]] = 255
    return drawn


def _square(radius: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
