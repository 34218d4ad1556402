"""A glance at a model input: sixteen numbers a channel that tell another input from the rounding of the same one.

Each number is the sum of a channel's pixels under random signs, always the same ones. By how much the numbers of two
inputs differ says how far the inputs are apart, wherever in the picture that is (Johnson & Lindenstrauss, 1984; with
signs: Achlioptas, 2003). A digest would take rounding for another input, and averages miss what moves inside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

SIDE: Final = 4  # the sixteen numbers are stored as rows and columns
# How far the numbers may differ and the inputs still be the same, as a share of the channel's largest. Inputs that are
# .1% apart, as bfloat16 makes them, stay below a third of it; those that are 1% apart pass it in all but 1 of 1,000.
SAME: Final = 0.005
CHUNK: Final = 2**16  # pixels whose signs are made at once: 4 MiB

Floats = npt.NDArray[np.float32]


def glance(pixels: Floats) -> Floats:
    """The numbers of an input, float32 (C, 4, 4); each is as large as the channel's root mean square.

    Args:
        pixels: model input, finite, (C, H, W).
    """
    channels, height, width = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(channels, -1)  # pictures come with their channels last
    largest = np.abs(flat).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest, 1).astype(np.float32)  # no sum leaves the range of floats
    scaled = flat / scale
    sums = sum(scaled[:, part] @ signs for part, signs in _chunks(height * width)) / np.float32(np.sqrt(flat.shape[1]))
    found = np.clip(sums.astype(np.float64) * scale, -_MOST, _MOST)
    return found.reshape(channels, SIDE, SIDE).astype(np.float32)


def is_same(was: Floats, now: Floats) -> bool:
    """Whether two inputs are the same but for rounding, by their numbers."""
    if was.shape != now.shape:
        return False
    first, second = was.astype(np.float64), now.astype(np.float64)  # differences may leave float32
    largest = np.maximum(np.abs(first), np.abs(second)).max(axis=(1, 2), keepdims=True)
    return bool((np.abs(first - second) <= SAME * largest).all())


def _chunks(pixels: int) -> Iterator[tuple[slice, Floats]]:
    """Parts of a channel and the signs of their pixels, (n, 16)."""
    for number, start in enumerate(range(0, pixels, CHUNK)):
        yield slice(start, start + CHUNK), _signs(number)[: pixels - start]


@lru_cache(maxsize=4)
def _signs(number: int) -> Floats:
    """(CHUNK, 16), 1 or -1, the same on every machine: numpy keeps the stream of this generator as it is."""
    bits = np.unpackbits(np.frombuffer(np.random.RandomState(number).bytes(CHUNK * SIDE * SIDE // 8), np.uint8))
    return bits.reshape(CHUNK, SIDE * SIDE).astype(np.float32) * 2 - 1


_MOST: Final = float(np.finfo(np.float32).max)
