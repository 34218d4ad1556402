"""What does not matter: who else is in the batch, and how channels are written down. Rows 10 to 14 of the CAM facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from pytest_gradcam import explain_classes
from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import (
    TARGET,
    agree,
    assert_agree,
    counterexample,
    every_method,
    every_way,
    explained,
    raw_cams,
    rewired,
    some,
)

SIZE = (8, 8)
BATCH = 4
MODELS = small_models(size=SIZE)
X = model_inputs(batch=BATCH, size=SIZE)


@every_method
@every_way
@some
@given(MODELS, X)
def test_a_batch_gives_what_its_images_give_alone(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor
) -> None:
    """Row 10, eval mode."""
    net, x = model.build().to(dtype), x.to(dtype)
    alone = np.concatenate([raw_cams(net, x[i : i + 1], 0, method) for i in range(BATCH)])
    assert_agree(raw_cams(net, x, 0, method), alone)


@every_method
@some
@given(small_models(size=SIZE, norm=True), X)
def test_a_batch_gives_the_same_from_a_model_left_in_train_mode(method: str, model: SmallModel, x: Tensor) -> None:
    """Row 10 through `explain`, which explains what the model does in eval mode, whatever mode it is in."""
    alone = np.concatenate([raw_cams(model.build(), x[i : i + 1], 0, method) for i in range(BATCH)])
    net = model.build()
    net.train()
    assert_agree(np.stack([explanation.raw for explanation in explained(net, x, 0, method)]), alone)
    assert net.training


@every_method
def test_in_train_mode_a_batch_gives_something_else(method: str) -> None:
    """Negative control of row 10: BatchNorm in train mode mixes the images of a batch."""

    def differ(drawn: tuple[SmallModel, Tensor]) -> bool:
        model, x = drawn[0], drawn[1].double()
        net = model.build().double()
        net.train()
        together = raw_cams(net, x, 0, method)
        alone = np.concatenate([raw_cams(net, x[i : i + 1], 0, method) for i in range(BATCH)])
        return not agree(together, alone)

    counterexample(st.tuples(small_models(size=SIZE, norm=True), X), differ)


@every_method
@every_way
@some
@given(MODELS, X, st.permutations(range(BATCH)))
def test_permuting_the_batch_permutes_the_maps(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, order: list[int]
) -> None:
    """Row 11, eval mode: exactly."""
    net, x = model.build().to(dtype), x.to(dtype)
    np.testing.assert_array_equal(raw_cams(net, x[order], 0, method), raw_cams(net, x, 0, method)[order])


@pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")
@every_method
@some
@given(MODELS, model_inputs(size=SIZE))
def test_all_classes_together_give_what_each_gives_alone(method: str, model: SmallModel, x: Tensor) -> None:
    """Row 10 for the classes of one image, which `explain_classes` takes from one forward."""
    net = model.build()
    together = explain_classes(net, x, method=method, layer=TARGET, device="cpu")
    alone = [explained(net, x, c, method)[0] for c in range(model.classes)]
    assert [found.cls for found in together] == list(range(model.classes))
    for one, other in zip(together, alone, strict=True):
        assert_agree(one.raw, other.raw)
        assert (one.score, one.probability) == (other.score, other.probability)


@every_method
@every_way
@some
@given(MODELS, X, st.data())
def test_permuting_channels_changes_nothing(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 12: the channels of the target layer in another order, with the weights after them."""
    net, x = model.build().to(dtype), x.to(dtype)
    order = data.draw(st.permutations(range(model.channels[-1])))
    assert_agree(raw_cams(rewired(net, order), x, 0, method), raw_cams(net, x, 0, method))


@every_method
@every_way
@some
@given(MODELS, X, st.data())
def test_scaling_channels_against_their_outgoing_weights_changes_nothing(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 13, ReLU: A_k scaled by a > 0 and the weights that it goes into by 1/a."""
    net, x = model.build().to(dtype), x.to(dtype)
    channels = model.channels[-1]
    factors = data.draw(st.lists(st.floats(0.1, 10.0), min_size=channels, max_size=channels))
    other = rewired(net, range(channels), incoming=factors, outgoing=[1 / a for a in factors])
    assert_agree(raw_cams(other, x, 0, method), raw_cams(net, x, 0, method))


@every_method
@every_way
@some
@given(MODELS, X, st.data())
def test_a_channel_in_two_halves_changes_nothing(
    dtype: torch.dtype, method: str, model: SmallModel, x: Tensor, data: st.DataObject
) -> None:
    """Row 14: a channel duplicated and its weights halved; on GAP+linear, and on every head that begins linearly."""
    net, x = model.build().to(dtype), x.to(dtype)
    channels = model.channels[-1]
    k = data.draw(st.integers(0, channels - 1))
    index = [*range(channels), k]
    other = rewired(net, index, outgoing=[0.5 if i == k else 1.0 for i in index])
    assert_agree(raw_cams(other, x, 0, method), raw_cams(net, x, 0, method))
