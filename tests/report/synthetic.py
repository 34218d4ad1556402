"""Verdicts made by hand, so that what is drawn and written is tested without a model."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.regions import Region
from pytest_gradcam.verdicts import Place, Sight, Verdict


def corner_raw(grid: int = 12) -> npt.NDArray[np.float32]:
    """A raw CAM that is hottest in the bottom left corner and fades towards the rest, float32 (grid, grid)."""
    y, x = np.mgrid[:grid, :grid]
    return np.asarray(np.exp(-np.hypot(x, grid - 1 - y) / (grid / 6)), dtype=np.float32)


def corner_map(side: int = 96) -> npt.NDArray[np.float32]:
    """The CAM of `corner_raw`, float32 (side, side)."""
    return np.asarray(cv2.resize(corner_raw(), (side, side)), dtype=np.float32)


def box_mask(side: int = 96, box: tuple[int, int, int, int] = (36, 6, 76, 46)) -> npt.NDArray[np.float32]:
    x0, y0, x1, y1 = box
    mask = np.zeros((side, side), dtype=np.float32)
    mask[y0:y1, x0:x1] = 1.0
    return mask


def photo(height: int = 96, width: int = 96) -> npt.NDArray[np.uint8]:
    """A picture with something in it: a gradient, a disc and a bar, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([80 + 100 * x / width, 120 + 80 * y / height, np.full((height, width), 160.0)], axis=-1)
    rgb[(x - 0.6 * width) ** 2 + (y - 0.27 * height) ** 2 < (0.2 * width) ** 2] = (235, 200, 60)
    rgb[int(0.85 * height) :, : int(0.3 * width)] = (250, 250, 250)
    return rgb.astype(np.uint8)


def explanation(**changes: Any) -> Explanation:
    image = changes.pop("image", photo())
    return replace(
        Explanation(
            raw=corner_raw(),
            evidence=3.5,
            cls=3,
            label="rocket",
            score=7.25,
            probability=0.99,
            predicted=3,
            predicted_label="rocket",
            predicted_probability=0.99,
            layer="stages.3",
            grid=(12, 12),
            method="grad-cam",
            engine="hooks",
            device="cpu",
            seconds=0.0312,
            size=image.shape[:2],
            look=lambda: image,
        ),
        **changes,
    )


def verdict(**changes: Any) -> Verdict:
    """The failing verdict of ux.md, with some of its values changed: its own, or those of its place or sight."""
    place = Place(
        region=Region.box(36, 6, 76, 46),
        mask=box_mask(),
        frame=(96, 96),
        chance=0.17,
        filled=0.83,
        energy=0.01,
        peak=(5, 89),
        peak_distance=53.0,
    )
    of_place = {field.name: changes.pop(field.name) for field in fields(Place) if field.name in changes}
    sight = Sight(changes.pop("explanation", explanation()), replace(place, **of_place))
    return replace(
        Verdict(
            assertion="assert_attention_in_region",
            outcome="failed",
            metric="calibrated_energy",
            value=-0.26,
            values=(-0.26,),
            chance=0.0,
            threshold=0.15,
            at_most=False,
            interval=None,
            confidence=None,
            sights=(sight,),
            worst=0,
            message="class 3 (rocket) is not explained by the box: calibrated energy -0.26, needs 0.15",
        ),
        **changes,
    )
