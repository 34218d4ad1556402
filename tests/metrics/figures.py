"""Regions and maps that the tests of metrics share, and what a grid makes of them, by slow loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Floats = npt.NDArray[np.float64]


def box(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> Floats:
    mask = np.zeros((height, width))
    mask[y0:y1, x0:x1] = 1.0
    return mask


def resized(grid: Floats, height: int, width: int) -> Floats:
    """Bilinear, pixel centres, as torch has it."""
    tensor = torch.from_numpy(np.asarray(grid, np.float64))[None, None]
    return functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


def cell_means(mask: Floats, h: int, w: int) -> Floats:
    """The mean of the mask over each cell, by the area that each pixel shares with it."""
    height, width = mask.shape
    means = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            top, bottom, left, right = i * height / h, (i + 1) * height / h, j * width / w, (j + 1) * width / w
            tall = [max(0.0, min(bottom, y + 1) - max(top, y)) for y in range(height)]
            wide = [max(0.0, min(right, x + 1) - max(left, x)) for x in range(width)]
            means[i, j] = (mask * np.outer(tall, wide)).sum() / ((bottom - top) * (right - left))
    return means


MASKS: dict[str, Floats] = {
    "a box on whole cells": box(24, 24, 6, 6, 12, 18),
    "a box across cells": box(24, 24, 5, 7, 16, 13),
    "one pixel": box(24, 24, 10, 3, 11, 4),
    "a corner": box(24, 24, 0, 0, 4, 4),
    "all but a border": box(24, 24, 1, 1, 23, 23),
    "not square": box(18, 30, 4, 2, 21, 9),
    "soft": np.clip(np.add.outer(np.linspace(-1, 1, 24), np.linspace(-0.5, 1, 24)), 0, 1),
}
