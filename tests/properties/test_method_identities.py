"""Rows 3, 6, 20 and 21 of the CAM facts, and which rows about scores and channels the methods beyond Grad-CAM keep.

Rows 8, 10, 12 to 16 and 29, for the pure functions of `cam.gradient_methods` on plain autograd's A and G.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st
from torch import Tensor

from pytest_gradcam.cam.gradient_methods import (
    eigen_cam,
    eigen_grad_cam,
    grad_cam_plus_plus,
    layer_cam,
    xgrad_cam,
)
from pytest_gradcam.cam.methods import grad_cam, hirescam
from pytest_gradcam.small_models import SmallNet
from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import (
    GAP_HEADS,
    Array,
    Score,
    agree,
    assert_agree,
    captured,
    counterexample,
    first_weights,
    rewired,
    some,
)

Method = Callable[[Tensor, Tensor], Tensor]
SIZE = (8, 8)
MODELS = small_models(size=SIZE)
X = model_inputs(batch=2, size=SIZE)
FACTORS = st.floats(0.01, 100.0)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def methods(*functions: Method) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", functions, ids=[function.__name__ for function in functions])


def raws(method: Method, model: SmallModel, x: Tensor, score: Score = 0, dtype: torch.dtype = torch.float64) -> Array:
    """Raw CAMs (N, h, w) of the model's last ReLU."""
    raw: Array = method(*captured(model.build().to(dtype), x.to(dtype), score)).numpy()
    return raw


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda output: factor * output[0, 0]


def is_told_apart(model: SmallModel, x: Tensor, share: float = 1e-4) -> bool:
    """Whether the first singular value of A·G stands clear of the second, and its sign clear of rounding."""
    a, g = captured(model.build().double(), x.double(), 0)
    for matrix in ((a * g).flatten(2).mT, a.flatten(2).mT):
        values, directions = torch.linalg.svd(matrix, full_matrices=False)[1:]
        first = directions[:, 0]
        clear = first.sum(1).abs() > share * first.abs().sum(1)
        gap = values[:, 0] - (values[:, 1] if values.shape[1] > 1 else 0) > share * values[:, 0]
        if not bool((clear & gap & (values[:, 0] > 0)).all()):
            return False
    return True


@DTYPES
@some
@given(small_models(size=SIZE, head="gap-linear"), X)
def test_xgrad_cam_is_grad_cam_after_pooling(dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 3, GAP+linear: the gradient is the same in all cells, and so is any mean of it."""
    ours, theirs = (raws(method, model, x, 0, dtype) for method in (xgrad_cam, grad_cam))
    a, g = captured(model.build().to(dtype), x.to(dtype), 0)
    assert_agree(ours, theirs, float(grad_cam(a, g.abs()).max()))


def test_xgrad_cam_is_not_grad_cam_where_the_head_knows_places() -> None:
    """Negative control of row 3."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        return not agree(raws(xgrad_cam, *drawn), raws(grad_cam, *drawn))

    counterexample(st.tuples(small_models(size=SIZE, head="flatten-linear"), X), differ)


def test_xgrad_cam_leaves_out_a_channel_that_adds_up_to_zero() -> None:
    """Negative control of the condition of rows 3 and 6: ΣA = 0 without A = 0, as there is before a ReLU."""
    a = torch.tensor([[[[1.0, -1.0]], [[2.0, 1.0]]]])
    g = torch.ones_like(a)
    assert xgrad_cam(a, g).tolist() == [[[2.0, 1.0]]]
    assert grad_cam(a, g).tolist() == [[[3.0, 0.0]]]
    g = torch.tensor([[[[3.0, 1.0]], [[1.0, 1.0]]]])
    assert float(hirescam(a, g).sum()) == 5
    assert float(xgrad_cam(a, g).sum()) == 3


@DTYPES
@some
@given(MODELS, X)
def test_xgrad_cam_and_hirescam_have_one_sum(dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 6, any head: both hand out Σ A·G."""
    ours, theirs = (raws(method, model, x, 0, dtype).sum(axis=(1, 2)) for method in (xgrad_cam, hirescam))
    a, g = captured(model.build().to(dtype), x.to(dtype), 0)
    assert_agree(ours, theirs, float(hirescam(a, g.abs()).sum(dim=(1, 2)).max()))


def test_grad_cam_and_hirescam_do_not_have_one_sum() -> None:
    """Negative control of row 6: the plain mean of the gradient."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        return not agree(raws(grad_cam, *drawn).sum((1, 2)), raws(hirescam, *drawn).sum((1, 2)))

    counterexample(st.tuples(small_models(size=SIZE, head="flatten-linear"), X), differ)


@methods(xgrad_cam, layer_cam, eigen_grad_cam)
@some
@given(MODELS, X, FACTORS)
def test_the_cam_does_not_know_the_scale_of_the_score(
    method: Method, model: SmallModel, x: Tensor, factor: float
) -> None:
    """Row 8, s > 0: the raw CAM scales with the score."""
    assume(method is not eigen_grad_cam or is_told_apart(model, x))
    assert_agree(raws(method, model, x, scaled(factor)), factor * raws(method, model, x))


def test_grad_cam_plus_plus_knows_the_scale_of_the_score() -> None:
    """Negative control of row 8: another CAM, after division by the maximum, by more than a tenth."""

    def changes(drawn: tuple[SmallModel, Tensor]) -> bool:
        one, ten = (raws(grad_cam_plus_plus, *drawn, scaled(s)) for s in (1.0, 100.0))
        return bool(one.max() > 0) and bool(np.abs(ten / ten.max() - one / one.max()).max() > 0.1)

    counterexample(st.tuples(MODELS, X), changes)


@methods(xgrad_cam, layer_cam, grad_cam_plus_plus, eigen_cam, eigen_grad_cam)
@some
@given(MODELS, model_inputs(batch=3, size=SIZE))
def test_a_batch_gives_what_its_images_give_alone(method: Method, model: SmallModel, x: Tensor) -> None:
    """Row 10, for the arithmetic: nothing of one image reaches another."""
    a, g = captured(model.build().double(), x.double(), 0)
    alone = torch.cat([method(a[i : i + 1], g[i : i + 1]) for i in range(3)])
    assert_agree(method(a, g).numpy(), alone.numpy())


@methods(xgrad_cam, layer_cam, grad_cam_plus_plus, eigen_cam, eigen_grad_cam)
@some
@given(MODELS, X, st.data())
def test_permuting_channels_changes_nothing(method: Method, model: SmallModel, x: Tensor, data: st.DataObject) -> None:
    """Row 12."""
    assume("eigen" not in method.__name__ or is_told_apart(model, x))
    order = data.draw(st.permutations(range(model.channels[-1])))
    other = rewired(model.build().double(), order)
    assert_agree(method(*captured(other, x.double(), 0)).numpy(), raws(method, model, x))


@methods(xgrad_cam, layer_cam, grad_cam_plus_plus, eigen_grad_cam)
@some
@given(MODELS, X, st.data())
def test_scaling_channels_against_their_outgoing_weights_changes_nothing(
    method: Method, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 13, Grad-CAM++ too: G ΣA stays."""
    assume(method is not eigen_grad_cam or is_told_apart(model, x))
    channels = model.channels[-1]
    factors = data.draw(st.lists(st.floats(0.1, 10.0), min_size=channels, max_size=channels))
    other = rewired(model.build().double(), range(channels), factors, [1 / a for a in factors])
    assert_agree(method(*captured(other, x.double(), 0)).numpy(), raws(method, model, x))


@methods(xgrad_cam, layer_cam)
@some
@given(MODELS, X, st.data())
def test_a_channel_in_two_halves_changes_nothing(
    method: Method, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 14, on every head that begins linearly."""
    k = data.draw(st.integers(0, model.channels[-1] - 1))
    other = _in_two_halves(model, k)
    assert_agree(method(*captured(other, x.double(), 0)).numpy(), raws(method, model, x))


def _in_two_halves(model: SmallModel, k: int) -> SmallNet:
    index = [*range(model.channels[-1]), k]
    return rewired(model.build().double(), index, outgoing=[0.5 if i == k else 1.0 for i in index])


@methods(grad_cam_plus_plus, eigen_grad_cam)
def test_a_channel_in_two_halves_is_something_else(method: Method) -> None:
    """Negative control of row 14: a channel's vote is not linear in its gradient."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        model, x = drawn
        halved = method(*captured(_in_two_halves(model, 0), x.double(), 0)).numpy()
        whole = raws(method, model, x)
        return bool(whole.max() > 0) and not agree(halved, whole)

    counterexample(st.tuples(small_models(size=SIZE, channels=(3,)), X), differ)


def test_eigen_cam_knows_the_scale_of_its_channels() -> None:
    """Negative control of row 13: EigenCAM reads the activations alone, whatever is made of them after."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        model, x = drawn
        other = rewired(model.build().double(), range(3), [10.0, 1.0, 1.0], [0.1, 1.0, 1.0])
        return not agree(eigen_cam(*captured(other, x.double(), 0)).numpy(), raws(eigen_cam, model, x))

    counterexample(st.tuples(small_models(size=SIZE, channels=(3,)), X), differ)


@some
@given(MODELS, X, st.floats(-10, 10), st.floats(-10, 10))
def test_xgrad_cam_is_linear_in_the_class_scores(model: SmallModel, x: Tensor, a: float, b: float) -> None:
    """Row 15, XGrad-CAM: its weights are a mean of the gradient."""
    mixed = raws(xgrad_cam, model, x, lambda output: a * output[0, 0] + b * output[0, 1])
    first, second = a * raws(xgrad_cam, model, x, 0), b * raws(xgrad_cam, model, x, 1)
    activations, gradients = captured(model.build().double(), x.double(), 0)
    terms = max(abs(a), abs(b)) * float(xgrad_cam(activations, gradients.abs()).max())
    assert_agree(mixed, first + second, max(terms, float(np.abs(first).max() + np.abs(second).max())))


@methods(xgrad_cam, eigen_grad_cam)
@DTYPES
@some
@given(MODELS, X)
def test_a_negated_score_negates_the_raw_cam(method: Method, dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 16: exactly."""
    negated = raws(method, model, x, scaled(-1.0), dtype)
    np.testing.assert_array_equal(negated, -raws(method, model, x, 0, dtype))


@methods(layer_cam, grad_cam_plus_plus, eigen_cam)
def test_a_negated_score_is_something_else(method: Method) -> None:
    """Negative control of row 16: what reads the positive part of the gradient, or none of it."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        one, negated = raws(method, *drawn), raws(method, *drawn, scaled(-1.0))
        return bool(one.any()) and not agree(negated, -one)

    counterexample(st.tuples(MODELS, X), differ)


@DTYPES
@some
@given(small_models(size=SIZE, head=st.sampled_from(GAP_HEADS)), X)
def test_layer_cam_is_hirescam_and_grad_cam_where_no_gradient_is_negative(
    dtype: torch.dtype, model: SmallModel, x: Tensor
) -> None:
    """Row 20, GAP+linear, and other heads behind GAP, with weights ≥ 0."""
    net = model.build().to(dtype)
    with torch.no_grad():
        for name, parameter in net.head.named_parameters():
            if name.endswith("weight"):
                parameter.abs_()
    a, g = captured(net, x.to(dtype), 0)
    assert (g >= 0).all()
    for method in (hirescam, grad_cam):
        assert_agree(layer_cam(a, g).numpy(), method(a, g).numpy())


def test_layer_cam_is_not_hirescam_where_a_gradient_is_negative() -> None:
    """Negative control of row 20."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        return not agree(raws(layer_cam, *drawn), raws(hirescam, *drawn))

    counterexample(st.tuples(small_models(size=SIZE, head="gap-linear"), X), differ)


@DTYPES
@some
@given(MODELS, X)
def test_layer_cam_is_no_less_than_the_positive_part_of_hirescam(
    dtype: torch.dtype, model: SmallModel, x: Tensor
) -> None:
    """Row 21, A ≥ 0, cell by cell."""
    a, g = captured(model.build().to(dtype), x.to(dtype), 0)
    rounding = 8 * torch.finfo(dtype).eps * hirescam(a, g.abs())
    assert (layer_cam(a, g) + rounding >= hirescam(a, g).relu()).all()


def test_layer_cam_may_be_less_where_activations_are_negative() -> None:
    """Negative control of row 21: A = G = -1 speaks for the class, and LayerCAM does not hear it."""
    a = -torch.ones(1, 1, 1, 1)
    assert (float(layer_cam(a, a)), float(hirescam(a, a))) == (0, 1)


@methods(xgrad_cam, layer_cam, grad_cam_plus_plus, eigen_grad_cam)
@some
@given(small_models(size=SIZE, head="gap-linear"), X)
def test_weights_below_zero_are_no_evidence(method: Method, model: SmallModel, x: Tensor) -> None:
    """Row 29, GAP+linear, A ≥ 0: nowhere is the raw CAM positive."""
    net = model.build().double()
    with torch.no_grad():
        first_weights(net)[0].abs_().neg_()
    raw = method(*captured(net, x.double(), 0))
    assert raw.max() <= 1e-13 * raw.abs().max()


@some
@given(small_models(size=SIZE, head="gap-linear"), X)
def test_eigen_cam_is_evidence_where_there_is_none(model: SmallModel, x: Tensor) -> None:
    """Negative control of row 29: EigenCAM is the same for a class that every channel speaks against."""
    net = model.build().double()
    before = raws(eigen_cam, model, x)
    with torch.no_grad():
        first_weights(net)[0].abs_().neg_()
    np.testing.assert_array_equal(eigen_cam(*captured(net, x.double(), 0)).numpy(), before)
