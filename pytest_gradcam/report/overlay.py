"""The overlay of a verdict: what the model saw and, beside it, the map over it with the region outlined; a PNG file.

The files bear a mark, so that nobody removes or replaces a picture that is not ours.
"""

from __future__ import annotations

import math
import os
from io import BytesIO
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pytest_gradcam.cam.heatmap import blend
from pytest_gradcam.report.lines import in_ascii
from pytest_gradcam.report.maps import cells, mask_of
from pytest_gradcam.verdicts import Sight, Verdict

_SMALLEST: Final = 320  # pixels of a panel's longer side: less is hard to look at
_LARGEST: Final = 1024  # more costs megabytes and shows no more of a coarse map
_GAP: Final = 8
_PAPER: Final = 24
_INK: Final = 225
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SOFTWARE: Final = "pytest-gradcam"
_MARK: Final = b"tEXtSoftware\0" + _SOFTWARE.encode("ascii")  # the chunk as it stands in the file, ahead of the pixels


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


def picture(verdict: Verdict) -> npt.NDArray[np.uint8]:
    """What the model saw, and beside it the map over it with the region outlined; a caption below. uint8 RGB.

    A row for each map that is shown.
    """
    rows = [_row(sight) for sight in verdict.shown]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_PAPER) for row in rows]
    return np.vstack([*rows, _caption(verdict.message, width)])


def _row(sight: Sight) -> npt.NDArray[np.uint8]:
    explanation = sight.explanation
    height, width = _panel(explanation.image.shape)
    larger = height > explanation.image.shape[0]
    seen = np.asarray(
        cv2.resize(explanation.image, (width, height), interpolation=cv2.INTER_NEAREST if larger else cv2.INTER_AREA),
        dtype=np.uint8,
    )
    cam = cv2.resize(explanation.cam, (width, height), interpolation=cv2.INTER_LINEAR if larger else cv2.INTER_AREA)
    judged = outline(blend(seen, np.clip(cam, 0.0, 1.0).astype(np.float32)), mask_of(sight))
    panels = np.full((height + 2 * _GAP, 2 * width + 3 * _GAP, 3), _PAPER, dtype=np.uint8)
    panels[_GAP:-_GAP, _GAP : _GAP + width] = seen
    panels[_GAP:-_GAP, -_GAP - width : -_GAP] = judged
    return panels if not sight.title else np.vstack([_caption(sight.title, panels.shape[1]), panels])


def save_overlay(verdict: Verdict, path: str | os.PathLike[str]) -> Path:
    """Write `picture(verdict)` as a PNG file, whole or not at all; missing folders are made. Returns the path.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(_marked_png(picture(verdict)))
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def is_overlay(path: Path) -> bool:
    """Whether the file is an overlay of ours, by its mark; a link, a folder or a file that cannot be read is none."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return head.startswith(_SIGNATURE) and _MARK in head


def _marked_png(rgb: npt.NDArray[np.uint8]) -> bytes:
    mark = PngInfo()
    mark.add_text("Software", _SOFTWARE)
    written = BytesIO()
    Image.fromarray(rgb).save(written, "PNG", pnginfo=mark)
    return written.getvalue()


def _panel(frame: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a panel: the picture's, a whole multiple of it if it is small, a fraction if it is large."""
    height, width = frame[:2]
    longer = max(height, width)
    if longer < _SMALLEST:
        times = math.ceil(_SMALLEST / longer)
        return height * times, width * times
    if longer > _LARGEST:
        return max(1, round(height * _LARGEST / longer)), max(1, round(width * _LARGEST / longer))
    return height, width


def _square(radius: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _caption(text: str, width: int) -> npt.NDArray[np.uint8]:
    """One line of text on a strip of that width, made smaller until it fits. OpenCV draws ASCII only."""
    text = in_ascii(text).encode("ascii", "replace").decode("ascii")
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    needed = cv2.getTextSize(text, font, size, 1)[0][0]
    size *= min(1.0, (width - 2 * _GAP) / max(needed, 1))
    strip = np.full((26, width, 3), _PAPER, dtype=np.uint8)
    cv2.putText(strip, text, (_GAP, 15), font, size, (_INK, _INK, _INK), 1, cv2.LINE_AA)
    return strip
