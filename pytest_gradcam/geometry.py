"""Transforms whose way with pixels is known: torchvision's resize and centre crop, and what makes numbers of pixels.

Most models are evaluated with these alone, timm's and torchvision's own too. A region then goes through the geometric
steps by itself, as one channel, to the value that three pictures pushed through all steps would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_gradcam.transforms import Transform

# By the names of their types, so that torchvision is not imported for whoever does not use it; no subclass is meant.
_MODULES: Final = (
    "torchvision.transforms.transforms",
    "torchvision.transforms.v2",
    "timm.data.transforms",
    "torchvision.transforms._presets",
)
_GEOMETRIC: Final = ("Resize", "CenterCrop")
_PIXELWISE: Final = (
    *("ToTensor", "MaybeToTensor", "PILToTensor", "ToImage", "ConvertImageDtype", "ToDtype", "Normalize"),
)


def geometric_steps(transform: Transform) -> list[Callable[[Image.Image], Image.Image]] | None:
    """The steps that move pixels, where all steps are known and those that do not come after them; else None."""
    if _type(transform) == "ImageClassification":  # what torchvision's weights.transforms() gives
        return _of_preset(transform)
    steps = getattr(transform, "transforms", None)
    if _type(transform) != "Compose" or not isinstance(steps, list | tuple):
        return None
    names = [_type(step) for step in steps]
    moving = next((place for place, name in enumerate(names) if name not in _GEOMETRIC), len(names))
    if any(name not in _PIXELWISE for name in names[moving:]) or moving == 0:
        return None
    return list(steps[:moving])


def carry_through(
    steps: Sequence[Callable[[Image.Image], Image.Image]], coverage: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """An area of the picture, (height, width) in [0, 1], as these steps leave it in the input frame, (H, W)."""
    mask: Any = Image.fromarray(np.rint(coverage * 255.0).astype(np.uint8))
    for step in steps:
        mask = step(mask)
    return np.asarray(mask, np.float32) / np.float32(255.0)


def _of_preset(preset: Any) -> list[Callable[[Image.Image], Image.Image]]:
    """The geometric steps of torchvision's preset, by the attributes that it calls them with."""
    from torchvision.transforms import functional  # whoever has a preset has it

    how = {"interpolation": preset.interpolation, "antialias": preset.antialias}
    return [
        partial(functional.resize, size=preset.resize_size, **how),
        partial(functional.center_crop, output_size=preset.crop_size),
    ]


def _type(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__.startswith(_MODULES) else ""
