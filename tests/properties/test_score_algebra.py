"""What a map owes to its score: rows 8, 9 and 15 to 19 of the CAM facts, for Grad-CAM and HiResCAM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import assume, given, strategies as st
from torch import Tensor

from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import (
    agree,
    assert_agree,
    captured,
    counterexample,
    every_method,
    every_way,
    explained,
    logits,
    raw_cams,
    some,
)

SIZE = (8, 8)
MODELS = small_models(size=SIZE)
X = model_inputs(batch=2, size=SIZE)
FACTORS = st.floats(0.01, 100.0)
COEFFICIENTS = st.integers(-100, 100).map(lambda tenths: tenths / 10)  # not so small that float32 holds no digits


def scaled(factor: float, c: int = 0) -> Callable[[Tensor], Tensor]:
    return lambda output: factor * output[0, c]


def softmax(c: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output.softmax(dim=1)[0, c]


@every_method
@some
@given(MODELS, X, FACTORS)
def test_the_cam_does_not_know_the_scale_of_the_score(method: str, model: SmallModel, x: Tensor, factor: float) -> None:
    """Row 8, any head, s > 0: the raw CAM scales with the score, and the CAM stays."""
    net = model.build()
    before, after = explained(net, x, 0, method), explained(net, x, scaled(factor), method)
    for one, other in zip(before, after, strict=True):
        assert_agree(other.raw, np.float32(factor) * one.raw)
        assert_agree(other.cam, one.cam)


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ as its authors release it (Chattopadhay et al., 2018, eq. 19, for the exponential of the score)."""
    squared, cubed = gradients**2, gradients**3
    below = 2 * squared + activations.sum(dim=(2, 3), keepdim=True) * cubed
    alphas = squared / torch.where(below == 0, torch.ones_like(below), below)
    weights = (alphas * gradients.relu()).sum(dim=(2, 3))
    return torch.einsum("nc,nchw->nhw", weights, activations)


def test_grad_cam_plus_plus_knows_the_scale_of_the_score() -> None:
    """Negative control of row 8: a method whose weights are not linear in the gradient."""

    def changes(drawn: tuple[SmallModel, Tensor]) -> bool:
        net, x = drawn[0].build().double(), drawn[1].double()
        one, ten = (grad_cam_plus_plus(*captured(net, x, scaled(s))).relu().numpy() for s in (1.0, 10.0))
        return bool(one.max() > 0) and not agree(ten / ten.max(), one / one.max())

    counterexample(st.tuples(MODELS, X), changes)


@every_method
@every_way
@some
@given(MODELS, X, st.floats(-100, 100))
def test_a_constant_added_to_the_score_changes_nothing(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, constant: float
) -> None:
    """Row 9, score before softmax: the same map, exactly."""
    net, x = model.build().to(dtype), x.to(dtype)
    np.testing.assert_array_equal(
        raw_cams(net, x, lambda output: output[0, 1] + constant, method), raw_cams(net, x, 1, method)
    )


@every_method
@every_way
@some
@given(MODELS, X, COEFFICIENTS, COEFFICIENTS)
def test_the_raw_cam_is_linear_in_the_class_scores(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, a: float, b: float
) -> None:
    """Row 15: raw of a·S_0 + b·S_1 is a·raw_0 + b·raw_1."""
    net, x = model.build().to(dtype), x.to(dtype)
    first, second = raw_cams(net, x, 0, method), raw_cams(net, x, 1, method)
    mixed = raw_cams(net, x, lambda output: a * output[0, 0] + b * output[0, 1], method)
    terms = np.abs(a * first).max() + np.abs(b * second).max()
    assert_agree(mixed, (a * first + b * second).astype(first.dtype), float(terms))


@every_method
@every_way
@some
@given(MODELS, X)
def test_a_negated_score_negates_the_raw_cam(dtype: torch.dtype, method: str, model: SmallModel, x: Tensor) -> None:
    """Row 16: exactly."""
    net, x = model.build().to(dtype), x.to(dtype)
    np.testing.assert_array_equal(raw_cams(net, x, scaled(-1.0), method), -raw_cams(net, x, 0, method))


@every_method
@every_way
@some
@given(MODELS, X)
def test_the_raw_cam_of_a_probability_weighs_the_classes_against_each_other(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor
) -> None:
    """Row 17: raw of softmax p_c is p_c (raw_c − Σ_j p_j raw_j)."""
    net, x = model.build().to(dtype), x.to(dtype)
    raws = np.stack([raw_cams(net, x, c, method) for c in range(model.classes)])  # (K, N, h, w)
    p = torch.from_numpy(logits(net, x)).softmax(dim=1).numpy().T[..., None, None]
    expected = p[0] * (raws[0] - (p * raws).sum(axis=0))
    assert_agree(raw_cams(net, x, softmax(0), method), expected, float((p[0] * np.abs(raws)).max()))


@every_method
@some
@given(MODELS, X)
def test_probability_and_its_logarithm_have_one_cam(method: str, model: SmallModel, x: Tensor) -> None:
    """Row 18: after division by the maximum; in float64, as 1 − p_c cancels in float32 for a class near certainty."""
    net, x = model.build().double(), x.double()
    p = torch.from_numpy(logits(net, x)).softmax(dim=1)[:, 0]
    assume(bool((p < 1 - 1e-6).all()))
    of_p = explained(net, x, softmax(0), method)
    of_log_p = explained(net, x, lambda output: output.log_softmax(dim=1)[0, 0], method)
    for one, other in zip(of_p, of_log_p, strict=True):
        assert_agree(one.cam, other.cam)


@every_method
@every_way
@some
@given(MODELS, X)
def test_the_raw_cams_of_all_probabilities_add_up_to_zero(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor
) -> None:
    """Row 19: what speaks for one class speaks as much against the others."""
    net, x = model.build().to(dtype), x.to(dtype)
    total = np.sum([raw_cams(net, x, softmax(c), method) for c in range(model.classes)], axis=0)
    terms = max(np.abs(raw_cams(net, x, c, method)).max() for c in range(model.classes))
    assert_agree(total, np.zeros_like(total), float(terms))


@every_method
@every_way
@some
@given(small_models(size=SIZE, classes=2), X)
def test_of_two_probabilities_one_is_the_others_negative(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor
) -> None:
    """Row 19, two classes."""
    net, x = model.build().to(dtype), x.to(dtype)
    terms = max(np.abs(raw_cams(net, x, c, method)).max() for c in range(2))
    assert_agree(raw_cams(net, x, softmax(1), method), -raw_cams(net, x, softmax(0), method), float(terms))
