"""What is a model, which device it runs on, and where its logits and class names are."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import ClassError, DeviceError, GradcamError, ModelError, TargetLayerError, explain
from pytest_gradcam.cam.model import labels_of, logits_of, resolve_device, tensors_in, unwrap
from tests.models import picture, small

engines = pytest.mark.parametrize("engine", ["hooks", "split"])
CPU = torch.device("cpu")


class TestUnwrapping:
    def test_a_module_is_itself(self) -> None:
        model = small()
        assert unwrap(model) is model

    def test_wrappers_are_taken_off_in_any_order(self) -> None:
        model = small()
        compiled: Any = torch.compile(model, backend="eager")
        for wrapped in (
            nn.DataParallel(model),
            compiled,
            nn.DataParallel(compiled),
            torch.compile(nn.DataParallel(model)),
        ):
            assert unwrap(wrapped) is model

    @pytest.mark.parametrize(
        ("model", "kind"),
        [(None, "NoneType"), ("resnet18", "str"), (abs, "builtin"), ([], "list")],
    )
    def test_what_is_no_module_is_refused(self, model: Any, kind: str) -> None:
        for engine in ("hooks", "split"):
            with pytest.raises(TypeError, match=rf"^the model is of type {kind}.*: pass a torch\.nn\.Module") as raised:
                explain(model, picture(8, 8), engine=engine)
            assert isinstance(raised.value, ModelError)

    @engines
    @pytest.mark.filterwarnings("ignore:.*is deprecated", "ignore::torch.jit.TracerWarning")
    @pytest.mark.parametrize("how", ["trace", "script"])
    def test_torchscript_is_refused(self, how: str, engine: str) -> None:
        x = picture(32, 32)
        jit: Any = torch.jit
        scripted = jit.trace(small(), x) if how == "trace" else jit.script(small())
        with pytest.raises(TypeError, match=r"TorchScript module .* pass the Python module that it was made from"):
            explain(scripted, x, engine=engine)

    @engines
    def test_a_model_without_weights_is_refused(self, engine: str) -> None:
        with torch.device("meta"):
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with pytest.raises(ModelError, match="on the meta device: its parameters have no values; load its weights"):
            explain(model, picture(8, 8), engine=engine)

    @engines
    def test_an_empty_sequential_is_refused(self, engine: str) -> None:
        with pytest.raises(GradcamError, match="Sequential"):
            explain(nn.Sequential(), picture(8, 8), engine=engine)

    @engines
    def test_what_the_model_raises_passes_unchanged(self, engine: str) -> None:
        """A picture of one channel for a model of three: torch says it best."""
        with pytest.raises(RuntimeError, match="expected input") as raised:
            explain(small(), picture(32, 32, 1), engine=engine)
        assert not isinstance(raised.value, GradcamError)


class TestDevices:
    @pytest.mark.parametrize("places", [[], [CPU]])
    def test_auto_on_a_machine_without_accelerator_is_the_cpu(
        self, places: list[torch.device], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pytest_gradcam.cam.model._accelerator", lambda: None)
        assert resolve_device("auto", places) == CPU

    @pytest.mark.parametrize("places", [[], [CPU]])
    def test_auto_takes_an_accelerator_for_a_model_on_the_cpu(
        self, places: list[torch.device], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pytest_gradcam.cam.model._accelerator", lambda: torch.device("cuda", 0))
        assert resolve_device("auto", places) == torch.device("cuda", 0)

    def test_auto_stays_on_the_accelerator_that_the_model_is_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_gradcam.cam.model._accelerator", lambda: torch.device("cuda", 0))
        assert resolve_device("auto", [torch.device("cuda", 1)]) == torch.device("cuda", 1)

    def test_auto_leaves_a_spread_model_where_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_gradcam.cam.model._accelerator", lambda: torch.device("cuda", 0))
        assert resolve_device("auto", [CPU, torch.device("cuda", 1)]) == CPU

    @pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
    def test_a_device_by_name_or_object(self, device: Any) -> None:
        assert resolve_device(device, [CPU]) == CPU
        assert explain(small(), picture(32, 32), 1, device=device).device == "cpu"

    @pytest.mark.parametrize("device", ["gpu", "cuda:x", "", None, object()])
    def test_an_unknown_device_is_refused(self, device: Any) -> None:
        with pytest.raises(DeviceError, match=r"^unknown device .*: use 'auto', 'cpu', 'cuda', 'cuda:0', 'mps'"):
            explain(small(), picture(32, 32), 1, device=device)

    def test_a_cuda_device_that_is_absent_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        for device in ("cuda", "cuda:0", torch.device("cuda")):
            with pytest.raises(
                DeviceError, match=r"^device 'cuda(:0)?' is not present: torch sees 0 CUDA devices; use"
            ):
                explain(small(), picture(32, 32), 1, device=device)

    def test_a_cuda_device_beyond_the_last_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(DeviceError, match=r"^device 'cuda:2' is not present: torch sees 2 CUDA devices"):
            resolve_device("cuda:2", [CPU])

    @pytest.mark.parametrize("device", ["meta", "xla", "fpga"])
    def test_a_device_that_computes_nothing_here_is_refused(self, device: str) -> None:
        with pytest.raises(DeviceError, match="use 'auto' or 'cpu'"):
            explain(small(), picture(32, 32), 1, device=device)


@dataclass
class Output:
    extra: Tensor
    logits: Tensor


class Named(NamedTuple):
    first: Tensor
    second: Tensor


LOGITS, OTHER = torch.arange(6.0).view(2, 3), torch.ones(2, 5)


class TestLogits:
    @pytest.mark.parametrize(
        "output",
        [
            LOGITS,
            Output(OTHER, LOGITS),
            SimpleNamespace(logits=LOGITS, extra=OTHER),
            {"extra": OTHER, "logits": LOGITS},
            {"out": LOGITS, "aux": OTHER},
            OrderedDict(a=None, b=LOGITS),
            (LOGITS, OTHER),
            [LOGITS],
            Named(LOGITS, OTHER),
            (None, {"nested": [LOGITS]}),
            SimpleNamespace(loss=None, prediction=LOGITS),
        ],
        ids=lambda output: type(output).__name__,
    )
    def test_are_found_in(self, output: Any) -> None:
        assert logits_of(output) is LOGITS

    @pytest.mark.parametrize("output", [None, 3.0, "text", {}, (), {"logits": None}, SimpleNamespace(a=1)])
    def test_are_missing_from(self, output: Any) -> None:
        with pytest.raises(ClassError, match=r"without a tensor of logits: pass cls as a callable, output -> scalar"):
            logits_of(output)

    @pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4), (2, 21, 8, 8)])
    def test_have_one_row_for_each_image(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ClassError) as raised:
            logits_of(torch.zeros(shape))
        assert str(raised.value) == (
            f"the model's output has shape {shape}, not (N, classes): pass cls as a callable, output -> scalar tensor"
        )

    @engines
    def test_a_map_of_logits_needs_a_callable(self, engine: str) -> None:
        """Segmentation: no class of the whole image."""
        model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 1))
        with pytest.raises((ClassError, TargetLayerError), match=r"not \(N, classes\): pass cls as a callable"):
            explain(model, picture(16, 16), 2, engine=engine)
        got = explain(model, picture(16, 16), lambda output: output[0, 2].sum(), engine=engine, layer="1")
        assert (got.cls, got.predicted, got.probability) == (None, None, None)

    def test_all_tensors_are_found_in_order(self) -> None:
        a, b, c, d = (torch.full((1,), float(i)) for i in range(4))
        nested = {"x": [a, (b, None)], "y": SimpleNamespace(z={"k": c}, n=3), "w": d}
        assert [float(t) for t in tensors_in(nested)] == [0, 1, 2, 3]


def bare(**attributes: Any) -> nn.Module:
    module = nn.Identity()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


class TestLabels:
    @pytest.mark.parametrize(
        ("attributes", "labels"),
        [
            ({}, None),
            ({"pretrained_cfg": {"label_names": ["cat", "dog"]}}, ("cat", "dog")),
            ({"pretrained_cfg": {"label_names": ("cat", "dog")}, "num_classes": 2}, ("cat", "dog")),
            ({"pretrained_cfg": {"label_names": ["cat", "dog"]}, "num_classes": 3}, None),
            ({"pretrained_cfg": {"label_names": None}}, None),
            ({"config": SimpleNamespace(id2label={1: "dog", 0: "cat"})}, ("cat", "dog")),
            ({"config": SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})}, None),
            ({"config": SimpleNamespace(id2label={})}, None),
            ({"config": {"id2label": {0: "cat"}}}, None),
        ],
    )
    def test_that_models_carry(self, attributes: dict[str, Any], labels: tuple[str, ...] | None) -> None:
        assert labels_of(bare(**attributes)) == labels

    def test_are_on_the_explanation(self) -> None:
        model: Any = small()
        model.pretrained_cfg = {"label_names": ["cat", "dog", "cow", "elk"]}
        got = explain(model, picture(32, 32), "dog")
        assert (got.cls, got.label) == (1, "dog")
        assert got.predicted is not None and got.predicted_label == ["cat", "dog", "cow", "elk"][got.predicted]

    @pytest.mark.parametrize("names", [["cat", "dog"], [f"n{i}" for i in range(1000)]])
    def test_of_a_head_that_was_replaced_are_not_believed(self, names: list[str]) -> None:
        """`model.fc = nn.Linear(…)` leaves the configuration of the old head; the user gave no labels to blame."""
        model: Any = small()
        model.pretrained_cfg = {"label_names": names}
        got = explain(model, picture(32, 32), 1)
        assert (got.cls, got.label) == (1, None)

    def test_that_the_user_gives_win(self) -> None:
        model: Any = small()
        model.pretrained_cfg = {"label_names": ["cat", "dog", "cow", "elk"]}
        assert explain(model, picture(32, 32), "b", labels=["a", "b", "c", "d"]).label == "b"
