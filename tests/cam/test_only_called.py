"""Models that can only be called, by occlusion and RISE: the same map as of the module behind, and all as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import DeviceError, ModelError, ModelTypeError, explain
from pytest_gradcam.cam import from_inputs
from tests.cam.test_blackbox import QUARTERS, red_and_blue
from tests.cam.test_states import dynamic_int8, frozen_script, scripted, traced
from tests.models import apart, picture, reads_colours, small

METHODS = ["occlusion", "rise"]
methods = pytest.mark.parametrize("method", METHODS)
SIDE = 32


@pytest.fixture(autouse=True)
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of RISE's masks: what is tested here holds for any number."""
    monkeypatch.setattr(from_inputs, "MASKS", 100)


class InferenceSession:
    """What stands in for a session of ONNX Runtime: its class name and how it is called; no module is seen in it."""

    def __init__(self) -> None:
        self._logits = [small()]

    def run(self, outputs: list[str] | None, feed: dict[str, Any]) -> list[Any]:
        assert isinstance(feed["input"], np.ndarray)
        with torch.no_grad():
            return [self._logits[0](torch.from_numpy(feed["input"])).numpy()]


def int8_colours(kind: str) -> Any:
    """The reader of colours with its head, or all of it, in int8."""
    quantization: Any = torch.ao.quantization
    if kind == "dynamic":
        return quantization.quantize_dynamic(reads_colours(), {nn.Linear}, dtype=torch.qint8)
    model = nn.Sequential(quantization.QuantStub(), reads_colours(), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = quantization.prepare(model)
    prepared(red_and_blue())
    return quantization.convert(prepared)


def plain_function() -> Any:
    model = small()
    return lambda x: model(x) + 0.0


def numpy_function() -> Any:
    """As around a session of ONNX Runtime: a list of arrays."""
    session = InferenceSession()
    return lambda x: session.run(None, {"input": x.numpy()})


class OneAtATime:
    """As a model that was exported for one image: a second one in the batch is an error."""

    def __init__(self) -> None:
        self.model = small()

    def __call__(self, x: Tensor) -> Any:
        if len(x) != 1:
            raise RuntimeError("INVALID_ARGUMENT : Got invalid dimensions for input: index: 0 Got: 2 Expected: 1")
        with torch.no_grad():
            return {"logits": self.model(x).numpy()}


CALLED = {
    "traced": traced,
    "scripted": scripted,
    "scripted and frozen": frozen_script,
    "a function": plain_function,
    "a function that returns arrays": numpy_function,
    "a callable of one image at a time": OneAtATime,
}
quiet = pytest.mark.filterwarnings(
    "ignore:.*deprecated", "ignore:.*quant_min", "ignore::torch.jit.TracerWarning", "ignore:.*TypedStorage"
)


@methods
@quiet
class TestModelsThatAreOnlyCalled:
    @pytest.mark.parametrize("kind", CALLED)
    def test_have_the_map_of_the_module_that_they_were_made_from(self, kind: str, method: str) -> None:
        expected = explain(small(), picture(SIDE, SIDE), 1, method=method)
        got = explain(CALLED[kind](), picture(SIDE, SIDE), 1, method=method)
        assert apart(got.raw, expected.raw) <= 1e-4
        assert (got.cls, got.predicted, got.method) == (1, expected.predicted, method)
        assert got.score == pytest.approx(expected.score, rel=1e-5)

    @pytest.mark.parametrize("kind", ["dynamic", "static"])
    def test_in_int8_look_where_they_look_in_float(self, kind: str, method: str) -> None:
        for cls, quarter in enumerate(QUARTERS):
            cam = explain(int8_colours(kind), red_and_blue(), cls, method=method).cam
            assert cam[quarter].sum() > 0.7 * cam.sum()

    def test_a_session_is_called_by_a_forward(self, method: str) -> None:
        expected = explain(small(), picture(SIDE, SIDE), 1, method=method)
        got = explain(
            InferenceSession(),  # type: ignore[arg-type]  # no callable: the forward says how it is called
            picture(SIDE, SIDE),
            1,
            method=method,
            forward=lambda session, x: session.run(None, {"input": x.numpy()}),
        )
        assert apart(got.raw, expected.raw) <= 1e-4

    def test_a_module_that_holds_one_is_explained_too(self, method: str) -> None:
        model = nn.Sequential(scripted(), nn.Identity())
        expected = explain(small(), picture(SIDE, SIDE), 1, method=method)
        assert apart(explain(model, picture(SIDE, SIDE), 1, method=method).raw, expected.raw) <= 1e-4


class Dropping(nn.Module):
    """Dropout and batch norm, which in training mode would change the score and the buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.drop(self.net(x))
        return logits


def scripted_in_training() -> Any:
    jit: Any = torch.jit
    return jit.script(Dropping().train())


@quiet
class TestLeftAsItWas:
    @pytest.mark.parametrize("wrap", [lambda script: script, lambda script: lambda x: script(x) + 0.0])
    def test_a_script_in_training(self, wrap: Callable[[Any], Any]) -> None:
        script = scripted_in_training()
        before = {name: value.clone() for name, value in script.state_dict().items()}
        rng = torch.get_rng_state()
        got = explain(wrap(script), picture(SIDE, SIDE), 1, method="occlusion")
        assert torch.equal(torch.get_rng_state(), rng)
        assert got.score == pytest.approx(explain(small(), picture(SIDE, SIDE), 1).score, rel=1e-5)
        assert script.training and script.drop.training and script.net.bn.training
        assert all(torch.equal(value, before[name]) for name, value in script.state_dict().items())

    def test_a_script_in_eval_mode(self) -> None:
        script = scripted()
        explain(script, picture(SIDE, SIDE), 1, method="occlusion")
        assert not script.training

    def test_an_int8_module_in_training(self) -> None:
        model = dynamic_int8().train()
        explain(model, picture(SIDE, SIDE), 1, method="occlusion")
        assert all(m.training for m in model.modules())

    def test_also_when_it_raises(self) -> None:
        script = scripted_in_training()
        with pytest.raises(ZeroDivisionError):
            explain(script, picture(SIDE, SIDE), lambda output: 1 / 0, method="occlusion")  # type: ignore[arg-type, return-value]
        assert script.training

    def test_a_module_that_a_function_uses(self) -> None:
        model = Dropping().train()
        explain(lambda x: model(x) + 0.0, picture(SIDE, SIDE), 1, method="occlusion")
        assert all(m.training for m in model.modules())
        assert int(model.net.get_submodule("bn").num_batches_tracked) == 0  # type: ignore[arg-type]  # a buffer

    def test_the_input(self) -> None:
        model = small()

        def writes(x: Tensor) -> Any:
            return model(x.mul_(0.5))

        x = picture(SIDE, SIDE)
        before = x.clone()
        explain(writes, x, 1, method="occlusion")
        assert torch.equal(x, before)


@quiet
class TestBatches:
    def test_images_of_a_batch_that_are_quantised_together_go_one_at_a_time(self) -> None:
        """The scale of a dynamic int8 layer is that of its whole batch."""
        sizes: list[int] = []
        model = dynamic_int8()

        def noted(x: Tensor) -> Any:
            sizes.append(len(x))
            return model(x)

        explain(noted, picture(SIDE, SIDE), 1, method="occlusion")
        assert set(sizes[6:]) == {1}

    def test_others_go_many_at_a_time(self) -> None:
        sizes: list[int] = []
        model = small()

        def noted(x: Tensor) -> Any:
            sizes.append(len(x))
            return model(x)

        explain(noted, picture(SIDE, SIDE), 1, method="occlusion")
        assert max(sizes) == 64
        assert len(sizes) < 20


@quiet
class TestRefusals:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_random_callable(self, method: str) -> None:
        generator, model = np.random.default_rng(0), small()
        with pytest.raises(ModelError, match="the model answers the same input differently twice: it is random"):
            explain(lambda x: model(x) + generator.normal(), picture(SIDE, SIDE), 1, method=method)

    def test_one_that_draws_from_a_global_generator(self) -> None:
        def draws(x: Tensor) -> Any:
            torch.rand(3)
            return x.mean((2, 3))

        with pytest.raises(ModelError, match=r"function draws random numbers \(torch\)"):
            explain(draws, picture(SIDE, SIDE), 1, method="occlusion")

    def test_what_cannot_be_called(self) -> None:
        with pytest.raises(ModelTypeError, match=r"of type InferenceSession, which cannot be called: pass a callable"):
            explain(InferenceSession(), picture(SIDE, SIDE), 1, method="occlusion")  # type: ignore[arg-type]

    def test_a_class(self) -> None:
        with pytest.raises(ModelTypeError, match=r"the model is the class Dropping: pass an instance of it"):
            explain(Dropping, picture(SIDE, SIDE), 1, method="occlusion")  # type: ignore[arg-type]  # what is tested

    def test_another_device_than_the_one_that_it_is_on(self) -> None:
        with pytest.raises(DeviceError, match=r"a model that is only called stays where it is, on cpu"):
            explain(scripted(), picture(SIDE, SIDE), 1, method="occlusion", device="cuda")

    def test_a_class_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="class 4 is out of range: the model has 4 classes"):
            explain(numpy_function(), picture(SIDE, SIDE), 4, method="occlusion")

    @pytest.mark.parametrize("make", [scripted, dynamic_int8, InferenceSession])
    def test_what_takes_no_gradient_is_told_of_them(self, make: Callable[[], Any]) -> None:
        with pytest.raises(ModelError, match='method="occlusion"'):
            explain(make(), picture(SIDE, SIDE), 1)
