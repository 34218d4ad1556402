"""Whether a model relies on what a map shows: numbers from curves of scores. Asking the model is somebody else's job.

Where pixels must be ranked, `order` does it, so that no tie is broken by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_gradcam.metrics.maps import Map, check_finite

Numbers: TypeAlias = Sequence[float] | npt.NDArray[np.floating]


def order(cam: Map, seed: int = 0) -> npt.NDArray[np.intp]:
    """The map's pixels, highest first, as indices into `cam.ravel()`.

    Pixels of exactly the same value, such as the zeros that ReLU leaves, come in an order drawn with the seed: by
    position, a map that knows nothing of them would be credited with a sweep from the top left corner.

    Args:
        cam: float (H, W) or (h, w), signed or not.
        seed: of the draw; the same seed gives the same order.

    Returns:
        int (H·W,), each index once.

    Raises:
        ValueError: the map is not finite.
    """
    check_finite(cam, "the map")
    drawn = np.random.default_rng(seed).permutation(cam.size)
    return drawn[np.argsort(-cam.ravel()[drawn], kind="stable")]


def deletion_auc(scores: Numbers, fractions: Numbers | None = None) -> float:
    """Area under the scores while the highest pixels are taken away: low for a faithful map (Petsiuk et al., 2018).

    Args:
        scores: (S,), S ≥ 2, from the whole image to the image without a pixel; by custom the class probability.
        fractions: (S,), the share of pixels gone at each score, from 0 up to 1; None for even steps.

    Returns:
        The area by the trapezoidal rule over [0, 1], which is a mean score, and so on the scores' scale.

    Raises:
        ValueError: fewer than two scores, a score that is not finite, or fractions that do not rise from 0 to 1.
    """
    return _area(scores, fractions)


def insertion_auc(scores: Numbers, fractions: Numbers | None = None) -> float:
    """Area under the scores while the highest pixels are put in: high for a faithful map (Petsiuk et al., 2018).

    Args:
        scores: (S,), S ≥ 2, from the image without a pixel to the whole image.
        fractions: (S,), the share of pixels there at each score, from 0 up to 1; None for even steps.

    Returns:
        As for `deletion_auc`.

    Raises:
        ValueError: as for `deletion_auc`.
    """
    return _area(scores, fractions)


def average_drop(originals: Numbers, explained: Numbers) -> float:
    """Mean share of the score that is lost where only what the map shows is left: low where the map is faithful.

    `mean(max(0, y - o) / y)` (Chattopadhay et al., 2018), as a share in [0, 1], where they print percent.

    Args:
        originals: (N,), y, the class probability of each whole image; above 0.
        explained: (N,), o, that of the image times its map; not below 0.

    Raises:
        ValueError: no images, lengths that differ, or scores that are not finite, or not in these ranges.
    """
    whole, left = _pairs(originals, explained)
    if (whole <= 0).any() or (left < 0).any():
        raise ValueError(
            f"scores go down to {whole.min():.3g} for whole images and {left.min():.3g} for explained ones: the lost "
            "share of a score needs probabilities, above 0 for whole images"
        )
    return float((np.maximum(0.0, whole - left) / whole).mean())


def increase_rate(originals: Numbers, explained: Numbers) -> float:
    """Share of the images whose score rises where only what the map shows is left: increase in confidence.

    (Chattopadhay et al., 2018.) A score that stays as it was has not risen.

    Args:
        originals: (N,), the class score of each whole image.
        explained: (N,), that of the image times its map.

    Raises:
        ValueError: no images, lengths that differ, or a score that is not finite.
    """
    whole, left = _pairs(originals, explained)
    return float((left > whole).mean())


def _area(scores: Numbers, fractions: Numbers | None) -> float:
    heights = np.asarray(scores, np.float64)
    if heights.ndim != 1 or heights.size < 2:
        raise ValueError(f"the scores are {heights.shape}: a curve needs two or more in a row")
    check_finite(heights, "the curve of scores")
    if fractions is None:
        return float((heights[:-1] + heights[1:]).mean() / 2.0)
    widths = np.asarray(fractions, np.float64)
    if widths.shape != heights.shape:
        raise ValueError(f"there are {heights.size} scores at fractions of shape {widths.shape}: give one for each")
    # Not the other way round: NaN compares false.
    if not (widths[0] == 0 and widths[-1] == 1 and (np.diff(widths) > 0).all()):
        raise ValueError(f"the fractions go from {widths[0]:g} to {widths[-1]:g}: they must rise from 0 to 1")
    return float((np.diff(widths) * (heights[:-1] + heights[1:])).sum() / 2.0)


def _pairs(originals: Numbers, explained: Numbers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    whole, left = np.asarray(originals, np.float64), np.asarray(explained, np.float64)
    if whole.ndim != 1 or whole.shape != left.shape or not whole.size:
        raise ValueError(f"the scores are {whole.shape} and {left.shape}: give two for each image, and an image")
    check_finite(whole, "the list of the whole images' scores")
    check_finite(left, "the list of the explained images' scores")
    return whole, left
