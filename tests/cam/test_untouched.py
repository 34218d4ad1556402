"""The model, the generators and torch's modes are afterwards what they were, whatever happened in between."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import GradcamError, ModelError, explain, explain_batch, explain_classes
from tests.models import picture, seeded, small

HOOK_TABLES = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs"))]


class Lively(nn.Module):
    """Batch norms, dropout, buffers and a parameter that two modules share; a user's hand in every one of its states.

    `trouble` is called with the name of the place that the forward has come to: `start`, `middle`, `head`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.frozen = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)
        self.twin = nn.Linear(8, 4)
        self.register_buffer("scale", torch.tensor([2.0]))
        self.register_buffer("unsaved", torch.arange(5), persistent=False)
        self.register_buffer("empty", None)
        self.trouble: Callable[[str], None] = lambda place: None
        self.twin.weight = self.fc.weight
        seeded(self, 6)  # a seed for which every class has evidence
        self.train()
        self.frozen.eval()
        self.body[1].eval()
        self.stem.requires_grad_(False)
        self.fc.weight.grad = torch.full_like(self.fc.weight, 3.0)
        self.bn1.weight.grad = torch.zeros_like(self.bn1.weight)

    def forward(self, x: Tensor) -> Tensor:
        self.trouble("start")
        x = self.body(self.bn1(self.stem(x)).relu()) * self.scale
        self.trouble("middle")
        x = self.drop(self.frozen(x).mean((2, 3)))
        self.trouble("head")
        logits: Tensor = self.fc(x) + self.twin(x)
        return logits


def plain(tensor: Tensor | None) -> object:
    """A tensor as values that compare: which one it is, where it lies and what it holds."""
    if tensor is None:
        return None
    held = tensor.detach().clone().contiguous().view(-1)
    return id(tensor), tensor.data_ptr(), str(tensor.device), tensor.dtype, tuple(tensor.shape), held.tolist()


def state(model: nn.Module) -> dict[str, object]:
    """Everything that must be afterwards what it was, by name."""
    kept: dict[str, object] = {
        "torch rng": torch.get_rng_state().tolist(),
        "numpy rng": [np.asarray(part).tolist() for part in np.random.get_state()],
        "python rng": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "autocast cache": torch.is_autocast_cache_enabled(),
    }
    for name, module in model.named_modules():
        kept[f"{name}: training"] = module.training
        kept[f"{name}: compiled"] = module._compiled_call_impl
        kept[f"{name}: hooks"] = {table: list(getattr(module, table).items()) for table in HOOK_TABLES}
        kept[f"{name}: attributes"] = sorted(vars(module))
        for key, parameter in module._parameters.items():
            kept[f"{name}.{key}"] = plain(parameter)
            if parameter is not None:
                kept[f"{name}.{key}: requires_grad"] = parameter.requires_grad
                kept[f"{name}.{key}: grad"] = plain(parameter.grad)
        for key, buffer in module._buffers.items():
            kept[f"{name}.{key}"] = plain(buffer)
    return kept


def hooked(model: nn.Module) -> list[str]:
    """Give the model hooks of a user's, of every kind; returns the list that they write their names to."""
    fired: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            fired.append(name)

        return hook

    for name, module in model.named_modules():
        module.register_forward_pre_hook(note(f"{name}: before"))
        module.register_forward_hook(note(f"{name}: after"))
    model.get_submodule("fc").register_full_backward_hook(note("backward"))
    return fired


CONTEXTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def call_explain(model: Any, engine: str, cls: Any) -> Any:
    return explain(model, picture(32, 32), cls, engine=engine)


def call_explain_batch(model: Any, engine: str, cls: Any) -> Any:
    return explain_batch(model, picture(32, 32, count=3), cls, engine=engine)


def call_explain_classes(model: Any, engine: str, cls: Any) -> Any:
    return explain_classes(model, picture(32, 32), [cls, 0, 1], engine=engine)


def call_on_another_device(model: Any, engine: str, cls: Any) -> Any:
    """`cpu:0` is not the name that the model's own tensors give: they are moved there and back, on any machine."""
    return explain(model, picture(32, 32), cls, engine=engine, device="cpu:0")


CALLS = [call_explain, call_explain_batch, call_explain_classes, call_on_another_device]
calls = pytest.mark.parametrize("call", CALLS)
engines = pytest.mark.parametrize("engine", ["hooks", "split"])
contexts = pytest.mark.parametrize("context", CONTEXTS)


@calls
@engines
@contexts
class TestNormalRuns:
    """Nothing is left behind by a run that gives maps."""

    def test_all_is_as_it_was(self, call: Callable[..., Any], engine: str, context: str) -> None:
        model = Lively()
        fired = hooked(model)
        with CONTEXTS[context]():
            before = state(model)
            assert call(model, engine, 2)
            assert state(model) == before
        fired.clear()
        model(picture(32, 32, count=2)).sum().backward()
        assert {f"{name}: after" for name, _ in model.named_modules()} - {"twin: after"} <= set(fired)
        assert "backward" in fired

    def test_a_second_call_too(self, call: Callable[..., Any], engine: str, context: str) -> None:
        """The first finds the layer, the second remembers it: they take different ways."""
        model = Lively().eval()
        call(model, engine, 2)
        with CONTEXTS[context]():
            before = state(model)
            call(model, engine, 2)
            assert state(model) == before


@pytest.fixture(autouse=True)
def _autocast_caches() -> None:
    """As it does by default: a test that left it off would hide the next one that does."""
    torch.set_autocast_cache_enabled(True)


class Raised(Exception):
    """What goes wrong in the user's own code."""


def fail(*_: object) -> Any:
    raise Raised


def fail_at(model: Lively, place: str) -> Any:
    """Make the model, or the score, raise at a place; returns the class to ask for."""
    if place == "score":
        return fail
    if place == "hook":
        model.body.register_forward_hook(fail)
    elif place == "pre-hook":
        model.fc.register_forward_pre_hook(fail)
    else:
        model.trouble = lambda here: fail() if here == place else None
    return 1


PLACES = ["start", "middle", "head", "hook", "pre-hook", "score"]


@engines
@contexts
class TestExceptions:
    """What the user's own code raises passes through unchanged, and all is put back."""

    @calls
    @pytest.mark.parametrize("place", PLACES)
    def test_at_once(self, call: Callable[..., Any], engine: str, context: str, place: str) -> None:
        model = Lively()
        cls = fail_at(model, place)
        with CONTEXTS[context]():
            before = state(model)
            with pytest.raises(Raised):
                call(model, engine, cls)
            assert state(model) == before

    @pytest.mark.parametrize("forward", [1, 2, 3, 4])
    def test_in_a_later_forward(self, engine: str, context: str, forward: int) -> None:
        """The engines run the model more than once; whichever run raises, all is put back."""
        model = Lively()
        calls = 0

        def trouble(place: str) -> None:
            nonlocal calls
            calls += place == "head"
            if calls == forward:
                raise Raised

        model.trouble = trouble
        with CONTEXTS[context]():
            before = state(model)
            try:
                explain(model, picture(32, 32), 1, engine=engine)
            except (Raised, GradcamError):  # a cut that raises is refused, and said to be
                assert calls >= forward
            else:
                assert calls < forward
            assert state(model) == before

    def test_an_interrupt(self, engine: str, context: str) -> None:
        """Control-C is no `Exception`."""
        model = Lively()

        def interrupt(place: str) -> None:
            if place == "head":
                raise KeyboardInterrupt

        model.trouble = interrupt
        with CONTEXTS[context]():
            before = state(model)
            with pytest.raises(KeyboardInterrupt):
                explain(model, picture(32, 32), 1, engine=engine)
            assert state(model) == before

    def test_a_wrong_class(self, engine: str, context: str) -> None:
        model = Lively()
        with CONTEXTS[context]():
            before = state(model)
            with pytest.raises(GradcamError, match="class 4 is out of range"):
                explain(model, picture(32, 32), 4, engine=engine)
            assert state(model) == before


class Writes(nn.Module):
    """A classifier that runs `write(self)` in every forward, between its grid and its head."""

    net: Any
    count: Any

    def __init__(self, write: Callable[[Any], None]) -> None:
        super().__init__()
        self.net = small()
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("whole", torch.arange(4))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        grid = self.net.relu2(self.net.conv2(self.net.relu1(self.net.bn(self.net.conv1(x)))))
        self.write(self)
        logits: Tensor = self.net.fc(grid.mean((2, 3)))
        return logits


def add_in_place(model: Any) -> None:
    model.count += 1
    model.whole.mul_(2)


def add_by_assignment(model: Any) -> None:
    model.count = model.count + 1


def grow_by_assignment(model: Any) -> None:
    model.count = torch.cat([model.count, torch.ones(1)])


def add_to_data(model: Any) -> None:
    model.count.data.add_(1)


def replace_data(model: Any) -> None:
    model.count.data = model.count.data + 1


def grow_data(model: Any) -> None:
    model.count.data = torch.cat([model.count.data, torch.ones(1)])


def remove(model: Any) -> None:
    model.count = None


def write_nan(model: Any) -> None:
    model.count.fill_(float("nan"))


def add_to_norm(model: Any) -> None:
    with torch.no_grad():
        model.net.bn.num_batches_tracked.add_(1)


WRITES = [
    add_in_place,
    add_by_assignment,
    grow_by_assignment,
    add_to_data,
    replace_data,
    grow_data,
    remove,
    write_nan,
    add_to_norm,
]


@engines
class TestBuffers:
    """Buffers that a forward writes, whichever way it does."""

    @pytest.mark.parametrize("device", ["auto", "cpu:0"])
    @pytest.mark.parametrize("write", WRITES)
    def test_are_put_back(self, engine: str, write: Callable[[Any], None], device: str) -> None:
        model = Writes(write)
        tensors = dict(model.named_buffers())
        values = {name: buffer.clone() for name, buffer in tensors.items()}
        explain(model, picture(32, 32), 1, engine=engine, device=device)
        now = dict(model.named_buffers())
        assert now.keys() == tensors.keys()
        for name, tensor in now.items():
            assert tensor is tensors[name]
            assert torch.equal(tensor, values[name])

    def test_of_nan_stay_nan(self, engine: str) -> None:
        model = Writes(lambda model: None)
        count = model.count.fill_(float("nan"))
        explain(model, picture(32, 32), 1, engine=engine)
        assert model.count is count
        assert bool(count.isnan().all())

    def test_made_in_the_forward_do_not_stay(self, engine: str) -> None:
        """Also in a module that had none: the state dict is the user's."""
        model = Writes(lambda model: model.net.fc.register_buffer("made", torch.ones(2)))
        before = list(model.state_dict())
        explain(model, picture(32, 32), 1, engine=engine)
        assert list(model.state_dict()) == before


@engines
class TestParameters:
    """A forward that writes its own parameters gives a map of a model that is no longer there."""

    @pytest.mark.parametrize("device", ["auto", "cpu:0"])
    def test_written_in_place(self, engine: str, device: str) -> None:
        def write(model: Any) -> None:
            with torch.no_grad():
                model.net.fc.bias.add_(1e-9)

        # A graph cut of such a forward loses its `no_grad`, and is refused for that.
        said = "changes its own parameter 'net.fc.bias'" if engine == "hooks" else "cannot be cut at 'net.relu2'"
        with pytest.raises(ModelError, match=re.escape(said)):
            explain(Writes(write), picture(32, 32), 1, engine=engine, device=device)

    @pytest.mark.parametrize("device", ["auto", "cpu:0"])
    def test_given_other_storage(self, engine: str, device: str) -> None:
        def write(model: Any) -> None:
            model.net.fc.bias.data = model.net.fc.bias.data.clone()

        model = Writes(write)
        bias: Any = model.net.fc.bias
        where = bias.data_ptr()
        with pytest.raises(ModelError, match=r"changes its own parameter 'net\.fc\.bias'"):
            explain(model, picture(32, 32), 1, engine=engine, device=device)
        assert bias.data_ptr() == where


def torch_dropout(x: Tensor) -> Tensor:
    return functional.dropout(x, 0.5, training=True)


def torch_whisper(x: Tensor) -> Tensor:
    """Too faint for two answers to differ, but drawn."""
    return x + 1e-9 * torch.rand_like(x)


def numpy_noise(x: Tensor) -> Tensor:
    return x + 1e-9 * float(np.random.rand())


def python_noise(x: Tensor) -> Tensor:
    return x + 1e-9 * random.random()


class Noisy(nn.Module):
    net: Any

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = small()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.noise(x))
        return logits


@engines
class TestRandomModels:
    """A model that answers at random has no one map, and the user's generators are none of its business."""

    @pytest.mark.parametrize("noise", [torch_dropout, torch_whisper, numpy_noise, python_noise])
    def test_drawing_is_refused_and_undone(self, engine: str, noise: Callable[[Tensor], Tensor]) -> None:
        model = Noisy(noise)
        before = state(model)
        for _ in range(2):
            with pytest.raises(ModelError, match=r"draws random numbers|answers the same input differently twice"):
                explain(model, picture(32, 32), 1, engine=engine)
            assert state(model) == before

    @pytest.mark.parametrize(
        ("noise", "whose"), [(torch_whisper, "torch"), (numpy_noise, "numpy.random"), (python_noise, "random")]
    )
    def test_the_message_says_whose_numbers(self, engine: str, noise: Callable[[Tensor], Tensor], whose: str) -> None:
        with pytest.raises(ModelError, match=rf"^Noisy draws random numbers \({re.escape(whose)}\) in eval mode"):
            explain(Noisy(noise), picture(32, 32), 1, engine=engine)

    @pytest.mark.parametrize("noise", [torch_whisper, numpy_noise, python_noise])
    def test_drawing_that_begins_later_is_refused_and_undone(
        self, engine: str, noise: Callable[[Tensor], Tensor]
    ) -> None:
        """A model that was seen to behave may draw for another image."""
        model = Noisy(lambda x: x)
        explain(model, picture(32, 32), 1, engine=engine)
        model.noise = noise
        before = state(model)
        with pytest.raises(ModelError, match="draws random numbers"):
            explain(model, picture(32, 32), 1, engine=engine)
        assert state(model) == before

    @pytest.mark.parametrize("layer", [None, "net.relu2"])
    def test_a_private_generator_is_noticed(self, engine: str, layer: str | None) -> None:
        generator = torch.Generator().manual_seed(0)
        model = Noisy(lambda x: x + torch.rand(x.shape, generator=generator))
        with pytest.raises(ModelError, match="answers the same input differently twice"):
            explain(model, picture(32, 32), 1, engine=engine, layer=layer)

    def test_dropout_that_asks_for_training_is_welcome(self, engine: str) -> None:
        model = Noisy(nn.Dropout(0.5)).train()
        before = state(model)
        explain(model, picture(32, 32), 1, engine=engine)
        assert state(model) == before


class TestTheUsersOwnGraphs:
    """Training goes on around a map as if it had not been made."""

    @engines
    @pytest.mark.parametrize("device", ["auto", "cpu:0"])
    def test_a_loss_made_before_is_differentiated_after(self, engine: str, device: str) -> None:
        """Nothing that the user's graph has saved was written to."""
        model, twin = small(seed=7), small(seed=7)
        x = picture(32, 32, count=2)
        loss = model(x).square().sum()
        explain(model, x[:1], 1, engine=engine, device=device)
        loss.backward()
        twin(x).square().sum().backward()
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad)

    @engines
    def test_training_inside_one_autocast_region(self, engine: str) -> None:
        """Weights that were cast without a graph must not be in autocast's cache when the training step looks there."""
        model = small().train()
        with torch.autocast("cpu", torch.bfloat16):
            explain(model, picture(32, 32), 1, engine=engine)
            loss = model(picture(32, 32, count=2)).square().sum()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())

    @engines
    def test_scores_that_build_on_the_users_tensors_leave_their_grad(self, engine: str) -> None:
        weights = torch.ones(4, requires_grad=True)
        explain(small(), picture(32, 32), lambda output: (output[0] * weights).sum(), engine=engine)
        assert weights.grad is None

    @engines
    @pytest.mark.parametrize("device", ["auto", "cpu:0"])
    def test_a_score_that_runs_backward_leaves_the_models_grads(self, engine: str, device: str) -> None:
        """Those that were there with their values, and none where there was none."""
        model = Lively()

        def score(output: Any) -> Tensor:
            output.square().sum().backward(retain_graph=True)
            found: Tensor = output[0, 1]
            return found

        before = state(model)
        explain(model, picture(32, 32), score, engine=engine, device=device)
        assert state(model) == before


@engines
def test_inputs_are_not_written(engine: str) -> None:
    """Also by a model that starts in place, and inside `inference_mode`."""
    model = nn.Sequential(nn.ReLU(inplace=True), *small().children())
    with torch.inference_mode():
        x = picture(32, 32, count=2) - 0.5
        kept = x.clone()
        explain_batch(model, x, 1, engine=engine)
        explain(model, x[0], 1, engine=engine)
        explain_classes(model, x[:1], [0, 1], engine=engine)
        assert torch.equal(x, kept)


@engines
def test_a_module_that_was_compiled_in_place_stays_compiled(engine: str) -> None:
    """`nn.Module.compile` replaces the call; hooks set later would not be seen by it, so it is set aside."""
    model = small()
    model._compiled_call_impl = compiled = lambda *args, **kwargs: fail()
    before = state(model)
    explain(model, picture(32, 32), 1, engine=engine)
    assert state(model) == before
    assert model._compiled_call_impl is compiled
