"""What a region is filled with when it is taken away: contents made of the image around it, in model-input space.

No single filling is neutral for every model: a grey box may be a class's own mark. So there are several, each wrong in
another way. Nothing here knows models.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.float32]
Hole = npt.NDArray[np.bool_]

FILLINGS: Final = ("mean", "blur", "noise", "inpainting", "reflection")
# Widths of the blur, in shares of the image's longer side: each next one serves where the one before sees only region.
_BLURS = (1 / 24, 1 / 8, 1 / 3)
# From this share on, a pixel belongs to the region and shows nothing of the surroundings.
_COVERED = 0.02
# How far the surroundings reach, in shares of the image's longer side.
_RING = 1 / 12
# Pixels on whose values cv2.inpaint bases each next one.
_INPAINT_RADIUS = 3.0


def filled(image: Pixels, mask: Mask, seed: int = 0) -> Pixels:
    """The image with a region filled in each of the ways of `FILLINGS`, in their order.

    - `mean`: the mean colour of the region's surroundings;
    - `blur`: the surroundings blurred into the region, from near where they are near;
    - `noise`: independent noise, with mean and deviation of the surroundings for each channel;
    - `inpainting`: edges carried on into the region (Telea, 2004);
    - `reflection`: the surroundings mirrored at the region's border, texture and all.

    Args:
        image: float32 (C, H, W), model input.
        mask: float32 (H, W) in [0, 1]: the share of each pixel that is replaced; not all of it above 0.02.
        seed: of the noise.

    Returns:
        float32 (F, C, H, W).
    """
    hole = covered(mask)
    fills = (
        _mean(image, hole),
        _blur(image, hole),
        _noise(image, hole, seed),
        _inpainting(image, hole),
        _reflection(image, hole),
    )
    return np.stack([(image * (1 - mask) + fill * mask).astype(np.float32) for fill in fills])


def covered(mask: Mask) -> Hole:
    """Which pixels show so much of the region that nothing is taken from them, bool (H, W)."""
    hole: Hole = mask > _COVERED
    return hole


def blurred(image: Pixels, share: float) -> Pixels:
    """The whole image (C, H, W) blurred, with a deviation of this share of its longer side."""
    sigma = share * max(image.shape[1:])
    return np.stack([_gaussian(channel, sigma) for channel in image])


def _surroundings(hole: Hole) -> npt.NDArray[np.bool_]:
    """The ring around the region."""
    reach = max(2.0, _RING * max(hole.shape))
    near: Hole = ndimage.distance_transform_edt(~hole) <= reach
    return near & ~hole


def _mean(image: Pixels, hole: Hole) -> Pixels:
    ring = image[:, _surroundings(hole)]
    mean = np.asarray(ring.mean(axis=1, dtype=np.float64), np.float32)
    return np.asarray(np.broadcast_to(mean[:, None, None], image.shape))


def _noise(image: Pixels, hole: Hole, seed: int) -> Pixels:
    ring = image[:, _surroundings(hole)].astype(np.float64)
    drawn = np.random.default_rng(seed).normal(size=image.shape)
    noise = ring.mean(axis=1)[:, None, None] + ring.std(axis=1)[:, None, None] * drawn
    outside = image[:, ~hole]
    low, high = outside.min(axis=1), outside.max(axis=1)  # no value that no pixel has
    return np.asarray(np.clip(noise, low[:, None, None], high[:, None, None]), np.float32)


def _blur(image: Pixels, hole: Hole) -> Pixels:
    """Blur of what lies outside alone, divided by how much of the outside there is (normalised convolution)."""
    outside = (~hole).astype(np.float32)
    side = max(hole.shape)
    result = np.zeros(image.shape, np.float64)
    missing = np.ones(hole.shape, np.float64)
    for share in _BLURS:
        weight = _gaussian(outside, share * side).astype(np.float64)
        seen = np.stack([_gaussian(channel * outside, share * side) for channel in image]) / np.maximum(weight, 1e-6)
        trust = missing * np.clip(weight / 0.1, 0.0, 1.0)
        result += trust * seen
        missing -= trust
    mean = image[:, ~hole].mean(axis=1, dtype=np.float64)
    return np.asarray(result + missing * mean[:, None, None], np.float32)


def _inpainting(image: Pixels, hole: Hole) -> Pixels:
    filled = []
    for channel in image:
        low, high = float(channel[~hole].min()), float(channel[~hole].max())
        if high <= low:
            filled.append(np.full_like(channel, low))
            continue
        scaled = np.where(hole, 0.0, (channel - low) / (high - low) * 255.0).astype(np.float32)
        found = cv2.inpaint(scaled, hole.astype(np.uint8), _INPAINT_RADIUS, cv2.INPAINT_TELEA)
        filled.append(np.clip(found, 0.0, 255.0) / 255.0 * (high - low) + low)
    return np.stack(filled).astype(np.float32)


def _reflection(image: Pixels, hole: Hole) -> Pixels:
    """Each pixel of the region shows the one on the other side of the nearest border, as far from it."""
    nearest = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)  # (2, H, W)
    here = np.indices(hole.shape)
    size = np.array(hole.shape)[:, None, None]
    mirrored = 2 * nearest - here
    period = 2 * size  # beyond the image's own border, mirrored once more
    mirrored = np.mod(mirrored, period)
    mirrored = np.where(mirrored >= size, period - 1 - mirrored, mirrored)
    inside = hole[mirrored[0], mirrored[1]]
    rows, columns = (np.where(inside, nearest[axis], mirrored[axis]) for axis in (0, 1))
    found: Pixels = image[:, rows, columns]
    return found


def _gaussian(channel: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    # A kernel wider than twice the image would need what its border was not mirrored to.
    width = 2 * math.ceil(min(3.0 * sigma, max(channel.shape) - 1)) + 1
    return np.asarray(
        cv2.GaussianBlur(np.ascontiguousarray(channel), (width, width), sigma, borderType=cv2.BORDER_REFLECT),
        np.float32,
    )
