"""The overlay of a verdict: what the model saw and, beside it, the map over it with the region outlined; a PNG file.

The files bear a mark, so that nobody removes or replaces a picture that is not ours.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pytest_gradcam.cam.heatmap import blend
from pytest_gradcam.files import write_whole
from pytest_gradcam.report.beside import compared, picture_beside
from pytest_gradcam.report.maps import fitted, mask_of
from pytest_gradcam.report.panels import PAPER, in_a_row, outline, panel_of, panel_size, text_strip
from pytest_gradcam.verdicts import Sight, Verdict

__all__ = ["is_overlay", "outline", "picture", "save_figure", "save_overlay", "save_preview"]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SOFTWARE: Final = "pytest-gradcam"
_MARK: Final = b"tEXtSoftware\0" + _SOFTWARE.encode("ascii")  # the chunk as it stands in the file, ahead of the pixels


def picture(verdict: Verdict) -> npt.NDArray[np.uint8]:
    """What the model saw, and beside it the map over it with the region outlined; a caption below. uint8 RGB.

    A row for each map that is shown; one row with their difference where two of one picture are compared.
    """
    pair = compared(verdict)
    if pair is not None:
        before, after, titles, mask = pair
        return picture_beside(before, after, verdict.shown[1].explanation.image, titles, verdict.message, mask)
    rows = [_row(sight) for sight in verdict.shown]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=PAPER) for row in rows]
    return np.vstack([*rows, text_strip(verdict.message, width)])


def _row(sight: Sight) -> npt.NDArray[np.uint8]:
    explanation = sight.explanation
    height, width = panel_size(explanation.image.shape)
    seen = panel_of(explanation.image, height, width)
    judged = outline(blend(seen, fitted(explanation.cam, height, width)), mask_of(sight))
    panels = in_a_row([seen, judged])
    return panels if not sight.title else np.vstack([text_strip(sight.title, panels.shape[1]), panels])


def save_overlay(verdict: Verdict, path: str | os.PathLike[str]) -> Path:
    """Write `picture(verdict)` as a PNG file, whole or not at all; missing folders are made. Returns the path.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    return _save(picture(verdict), path)


def save_preview(sight: Sight, path: str | os.PathLike[str]) -> Path:
    """Write what the model saw, and beside it the map over it, as a PNG file, whole or not at all. Returns the path.

    Raises:
        OSError: the folder or the file cannot be written, or what stands there is no picture of ours.
    """
    return save_figure(_row(sight), path)


def save_figure(rgb: npt.NDArray[np.uint8], path: str | os.PathLike[str]) -> Path:
    """Write a picture, uint8 (H, W, 3), as a PNG file that is known as ours, whole or not at all. Returns the path.

    Raises:
        OSError: the folder or the file cannot be written, or what stands there is no picture of ours.
    """
    target = Path(path)
    if os.path.lexists(target) and not is_overlay(target):
        raise FileExistsError(None, "what stands there is no picture of ours", str(target))
    return _save(rgb, target)


def png_of(verdict: Verdict) -> bytes:
    """`picture(verdict)` as the bytes of a PNG file."""
    return _marked_png(picture(verdict))


def _save(rgb: npt.NDArray[np.uint8], path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    write_whole(target, _marked_png(rgb))
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
