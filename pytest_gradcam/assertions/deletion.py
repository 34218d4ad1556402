"""Taking a picture away cell by cell, in the order of a map, and of the same map at other places. Knows no models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.assertions.fillings import Pixels, blurred
from pytest_gradcam.metrics import order
from pytest_gradcam.metrics.maps import area_average

Grid = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

# Rows and columns at most of what is deleted: single pixels would be salt and pepper.
FINEST: Final = 16
# The first step takes this share of the cells, and the last one this many: most of what a map says is in between.
FIRST: Final = 0.04
LAST: Final = 0.32
# Deviation of the blur that deleted cells show, in shares of the picture's longer side.
_BLUR = 1 / 8
# The map at another place that correlates more than this with the map is the same again, and says nothing against it.
_ALIKE = 0.5


def shares(steps: int) -> Floats:
    """The shares of the cells that are gone after each step, the next one always as many times as much."""
    return np.geomspace(FIRST, LAST, steps) if steps > 1 else np.array([LAST])


def gathered(raw: Grid) -> Floats:
    """What a raw CAM says for the class, on `FINEST` rows and columns at most."""
    positive = np.maximum(raw, 0.0).astype(np.float64)
    rows, columns = positive.shape
    return area_average(positive, (min(rows, FINEST), min(columns, FINEST)))


def elsewhere(cells: Grid, draws: int, seed: int = 0) -> tuple[list[Grid], float]:
    """The map at other places: moved around the picture's edges, turned and mirrored, whichever is drawn.

    All of these have the map's own values, and its own patches: a random order of cells would take the picture away in
    salt and pepper, and of smooth maps that know nothing of the picture, a quarter to two fifths would seem better.

    Places that are much like the map's own are left out: with them the maps of the demo's models, which are right,
    had a p above 0.05 in 8% and 42% of the pictures. So a map that knows nothing has a small p where it lies, by
    chance, as near to the right place as that.

    Args:
        cells: (h, w).
        draws: how many, at most; fewer where there are not as many.
        seed: of the draw.

    Returns:
        The maps, each another one, and the share of all places that were left out.
    """
    turned = [np.rot90(cells, turn) for turn in range(4) if turn % 2 == 0 or cells.shape[0] == cells.shape[1]]
    turned += [each[:, ::-1] for each in turned]
    rows, columns = cells.shape
    places = ((way, down, across) for way in turned for down in range(rows) for across in range(columns))
    moved = (np.roll(way, (down, across), axis=(0, 1)) for way, down, across in places)
    every = list({each.tobytes(): each for each in moved}.values())  # a map that is its own mirror image counts once
    own = cells - cells.mean()
    variance = float((own**2).sum())  # that of all
    others = [each for each in every if float((own * each).sum()) <= _ALIKE * variance]
    drawn = np.random.default_rng(seed).permutation(len(others))[:draws]
    return [others[i] for i in drawn], 1.0 - len(others) / len(every)


def deleted(image: Pixels, maps: Sequence[Grid], steps: int, *, first: int = 0) -> Pixels:
    """The picture while it is taken away, in the order of each map: deleted cells show it blurred.

    Args:
        image: float32 (C, H, W), model input.
        maps: M of (h, w).
        steps: in how many steps, S.
        first: seed of the order of tied cells of the first map; that of each next one is one more.

    Returns:
        float32 (M, S, C, H, W).
    """
    blur = blurred(image, _BLUR)
    size = image.shape[1:]
    result = np.empty((len(maps), steps, *image.shape), np.float32)
    for i, cells in enumerate(maps):
        ranked = order(cells, seed=first + i)
        for step, share in enumerate(shares(steps)):
            gone = np.zeros(cells.size, np.uint8)
            gone[ranked[: max(1, round(share * cells.size))]] = 1
            mask = cv2.resize(gone.reshape(cells.shape), size[::-1], interpolation=cv2.INTER_NEAREST)
            result[i, step] = np.where(mask, blur, image)
    return result
