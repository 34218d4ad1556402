"""Whatever state a model is in, its map is that of the plain float32 model; and what cannot be explained says why.

That all is put back afterwards is in `test_untouched.py`.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pytest_gradcam import Explanation, GradcamError, ModelError, ZeroEvidenceWarning, explain, explain_classes
from tests.models import Floats, apart, grad_cam_of, picture, reference, seeded, small

EQUAL = 1e-5

engines = pytest.mark.parametrize("engine", ["hooks", "split"])


def vit(pool: Any = "avg") -> Any:
    """Three blocks and sixteen patches; dropout that only training would use."""
    sizes: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 2,
        "num_classes": 4,
    }
    return seeded(timm.models.VisionTransformer(**sizes, proj_drop_rate=0.1, global_pool=pool))


MODELS: dict[str, Callable[[], Any]] = {
    "convnet": small,
    "ViT": vit,
    "ViT with class token": lambda: vit("token"),
}
models = pytest.mark.parametrize("kind", MODELS)


def image() -> Tensor:
    return picture(32, 32)


def plain(kind: str) -> Explanation:
    """The map of the class that has the most evidence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroEvidenceWarning)  # the other classes may have none
        return max(explain_classes(MODELS[kind](), image()), key=lambda each: each.evidence)


def assert_equal(got: Explanation, expected: Explanation, tolerance: float = EQUAL) -> None:
    assert (got.layer, got.grid, got.method, got.cls) == (
        expected.layer,
        expected.grid,
        expected.method,
        expected.cls,
    )
    assert expected.evidence > 0
    assert apart(got.raw, expected.raw) <= tolerance


def assert_alike(got: Explanation, expected: Explanation) -> None:
    """As two maps are of which one was computed with three significant digits."""
    assert (got.layer, got.grid, got.method, got.cls) == (
        expected.layer,
        expected.grid,
        expected.method,
        expected.cls,
    )
    assert got.raw.dtype == np.float32
    assert np.corrcoef(got.raw.ravel(), expected.raw.ravel())[0, 1] >= 0.99
    assert got.evidence == pytest.approx(expected.evidence, rel=0.1)


def as_it_is(model: Any) -> Any:
    return model


def frozen(model: Any) -> Any:
    return model.requires_grad_(False)


def frozen_but_its_head(model: Any) -> Any:
    model.requires_grad_(False)
    list(model.children())[-1].requires_grad_(True)
    return model


def in_training(model: Any) -> Any:
    return model.train()


def in_double(model: Any) -> Any:
    return model.double()


def channels_last(model: Any) -> Any:
    return model.to(memory_format=torch.channels_last)


def with_gradients(model: Any) -> Any:
    """As between `backward` and `step`."""
    model(image()).sum().backward()
    return model


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def compiled_and_run(model: Any) -> Any:
    made: Any = torch.compile(model, backend="aot_eager")
    made(image())
    return made


def compiled_in_place_and_run(model: Any) -> Any:
    model.compile(backend="eager")
    model(image())
    return model


def data_parallel(model: Any) -> Any:
    return nn.DataParallel(model)


def data_parallel_compiled(model: Any) -> Any:
    return nn.DataParallel(compiled(model))


def weight_normed(model: Any) -> Any:
    """Of every linear and convolution: the weights are computed anew in each forward, and are the same."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            parametrizations.weight_norm(module)
    return model


@models
@pytest.mark.parametrize(
    "state",
    [
        as_it_is,
        frozen,
        frozen_but_its_head,
        in_training,
        in_double,
        channels_last,
        with_gradients,
        compiled,
        compiled_and_run,
        compiled_in_place_and_run,
        data_parallel,
        data_parallel_compiled,
        weight_normed,
    ],
)
def test_a_model_in_any_state_has_the_map_of_the_plain_one(kind: str, state: Callable[[Any], Any]) -> None:
    expected = plain(kind)
    assert_equal(explain(state(MODELS[kind]()), image(), expected.cls), expected)


@models
def test_an_input_in_channels_last_order_too(kind: str) -> None:
    expected = plain(kind)
    x = image().to(memory_format=torch.channels_last)
    assert_equal(explain(channels_last(MODELS[kind]()), x, expected.cls), expected)


@models
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_nearly_the_same_map(kind: str, dtype: torch.dtype) -> None:
    expected = plain(kind)
    assert_alike(explain(MODELS[kind]().to(dtype), image(), expected.cls), expected)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "gradients switched off": lambda: torch.set_grad_enabled(False),
    "autocast that is switched off": lambda: torch.autocast("cpu", torch.bfloat16, enabled=False),
}


@models
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("state", [as_it_is, frozen, in_training])
def test_inside_any_mode_of_torch(kind: str, context: str, state: Callable[[Any], Any]) -> None:
    expected, model, x = plain(kind), state(MODELS[kind]()), image()
    with CONTEXTS[context]():
        assert_equal(explain(model, x, expected.cls), expected)
        assert_equal(explain(model, x.clone(), expected.cls), expected)


@models
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inside_autocast_the_map_is_nearly_the_same(kind: str, dtype: torch.dtype) -> None:
    expected, model = plain(kind), MODELS[kind]()
    with torch.autocast("cpu", dtype):
        assert_alike(explain(model, image(), expected.cls), expected)


@contextmanager
def process_group(path: Path) -> Iterator[None]:
    """Of this process alone."""
    distributed: Any = torch.distributed
    distributed.init_process_group("gloo", init_method=(path / "meeting").as_uri(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@models
@pytest.mark.parametrize("step", [False, True])
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")  # of the class token, and harmless
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")
def test_distributed_data_parallel(kind: str, step: bool, tmp_path: Path) -> None:
    """Before a training step and after its backward; the next step goes on as if nothing had been."""
    expected = plain(kind)
    with process_group(tmp_path):
        model: Any = nn.parallel.DistributedDataParallel(MODELS[kind]())
        if step:
            model(image()).sum().backward()
        assert_equal(explain(model, image(), expected.cls), expected)
        model(image()).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


class TestHooksOfTheUser:
    @models
    def test_that_observe_change_nothing(self, kind: str) -> None:
        expected, model = plain(kind), MODELS[kind]()
        seen: dict[str, Any] = {}

        def observe(name: str) -> Callable[..., None]:
            return lambda module, args, output: seen.__setitem__(name, output)

        for name, module in model.named_modules():
            module.register_forward_hook(observe(name))
        assert_equal(explain(model, image(), expected.cls), expected)
        assert set(seen) >= {"", *expected.layers}

    @pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2", "relu2", "pool", "fc"])
    def test_that_change_an_output_are_part_of_the_model(self, layer: str) -> None:
        """Before the target layer, at it, and behind it; the oracle is run with the same hook."""
        model, x = small(), image()
        model.get_submodule(layer).register_forward_hook(lambda module, args, output: 2 * output + 0.25)
        cls, expected = with_evidence(lambda cls: grad_cam_of(*reference(model, x, "relu2", cls)))
        got = explain(model, x, cls)
        assert got.layer == "relu2"
        assert apart(got.raw, expected) <= EQUAL
        assert apart(got.raw, plain_map("relu2", cls)) > 0.01 or layer in {"pool"}

    def test_that_change_an_input_are_part_of_the_model(self) -> None:
        model, x = small(), image()
        model.get_submodule("conv2").register_forward_pre_hook(lambda module, args: (args[0] - 0.5,))
        cls, expected = with_evidence(lambda cls: grad_cam_of(*reference(model, x, "relu2", cls)))
        assert apart(explain(model, x, cls).raw, expected) <= EQUAL

    def test_that_take_keywords_are_called_with_them(self) -> None:
        model, x = small(), image()
        called: list[dict[str, Any]] = []

        def note(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            called.append(kwargs)

        model.get_submodule("relu2").register_forward_hook(note, with_kwargs=True)
        model.get_submodule("relu2").register_forward_hook(lambda *_: called.append({}), always_call=True)
        expected = plain("convnet")
        assert_equal(explain(model, x, expected.cls), expected)
        assert called


def with_evidence(raw: Callable[[int], Floats]) -> tuple[int, Floats]:
    """The class whose raw CAM, (h, w), has the largest share of positive values, and that CAM."""
    maps = [raw(cls) for cls in range(4)]
    cls = max(range(4), key=lambda cls: float(np.maximum(maps[cls], 0).sum() / np.abs(maps[cls]).sum()))
    return cls, maps[cls]


def plain_map(layer: str, cls: int) -> Floats:
    return grad_cam_of(*reference(small(), image(), layer, cls))


class Stemmed(nn.Module):
    """The small convnet, called by hand, with what happens to the grid behind its stem and to the one of its body."""

    net: Any
    calls: Any

    def __init__(self) -> None:
        super().__init__()
        self.net = small()
        self.register_buffer("calls", torch.zeros(()))

    def stem(self, x: Tensor) -> Any:
        return self.net.relu1(self.net.bn(self.net.conv1(x)))

    def body(self, x: Tensor) -> Any:
        return self.net.relu2(self.net.conv2(x))

    def head(self, x: Tensor) -> Any:
        return self.net.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.stem(x)))


class DetachedStem(Stemmed):
    def stem(self, x: Tensor) -> Any:
        return super().stem(x).detach()


class StemWithoutGradients(Stemmed):
    @torch.no_grad()
    def stem(self, x: Tensor) -> Any:
        return super().stem(x)


class BodyWithoutGradients(Stemmed):
    """A frozen backbone, as linear probes have it."""

    @torch.no_grad()
    def body(self, x: Tensor) -> Any:
        return super().body(x)

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            grid = self.body(self.stem(x))
        return self.head(grid)


class CountsItsCalls(Stemmed):
    """Buffers that a forward writes, as those of quantisation observers and moving averages."""

    def body(self, x: Tensor) -> Any:
        self.calls += 1
        self.net.bn.num_batches_tracked.add_(1)
        return super().body(x)


@pytest.mark.parametrize(
    "make",
    [Stemmed, DetachedStem, StemWithoutGradients, BodyWithoutGradients, CountsItsCalls],
    ids=lambda c: c.__name__,
)
@pytest.mark.parametrize("state", [as_it_is, frozen, in_training])
def test_gradients_that_the_forward_itself_cuts_off(make: Callable[[], Stemmed], state: Callable[[Any], Any]) -> None:
    model, x = state(make()), image()
    before = copy.deepcopy(model.state_dict())
    cls, expected = with_evidence(lambda cls: plain_map("relu2", cls))
    got = explain(model, x, cls)
    assert (got.layer, got.grid) == ("net.relu2", (8, 8))
    assert apart(got.raw, expected) <= EQUAL
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class TestParametrizedLayers:
    """Their weights are computed in the forward; the oracle computes them too."""

    @pytest.mark.parametrize(
        "parametrize",
        [parametrizations.weight_norm, parametrizations.spectral_norm],
        ids=lambda function: function.__name__,
    )
    def test_of_one_kind(self, parametrize: Callable[[nn.Module], Any]) -> None:
        model, x = small(), image()
        for name in ("conv2", "fc"):
            parametrize(model.get_submodule(name))
        model.eval()
        cls, expected = with_evidence(lambda cls: grad_cam_of(*reference(model, x, "relu2", cls)))
        for state in (frozen, in_training):
            assert apart(explain(state(copy.deepcopy(model)), x, cls).raw, expected) <= EQUAL

    @pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
    def test_of_the_old_kind(self) -> None:
        """By a hook before the forward, which sets the weight as a plain attribute."""
        expected, model = plain("convnet"), small()
        old: Any = nn.utils
        for name in ("conv2", "fc"):
            old.weight_norm(model.get_submodule(name))
        with torch.no_grad():
            model(image())
        assert_equal(explain(model, image(), expected.cls), expected)


class WithCompiledPart(nn.Module):
    """The small convnet, of which the first layers are compiled."""

    def __init__(self, layers: int, *, run: bool) -> None:
        super().__init__()
        net: Any = small()
        self.part: Any = torch.compile(net[:layers], backend="eager")
        self.rest = net[layers:]
        self.eval()
        if run:
            self(image())

    def forward(self, x: Tensor) -> Any:
        return self.rest(self.part(x))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler reads of every tensor
@pytest.mark.parametrize("run", [False, True])
class TestCompiledParts:
    def test_that_end_with_the_grid(self, run: bool) -> None:
        cls, expected = with_evidence(lambda cls: plain_map("relu2", cls))
        got = explain(WithCompiledPart(5, run=run), image(), cls)
        assert got.grid == (8, 8)
        assert apart(got.raw, expected) <= EQUAL

    def test_that_go_beyond_it_give_a_true_map_or_an_error_of_ours(self, run: bool) -> None:
        """Code that was compiled before need not call hooks that are set later."""
        cls, expected = with_evidence(lambda cls: plain_map("relu2", cls))
        try:
            got = explain(WithCompiledPart(7, run=run), image(), cls)
        except GradcamError as error:
            assert re.search("layer|compile", str(error))
        else:
            assert got.grid == (8, 8)
            assert apart(got.raw, expected) <= EQUAL


class InferenceSession:
    """What stands in for a session of ONNX Runtime: its class name and how it is called."""

    def run(self, outputs: list[str] | None, feed: dict[str, Floats]) -> list[Floats]:
        with torch.no_grad():
            return [small()(torch.from_numpy(next(iter(feed.values())))).numpy()]


def traced() -> Any:
    jit: Any = torch.jit
    return jit.trace(small(), image())


def scripted() -> Any:
    jit: Any = torch.jit
    return jit.script(small())


def frozen_script() -> Any:
    jit: Any = torch.jit
    return jit.freeze(jit.script(small()))


def dynamic_int8() -> Any:
    quantization: Any = torch.ao.quantization
    return quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)


def dynamic_int8_vit() -> Any:
    quantization: Any = torch.ao.quantization
    return quantization.quantize_dynamic(vit(), {nn.Linear}, dtype=torch.qint8)


def static_int8() -> Any:
    quantization: Any = torch.ao.quantization
    model = nn.Sequential(quantization.QuantStub(), small(), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = quantization.prepare(model)
    prepared(image())
    return quantization.convert(prepared)


REFUSED = {
    "traced": (traced, "TorchScript"),
    "scripted": (scripted, "TorchScript"),
    "scripted and frozen": (frozen_script, "TorchScript"),
    "a session of ONNX Runtime": (InferenceSession, "InferenceSession"),
    "dynamically quantised": (dynamic_int8, "int8"),
    "dynamically quantised ViT": (dynamic_int8_vit, "int8"),
    "statically quantised": (static_int8, "int8"),
}


@engines
@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*quant_min", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("layer", [None, "fc"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_differentiated_is_refused_and_told_what_to_pass(
    case: str, layer: str | None, engine: str
) -> None:
    make, kind = REFUSED[case]
    model = make()
    if case != "a session of ONNX Runtime":
        with torch.no_grad():
            assert model(image()).shape == (1, 4)
    with pytest.raises(ModelError) as raised:
        explain(model, image(), 1, engine=engine, layer=layer)
    assert kind in str(raised.value)
    assert "pass the" in str(raised.value)
