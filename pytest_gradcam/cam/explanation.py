"""Explanation: one class activation map and what it was computed from. A value: it computes nothing but pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.cam.heatmap import blend, encode_png
from pytest_gradcam.errors import SettingsError


@dataclass(frozen=True, eq=False)  # no slots: `cached_property` keeps its value in the instance
class Explanation:
    """One class activation map.

    Attributes:
        raw: float32 (h, w), the signed weighted sum before ReLU, on the grid, unnormalised.
        evidence: sum of the ReLU'd raw CAM; 0 means that there is no map.
        cls: the class explained; None where a callable gave the score.
        label: name of that class, where the model or the settings know it.
        score: the scalar explained, a logit before softmax unless a callable gave it (of `finer-cam` the logit of the
            class, whose distance from others is explained).
        probability: softmax of the logits at `cls` (sigmoid where there is one logit); None for a callable.
        predicted: class of the largest logit; None for a callable.
        predicted_label: name of the predicted class, where known.
        predicted_probability: probability of the predicted class.
        layer: dotted name of the target layer, or the first and the last of several; `the input` or `its own` where
            the method reads none of ours.
        grid: (h, w) of the target layer.
        method: registered name of the CAM method, or the name of the user's own.
        engine: `hooks` or `split`; `forwards` where nothing but forwards was needed; `its own` of the user's method.
        device: the torch device that computed the map.
        seconds: wall time of the computation, in seconds; for a batch, its share.
        size: (H, W) of the input frame, in pixels.
        look: makes `image`; called when somebody looks.
        layers: dotted names of the layers that were read, in the order of the forward; several are fused.
        view: how their outputs were read as grids, such as `NCHW 7×7` or `tokens 1+14×14`; empty where none was.
        model: timm's name of the architecture, or the class of the model; empty of a callable that is no module.
    """

    raw: npt.NDArray[np.float32]
    evidence: float
    cls: int | None
    label: str | None
    score: float
    probability: float | None
    predicted: int | None
    predicted_label: str | None
    predicted_probability: float | None
    layer: str
    grid: tuple[int, int]
    method: str
    engine: str
    device: str
    seconds: float
    size: tuple[int, int]
    look: Callable[[], npt.NDArray[np.uint8]]
    layers: tuple[str, ...] = ()
    view: str = ""
    model: str = ""

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """uint8 (H, W, 3), what the model saw."""
        return self.look()

    @cached_property
    def cam(self) -> npt.NDArray[np.float32]:
        """float32 (H, W) in [0, 1], in the input frame: ReLU of `raw`, divided by its maximum, resized bilinearly.

        The minimum is not subtracted: that would turn noise into evidence. All zero where there is no evidence. Resized
        when it is first asked for: the maps of a thousand classes are small until somebody looks at them.
        """
        height, width = self.size
        positive = np.maximum(self.raw, 0.0)
        top = positive.max()
        if self.evidence <= 0 or top <= 0:
            return np.zeros((height, width), np.float32)
        # OpenCV takes pixel centres as torch does with align_corners=False; rounding may pass 1 by one step.
        resized = cv2.resize(positive / top, (width, height), interpolation=cv2.INTER_LINEAR)
        cam: npt.NDArray[np.float32] = np.minimum(resized, 1.0, dtype=np.float32)
        return cam

    def overlay(self, alpha: float = 0.5, colormap: str = "jet") -> npt.NDArray[np.uint8]:
        """The map over what the model saw, uint8 (H, W, 3).

        Args:
            alpha: weight of the map's colours, 0 (picture only) to 1 (colours only).
            colormap: name of an OpenCV colour map: `jet`, `viridis`, `magma`, `cividis`, …

        Raises:
            SettingsError: unknown colour map, or alpha outside [0, 1].
        """
        return blend(self.image, self.cam, alpha=alpha, colormap=colormap)

    def save(self, path: str | os.PathLike[str], alpha: float = 0.5, colormap: str = "jet") -> Path:
        """Write the overlay as a PNG file; missing folders are made. Returns the path.

        Raises:
            SettingsError: the path does not end in `.png`, unknown colour map, or alpha outside [0, 1].
        """
        target = Path(path)
        if target.suffix.lower() != ".png":
            raise SettingsError(f"the overlay is a PNG file, and {target.name!r} is no name of one: end it in .png")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode_png(self.overlay(alpha=alpha, colormap=colormap)))
        return target

    def _repr_png_(self) -> bytes:
        return encode_png(self.overlay())

    def _repr_html_(self) -> str:
        # By its name: what draws lies above what is drawn, and knows it.
        shown: str = import_module("pytest_gradcam.report.notebook").explanation_html(self)
        return shown

    def __repr__(self) -> str:
        name = "a callable's score" if self.cls is None else f"class {self.cls}"
        if self.label is not None:
            name += f" ({self.label})"
        h, w = self.grid
        return (
            f"Explanation({name}, score {self.score:.4g}, {self.method} at {self.layer} {h}×{w}, "
            f"evidence {self.evidence:.4g}, {self.engine}, {self.device})"
        )
