"""A method of the user's own: what it is given, what it may give, and what it may not leave behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    Gradcam,
    ModelTypeError,
    NonFiniteError,
    SettingsError,
    ZeroEvidenceWarning,
    explain,
    explain_batch,
    explain_classes,
)
from tests.models import apart, coloured, picture, reads_colours, small

SIDE = 32


def ramp(model: nn.Module, x: Tensor, target: Any) -> Any:
    """A map that says which class was asked for."""
    return torch.arange(16.0).view(4, 4) + target


def saliency(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """Simonyan et al., 2014: the gradient's largest magnitude over the colours, by a plain backward."""
    x.requires_grad_()
    model(x)[0, target].backward()
    assert x.grad is not None
    return x.grad.abs().amax(1)


class TestWhatItIsGiven:
    def test_is_the_model_in_eval_mode_the_input_and_the_class_index(self) -> None:
        given: list[Any] = []

        def method(model: nn.Module, x: Tensor, target: Any) -> Any:
            given.append((model, model.training, x, target, torch.is_grad_enabled()))
            return np.ones((2, 2))

        model, image = small().train(), picture(SIDE, SIDE)
        explain(nn.DataParallel(model), image, "b", method=method, labels=["a", "b", "c", "d"])
        ((inner, training, x, target, gradients),) = given
        assert inner is model
        assert (training, target, gradients) == (False, 1, True)
        assert torch.equal(x, image)
        assert x.data_ptr() != image.data_ptr()

    def test_is_the_predicted_class_for_none(self) -> None:
        model, x = small(), picture(SIDE, SIDE)
        got = explain(model, x, None, method=ramp)
        with torch.no_grad():
            predicted = int(model(x).argmax())
        assert got.cls == predicted
        assert got.raw[0, 0] == predicted

    def test_is_the_callable_where_one_is_asked_for(self) -> None:
        def score(output: Any) -> Any:
            return output[0, 0] - output[0, 1]

        got = explain(small(), picture(SIDE, SIDE), score, method=lambda m, x, target: np.full((2, 2), target is score))
        assert got.raw.tolist() == [[1, 1], [1, 1]]
        assert got.cls is None

    def test_is_each_image_of_a_batch_with_its_class(self) -> None:
        x = picture(SIDE, SIDE, count=2)
        maps = explain_batch(small(), x, [3, 0], method=lambda m, x, target: x[0, :1] + target)
        assert np.allclose(maps[0].raw, x[0, 0] + 3) and np.allclose(maps[1].raw, x[1, 0])

    def test_is_each_class_of_an_image(self) -> None:
        maps = explain_classes(small(), picture(SIDE, SIDE), method=ramp)
        assert [e.raw[0, 0] for e in maps] == [0, 1, 2, 3]


class TestTheExplanation:
    def test_says_whose_map_it_is_and_what_the_model_says(self) -> None:
        model, x = small(), picture(SIDE, SIDE)
        got, ours = explain(model, x, 1, method=ramp), explain(model, x, 1)
        assert (got.method, got.layer, got.engine, got.grid) == ("ramp", "its own", "its own", (4, 4))
        assert (got.score, got.probability, got.predicted) == (ours.score, ours.probability, ours.predicted)
        assert got.evidence == np.maximum(got.raw, 0).sum()

    def test_names_a_callable_object_by_its_type(self) -> None:
        assert explain(small(), picture(SIDE, SIDE), 1, method=partial(ramp)).method == "partial"

    def test_keeps_a_map_that_the_method_changes_later(self) -> None:
        held = torch.ones(4, 4)
        got = explain(small(), picture(SIDE, SIDE), 1, method=lambda *_: held)
        held.zero_()
        assert got.raw.all()

    def test_of_a_map_without_evidence_warns(self) -> None:
        with pytest.warns(ZeroEvidenceWarning):
            assert explain(small(), picture(SIDE, SIDE), 1, method=lambda *_: -torch.ones(3, 3)).evidence == 0

    @pytest.mark.parametrize(
        "made",
        [
            torch.ones(5, 7),
            torch.ones(1, 5, 7, dtype=torch.bfloat16),
            torch.ones(1, 1, 5, 7, requires_grad=True),
            np.ones((5, 7), np.float16),
            np.ones((5, 7), bool),
        ],
        ids=lambda made: f"{tuple(made.shape)} {made.dtype}",
    )
    def test_takes_tensors_and_arrays_with_and_without_a_batch(self, made: Any) -> None:
        assert explain(small(), picture(SIDE, SIDE), 1, method=lambda *_: made).raw.tolist() == [[1.0] * 7] * 5

    def test_may_be_as_large_as_the_input(self) -> None:
        assert explain(small(), picture(SIDE, SIDE), 1, method=saliency).grid == (SIDE, SIDE)


class TestRefusals:
    @pytest.mark.parametrize(
        ("made", "message"),
        [
            (None, "gave a NoneType: give a map (h, w) of numbers, no larger than the input, 32×32, as a tensor"),
            ([[1.0]], "gave a list: give a map"),
            (torch.ones(4), "gave the shape (4,): give a map"),
            (torch.ones(2, 4, 4), "gave the shape (2, 4, 4): give a map"),
            (torch.ones(33, 4), "gave the shape (33, 4): give a map"),
            (
                torch.ones(1, 2),
                "gave the shape (1, 2): give a map (h, w) of numbers, no larger than the input, 32×32 and",
            ),
            (torch.ones(0, 4), "gave the shape (0, 4): give a map"),
            (np.ones((4, 4), complex), "gave complex128: give a map"),
            (np.full((4, 4), "a"), "gave <U1: give a map"),
        ],
        ids=str,
    )
    def test_of_what_is_no_map(self, made: Any, message: str) -> None:
        def method(*_: Any) -> Any:
            return made

        with pytest.raises(SettingsError) as raised:
            explain(small(), picture(SIDE, SIDE), 1, method=method)
        assert str(raised.value).startswith(f"method method {message}")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
    def test_of_what_is_not_finite(self, bad: float) -> None:
        made = torch.ones(4, 4, dtype=torch.float64)
        made[1, 2] = bad
        with pytest.raises(NonFiniteError, match="gave a map with NaN or infinity in it"):
            explain(small(), picture(SIDE, SIDE), 1, method=lambda *_: made)

    def test_of_a_layer_beside_it(self) -> None:
        with pytest.raises(SettingsError, match="method 'ramp' reads what it chooses itself, so layer cannot be given"):
            explain(small(), picture(SIDE, SIDE), 1, method=ramp, layer="relu2")

    def test_of_a_pair(self) -> None:
        model: Any = small()
        with pytest.raises(ModelTypeError, match="pass the whole model to your own"):
            explain((model[:5], model[5:]), picture(SIDE, SIDE), 1, method=ramp, engine="split")

    def test_what_it_raises_passes_unchanged(self) -> None:
        with pytest.raises(ZeroDivisionError):
            explain(small(), picture(SIDE, SIDE), 1, method=lambda *_: 1 / 0)


def raises(model: nn.Module, x: Tensor, target: int) -> Any:
    messes(model, x, target)
    raise KeyError("no map")


def messes(model: nn.Module, x: Tensor, target: int) -> Any:
    """Everything that a method may do and forget to undo."""
    model.train()
    model(x).sum().backward()
    model.requires_grad_(False)
    model.zero_grad()
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    model.note = torch.randn(3)
    x.zero_()
    torch.set_grad_enabled(False)
    return np.random.rand(4, 4) + random.random()


class TestWhatItLeavesBehind:
    @pytest.mark.parametrize("method", [messes, saliency, raises])
    def test_nothing(self, method: Callable[..., Any]) -> None:
        model, x = small(), picture(SIDE, SIDE)
        model(x).sum().backward()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        grads = [(p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
        rng, numpys, pythons, image = torch.get_rng_state(), np.random.get_state(), random.getstate(), x.clone()
        try:
            explain(model, x, 1, method=method)
        except KeyError:
            assert method is raises
        assert not any(m.training or m._forward_hooks for m in model.modules())
        assert all(p.requires_grad for p in model.parameters())
        for p, (grad, value) in zip(model.parameters(), grads, strict=True):
            assert p.grad is grad and torch.equal(grad, value)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), rng) and random.getstate() == pythons
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpys, strict=True))
        assert torch.equal(x, image) and torch.is_grad_enabled() and not hasattr(model, "note")

    def test_and_two_maps_that_draw_random_numbers_are_one(self) -> None:
        def smooth(model: nn.Module, x: Tensor, target: int) -> Tensor:
            return sum(saliency(model, (x + 0.1 * torch.randn_like(x)).detach(), target) for _ in range(3))  # type: ignore[return-value]

        one, other = (explain(small(), picture(SIDE, SIDE), 1, method=smooth).raw for _ in range(2))
        assert np.array_equal(one, other)


def test_is_the_papers_saliency_map() -> None:
    """Of a method that differentiates: against plain autograd."""
    model, x = small(), picture(SIDE, SIDE)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[0, 1], leaf)
    assert apart(explain(model, x, 1, method=saliency).raw, gradient[0].abs().amax(0).numpy()) <= 1e-6


def test_stands_behind_an_assertion(gradcam: Gradcam) -> None:
    x = coloured((0, (0, 0, 32, 32)))
    verdict = gradcam.assert_attention_in_region(
        reads_colours(), x, (0, 0, 32, 32), 0, method=lambda m, x, target: x[0, 0] * (target == 0)
    )
    assert verdict.passed
