"""What the head makes of a map: rows 1, 2, 4, 5, 7, 28 and 29 of the CAM facts, for Grad-CAM and HiResCAM.

Rows 3 and 6 are about XGrad-CAM, 20 and 21 about LayerCAM, which are not registered.
"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import (
    GAP_HEADS,
    agree,
    assert_agree,
    captured,
    counterexample,
    every_method,
    every_way,
    explained,
    first_weights,
    logits,
    raw_cams,
    rewired,
    some,
    term_size,
)

SIZE = (8, 8)
X = model_inputs(batch=2, size=SIZE)


@every_way
@some
@given(small_models(size=SIZE, head="gap-linear"), X)
def test_grad_cam_is_the_first_cam_up_to_the_number_of_cells(dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 1, GAP+linear: Z · Grad-CAM raw = Σ_k W[c, k] A_k (Zhou et al., 2016)."""
    net, x = model.build().to(dtype), x.to(dtype)
    h, w = model.grid
    with torch.no_grad():
        activations = net.stages(x)
    for c in range(model.classes):
        expected = torch.einsum("k,nkij->nij", first_weights(net)[c].detach(), activations)
        assert_agree(h * w * raw_cams(net, x, c, "grad-cam"), expected.numpy())


@every_way
@some
@given(small_models(size=SIZE, head=st.sampled_from(GAP_HEADS)), X)
def test_hirescam_is_grad_cam_after_pooling(dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 2, GAP+linear and GAP+MLP, and a 1×1 convolution before GAP: the two methods give one map."""
    net, x = model.build().to(dtype), x.to(dtype)
    assert_agree(raw_cams(net, x, 0, "hirescam"), raw_cams(net, x, 0, "grad-cam"))


@every_way
def test_hirescam_is_not_grad_cam_where_the_head_knows_places(dtype: torch.dtype) -> None:
    """Negative control of row 2: flatten + MLP."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        net, x = drawn[0].build().to(dtype), drawn[1].to(dtype)
        return not agree(raw_cams(net, x, 0, "hirescam"), raw_cams(net, x, 0, "grad-cam"))

    counterexample(st.tuples(small_models(size=SIZE, head="flatten-mlp"), X), differ)


@every_way
@some
@given(small_models(size=SIZE, head=st.sampled_from(["gap-linear", "flatten-linear", "conv"])), X)
def test_hirescam_and_bias_add_up_to_the_logit(dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 4, a linear head on GAP or flatten: Σ HiResCAM raw + bias = logit."""
    net, x = model.build().to(dtype), x.to(dtype)
    readout = next(module for module in net.head if isinstance(module, nn.Conv2d | nn.Linear))
    for c in range(model.classes):
        raw = raw_cams(net, x, c, "hirescam")
        bias = 0.0 if readout.bias is None else float(readout.bias[c].detach())
        assert_agree(raw.sum(axis=(1, 2)) + raw.dtype.type(bias), logits(net, x)[:, c], term_size(net, x))


@every_way
@some
@given(small_models(size=SIZE, head=st.sampled_from(["gap-mlp", "flatten-mlp"]), head_bias=False), X)
def test_hirescam_adds_up_to_the_logit_without_bias(dtype: torch.dtype, model: SmallModel, x: Tensor) -> None:
    """Row 5, a bias-free ReLU head: Σ HiResCAM raw = logit."""
    net, x = model.build().to(dtype), x.to(dtype)
    for c in range(model.classes):
        raw = raw_cams(net, x, c, "hirescam")
        assert_agree(raw.sum(axis=(1, 2)), logits(net, x)[:, c], term_size(net, x))


@some
@given(small_models(size=SIZE, channels=(3, 4), bias=False, norm=False, head="gap-mlp", head_bias=False), X)
def test_a_whole_tail_without_bias_is_such_a_head(model: SmallModel, x: Tensor) -> None:
    """Row 5 at an earlier layer: convolution, ReLU, GAP and MLP are one bias-free ReLU head."""
    net = model.build()
    found = explained(net, x, 0, "hirescam", layer="stages.0")
    for explanation, logit in zip(found, logits(net, x)[:, 0], strict=True):
        assert_agree(explanation.raw.sum(), logit, float(np.abs(explanation.raw).sum()))


@every_method
@every_way
@some
@given(small_models(size=SIZE, channels=st.sampled_from([(2,), (3, 4)]), head="gap-linear"), X, st.data())
def test_a_channels_map_adds_up_to_what_its_ablation_costs(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 7, GAP+linear: the score's drop without channel k = w_k · mean A_k = the sum of its part of the raw CAM."""
    net, x = model.build().to(dtype), x.to(dtype)
    channels = model.channels[-1]
    k = data.draw(st.integers(0, channels - 1))
    with torch.no_grad():
        activations = net.stages(x)
        ablated = activations.clone()
        ablated[:, k] = 0
        drop = (net.head(activations) - net.head(ablated))[:, 0].numpy()
    only_k = rewired(net, range(channels), outgoing=[float(i == k) for i in range(channels)])
    total = raw_cams(only_k, x, 0, method).sum(axis=(1, 2))
    scale = float(np.abs(logits(net, x)).max())
    tolerance = 3e-5 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(total, drop, rtol=tolerance, atol=tolerance * scale)
    weighted = first_weights(net)[0, k].item() * activations[:, k].mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(total, weighted, rtol=tolerance, atol=tolerance * scale)


@every_method
@some
@given(small_models(size=SIZE, head="gap-linear"), X, st.sampled_from([None, "stages"]))
def test_a_zero_row_of_weights_is_zero_evidence(method: str, model: SmallModel, x: Tensor, layer: str | None) -> None:
    """Row 28, GAP+linear: a class that no channel speaks for has no map, whatever its bias."""
    net = model.build()
    with torch.no_grad():
        first_weights(net)[1] = 0
    for explanation in explained(net, x, 1, method, layer=layer):
        assert explanation.evidence == 0
        assert not explanation.raw.any()
        assert not explanation.cam.any()


@every_method
@some
@given(small_models(size=SIZE, head="gap-linear"), X)
def test_weights_below_zero_are_zero_evidence(method: str, model: SmallModel, x: Tensor) -> None:
    """Row 29, GAP+linear, A ≥ 0: a class that every channel speaks against has a raw CAM ≤ 0 and no map."""
    net = model.build()
    with torch.no_grad():
        first_weights(net)[0].abs_().neg_()
    for explanation in explained(net, x, 0, method):
        assert explanation.evidence == 0
        assert explanation.raw.max() <= 0
        assert not explanation.cam.any()


@every_method
@some
@given(small_models(size=SIZE, head=st.sampled_from(["gap-linear", "flatten-linear"])), X, st.data())
def test_channels_that_cancel_are_zero_evidence(method: str, model: SmallModel, x: Tensor, data: st.DataObject) -> None:
    """Row 28 up to rounding: where each channel meets its negative, what is left over is no map."""
    net = model.build()
    channels = model.channels[-1]
    gains = data.draw(st.lists(st.floats(0.1, 10.0), min_size=channels, max_size=channels))
    cancelling = rewired(
        net,
        [*range(channels), *range(channels)],
        incoming=[*[1.0] * channels, *gains],
        outgoing=[*[1.0] * channels, *[-1 / gain for gain in gains]],
    )
    for explanation in explained(cancelling, x, 0, method):
        assert explanation.evidence == 0
        assert not explanation.cam.any()


@every_method
@some
@given(small_models(size=SIZE, channels=(1,), head="gap-linear"), X)
def test_channels_that_almost_cancel_are_not(method: str, model: SmallModel, x: Tensor) -> None:
    """Negative control of the row above: what is small, but more than rounding, is a map."""
    left = 2.0**-16
    alone = explained(model.build(), x, 0, method)
    almost = explained(rewired(model.build(), [0, 0], outgoing=[1.0, left - 1.0]), x, 0, method)
    for one, other in zip(alone, almost, strict=True):
        np.testing.assert_allclose(other.evidence, left * one.evidence, rtol=0.1)
        np.testing.assert_allclose(other.cam, one.cam, atol=0.1)


def test_the_gradient_of_the_oracle_is_the_weight_over_the_number_of_cells() -> None:
    """What the float64 rows rest on: after GAP, dS_c/dA_k is W[c, k] / Z in every cell."""
    model = SmallModel(head="gap-linear")
    net = model.build().double()
    _, gradients = captured(net, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double(), 2)
    expected = (first_weights(net)[2].detach() / 64)[None, :, None, None].expand(2, 4, 8, 8)
    assert_agree(gradients.numpy(), expected.numpy())
