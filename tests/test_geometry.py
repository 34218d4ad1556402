"""Regions that go through the geometric steps alone: the same as three pictures pushed through all steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from timm.data.transforms_factory import create_transform
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from pytest_gradcam.geometry import carry_through, geometric_steps
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.probes import carry
from pytest_gradcam.regions import Region

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def old(*steps: Any) -> Any:
    return v1.Compose([*steps, v1.ToTensor(), v1.Normalize(MEAN, STD)])


def new(*steps: Any) -> Any:
    return v2.Compose([*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


KNOWN: dict[str, Callable[[], Any]] = {
    "crop": lambda: old(v1.CenterCrop(48)),
    "crop beyond the edge": lambda: old(v1.CenterCrop(200)),
    "resize": lambda: old(v1.Resize((40, 56))),
    "resize, crop": lambda: old(v1.Resize(56), v1.CenterCrop(48)),
    "bicubic": lambda: old(v1.Resize(56, interpolation=v1.InterpolationMode.BICUBIC), v1.CenterCrop(48)),
    "nearest": lambda: old(v1.Resize(56, interpolation=v1.InterpolationMode.NEAREST)),
    "v2": lambda: new(v2.Resize(56), v2.CenterCrop(48)),
    "torchvision's preset": lambda: ImageClassification(crop_size=48, resize_size=56),
    "timm": lambda: create_transform((3, 48, 48), is_training=False, crop_pct=0.9),
    "timm squash": lambda: create_transform((3, 48, 48), is_training=False, crop_mode="squash"),
}
UNKNOWN: dict[str, Callable[[], Any]] = {
    "a function": v1.ToTensor,
    "padding, whose colour a mask has no right to": lambda: old(v1.Pad(4, fill=255)),
    "a step of another's": lambda: old(v1.Lambda(lambda picture: picture.rotate(5))),
    "a step behind the numbers": lambda: v1.Compose([v1.Resize(48), v1.ToTensor(), v1.RandomErasing()]),
    "grey": lambda: old(v1.Resize(48), v1.Grayscale(3)),
    "a subclass": lambda: old(type("Resize", (v1.Resize,), {})(48)),
    "timm, to border": lambda: create_transform((3, 48, 48), is_training=False, crop_mode="border"),
    "no geometry": old,
}


class TestKnown:
    @pytest.mark.parametrize("transform", [pytest.param(make, id=name) for name, make in KNOWN.items()])
    @given(
        st.tuples(st.integers(30, 120), st.integers(30, 120)),
        st.tuples(st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0.2, 0.4), st.floats(0.2, 0.4)),
    )
    @settings(max_examples=12, deadline=None)
    def test_carry_a_region_as_three_pictures_do(
        self, transform: Callable[[], Any], frame: tuple[int, int], box: tuple[float, float, float, float]
    ) -> None:
        height, width = frame
        made = transform()
        region = Region.box(
            box[0] * width + 1, box[1] * height + 1, (box[0] + box[2]) * width, (box[1] + box[3]) * height
        )
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
        steps = geometric_steps(made)
        assert steps is not None
        coverage = region.rasterise(height, width)
        prepared = prepare(picture, transform=made)
        answer = prepared.tensor[0].double().numpy()
        slow = carry(made, coverage, np.asarray(picture), answer, prepared.probe)
        assert np.allclose(carry_through(steps, coverage), slow, atol=2e-6)
        if slow.sum() >= 0.5:
            assert np.allclose(carry_region(region, prepared), slow, atol=2e-6)


class TestUnknown:
    @pytest.mark.parametrize("transform", [pytest.param(make, id=name) for name, make in UNKNOWN.items()])
    def test_are_pushed_through_whole(self, transform: Callable[[], Any]) -> None:
        assert geometric_steps(transform()) is None
