"""The figure of one map: what the model saw, the map, the map over it, and what the model held it for. Values in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.heatmap import blend, colourise
from pytest_gradcam.figures.asked import Guess
from pytest_gradcam.figures.paper import (
    ACCENT,
    BAR,
    FAINT,
    GREY,
    INK,
    Paper,
    Picture,
    fitted_size,
    fitted_text,
    resized,
)
from pytest_gradcam.report.maps import fitted

MARGIN: Final = 32
TITLES: Final = ("what the model saw", "class activation map", "overlay")

_PANEL: Final = 448  # pixels of a panel's longer side
_NARROWEST: Final = 200  # a title must fit above it
_GAP: Final = 28
_HEAD: Final = 132
_TITLE: Final = 30
_SCALE: Final = 62  # room for the colour bar and its numbers
_BARS: Final = 400
_LONGEST_ROW: Final = 76


def side_by_side(explanation: Explanation, about: str, asked: Guess, top: Sequence[Guess], colormap: str) -> Picture:
    """The figure, uint8 (H, W, 3); where there is no evidence, it says so in place of the map.

    Args:
        explanation: the map.
        about: what was explained: the picture, the model.
        asked: the class explained.
        top: the likeliest classes.
        colormap: name of an OpenCV colour map.
    """
    height, width = fitted_size(explanation.size, _PANEL)
    cell = max(width, _NARROWEST)
    rows = [*top, *([] if asked in top else [asked])]
    body = max(height, 46 * len(rows))
    paper = Paper(2 * MARGIN + 3 * cell + _SCALE + 3 * _GAP + _BARS, _HEAD + _TITLE + body + MARGIN)
    head(paper, asked, about, told(explanation))
    lefts = [MARGIN, MARGIN + cell + _GAP, MARGIN + 2 * (cell + _GAP) + _SCALE]
    y = _HEAD + _TITLE
    for left, title, pixels in zip(lefts, TITLES, _panels(explanation, height, width, colormap), strict=True):
        paper.text(left, y - 12, title, 18, cell, colour=GREY)
        if pixels is None:
            paper.box(left, y, cell, height, FAINT)
            said = f"no evidence: nothing at {explanation.layer} speaks for {asked.name}"
            paper.lines(left + 16, y + height // 2 - 20, said, 18, cell - 32, 6, colour=ACCENT)
        else:
            paper.panel(left, y, pixels)
    if explanation.evidence > 0:
        scale(paper, lefts[1] + width + 10, y, height, colormap)
    _bars(paper, lefts[2] + cell + _GAP, y, body, rows, asked, len(top))
    return paper.pixels


def head(paper: Paper, asked: Guess, about: str, below: str) -> None:
    """The class and its probability in large letters, and two lines below: what was explained, and how."""
    width = paper.pixels.shape[1] - 2 * MARGIN
    number = "" if asked.label is None else f"class {asked.cls}, "
    said = f"{number}{chance_of(asked.probability)}"
    beside = round(fitted_text(said, 20, width)[1].getlength(said)) + 18
    wide = paper.text(MARGIN, MARGIN + 26, asked.name, 34, max(width - beside, width // 2))
    paper.text(MARGIN + wide + 18, MARGIN + 26, said, 20, width - wide - 18, colour=GREY)
    paper.text(MARGIN, MARGIN + 54, about, 17, width, colour=INK)
    paper.text(MARGIN, MARGIN + 76, below, 17, width, colour=GREY)


def told(explanation: Explanation) -> str:
    """How the map was made: `grad-cam at stages.3 · grid 12×12 · evidence 3.5`."""
    rows, columns = explanation.grid
    return f"{explanation.method} at {explanation.layer} · grid {rows}×{columns} · evidence {explanation.evidence:.4g}"


def chance_of(probability: float) -> str:
    """`p = 0.87`: a probability, never rounded to one or to none."""
    if probability < 0.001:
        return "p < 0.001"
    if probability > 0.999:
        return "p > 0.999"
    return f"p = {probability:.{3 if probability < 0.01 or probability > 0.99 else 2}f}"


def scale(paper: Paper, x: int, y: int, height: int, colormap: str) -> None:
    """A colour bar from the map's maximum, 1, down to 0."""
    levels = np.repeat(np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None], 14, axis=1)
    paper.panel(x, y, colourise(levels, colormap))
    for share in (1.0, 0.5, 0.0):
        paper.text(x + 20, y + 12 + round((height - 13) * (1.0 - share)), f"{share:g}", 14, 40, colour=GREY)


def _panels(explanation: Explanation, height: int, width: int, colormap: str) -> list[Picture | None]:
    seen = resized(explanation.image, height, width)
    if explanation.evidence <= 0:
        return [seen, None, None]
    cam = fitted(explanation.cam, height, width)
    return [seen, colourise(cam, colormap), blend(seen, cam, colormap=colormap)]


def _bars(paper: Paper, x: int, y: int, height: int, rows: Sequence[Guess], asked: Guess, top: int) -> None:
    paper.text(x, y - 12, "probability" if top <= 1 else f"top {top} classes", 18, _BARS, colour=GREY)
    pitch = min(_LONGEST_ROW, height // len(rows))
    for i, guess in enumerate(rows):
        at = y + i * pitch
        colour = ACCENT if guess == asked else INK
        ranked = guess.name if i < top else f"{guess.rank}.  {guess.name}"
        said = chance_of(guess.probability).removeprefix("p = ").removeprefix("p ")
        paper.text(x + _BARS, at + 18, said, 18, 90, colour=colour, align="right")
        paper.text(x, at + 18, ranked, 18, _BARS - 90, colour=colour)
        paper.box(x, at + 27, _BARS, 10, FAINT)
        paper.box(x, at + 27, round(_BARS * guess.probability), 10, ACCENT if guess == asked else BAR)
