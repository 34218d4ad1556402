"""Where a map lies against a region: pure functions on arrays, numpy in, float out.

Every map is a CAM, float (H, W) in [0, 1] with some evidence; every mask is the region in the input frame, float (H, W)
in [0, 1], 1 inside. One set of conventions holds for all of them:

- A map that is not finite, negative somewhere, or zero everywhere is a ValueError, never a hit or a miss.
- A soft mask counts each pixel by the share of it that is inside, so that a uniform map measures chance. Only where a
  pixel must be in or out, in the pointing game, is it cut at half (`inside`).
- Of a mask that is zero everywhere, energy is 0 and mass outside 1, as the law energy(R) + energy(not R) = 1 has it;
  everything else is undefined there, and a ValueError.
- Values within `TIE` of the map's maximum of each other are tied, and no tie is broken by position.
- Nothing here knows the scale of a map: twice the map measures the same.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.metrics.maps import TIE, Map, area_average, check_finite


def energy(cam: Map, mask: Map) -> float:
    """Share of the map's mass inside the region, in [0, 1]: energy-based pointing game (Wang et al., 2020).

    The same as relevance mass accuracy (Arras et al., 2022).

    Raises:
        ValueError: the shapes differ, or the map is not finite, negative somewhere or without mass.
    """
    _check(cam, mask)
    total = float(cam.sum(dtype=np.float64))
    return float((cam * mask).sum(dtype=np.float64)) / total


def mass_outside(cam: Map, mask: Map) -> float:
    """Share of the map's mass outside the region, `1 - energy`, in [0, 1]: low where attention is inside.

    Raises:
        ValueError: as for `energy`.
    """
    return 1.0 - energy(cam, mask)


def chance(mask: Map) -> float:
    """Energy of a uniform map: the share of the input frame that the region covers."""
    return float(mask.mean(dtype=np.float64))


def filling(mask: Map, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The map that fills the region evenly on this grid: the mask, area-averaged and resized back bilinearly.

    Args:
        mask: float (H, W).
        grid: (h, w) of the target layer.

    Returns:
        float64 (H, W), in [0, 1].
    """
    height, width = mask.shape
    # OpenCV's bilinear resizing takes pixel centres as torch's does with align_corners=False.
    resized = cv2.resize(area_average(mask, grid), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.float64)


def filled(mask: Map, grid: tuple[int, int]) -> float:
    """Energy of the map that fills the region evenly on this grid: the coarser the grid, the less.

    Args:
        mask: float (H, W).
        grid: (h, w) of the target layer.

    Raises:
        ValueError: the mask is zero everywhere.
    """
    return energy(filling(mask, grid), mask)


def calibrated_energy(cam: Map, mask: Map, grid: tuple[int, int]) -> float:
    """`(energy - chance) / (filled - chance)`: 0 is chance, 1 is the region evenly filled on this grid.

    Raises:
        ValueError: as for `energy`, or the region is not above chance on this grid.
    """
    by_chance, by_filling = chance(mask), filled(mask, grid)
    if by_filling <= by_chance:
        raise ValueError(f"a map that fills the region has energy {by_filling:.3g}, not above chance {by_chance:.3g}")
    return (energy(cam, mask) - by_chance) / (by_filling - by_chance)


def lift(cam: Map, mask: Map) -> float:
    """`energy / chance`: how many times the uniform map's share the region holds; 1 is chance, at most 1 / chance.

    Raises:
        ValueError: as for `energy`, or the mask is zero everywhere.
    """
    check_region(mask)
    return energy(cam, mask) / chance(mask)


def inside(mask: Map) -> npt.NDArray[np.bool_]:
    """The pixels of a soft mask that are inside, bool (H, W): those with at least half of the mask's maximum.

    So a region that was thinned until it covers no pixel by half still has pixels; a mask of zeros has none.
    """
    found: npt.NDArray[np.bool_] = (mask >= 0.5 * min(1.0, float(mask.max()))) & (mask > 0)
    return found


def pointing_game(cam: Map, mask: Map, tolerance: float = 0.0) -> float:
    """1.0 if the map's maximum lies inside the region, else 0.0; tied maxima must all do (Zhang et al., 2016).

    Args:
        cam: float (H, W).
        mask: float (H, W).
        tolerance: pixels between the maximum and the region's nearest pixel, centre to centre, that still count as
            inside; Zhang et al. allow 15 on the images of VOC and COCO.

    Raises:
        ValueError: as for `energy`, the mask is zero everywhere, or the tolerance is negative or not finite.
    """
    _check(cam, mask)
    check_region(mask)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"the tolerance is {tolerance}: give a number of pixels, 0 or more")
    hit, tied = inside(mask), _tied(cam)
    if tolerance == 0:
        return float(bool(hit[tied].all()))
    apart = cv2.distanceTransform((~hit).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(bool((apart[tied] <= tolerance * (1 + TIE)).all()))  # distances are float32


def rank_accuracy(cam: Map, mask: Map) -> float:
    """Share of the map's K highest pixels that is inside, K the region's pixels: relevance rank accuracy.

    (Arras et al., 2022.) Pixels tied with the K-th are counted by expectation, as if they were drawn by lot:
    (inside above it + inside tied · places left / tied) / K. Of a soft mask, K is the sum, and so may end in a part of
    a pixel. A uniform map has chance.

    Raises:
        ValueError: as for `energy`, or the mask is zero everywhere.
    """
    _check(cam, mask)
    check_region(mask)
    values, weights = cam.ravel(), mask.ravel()
    places = float(weights.sum(dtype=np.float64))
    last = max(0, values.size - math.ceil(places))
    lowest, rounding = np.partition(values, last)[last], TIE * float(values.max())
    above = values > lowest + rounding
    tied = (values >= lowest - rounding) & ~above
    left = places - int(above.sum())
    by_lot = float(weights[tied].sum(dtype=np.float64)) * left / int(tied.sum())
    return (float(weights[above].sum(dtype=np.float64)) + by_lot) / places


def iou(cam: Map, mask: Map, share: float = 0.5) -> float:
    """Intersection over union of the region and the pixels with at least a share of the map's maximum, in [0, 1].

    Pixels exactly at the share, up to rounding, belong to the map's part. Of a soft mask, the smaller and the larger of
    the two are summed pixel by pixel. A uniform map, all of whose pixels are its maximum, has chance.

    Args:
        cam: float (H, W).
        mask: float (H, W).
        share: in (0, 1]. Half of the maximum is where the edge of an evenly filled region lies after bilinear resizing;
            the lower shares of weakly supervised localisation (0.2 in Zhou et al., 2016) are meant for boxes drawn
            around the map's part, not for its pixels.

    Raises:
        ValueError: as for `energy`, the mask is zero everywhere, or the share is not in (0, 1].
    """
    _check(cam, mask)
    check_region(mask)
    if not 0 < share <= 1:
        raise ValueError(f"the share of the maximum is {share}: give one above 0 and at most 1")
    top = float(cam.max())
    part = cam >= (share - TIE) * top
    common = float(mask[part].sum(dtype=np.float64))
    either = float(mask.sum(dtype=np.float64)) + int(part.sum()) - common
    return common / either


def peak(cam: Map) -> tuple[int, int]:
    """(x, y) of the map's maximum; of tied maxima, the one nearest to their centre."""
    ys, xs = np.nonzero(_tied(cam))
    nearest = int(np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2))
    return int(xs[nearest]), int(ys[nearest])


def distance_to(mask: Map, point: tuple[int, int]) -> float:
    """Pixels from (x, y) to the nearest pixel inside the region; 0 inside.

    Raises:
        ValueError: the region has no pixel.
    """
    ys, xs = np.nonzero(inside(mask))
    if len(xs) == 0:
        raise ValueError("the region's mask is zero everywhere: there is no distance to it")
    return float(np.sqrt(((xs - point[0]) ** 2 + (ys - point[1]) ** 2).min()))


def check_region(mask: Map) -> None:
    """Refuse a region that nothing could be inside of.

    Raises:
        ValueError: the mask is zero everywhere.
    """
    if not mask.any():
        raise ValueError("the region's mask is zero everywhere: nothing can be measured against it")


def _tied(cam: Map) -> npt.NDArray[np.bool_]:
    top = cam.max()
    found: npt.NDArray[np.bool_] = cam >= top - TIE * abs(top)
    return found


def _check(cam: Map, mask: Map) -> None:
    if cam.shape != mask.shape:
        raise ValueError(f"the map is {cam.shape}, the region's mask {mask.shape}: both must be in the input frame")
    check_finite(cam, "the map")
    check_finite(mask, "the region's mask")
    top, bottom = float(cam.max()), float(cam.min())
    if bottom < -TIE * abs(top):
        raise ValueError(f"the map goes down to {bottom:.3g}: shares of a signed map mean nothing, give a CAM")
    if top <= 0:
        raise ValueError("the map has no mass: where it lies is undefined")
