"""What the page shows of a verdict, as data URIs: pictures small enough that a thousand verdicts fit on one page.

Beside the pictures, what a browser needs to draw them anew in other colours: the map on its grid, and the region's
outline. Verdicts in, strings out.
"""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, features

from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.heatmap import blend, colourise
from pytest_gradcam.report.beside import difference_over
from pytest_gradcam.report.maps import cells, fitted, mask_of
from pytest_gradcam.report.panels import outline
from pytest_gradcam.verdicts import Sight, Verdict

Picture = npt.NDArray[np.uint8]

SEEN: Final = 224  # pixels of the longer side
OVERLAY: Final = 192
BESIDE: Final = 168  # where there are three of them
FINEST: Final = 28  # cells of a grid's longer side: more makes no other picture
MOST_BYTES: Final = 13_500  # of all pictures of a verdict together, before base64
_QUALITIES: Final = (52, 34, 20)
_POINTS: Final = 400


def pictures_of(verdict: Verdict) -> dict[str, str]:
    """The pictures of a verdict, by what they show; JSON-safe, about 20 KB. Empty where the verdict has no map.

    Returns:
        `seen`, what the model saw, and `overlay`, the map over it with the region outlined. Where two maps of one
        picture are compared also `before`, `now` and `difference`, and `overlay` is the same as `now`; where two maps
        of two pictures are shown, `second`. Each is a data URI. `grid`, and `grid_before` or `grid_second`: rows,
        columns and base64 of the CAM on its grid, uint8, after blanks. `outline`: the region as an SVG path, in percent
        of width and height. `titles`: what the shown maps are called, one a line, where they have names.
    """
    shown = verdict.shown
    if not shown:
        return {}
    is_compared = verdict.compared and len(shown) == 2
    main = shown[-1] if is_compared else shown[0]
    small = _smaller(main.explanation.image, SEEN)
    share = 0.38 if is_compared else 0.55  # the others are no harder to compress, and not drawn in vain
    for quality in _QUALITIES:
        seen = _uri(small, quality)
        if len(seen) * 3 // 4 <= share * MOST_BYTES:
            break
    pictures = {"seen": seen, **_drawn(verdict, is_compared, main, small, quality)}
    if is_compared:
        pictures["overlay"] = pictures["now"]
        pictures["grid_before"] = _grid(shown[0].explanation)
    elif len(shown) == 2:
        pictures["grid_second"] = _grid(shown[1].explanation)
    pictures["grid"] = _grid(main.explanation)
    if path := outline_path(mask_of(main)):
        pictures["outline"] = path
    if any(sight.title for sight in shown):
        pictures["titles"] = "\n".join(" ".join(sight.title.split()) for sight in shown)
    return pictures


def overlay_uri(image: Picture, cam: npt.NDArray[np.float32], mask: npt.NDArray[np.float32] | None) -> str:
    """A map over what the model saw, with the region outlined where there is one: a picture as a data URI.

    Args:
        image: uint8 (H, W, 3), what the model saw.
        cam: float32 in [0, 1], of any size.
        mask: float32 (H, W) in [0, 1], the region in the input frame.
    """
    ground = _sized(image, OVERLAY)
    over = blend(ground, fitted(cam, *ground.shape[:2]))
    return _uri(over if mask is None else _outlined(over, mask), _QUALITIES[0])


def map_uri(cam: npt.NDArray[np.float32], side: int = OVERLAY) -> str:
    """A map alone, as a data URI: float32 in [0, 1], of any size."""
    rows, columns = (max(1, round(size * side / max(cam.shape))) for size in cam.shape)
    return _uri(colourise(fitted(cam, rows, columns)), _QUALITIES[0])


def outline_path(mask: npt.NDArray[np.float32]) -> str:
    """The outline of a region as an SVG path, in percent of the width and height; empty where there is no region.

    Args:
        mask: float32 (H, W) in [0, 1], the region in the input frame.
    """
    if not mask.any():
        return ""
    height, width = mask.shape
    inside = np.pad(cells(mask, height, width).astype(np.uint8), 1)
    # OpenCV joins the centres of pixels; with each pixel as 4×4, centres lie an eighth of a pixel within its edges.
    large = np.asarray(cv2.resize(inside, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST))
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = 2.0
    while True:
        simple = [cv2.approxPolyDP(contour, tolerance, True)[:, 0] for contour in contours]
        if sum(map(len, simple)) <= _POINTS or tolerance > max(large.shape):
            break
        tolerance *= 2.0
    scale = np.array([100.0 / width, 100.0 / height])
    parts = []
    for contour in simple:
        points = np.clip((np.rint((contour + 0.5) / 4.0) - 1.0) * scale, 0.0, 100.0)
        parts.append("M" + "L".join(f"{x:.5g} {y:.5g}" for x, y in points.tolist()) + "Z")
    return "".join(parts[:_POINTS])


def _drawn(verdict: Verdict, is_compared: bool, main: Sight, small: Picture, quality: int) -> dict[str, str]:
    pictures = {}
    if not is_compared:
        pictures["overlay"] = _uri(_overlay(main, _sized(small, OVERLAY)), quality)
        if len(verdict.shown) == 2:
            second = verdict.shown[1]
            pictures["second"] = _uri(_overlay(second, _sized(second.explanation.image, OVERLAY)), quality)
        return pictures
    before, now = verdict.shown
    ground = _sized(small, BESIDE)
    mask = mask_of(main)
    pictures["before"] = _uri(_overlay(Sight(before.explanation), ground, mask), quality)
    pictures["now"] = _uri(_overlay(main, ground), quality)
    height, width = ground.shape[:2]
    change = fitted(now.explanation.cam, height, width) - fitted(before.explanation.cam, height, width)
    pictures["difference"] = _uri(_outlined(difference_over(ground, change), mask), quality)
    return pictures


def _overlay(sight: Sight, ground: Picture, mask: npt.NDArray[np.float32] | None = None) -> Picture:
    over = blend(ground, fitted(sight.explanation.cam, *ground.shape[:2]))
    return _outlined(over, mask_of(sight) if mask is None else mask)


def _outlined(over: Picture, mask: npt.NDArray[np.float32]) -> Picture:
    return outline(over, mask, width=2) if mask.any() else over


def _smaller(image: Picture, side: int) -> Picture:
    """The picture, made smaller where its longer side is longer than that."""
    return image if max(image.shape[:2]) <= side else _sized(image, side)


def _sized(image: Picture, side: int) -> Picture:
    """The picture with its longer side that long; one that is enlarged is smoothed, as a browser does."""
    height, width = image.shape[:2]
    longer = max(height, width)
    size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    how = cv2.INTER_AREA if longer > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def _grid(explanation: Explanation) -> str:
    """The CAM on its grid, or on one that is fine enough, as `rows columns base64`."""
    levels = np.maximum(np.nan_to_num(np.asarray(explanation.raw, np.float32)), 0.0)
    rows, columns = levels.shape
    if max(rows, columns) > FINEST:
        rows, columns = (max(1, round(n * FINEST / max(levels.shape))) for n in (rows, columns))
        levels = fitted(explanation.cam, rows, columns)
    top = float(levels.max())
    if explanation.evidence <= 0 or top <= 0.0:
        levels, top = np.zeros_like(levels), 1.0
    data = np.rint(levels / top * 255.0).astype(np.uint8).tobytes()
    return f"{rows} {columns} {base64.b64encode(data).decode('ascii')}"


def _uri(rgb: Picture, quality: int) -> str:
    written = BytesIO()
    is_webp = features.check("webp")  # a Pillow built without it knows JPEG
    how: dict[str, Any] = {"format": "WEBP", "method": 2} if is_webp else {"format": "JPEG", "optimize": True}
    Image.fromarray(np.ascontiguousarray(rgb)).save(written, quality=quality, **how)
    kind = "webp" if is_webp else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
