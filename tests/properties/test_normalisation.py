"""From raw CAM to CAM: rows 30 and 31 of the CAM facts. ReLU, division by the maximum, bilinear resizing."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from hypothesis import assume, given, strategies as st
from torch import Tensor

from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.strategies import SmallModel, maps, model_inputs, small_models
from tests.properties.oracle import bilinear, counterexample, every_method, explained, some

SIDES = st.integers(1, 40)


def explanation_of(raw: npt.NDArray[np.float32], height: int, width: int) -> Explanation:
    return Explanation(
        raw=raw,
        evidence=float(np.maximum(raw, 0).sum()),
        cls=0,
        label=None,
        score=1.0,
        probability=0.5,
        predicted=0,
        predicted_label=None,
        predicted_probability=0.5,
        layer="stages",
        grid=(raw.shape[0], raw.shape[1]),
        method="grad-cam",
        engine="hooks",
        device="cpu",
        seconds=0.0,
        size=(height, width),
        look=lambda: np.zeros((height, width, 3), np.uint8),
    )


@st.composite
def raw_maps(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    """Raw CAMs with some evidence, mostly signed, of any strength."""
    h, w = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    shape = draw(maps(h, w)) - np.float32(draw(st.sampled_from([0.0, 0.25, 0.75, -0.5])))
    return shape * np.float32(draw(st.sampled_from([1.0, 1e-6, 1e6])))


@every_method
@some
@given(small_models(), st.data())
def test_a_cam_is_a_share_of_its_maximum(method: str, model: SmallModel, data: st.DataObject) -> None:
    """Row 30: CAM ≥ 0, ≤ 1 and finite, and equal to ReLU, division by the maximum and resizing written out."""
    x = data.draw(model_inputs(batch=2, size=model.size))
    for explanation in explained(model.build(), x, 0, method):
        cam, positive = explanation.cam, np.maximum(explanation.raw, 0)
        assert cam.shape == model.size
        assert cam.dtype == np.float32
        assert np.isfinite(cam).all()
        assert cam.min() >= 0
        assert cam.max() <= 1
        assert (explanation.evidence > 0) == bool(positive.any())
        expected = positive / positive.max() if positive.any() else positive
        np.testing.assert_allclose(cam, bilinear(expected, *model.size), atol=1e-5)


@every_method
@some
@given(small_models(size=(8, 8), kernel=3, stride=1, padding=1), model_inputs())
def test_where_there_is_evidence_the_maximum_is_one(method: str, model: SmallModel, x: Tensor) -> None:
    """Row 30, the grid seen cell by cell (it has as many cells as the image has pixels): its maximum is 1, exactly."""
    (explanation,) = explained(model.build(), x, 0, method)
    assume(explanation.evidence > 0)
    assert explanation.cam.max() == 1
    np.testing.assert_array_equal(explanation.cam == 0, explanation.raw <= 0)


@some
@given(raw_maps(), SIDES, SIDES)
def test_resizing_stays_between_zero_and_one(raw: npt.NDArray[np.float32], height: int, width: int) -> None:
    """Row 31, bilinear with `align_corners=False`, to larger and to smaller."""
    cam = explanation_of(raw, height, width).cam
    assert cam.shape == (height, width)
    assert 0 <= cam.min()
    assert cam.max() <= 1
    positive = np.maximum(raw, 0)
    np.testing.assert_allclose(cam, bilinear(positive / positive.max(), height, width), atol=1e-5)


def test_bicubic_resizing_leaves_the_range() -> None:
    """Negative control of row 31."""

    def leaves(cam: npt.NDArray[np.float32]) -> bool:
        resized = cv2.resize(cam, (32, 32), interpolation=cv2.INTER_CUBIC)
        return bool(resized.min() < -1e-3 or resized.max() > 1 + 1e-3)

    counterexample(maps(6, 6), leaves)


@some
@given(raw_maps(), st.floats(1e-3, 1e3))
def test_a_stronger_raw_cam_is_the_same_cam(raw: npt.NDArray[np.float32], factor: float) -> None:
    """Row 30: the maximum is what is divided by, so only the shape is left."""
    np.testing.assert_allclose(
        explanation_of(raw * np.float32(factor), 20, 20).cam, explanation_of(raw, 20, 20).cam, atol=1e-5
    )


@some
@given(raw_maps(), st.integers(1, 8))
def test_an_odd_multiple_of_the_grid_keeps_every_cell(raw: npt.NDArray[np.float32], half: int) -> None:
    """Row 31: where a pixel's centre is a cell's centre, the CAM has the cell's value, 1 at the maximum among them."""
    factor = 2 * half + 1
    h, w = raw.shape
    cam = explanation_of(raw, h * factor, w * factor).cam
    positive = np.maximum(raw, 0)
    np.testing.assert_allclose(cam[half::factor, half::factor], positive / positive.max(), atol=1e-5)
