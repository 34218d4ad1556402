"""Two maps of one picture beside each other, what was before and what is now, and their difference.

Arrays in, lines and pictures out. The difference is what was gained and what was lost, each with a sign of its own in
plain characters and a colour of its own elsewhere: orange and blue, which nearly all who cannot tell red from green
can tell apart.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_gradcam.cam.heatmap import blend, colourise
from pytest_gradcam.report.maps import (
    characters,
    colour_codes,
    dyed,
    fitted,
    half_blocks,
    heat,
    mask_of,
    ramp_rows,
    rimmed,
)
from pytest_gradcam.report.panels import GAP, INK, in_a_row, outline, panel_of, panel_size, strip, text_strip
from pytest_gradcam.verdicts import Verdict

Map: TypeAlias = npt.NDArray[np.float32]
Picture: TypeAlias = npt.NDArray[np.uint8]
Titles: TypeAlias = tuple[str, str, str]

TITLES: Final[Titles] = ("baseline", "current", "difference")
FAINT: Final = 0.15  # a smaller difference is not shown
HEAVY: Final = 0.5

_COLUMNS: Final = 20  # three in their frames are 70 wide: pytest sets 10 before them, and a terminal has 80
_ROWS: Final = 12
_APART: Final = 2
_SIGNS: Final = "=- +#"
_LEGEND: Final = "+ # gained   - = lost"
_GAINED: Final = (255, 150, 30)
_LOST: Final = (70, 160, 255)
_RESET: Final = "\x1b[0m"
_LARGEST: Final = 640  # pixels of the longer side of each of four panels


def compared(verdict: Verdict) -> tuple[Map, Map, Titles, Map] | None:
    """The maps before and now, the titles and the region (H, W) to draw; None where a verdict compares no two maps."""
    if not verdict.compared or len(verdict.shown) != 2:
        return None
    before, after = verdict.shown
    titles = (before.title, after.title, TITLES[2])
    return before.explanation.cam, after.explanation.cam, titles, mask_of(after)


def plain_beside(before: Map, after: Map, titles: Titles = TITLES, mask: Map | None = None) -> list[str]:
    """Both maps as a ramp of characters and their difference as signs, framed; titles above and a legend below.

    At most 70 characters wide and 14 lines high; no line ends in white space.

    Args:
        before: float32 (H, W) in [0, 1], the frame's or the grid's size.
        after: the same; where it has another size, the coarser is resized to the finer.
        titles: of the maps and of the difference; cut where they do not fit, no line where all are empty.
        mask: float32 (H, W) in [0, 1], a region to outline in both maps; None: none.
    """
    rows, columns = _size(before, after)
    old, new = _levels(before, after, rows, columns)
    region = np.zeros((rows, columns), np.float32) if mask is None else mask
    # No outline in the difference: `-` and `+`, its spelling in ASCII, stand for lost and gained there.
    return _block([ramp_rows(old, region), ramp_rows(new, region), _signs(new - old)], titles, columns, _LEGEND)


def colour_beside(
    before: Map,
    after: Map,
    image: Picture | None = None,
    titles: Titles = TITLES,
    mask: Map | None = None,
    *,
    truecolor: bool = True,
) -> list[str]:
    """As `plain_beside`, and as many lines, in half blocks over the dimmed picture; the difference over a grey one.

    Args:
        before: float32 (H, W) in [0, 1], the frame's or the grid's size.
        after: the same; where it has another size, the coarser is resized to the finer.
        image: uint8 (H, W, 3), what the model saw; None: a dark ground.
        titles: of the maps and of the difference.
        mask: float32 (H, W) in [0, 1], a region to outline in all three; None: none.
        truecolor: whether the terminal knows 24-bit colours; else the nearest of 256 are used.
    """
    rows, columns = _size(before, after)
    old, new = _levels(before, after, 2 * rows, columns)
    picture = np.zeros((2 * rows, columns, 3), np.uint8) if image is None else image
    drawn = [dyed(picture, colourise(levels), levels) for levels in (old, new)]
    drawn.append(difference_over(picture, new - old))
    if mask is not None:
        drawn = [rimmed(pixels, mask) for pixels in drawn]
    ((gained, lost),) = colour_codes(np.array([[_GAINED, _LOST]], np.uint8), truecolor=truecolor)
    legend = f"\x1b[38;{gained}m██ gained{_RESET}   \x1b[38;{lost}m██ lost{_RESET}"
    return _block([half_blocks(pixels, truecolor=truecolor) for pixels in drawn], titles, columns, legend)


def picture_beside(
    before: Map,
    after: Map,
    image: Picture | None,
    titles: Titles = TITLES,
    caption: str = "",
    mask: Map | None = None,
) -> Picture:
    """What the model saw, both maps over it, and their difference over it in dimmed grey, in one row. uint8 RGB.

    Args:
        before: float32 (H, W) in [0, 1], the frame's or the grid's size.
        after: the same.
        image: uint8 (H, W, 3), what the model saw; None: three panels, on a dark ground.
        titles: of the maps and of the difference, above their panels.
        caption: one line below; none where it is empty.
        mask: float32 (H, W) in [0, 1], a region to outline on the maps and their difference; None: none.
    """
    height, width = panel_size(_finer(before, after) if image is None else image.shape, _LARGEST)
    seen = np.zeros((height, width, 3), np.uint8) if image is None else panel_of(image, height, width)
    old, new = fitted(before, height, width), fitted(after, height, width)
    judged = [blend(seen, old), blend(seen, new), difference_over(seen, new - old)]
    if mask is not None:
        judged = [outline(pixels, mask) for pixels in judged]
    ink = (INK, INK, INK)
    heads = [[(titles[0], ink)], [(titles[1], ink)], [(f"{titles[2]}  ", ink), ("gained  ", _GAINED), ("lost", _LOST)]]
    if image is not None:
        judged, heads = [seen, *judged], [[("what the model saw", ink)], *heads]
    row = in_a_row(judged)
    above = np.hstack([strip(head, width + GAP) for head in heads])
    above = np.pad(above, ((0, 0), (0, row.shape[1] - above.shape[1]), (0, 0)), mode="edge")
    return np.vstack([above, row, *([text_strip(caption, row.shape[1])] if caption else [])])


def _finer(before: Map, after: Map) -> tuple[int, int]:
    return max(before.shape[0], after.shape[0]), max(before.shape[1], after.shape[1])


def _size(before: Map, after: Map) -> tuple[int, int]:
    return characters(_finer(before, after), _COLUMNS, _ROWS)


def _levels(before: Map, after: Map, rows: int, columns: int) -> tuple[Map, Map]:
    """Both maps on (rows, columns), on one scale: the hottest cell of each is at the maximum of its map.

    Means over cells take the tip off a peak smaller than a cell, and would hide that it came or went.
    """
    fine = [max(pair) for pair in zip(_finer(before, after), (rows, columns), strict=True)]
    old, new = (heat(fitted(cam, *fine), rows, columns) * np.float32(cam.max()) for cam in (before, after))
    return old, new


def _signs(difference: Map) -> list[str]:
    """Signed differences (rows, columns) as rows of characters: what was lost, a blank, what was gained."""
    size = np.abs(difference)
    steps = (size >= FAINT).astype(int) + (size >= HEAVY)
    return ["".join(row) for row in np.array(list(_SIGNS))[2 + np.sign(difference).astype(int) * steps]]


def difference_over(picture: Picture, difference: Map) -> Picture:
    """Signed differences (h, w) in colours over the picture in dimmed grey; (h, w, 3)."""
    grey = np.rint(picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    dye = np.where(difference[..., None] > 0.0, np.array(_GAINED), np.array(_LOST)).astype(np.uint8)
    size = np.abs(difference)
    strength = np.where(size >= FAINT, np.sqrt(size), np.float32(0.0))  # the root: blue is hard to see when faint
    return dyed(np.repeat(grey[..., None], 3, axis=-1), dye, strength)


def _block(maps: list[list[str]], titles: Titles, columns: int, legend: str) -> list[str]:
    """Rows of characters beside each other in frames, the titles above and the legend below the last of them.

    The blanks that set them apart stand within the lines: a line that ends in some would not be found by `recolour`.
    """
    heads = [" ".join(title.split()) for title in titles]
    heads = [head if len(head) <= _COLUMNS + 2 else f"{head[:_COLUMNS]}.." for head in heads]
    pitch = _APART + max(columns + 2, *map(len, heads[:2]))
    apart = " " * (pitch - columns - 2)
    title = "".join(head.ljust(pitch) for head in heads).rstrip()
    rows = [apart.join(f"│{row}│" for row in beside) for beside in zip(*maps, strict=True)]
    return [*([title] if title else []), *rows, " " * (2 * pitch) + legend]
