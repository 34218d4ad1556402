"""A map and a region as lines of characters: plain ones for a log, half blocks in colour for a terminal.

Arrays in, lines out. What surrounds the lines, and which of the two a person sees, is decided elsewhere.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.cam.heatmap import colourise
from pytest_gradcam.verdicts import Sight

COLUMNS: Final = 44
ROWS: Final = 22  # a taller map would push the first line of the message out of a small terminal

_RAMP: Final = " .:-=+*#%@"
# Lines that leave a point, as bits: up 1, right 2, down 4, left 8.
_CORNERS: Final = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
_DIMMED: Final = 0.45
_RESET: Final = "\x1b[0m"
_CUBE: Final = np.array([0, 95, 135, 175, 215, 255])


def plain_map(cam: npt.NDArray[np.float32], mask: npt.NDArray[np.float32], columns: int = COLUMNS) -> list[str]:
    """The map as a ramp of characters in a frame, with the region outlined in box-drawing characters.

    Args:
        cam: float32 (H, W) in [0, 1].
        mask: float32 (H, W) in [0, 1], the region in the input frame.
        columns: characters inside the frame; fewer where the picture is so high that the map would not fit.
    """
    rows, columns = characters(cam.shape, columns)
    return [f"│{row}│" for row in ramp_rows(heat(cam, rows, columns), mask)]


def colour_map(
    image: npt.NDArray[np.uint8],
    cam: npt.NDArray[np.float32],
    mask: npt.NDArray[np.float32],
    columns: int = COLUMNS,
    *,
    truecolor: bool = True,
) -> list[str]:
    """The map over the dimmed picture in half blocks, two pixels a character, with the region's outline in white.

    Args:
        image: uint8 (H, W, 3), what the model saw.
        cam: float32 (H, W) in [0, 1].
        mask: float32 (H, W) in [0, 1], the region in the input frame.
        columns: characters inside the frame; fewer where the picture is so high that the map would not fit.
        truecolor: whether the terminal knows 24-bit colours; else the nearest of 256 are used.
    """
    rows, columns = characters(cam.shape, columns)
    levels = heat(cam, 2 * rows, columns)
    pixels = dyed(image, colourise(levels), levels)
    return [f"│{row}│" for row in half_blocks(rimmed(pixels, mask), truecolor=truecolor)]


def mask_of(sight: Sight) -> npt.NDArray[np.float32]:
    """The region of a sight in the input frame, float32 (H, W); zero everywhere where there is none."""
    if sight.place is not None:
        return sight.place.mask
    return np.zeros(sight.explanation.size, np.float32)


def characters(frame: tuple[int, ...], columns: int = COLUMNS, rows: int = ROWS) -> tuple[int, int]:
    """Rows and columns of characters for a picture (H, W), within those given; a character is twice as high as wide."""
    height, width = frame[:2]
    columns = max(8, min(columns, round(2 * rows * width / height)))
    return max(4, min(rows, round(columns * height / width / 2))), columns


def ramp_rows(levels: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> list[str]:
    """Levels in [0, 1], (rows, columns), as rows of the ramp's characters with the region's outline; no frame."""
    rows, columns = levels.shape
    ramp = np.array(list(_RAMP))
    canvas = ramp[np.minimum((levels * len(_RAMP)).astype(int), len(_RAMP) - 1)]
    lines = _outline_bits(cells(mask, rows - 1, columns - 1))
    canvas = np.where(lines > 0, np.array(list(_CORNERS))[lines], canvas)
    return ["".join(row) for row in canvas]


def dyed(
    picture: npt.NDArray[np.uint8], dye: npt.NDArray[np.uint8], strength: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """The dimmed picture, dyed where there is strength.

    Args:
        picture: uint8 (H, W, 3), brought to the size of the dye.
        dye: uint8 (h, w, 3), the colours.
        strength: float32 (h, w) in [0, 1]; at 0 the picture alone is seen.
    """
    dimmed = _resize(picture.astype(np.float32), *strength.shape) * _DIMMED
    weight = 0.85 * strength[..., None] ** 0.7
    mixed = (1.0 - weight) * dimmed + weight * dye.astype(np.float32)
    return np.asarray(np.rint(np.clip(mixed, 0.0, 255.0)), dtype=np.uint8)


def rimmed(pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The pixels (rows, columns, 3) with the rim of the region in white."""
    pixels = pixels.copy()
    pixels[_rim(cells(mask, *pixels.shape[:2]))] = 255
    return pixels


def half_blocks(pixels: npt.NDArray[np.uint8], *, truecolor: bool) -> list[str]:
    """Pixels (2 × rows, columns, 3) as rows of `▀`, each the colours of two pixels; no frame."""
    colours = colour_codes(pixels, truecolor=truecolor)
    return [_half_block_row(*colours[row : row + 2]) for row in range(0, len(colours), 2)]


def colour_codes(pixels: npt.NDArray[np.uint8], *, truecolor: bool) -> list[list[str]]:
    """What names each colour to a terminal after `38;` or `48;`, (rows, columns, 3) → rows of columns."""
    return _rgb(pixels) if truecolor else _indexed(pixels)


def fitted(cam: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A map (H, W) brought to (rows, columns), in [0, 1]: bilinear where it has too few, means where it has too many.

    One after the other, for OpenCV's means are none where a map is enlarged in the other direction.
    """
    height, width = cam.shape
    enlarged = cv2.resize(cam, (max(width, columns), max(height, rows)), interpolation=cv2.INTER_LINEAR)
    return np.clip(_resize(np.asarray(enlarged, dtype=np.float32), rows, columns), 0.0, 1.0)


def _resize(array: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Mean over the area of each cell, (H, W) or (H, W, 3) → (rows, columns) or (rows, columns, 3)."""
    return np.asarray(cv2.resize(array, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float32)


def heat(cam: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """The map on character cells, its hottest cell at 1 again: averaging takes the tip off a small peak."""
    levels = np.clip(_resize(cam, rows, columns), 0.0, 1.0)
    top = float(levels.max())
    return levels / np.float32(top) if top > 0.0 else levels


def cells(mask: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """The cells that belong to the region, (rows, columns): their centre is in it, or they stand for a smaller part.

    A part of the region that holds no cell's centre is shown by the cells that it covers most: it must be seen.
    Centres, not coverage, decide for the rest: a box must come out as a box, its corners too.
    """
    height, width = mask.shape
    cover = _resize(mask, rows, columns)
    centres = np.ix_(
        (2 * np.arange(rows) + 1) * height // (2 * rows), (2 * np.arange(columns) + 1) * width // (2 * columns)
    )
    shown_cells = mask[centres] >= 0.5
    _, labels = cv2.connectedComponents((mask > 0.0).astype(np.uint8), connectivity=8)
    y, x = np.nonzero(labels)
    part = labels[y, x]
    row = (2 * y + 1) * rows // (2 * height)
    column = (2 * x + 1) * columns // (2 * width)
    seen = np.zeros(int(labels.max()) + 1, dtype=bool)
    seen[part[shown_cells[row, column]]] = True
    most = np.zeros(len(seen), dtype=np.float32)
    np.maximum.at(most, np.asarray(part, dtype=np.intp), cover[row, column])
    shown = ~seen[part] & (cover[row, column] >= 0.5 * most[part])
    shown_cells[row[shown], column[shown]] = True
    return shown_cells


def _outline_bits(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Which of up, right, down, left a line goes from each corner of the cells, (r, c) → (r + 1, c + 1) bits.

    A line runs wherever two neighbouring cells differ, so it is closed for a region of any shape.
    """
    padded = np.pad(cells, 1)
    north_west, north_east = padded[:-1, :-1], padded[:-1, 1:]
    south_west, south_east = padded[1:, :-1], padded[1:, 1:]
    up, down = north_west ^ north_east, south_west ^ south_east
    left, right = north_west ^ south_west, north_east ^ south_east
    return np.asarray(up * 1 + right * 2 + down * 4 + left * 8, dtype=np.intp)


def _rim(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The cells of the region that touch what is not the region, the picture's edge included."""
    padded = np.pad(cells, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return cells & ~inside


def _half_block_row(upper: list[str], lower: list[str]) -> str:
    """One line of `▀`, its upper halves in the colours `upper` and its lower halves in the colours `lower`."""
    text, last = "", ""
    for top, bottom in zip(upper, lower, strict=True):
        code = f"\x1b[38;{top};48;{bottom}m"
        text += ("" if code == last else code) + "▀"
        last = code
    return text + _RESET


def _rgb(pixels: npt.NDArray[np.uint8]) -> list[list[str]]:
    """Terminal codes of the colours, (rows, columns, 3) → rows of columns."""
    return [[f"2;{red};{green};{blue}" for red, green, blue in row] for row in pixels.tolist()]


def _indexed(pixels: npt.NDArray[np.uint8]) -> list[list[str]]:
    """As `_rgb`, in the nearest of the 256 colours of xterm: a cube of 6×6×6, then a ramp of 24 greys."""
    wanted = pixels.astype(int)
    cube = np.abs(wanted[..., None] - _CUBE).argmin(axis=-1)
    grey = np.clip(np.rint((wanted.mean(axis=-1) - 8.0) / 10.0), 0, 23).astype(int)
    from_cube = np.square(_CUBE[cube] - wanted).sum(axis=-1)
    from_grey = np.square(8 + 10 * grey[..., None] - wanted).sum(axis=-1)
    indices = np.where(from_grey < from_cube, 232 + grey, 16 + cube @ (36, 6, 1))
    return [[f"5;{index}" for index in row] for row in indices.tolist()]
