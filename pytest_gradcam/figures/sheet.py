"""The contact sheet: one picture explained by many methods or at many layers, a tile for each. Values in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pytest_gradcam.cam.heatmap import blend
from pytest_gradcam.figures.asked import Guess, Tile
from pytest_gradcam.figures.figure import MARGIN, head
from pytest_gradcam.figures.paper import ACCENT, FAINT, GREY, Paper, Picture, fitted_size, resized
from pytest_gradcam.report.maps import fitted

_SIDE: Final = 256  # pixels of a tile's picture's longer side
_NARROWEST: Final = 220
_GAP: Final = 22
_HEAD: Final = 134
_TITLE: Final = 46
_LEAST: Final = 640  # pixels across: the words above the tiles want room
_SHAPE: Final = 1.6  # of the sheet, its width over its height


def contact_sheet(
    seen: Picture, about: str, below: str, asked: Guess, tiles: Sequence[Tile], colormap: str, rows: int | None
) -> Picture:
    """The sheet, uint8 (H, W, 3): what the model saw, then the tiles; one without a map gives the reason.

    Args:
        seen: what the model saw, uint8 (H, W, 3).
        about: what was explained: the picture, the model.
        below: how.
        asked: the class explained.
        tiles: in their order.
        colormap: name of an OpenCV colour map.
        rows: of tiles, one for each layer, with the picture beside the first; None: as many as make a sheet of a good
            shape, of methods at one layer or of layers read by one method.
    """
    frame = (int(seen.shape[0]), int(seen.shape[1]))
    height, width = fitted_size(frame, _SIDE)
    cell, row = max(width, _NARROWEST) + _GAP, height + _TITLE + _GAP
    across = _columns(len(tiles) + 1, cell, row) if rows is None else 1 + len(tiles) // rows
    down = math.ceil((len(tiles) + 1) / across) if rows is None else rows
    paper = Paper(max(2 * MARGIN + across * cell - _GAP, _LEAST), _HEAD + down * row - _GAP + MARGIN)
    head(paper, asked, about, below)
    paper.text(MARGIN, _HEAD + 18, "what the model saw", 18, cell - _GAP)
    picture = resized(seen, height, width)
    paper.panel(MARGIN, _HEAD + _TITLE, picture)
    is_of_layers = len({tile.method for tile in tiles}) == 1 and len(tiles) > 1
    for i, tile in enumerate(tiles):
        place = i + 1 if rows is None else i + 1 + i // (across - 1)  # the first column is the picture's alone
        x, y = MARGIN + place % across * cell, _HEAD + place // across * row
        _draw(paper, x, y, tile, picture, cell - _GAP, colormap, is_of_layers)
    return paper.pixels


def _columns(count: int, cell: int, row: int) -> int:
    """How many cells of a sheet lie beside each other: about what makes it a good shape, with few of them empty."""
    about = math.sqrt(_SHAPE * count * row / cell)
    tried = range(max(1, math.floor(about) - 1), min(count, max(3, math.ceil(about) + 1)) + 1)
    return min(tried, key=lambda columns: (-count % columns) / columns + abs(math.log(columns / about)))


def _draw(
    paper: Paper, x: int, y: int, tile: Tile, picture: Picture, width: int, colormap: str, is_of_layers: bool
) -> None:
    height = picture.shape[0]
    title, below = titles_of(tile)
    if is_of_layers:
        title, below = below, title
    paper.text(x, y + 18, title, 18, width)
    paper.text(x, y + 37, below, 14, width, colour=GREY)
    if tile.has_map and tile.explanation is not None:
        cam = fitted(tile.explanation.cam, height, picture.shape[1])
        paper.panel(x, y + _TITLE, blend(picture, cam, colormap=colormap))
        return
    paper.box(x, y + _TITLE, width, height, FAINT)
    lines = max(1, (height - 24) // 20)
    paper.lines(x + 12, y + _TITLE + 26, tile.reason, 14, width - 24, lines, colour=ACCENT)


def titles_of(tile: Tile) -> tuple[str, str]:
    """By which method a tile is, and with `auto` which it came to; and of which layer and grid."""
    explanation = tile.explanation
    if explanation is None:
        return tile.method, tile.layer or ""
    rows, columns = explanation.grid
    method = tile.method if explanation.method == tile.method else f"{tile.method}: {explanation.method}"
    return method, f"{explanation.layer} · {rows}×{columns}"
