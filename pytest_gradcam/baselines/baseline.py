"""A baseline: a map as it was, and what it was made from. A value, made from an explanation; files know it as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pytest_gradcam.baselines.glance import glance
from pytest_gradcam.baselines.names import CheckName

if TYPE_CHECKING:
    from pytest_gradcam.cam.explanation import Explanation
    from pytest_gradcam.images import Prepared

_PACKAGES: Final = ("torch", "timm", "pytest-gradcam")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A map as it was, and what it was made from.

    Attributes:
        check: whose it is.
        raw: float32 (h, w), the raw CAM.
        cam: float32 (h, w) in [0, 1], the CAM on the grid: ReLU of `raw`, divided by its maximum.
        glance: float32 (C, 4, 4), what tells another model input from the rounding of the same: see `glance`.
        method: registered name of the CAM method, or that of the user's own.
        layer: the target layer, for a person.
        layers: the dotted names of the layers that were read.
        view: how their outputs were read as grids.
        cls: class index; None where a callable gave the score.
        label: name of the class, where known.
        score: the scalar explained.
        probability: of the class; None for a callable.
        predicted: the predicted class; None for a callable.
        size: (H, W) of the input frame, in pixels.
        image: digest of the picture or the tensor that was given, after its kind and a colon.
        transform: name and digest of the transform; empty where the image was a tensor.
        engine: how activations and gradients were obtained.
        device: the kind of device that computed the map.
        versions: of torch, timm and this package.
    """

    check: CheckName
    raw: Floats
    cam: Floats
    glance: Floats
    method: str
    layer: str
    layers: tuple[str, ...]
    view: str
    cls: int | None
    label: str | None
    score: float
    probability: float | None
    predicted: int | None
    size: tuple[int, int]
    image: str
    transform: str
    engine: str
    device: str
    versions: Mapping[str, str]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the map."""
        return self.raw.shape[0], self.raw.shape[1]

    @property
    def class_name(self) -> str:
        """`class 3 (cat)`, or `the score` where a callable gave it."""
        if self.cls is None:
            return "the score"
        return f"class {self.cls}" + (f" ({self.label})" if self.label is not None else "")

    def explanation(self, like: Explanation) -> Explanation:
        """The baseline as the explanation that it was, over the picture of another.

        Args:
            like: of the same picture, as it is now.
        """
        return replace(
            like,
            raw=self.raw,
            evidence=float(np.maximum(self.raw, 0.0).sum(dtype=np.float64)),
            cls=self.cls,
            label=self.label,
            score=self.score,
            probability=self.probability,
            predicted=self.predicted,
            predicted_label=None,
            predicted_probability=None,
            layer=self.layer,
            grid=self.grid,
            method=self.method,
            engine=self.engine,
            device=self.device,
            layers=self.layers,
            view=self.view,
        )


def baseline_of(check: CheckName, explanation: Explanation, prepared: Prepared) -> Baseline:
    """What is stored of a map with evidence, and of the image that it was made from."""
    from pytest_gradcam.transforms import describe  # torch: whoever only reads baselines does without

    raw = explanation.raw
    positive = np.maximum(raw, np.float32(0.0))
    return Baseline(
        check=check,
        raw=raw,
        cam=positive / positive.max(),
        glance=glance(_array(prepared)),
        method=explanation.method,
        layer=explanation.layer,
        layers=explanation.layers,
        view=explanation.view,
        cls=explanation.cls,
        label=explanation.label,
        score=float(explanation.score),
        probability=None if explanation.probability is None else float(explanation.probability),
        predicted=explanation.predicted,
        size=explanation.size,
        image=_digest_of_image(prepared),
        transform="" if prepared.transform is None else describe(prepared.transform),
        engine=explanation.engine,
        device=explanation.device.partition(":")[0],
        versions=_versions(),
    )


def _digest_of_image(prepared: Prepared) -> str:
    kind, pixels = "picture", prepared.picture
    if pixels is None:
        return _digest("tensor", _array(prepared))
    return _digest(kind, pixels)


def _digest(kind: str, pixels: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return f"{kind}:{digest.hexdigest()[:32]}"


def _array(prepared: Prepared) -> Floats:
    pixels: Floats = prepared.tensor.detach()[0].float().cpu().numpy()  # (C, H, W)
    return pixels


@cache
def _versions() -> Mapping[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that is only on the path
            continue
    return found
