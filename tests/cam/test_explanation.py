"""Explanation as a value: its CAM, its pictures, what it says of itself."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from pytest_gradcam import Explanation, SettingsError, explain
from tests.models import apart, cam_of, coloured, picture, reads_colours, small


def explanation(raw: Any, height: int = 24, width: int = 36, **fields: Any) -> Explanation:
    raw = np.asarray(raw, np.float32)
    known: dict[str, Any] = {
        "raw": raw,
        "evidence": float(np.maximum(raw, 0).sum()),
        "cls": 1,
        "label": None,
        "score": 2.5,
        "probability": 0.75,
        "predicted": 1,
        "predicted_label": None,
        "predicted_probability": 0.75,
        "layer": "layer4",
        "grid": raw.shape,
        "method": "grad-cam",
        "engine": "hooks",
        "device": "cpu",
        "seconds": 0.01,
        "size": (height, width),
        "look": lambda: np.full((height, width, 3), 100, np.uint8),
    }
    return Explanation(**{**known, **fields})


def drawn(h: int, w: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)


class TestTheCam:
    @pytest.mark.parametrize(("h", "w"), [(2, 3), (7, 7), (1, 4), (4, 1), (12, 5), (24, 36)])
    @pytest.mark.parametrize(("height", "width"), [(24, 36), (37, 51)])
    def test_is_relu_over_maximum_resized(self, h: int, w: int, height: int, width: int) -> None:
        raw = drawn(h, w, h * w)
        cam = explanation(raw, height, width).cam
        assert cam.shape == (height, width)
        assert cam.dtype == np.float32
        assert apart(cam, cam_of(raw, height, width)) <= 1e-6
        assert cam.min() >= 0 and cam.max() <= 1

    @pytest.mark.parametrize("raw", [np.zeros((3, 3)), -np.ones((3, 3)), [[0.0, -1.0], [-2.0, 0.0]]])
    def test_is_zero_without_evidence(self, raw: Any) -> None:
        assert not explanation(raw).cam.any()

    def test_does_not_subtract_the_minimum(self) -> None:
        assert np.allclose(explanation(np.full((3, 3), 0.2)).cam, 1.0)

    def test_does_not_change_with_the_scale(self) -> None:
        raw = drawn(5, 5, 0)
        assert apart(explanation(raw * 1e-30).cam, explanation(raw).cam) <= 1e-6
        assert apart(explanation(raw * 1e30).cam, explanation(raw).cam) <= 1e-6

    def test_has_its_maximum_over_the_cell_of_the_raw_maximum(self) -> None:
        raw = np.zeros((4, 6))
        raw[2, 5] = 1.0
        cam = explanation(raw, 40, 60).cam
        y, x = np.unravel_index(cam.argmax(), cam.shape)
        assert 20 <= y < 30 and 50 <= x < 60

    def test_is_computed_once(self) -> None:
        one = explanation(drawn(3, 3, 1))
        assert one.cam is one.cam


class TestPictures:
    def test_the_overlay_is_half_colours_half_picture(self) -> None:
        one = explanation(drawn(4, 4, 2))
        levels = np.rint(255 * one.cam).astype(np.uint8)
        jet = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1].astype(float)
        assert one.overlay().dtype == np.uint8
        assert np.abs(one.overlay() - (0.5 * jet + 50)).max() <= 0.5

    def test_colours_are_rgb(self) -> None:
        """The hottest colour of jet is red, the coldest blue."""
        shown = explanation([[1.0, 0.0], [0.0, 0.0]], 8, 8).overlay(alpha=1.0)
        assert shown[0, 0, 0] > 100 > shown[0, 0, 2]
        assert shown[7, 7, 2] > 100 > shown[7, 7, 0]

    @pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
    def test_alpha_is_the_weight_of_the_colours(self, alpha: float) -> None:
        one = explanation(drawn(4, 4, 3))
        colours = one.overlay(alpha=1.0).astype(float)
        assert np.abs(one.overlay(alpha=alpha) - (alpha * colours + (1 - alpha) * 100)).max() <= 0.5

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "half", None, np.ones(2)])
    def test_alpha_is_a_share(self, alpha: Any) -> None:
        with pytest.raises(SettingsError, match=r"^alpha is .*: it is the weight of the map's colours, from 0 to 1$"):
            explanation(drawn(2, 2, 0)).overlay(alpha=alpha)

    @pytest.mark.parametrize("colormap", ["viridis", "magma", "JET"])
    def test_any_map_of_opencv_is_served(self, colormap: str) -> None:
        one = explanation(drawn(4, 4, 4))
        code: int = getattr(cv2, f"COLORMAP_{colormap.upper()}")
        colours = cv2.applyColorMap(np.rint(255 * one.cam).astype(np.uint8), code)[..., ::-1]
        assert np.array_equal(one.overlay(alpha=1.0, colormap=colormap), colours)

    @pytest.mark.parametrize("colormap", ["rainbows", "", "jet ", 3, None])
    def test_an_unknown_map_is_refused(self, colormap: Any) -> None:
        with pytest.raises(SettingsError, match=r"^unknown colormap .*: OpenCV has .*jet.*viridis"):
            explanation(drawn(2, 2, 0)).overlay(colormap=colormap)

    def test_saving_writes_the_overlay_where_it_is_told(self, tmp_path: Path) -> None:
        one = explanation(drawn(4, 4, 5))
        path = one.save(tmp_path / "a folder" / "überlagert.png", alpha=0.3, colormap="magma")
        assert path == tmp_path / "a folder" / "überlagert.png"
        read = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        assert read is not None
        assert np.array_equal(read[..., ::-1], one.overlay(alpha=0.3, colormap="magma"))

    @pytest.mark.parametrize("name", ["overlay.jpg", "overlay", "overlay.png.gz", "overlay.tiff"])
    def test_saving_under_another_suffix_is_refused(self, name: str, tmp_path: Path) -> None:
        """PNG bytes in a file of another name would open nowhere."""
        with pytest.raises(SettingsError) as caught:
            explanation(drawn(2, 2, 0)).save(tmp_path / "new" / name)
        assert str(caught.value) == f"the overlay is a PNG file, and {name!r} is no name of one: end it in .png"
        assert list(tmp_path.iterdir()) == []
        assert explanation(drawn(2, 2, 0)).save(tmp_path / "OVERLAY.PNG").exists()

    def test_a_notebook_shows_the_overlay(self) -> None:
        one = explanation(drawn(4, 4, 6))
        read = cv2.imdecode(np.frombuffer(one._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
        assert read is not None
        assert np.array_equal(read[..., ::-1], one.overlay())

    def test_what_the_model_saw_is_not_painted_on(self) -> None:
        one = explanation(drawn(4, 4, 7))
        one.overlay()
        assert (one.image == 100).all()


class TestTheValue:
    @pytest.mark.parametrize("name", ["raw", "cls", "evidence", "image"])
    def test_is_frozen(self, name: str) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(explanation(drawn(2, 2, 0)), name, None)

    def test_can_be_copied_replaced_and_pickled(self) -> None:
        one = explain(reads_colours(), coloured((0, (0, 0, 16, 16))), 0)
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), replace(one)):
            assert np.array_equal(other.cam, one.cam)
            assert (other.cls, other.score, other.layer) == (one.cls, one.score, one.layer)

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({}, "Explanation(class 1, score 2.5, grad-cam at layer4 2×3, evidence 6, hooks, cpu)"),
            ({"label": "cat"}, "Explanation(class 1 (cat), score 2.5, grad-cam at layer4 2×3, evidence 6, hooks, cpu)"),
            (
                {"cls": None, "score": 0.123456},
                "Explanation(a callable's score, score 0.1235, grad-cam at layer4 2×3, evidence 6, hooks, cpu)",
            ),
        ],
    )
    def test_says_what_it_is(self, fields: dict[str, Any], text: str) -> None:
        assert repr(explanation(np.ones((2, 3)), **fields)) == text

    def test_holds_nothing_of_the_model(self) -> None:
        """Maps of a whole dataset may be kept: plain numbers and arrays, no tensor that holds a graph."""
        got = explain(small(), picture(32, 32), 1)
        look, *values = sorted(vars(got).values(), key=lambda value: not isinstance(value, functools.partial))
        assert {type(value) for value in values} <= {np.ndarray, int, float, str, tuple, type(None)}
        assert isinstance(look, functools.partial)
        (tensor,) = (value for value in look.args if isinstance(value, torch.Tensor))
        assert tensor.grad_fn is None
        assert not tensor.requires_grad
