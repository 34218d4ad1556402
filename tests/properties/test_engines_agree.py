"""The hooks engine, the split engine and plain autograd give one map: row 22 of the CAM facts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import example, given, strategies as st
from torch import Tensor, nn

from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import Array, agree, assert_agree, counterexample, every_method, explained, some

SIZE = (8, 8)
X = model_inputs(batch=2, size=SIZE)


@st.composite
def models_and_layers(draw: st.DrawFn) -> tuple[SmallModel, str]:
    """A model and the name of a layer with a grid: after a ReLU, or before one that may write over it."""
    model = draw(small_models(size=SIZE))
    stage = f"stages.{draw(st.integers(0, len(model.channels) - 1))}"
    inner = [f"{stage}.conv", *([f"{stage}.norm"] if model.norm else []), stage, "stages"]
    return model, draw(st.sampled_from(inner))


def plainly(net: nn.Module, layer: str, x: Tensor, method: str) -> Array:
    """Raw CAM of class 0 from the tensor that the layer returned, as it is after the forward, and its gradient."""
    outputs: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    score = net(x)[:, 0].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0])
    raw: Array = METHODS[method].raw(outputs[0].detach(), gradient).numpy()
    return raw


@every_method
@some
@given(models_and_layers(), X)
def test_the_engines_give_one_map(method: str, drawn: tuple[SmallModel, str], x: Tensor) -> None:
    """Row 22, any layer, ReLU as a module or a function, in place or not: raw CAM, CAM and score are equal, exactly."""
    model, layer = drawn
    net = model.build()
    hooked = explained(net, x, 0, method, layer=layer, engine="hooks")
    split = explained(net, x, 0, method, layer=layer, engine="split")
    for one, other in zip(hooked, split, strict=True):
        np.testing.assert_array_equal(one.raw, other.raw)
        np.testing.assert_array_equal(one.cam, other.cam)
        assert (one.score, one.evidence, one.layer, one.grid) == (other.score, other.evidence, other.layer, other.grid)


@some
@given(small_models(size=st.tuples(st.integers(6, 16), st.integers(6, 16))))
@example(SmallModel(size=(6, 10), channels=(1, 2), kernel=2, padding=0))
def test_the_grid_is_the_convolutions(model: SmallModel) -> None:
    """What all rows rest on: a convolution's output is read as NCHW, also where NHWC would fit the image better."""
    x = torch.zeros(1, model.in_channels, *model.size)
    (found,) = explained(model.build(), x, 0)
    assert found.grid == found.raw.shape == model.grid


@every_method
@some
@given(small_models(size=SIZE), X)
def test_a_pair_gives_the_map_of_its_model(method: str, model: SmallModel, x: Tensor) -> None:
    """Row 22, the user's own cut into features and head."""
    net = model.build()
    whole = explained(net, x, 0, method)
    pair = explained((net.stages, net.head), x, 0, method, layer=None, engine="split")
    for one, other in zip(whole, pair, strict=True):
        np.testing.assert_array_equal(one.raw, other.raw)


@every_method
@some
@given(models_and_layers(), X, st.sampled_from(["hooks", "split"]))
def test_an_engine_gives_what_plain_autograd_gives(
    method: str, drawn: tuple[SmallModel, str], x: Tensor, engine: str
) -> None:
    """Row 22: a ReLU that works in place after the layer gives the map that one which does not would give."""
    model, layer = drawn
    expected = plainly(replace(model, activation="functional").build(), layer, x, method)
    found = explained(model.build(), x, 0, method, layer=layer, engine=engine)
    assert_agree(np.stack([explanation.raw for explanation in found]), expected)


def test_plain_hooks_are_misled_by_in_place_operations() -> None:
    """Negative control of row 22: what a hook merely keeps is overwritten by the in-place ReLU that follows.

    With Grad-CAM: HiResCAM does not see it, as the gradient is 0 wherever the ReLU has written.
    """

    def misled(drawn: tuple[SmallModel, Tensor]) -> bool:
        model, x = drawn
        right = plainly(replace(model, activation="functional").build(), "stages.0.conv", x, "grad-cam")
        return not agree(plainly(model.build(), "stages.0.conv", x, "grad-cam"), right)

    in_place = st.sampled_from(["module in-place", "functional in-place"])
    counterexample(st.tuples(small_models(size=SIZE, norm=False, activation=in_place), X), misled)
