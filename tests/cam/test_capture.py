"""Capturing activations and gradients where other tools go wrong: in place, under `no_grad`, in half precision."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import explain, explain_batch, explain_classes
from pytest_gradcam.cam import capture
from tests.models import apart, grad_cam_of, picture, reference, seeded, small

EQUAL = 1e-6
engines = pytest.mark.parametrize("engine", ["hooks", "split"])


def plain_raw(model: nn.Module, x: Tensor, layer: str, cls: Any = 1) -> Any:
    return grad_cam_of(*reference(model, x, layer, cls))


class Body(nn.Module):
    """Features and a head; what the forward does between them is for those who inherit."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12, 4)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.second(self.first(x).relu()).relu().mean((2, 3)))


class ReluInPlace(Body):
    def forward(self, x: Tensor) -> Any:
        grid = self.second(self.first(x).relu())
        functional.relu_(grid)
        return self.fc(grid.mean((2, 3)))


class AddedInPlace(Body):
    """What other tools capture as activations is then four times them, minus one."""

    def forward(self, x: Tensor) -> Any:
        grid = self.second(self.first(x).relu())
        grid *= 4
        grid -= 1
        return self.fc(grid.relu().mean((2, 3)))


class AddedOutOfPlace(Body):
    def forward(self, x: Tensor) -> Any:
        return self.fc((self.second(self.first(x).relu()) * 4 - 1).relu().mean((2, 3)))


class BackboneUnderNoGrad(Body):
    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            grid = self.second(self.first(x).relu())
        return self.fc(grid.relu().mean((2, 3)))


class AllUnderNoGrad(Body):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


class Kept(nn.Module):
    """A convolution that remembers what it gave."""

    given: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        self.given = self.convolution(x)
        return self.given


class ReusesMemory(Body):
    """When all is done, the memory of the grid is used for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept(self.second)

    def forward(self, x: Tensor) -> Any:
        logits = self.fc(self.kept(self.first(x).relu()).relu().mean((2, 3)))
        self.kept.given.detach().zero_()
        return logits


class TestInPlace:
    """An operation in place after the target layer changes neither the activations nor the gradients."""

    @engines
    @pytest.mark.parametrize(
        ("in_place", "out_of_place"), [(ReluInPlace, Body), (AddedInPlace, AddedOutOfPlace)], ids=["relu", "arithmetic"]
    )
    def test_is_the_same_as_out_of_place(self, in_place: type[Body], out_of_place: type[Body], engine: str) -> None:
        x = picture(32, 32)
        expected = plain_raw(out_of_place(), x, "second")
        for model in (in_place(), out_of_place()):
            got = explain(model, x, 1, engine=engine)
            assert got.layer == "second"
            assert apart(got.raw, expected) <= 1e-5
        # The trap is a trap: what is in the layer's output after the forward gives another map.
        model = in_place()
        kept: list[Tensor] = []
        model.second.register_forward_hook(lambda module, inputs, output: kept.append(output))
        with torch.no_grad():
            model(x)
        assert apart(grad_cam_of(kept[0], reference(out_of_place(), x, "second", 1)[1]), expected) > 0.05

    @engines
    def test_a_named_layer_before_a_relu_in_place(self, engine: str) -> None:
        x = picture(32, 32)
        expected = plain_raw(small(), x, "conv2")
        for inplace in (True, False):
            got = explain(small(inplace=inplace), x, 1, layer="conv2", engine=engine)
            assert apart(got.raw, expected) <= 1e-5

    def test_memory_that_is_used_again_after_the_forward(self) -> None:
        x = picture(32, 32)
        got = explain(ReusesMemory(), x, 1)
        assert got.layer == "kept"
        assert apart(got.raw, plain_raw(Body(), x, "second")) <= 1e-5

    @engines
    def test_an_input_that_is_written_is_a_copy(self, engine: str) -> None:
        """The first layer is the target, and the model's first step writes to its input."""
        model = nn.Sequential(OrderedDict(start=nn.ReLU(inplace=True), **dict(small(inplace=True).named_children())))
        x = picture(32, 32) - 0.5
        got = explain(model, x, 1, engine=engine)
        assert apart(got.raw, plain_raw(model, x.clone(), "relu2")) <= 1e-5


class TestNoGrad:
    """The model's own `no_grad` does not stop us."""

    @pytest.mark.parametrize("kind", [BackboneUnderNoGrad, AllUnderNoGrad])
    @pytest.mark.parametrize("call", [1, 2])
    def test_hooks(self, kind: type[Body], call: int) -> None:
        x, model = picture(32, 32), kind()
        expected = plain_raw(Body(), x, "second")
        for _ in range(call):
            got = explain(model, x, 1)
        assert got.layer == "second"
        assert apart(got.raw, expected) <= 1e-5
        assert all(p.requires_grad for p in model.parameters())

    def test_split(self) -> None:
        """A graph cut holds no `no_grad`, and differentiates what lies after it."""
        x = picture(32, 32)
        got = explain(BackboneUnderNoGrad(), x, 1, engine="split")
        assert apart(got.raw, plain_raw(Body(), x, "second")) <= 1e-5

    @engines
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_of_the_caller(self, mode: Callable[[], Any], engine: str) -> None:
        x, model = picture(32, 32), Body()
        expected = plain_raw(model, x, "second")
        with mode():
            got = explain(model, picture(32, 32), 1, engine=engine)
        assert apart(got.raw, expected) <= 1e-5

    @engines
    def test_frozen_parameters(self, engine: str) -> None:
        x, model = picture(32, 32), Body().requires_grad_(False)
        got = explain(model, x, 1, engine=engine)
        assert apart(got.raw, plain_raw(Body(), x, "second")) <= 1e-5
        assert not any(p.requires_grad for p in model.parameters())

    def test_parameters_made_in_inference_mode_are_refused(self) -> None:
        with torch.inference_mode():
            model = Body()
        with pytest.raises(ValueError, match=r"made inside torch\.inference_mode.*build or load the model outside"):
            explain(model, picture(32, 32), 1)


class TestHalfPrecision:
    """The map of a half model is that of its own activations and gradients, in float32 arithmetic."""

    @engines
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_arithmetic_is_float32(self, dtype: torch.dtype, engine: str) -> None:
        model = small().to(dtype)
        x = picture(32, 32)
        got = explain(model, x, 1, engine=engine)
        assert got.layer == "relu2"
        assert got.raw.dtype == got.cam.dtype == np.float32
        activations, gradients = reference(model, x.to(dtype), "relu2", 1)
        assert activations.dtype == dtype
        assert apart(got.raw, grad_cam_of(activations, gradients)) <= 1e-5
        assert apart(got.raw, plain_raw(small(), x, "relu2")) <= 0.05
        assert next(model.parameters()).dtype == dtype

    @engines
    def test_float64_is_not_rounded_to_float32_on_the_way(self, engine: str) -> None:
        model = small().double()
        x = picture(32, 32).double()
        expected = plain_raw(model, x, "relu2")
        got = explain(model, x, 1, engine=engine)
        assert np.array_equal(got.raw, expected.astype(np.float32)) or apart(got.raw, expected) <= 6e-8

    @engines
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_inside_autocast(self, dtype: torch.dtype, engine: str) -> None:
        """The user's region casts the model, and not our arithmetic."""
        model, x = small(), picture(32, 32, count=2)
        for method in ("grad-cam", "hirescam"):
            exact = explain_batch(model, x, [1, 2], engine=engine, method=method)
            with torch.autocast("cpu", dtype):
                got = [
                    *explain_batch(model, x, [1, 2], engine=engine, method=method),
                    explain(model, x[:1], 1, engine=engine, method=method),
                    *explain_classes(model, x[:1], [1, 0], engine=engine, method=method)[:1],
                ]
            for a, b in zip(got, [*exact, exact[0], exact[0]], strict=True):
                assert a.raw.dtype == np.float32
                assert apart(a.raw, b.raw) <= 0.05
            # In bfloat16 arithmetic few values would need more than 8 bits.
            bits = got[0].raw.view(np.uint32) & 0xFFFF
            assert np.count_nonzero(bits) > 0.5 * bits.size

    def test_autocast_arithmetic_is_the_formula(self) -> None:
        model, x = small(), picture(32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            activations, gradients = reference(model, x, "relu2", 1)
            got = explain(model, x, 1)
        assert activations.dtype == torch.bfloat16
        assert apart(got.raw, grad_cam_of(activations, gradients)) <= 1e-5


class Both(NamedTuple):
    grid: Tensor
    extra: Tensor


class Wrapped(nn.Module):
    """A layer whose output is more than a tensor."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.convolution(x).relu())


class ReadsWrapped(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.block = Wrapped(wrap)
        self.fc = nn.Linear(8, 4)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        found = self.block(x)
        grid = found.grid if isinstance(found, Both) else found[0]
        return self.fc(grid.square().mean((2, 3)))


WRAPS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda grid: (grid, "beside it"),
    "list": lambda grid: [grid, None],
    "named tuple": lambda grid: Both(grid, grid.mean()),
}


class TestLayersThatGiveMoreThanATensor:
    @engines
    @pytest.mark.parametrize("wrap", WRAPS)
    @pytest.mark.parametrize("layer", [None, "block"])
    def test_the_first_tensor_is_the_grid(self, wrap: str, layer: str | None, engine: str) -> None:
        model, x = ReadsWrapped(WRAPS[wrap]), picture(32, 32)
        bare = ReadsWrapped(lambda grid: (grid,))
        got = explain(model, x, 1, layer=layer, engine=engine, method="grad-cam")
        assert got.layer == "block"
        activations, gradients = reference(bare, x, "block.convolution", 1)
        assert got.grid == (8, 8)
        # The block's output is the ReLU of the convolution, and the score its mean square.
        relu = activations.relu()
        weights = bare.fc.weight[1].detach()[None, :, None, None]
        assert apart(got.raw, grad_cam_of(relu, 2 * relu * weights / 64)) <= 1e-5
        assert gradients.shape == relu.shape


class TestWrappers:
    """The module inside is what is explained, and named."""

    @engines
    def test_data_parallel(self, engine: str) -> None:
        model, x = small(), picture(32, 32)
        got = explain(nn.DataParallel(model), x, 1, engine=engine)
        assert got.layer == "relu2"
        assert apart(got.raw, plain_raw(model, x, "relu2")) <= 1e-5

    @engines
    def test_compiled(self, engine: str) -> None:
        model, x = small(), picture(32, 32)
        compiled: Any = torch.compile(model, backend="eager")
        got = explain(compiled, x, 1, engine=engine)
        assert got.layer == "relu2"
        assert apart(got.raw, plain_raw(model, x, "relu2")) <= 1e-5

    @engines
    def test_compiled_inside_data_parallel(self, engine: str) -> None:
        model, x = small(), picture(32, 32)
        wrapped: Any = nn.DataParallel(torch.compile(model, backend="eager"))
        assert apart(explain(wrapped, x, 1, engine=engine).raw, plain_raw(model, x, "relu2")) <= 1e-5

    @engines
    def test_compiled_in_place(self, engine: str) -> None:
        """A compiled call would not see hooks that are set later."""
        model, x = small(), picture(32, 32)
        model.compile(backend=not_called)
        got = explain(model, x, 1, engine=engine)
        assert apart(got.raw, plain_raw(small(), x, "relu2")) <= 1e-5

    @engines
    def test_a_layer_of_a_wrapped_model_may_be_given_as_a_module(self, engine: str) -> None:
        model = small()
        got = explain(nn.DataParallel(model), picture(32, 32), 1, layer=model.get_submodule("relu1"), engine=engine)
        assert got.layer == "relu1"


def not_called(*_: object) -> Any:
    raise AssertionError("the model was compiled")


class TestUsersHooks:
    @engines
    def test_a_hook_that_changes_the_layers_output_is_part_of_the_model(self, engine: str) -> None:
        model, x = small(), picture(32, 32)
        model.get_submodule("relu2").register_forward_hook(lambda module, inputs, output: output * 2 + 1)
        got = explain(model, x, 1, engine=engine)
        activations, gradients = reference(small(), x, "relu2", 1)
        assert got.layer == "relu2"
        if engine == "hooks":
            assert apart(got.raw, grad_cam_of(2 * activations + 1, gradients)) <= 1e-5

    def test_a_hook_that_moves_the_cells_is_not_read_as_if_it_did_not(self) -> None:
        model, x = small(), picture(32, 32)
        model.get_submodule("relu2").register_forward_hook(lambda module, inputs, output: output.flip(3))
        assert explain(model, x, 1).layer == "conv2"

    def test_a_backward_hook_on_the_whole_model_raises_no_warning(self) -> None:
        """The part before the target layer runs without autograd: torch warns of the hook that it has no inputs."""
        model = small()
        model.register_full_backward_hook(lambda module, inputs, outputs: None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert explain(model, picture(32, 32), 1).evidence > 0


class Stubborn(torch.autograd.Function):
    """A mean over the grid whose backward reads a number from its gradient, which no vectorised run can do."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor) -> Tensor:
        ctx.shape = grid.shape
        return grid.mean((2, 3))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        float(grad.sum())
        n, c, h, w = ctx.shape
        return (grad / (h * w))[:, :, None, None].expand(n, c, h, w)


class StubbornModel(Body):
    def forward(self, x: Tensor) -> Any:
        pooled: Any = Stubborn.apply(self.second(self.first(x).relu()).relu())
        return self.fc(pooled)


def margin(output: Any) -> Tensor:
    found: Tensor = output[0, 1] - output[0, 2]
    return found


def squares(output: Any) -> Tensor:
    found: Tensor = output.square().sum()
    return found


@pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")
class TestManyClasses:
    """`explain_classes` gives what `explain` gives for each class, from one forward."""

    CLASSES: tuple[Any, ...] = (3, 0, None, 3, margin, 1, squares, 0)

    def check(self, model: Any, x: Tensor, classes: Any, **keywords: Any) -> None:
        together = explain_classes(model, x, classes, **keywords)
        wanted = range(4) if classes is None else classes
        assert len(together) == len(wanted)
        for got, cls in zip(together, wanted, strict=True):
            alone = explain(model, x, cls, **keywords)
            assert apart(got.raw, alone.raw) <= 1e-5
            assert (got.cls, got.predicted, got.layer, got.grid) == (
                alone.cls,
                alone.predicted,
                alone.layer,
                alone.grid,
            )
            assert got.score == pytest.approx(alone.score, rel=1e-6)
            assert got.probability == (None if alone.probability is None else pytest.approx(alone.probability))
            assert got.evidence == pytest.approx(alone.evidence, rel=1e-5)

    @engines
    @pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
    @pytest.mark.parametrize("classes", [None, [2], [1, 1, 1], CLASSES, [margin, squares], [margin, 2]])
    def test_equals_one_at_a_time(self, classes: Any, method: str, engine: str) -> None:
        self.check(Body(), picture(32, 32), classes, method=method, engine=engine)

    @pytest.mark.parametrize("size", [1, 12 * 64 * 4, 3 * 12 * 64 * 4 + 1])
    def test_in_chunks(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """One, one and three classes at a time."""
        monkeypatch.setattr(capture, "CLASS_CHUNK_BYTES", size)
        self.check(Body(), picture(32, 32), self.CLASSES)
        self.check(Body(), picture(32, 32), None)

    @engines
    def test_where_the_backward_cannot_be_vectorised(self, engine: str) -> None:
        model, x = StubbornModel(), picture(32, 32)
        logits = model(x)
        with pytest.raises(RuntimeError):
            torch.autograd.grad([logits], [model.fc.bias], [torch.eye(4)[:, None]], is_grads_batched=True)
            torch.autograd.grad([logits], [model.first.weight], [torch.eye(4)[:, None]], is_grads_batched=True)
        expected = [plain_raw(Body(), x, "second", cls) for cls in range(4)]
        got = explain_classes(model, x, layer="second", engine="hooks")
        for a, b in zip(got, expected, strict=True):
            assert apart(a.raw, b) <= 1e-5
        self.check(model, x, self.CLASSES)

    def test_from_one_forward(self) -> None:
        model, count = Body(), 0

        def tally(*_: object) -> None:
            nonlocal count
            count += 1

        explain_classes(model, picture(32, 32), self.CLASSES)  # the first time, layers are searched for
        model.register_forward_hook(tally)
        explain_classes(model, picture(32, 32), self.CLASSES)
        assert count == 1


def test_a_deep_copy_of_the_reference_is_not_the_model() -> None:
    """The oracle of these tests leaves the model alone, or it would test itself."""
    model = small()
    before = copy.deepcopy(model.state_dict())
    reference(model, picture(32, 32), "relu2", 1)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, before[name]) for name, a in model.state_dict().items())
    assert not model.get_submodule("relu2")._forward_hooks
