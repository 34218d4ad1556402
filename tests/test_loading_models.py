"""Models by name: timm's and the user's own, weights from files, and files that are no weights."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pytest_gradcam import ModelError, loading
from pytest_gradcam.errors import ModelTypeError
from pytest_gradcam.loading import load_model

MODULE = """
import torch
from torch import nn

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).train()

instance = linear()

class inner:
    made = staticmethod(linear)

def raises():
    raise OSError("no disk")

def text():
    return "a string"

number = 3
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loadable.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_loadable.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def are_same(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return list(own) == list(weights) and all(torch.equal(own[key], weights[key]) for key in own)


def saved(name: str = "test_resnet", seed: int = 7, **keywords: Any) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    weights: dict[str, Tensor] = timm.create_model(name, **keywords).state_dict()
    return weights


class TestNames:
    @pytest.mark.parametrize("name", ["test_resnet", "timm:test_resnet"])
    def test_of_timm(self, name: str) -> None:
        model = load_model(name, pretrained=False)
        assert type(model).__name__ == "ResNet" and not any(module.training for module in model.modules())

    @pytest.mark.parametrize("name", ["own_loadable:linear", "own_loadable:instance", "own_loadable:inner.made"])
    def test_of_the_users_own(self, name: str) -> None:
        model = load_model(name)
        assert isinstance(model, nn.Sequential) and not any(module.training for module in model.modules())

    @pytest.mark.parametrize(
        ("name", "kind", "said"),
        [
            ("no_such_model", ModelError, "timm has no model 'no_such_model', and it is no module:factory"),
            ("timm:test_vi", ModelError, "timm has no model 'test_vi', .*did you mean test_vit"),
            ("own_loadable:", ModelError, "'own_loadable:' cannot be imported"),
            (":linear", ModelError, "':linear' cannot be imported"),
            (".own_loadable:linear", ModelError, "'.own_loadable:linear' cannot be imported"),
            (
                "broken_loadable:x",
                ModelError,
                r"cannot be imported: ZeroDivisionError: .* \(broken_loadable.py, line 1\)",
            ),
            (
                "own_loadable:raises",
                ModelError,
                r"own_loadable:raises gave no model when it was called without arguments: OSError: no disk "
                r"\(own_loadable.py, line 14\)",
            ),
            ("own_loadable:text", ModelTypeError, "own_loadable:text gives a str: it must give a torch.nn.Module"),
            ("own_loadable:number", ModelTypeError, "own_loadable:number is a int: it must be a model, or a callable"),
        ],
    )
    def test_that_are_none(self, name: str, kind: type[ModelError], said: str) -> None:
        with pytest.raises(kind, match=said):
            load_model(name)


class TestCheckpoints:
    @pytest.mark.parametrize("key", [None, *loading.WEIGHTS])
    def test_of_torch(self, key: str | None, tmp_path: Path) -> None:
        weights = saved()
        arguments = argparse.Namespace(lr=0.1)  # as timm's own training runs keep them
        torch.save(weights if key is None else {"epoch": 3, "args": arguments, key: weights}, tmp_path / "a.pt")
        model = load_model("test_resnet", tmp_path / "a.pt")
        assert are_same(model, weights) and not any(module.training for module in model.modules())

    def test_of_safetensors(self, tmp_path: Path) -> None:
        weights = saved()
        save_file(weights, tmp_path / "a.safetensors")
        assert are_same(load_model("timm:test_resnet", str(tmp_path / "a.safetensors")), weights)

    def test_averaged_weights_come_first(self, tmp_path: Path) -> None:
        torch.save({"state_dict": saved(seed=1), "state_dict_ema": saved(seed=2)}, tmp_path / "a.pt")
        assert are_same(load_model("test_resnet", tmp_path / "a.pt"), saved(seed=2))

    def test_of_a_wrapped_model(self, tmp_path: Path) -> None:
        weights = saved()
        torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "a.pt")
        assert are_same(load_model("test_resnet", tmp_path / "a.pt"), weights)

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_vit2", "deit_tiny_distilled_patch16_224"])
    def test_a_model_of_timm_has_as_many_classes_as_the_file(self, name: str, tmp_path: Path) -> None:
        weights = saved(name, num_classes=7)
        torch.save(weights, tmp_path / "a.pt")
        assert are_same(load_model(name, tmp_path / "a.pt"), weights)

    def test_of_the_users_own_model(self, tmp_path: Path) -> None:
        """Two models from one object, each with its own weights."""
        one, two = ({"1.weight": torch.full((3, 12), fill), "1.bias": torch.zeros(3)} for fill in (1.0, 2.0))
        torch.save(one, tmp_path / "one.pt")
        torch.save(two, tmp_path / "two.pt")
        a, b = (load_model("own_loadable:instance", tmp_path / f"{name}.pt") for name in ("one", "two"))
        assert are_same(a, one) and are_same(b, two)


class Runs:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("code_was_run",)


class TestCheckpointsThatDoNotServe:
    def refused(self, path: str, name: str = "test_resnet") -> str:
        with pytest.raises(ModelError) as raised:
            load_model(name, path)
        assert not Path("code_was_run").exists()
        said = str(raised.value)
        assert repr(path) in said and len(said.splitlines()) == 1
        return said

    def test_that_are_not_there(self, tmp_path: Path) -> None:
        assert self.refused("none.pt").startswith(f"there is no checkpoint 'none.pt' in {str(tmp_path)!r}: give the ")
        Path("folder").mkdir()
        assert "is a folder: give the file" in self.refused("folder")

    def test_with_code_in_them(self) -> None:
        torch.save({"state_dict": saved(), "also": Runs()}, "a.pt")
        said = self.refused("a.pt")
        assert "holds more than weights" in said and "mkdir" in said and "save its weights alone" in said
        torch.save(timm.create_model("test_resnet"), "whole.pt")
        assert "timm.models.resnet.ResNet, which could run code" in self.refused("whole.pt")

    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    @pytest.mark.parametrize("data", [b"", b"hello world", b"\x80\x04\x95", b"PK\x03\x04", bytes(range(256))])
    def test_that_are_none(self, suffix: str, data: bytes) -> None:
        Path(f"a.{suffix}").write_bytes(data)
        assert "is no file of weights" in self.refused(f"a.{suffix}")

    def test_cut_off(self) -> None:
        torch.save(saved(), "a.pt")
        Path("a.pt").write_bytes(Path("a.pt").read_bytes()[:-2000])
        assert "is no file of weights" in self.refused("a.pt")

    @pytest.mark.parametrize(
        ("held", "said"),
        [
            ([1, 2], "holds a list: give a file of weights"),
            ({}, "holds nothing"),
            ({"epoch": 3}, "holds 'epoch', a int, among its weights"),
        ],
    )
    def test_that_hold_something_else(self, held: object, said: str) -> None:
        torch.save(held, "a.pt")
        assert said in self.refused("a.pt")

    def test_of_another_model(self) -> None:
        weights = saved("test_vit")
        torch.save(weights, "a.pt")
        said = self.refused("a.pt")
        own = list(saved())
        missing = [key for key in own if key not in weights]
        unexpected = [key for key in weights if key not in own]
        assert "does not fit ResNet" in said and "module:factory" in said
        assert f"{len(missing)} missing: {', '.join(missing[:3])}, …" in said
        assert f"{len(unexpected)} unexpected: {', '.join(unexpected[:3])}, …" in said

    def test_of_the_same_model_in_another_width(self) -> None:
        weights = saved()
        weights["conv1.0.weight"] = weights["conv1.0.weight"][:, :1].clone()
        torch.save(weights, "a.pt")
        shape, seen = tuple(saved()["conv1.0.weight"].shape), tuple(weights["conv1.0.weight"].shape)
        assert f"weights 1 of another shape: conv1.0.weight {seen}, the model's {shape}. Give" in self.refused("a.pt")

    def test_of_two_models_with_one_key_less(self) -> None:
        weights = saved()
        weights.pop("fc.bias")
        torch.save(weights, "a.pt")
        assert "of its weights 1 missing: fc.bias. Give" in self.refused("a.pt")


class TestPretrained:
    def test_no_network_is_told_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the real download library, whose own tries would take a minute."""
        from huggingface_hub import constants

        def refuse(*_arguments: object, **_keywords: object) -> None:
            raise OSError("Network is unreachable")

        monkeypatch.setattr("socket.create_connection", refuse)
        monkeypatch.setattr(loading, "getproxies", dict)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("nothing_here").absolute()))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        started = time.perf_counter()
        with pytest.raises(
            ModelError, match=r"the pretrained weights of test_resnet cannot be had \(.*--checkpoint FILE after --model"
        ):
            load_model("test_resnet")
        assert time.perf_counter() - started < 10
        assert constants.HF_HUB_OFFLINE is False

    @pytest.mark.parametrize("error", [RuntimeError("No pretrained weights exist"), OSError("timed out"), KeyError(3)])
    def test_whatever_the_library_raises_is_a_model_error(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[bool] = []

        def create(name: str, *, pretrained: bool) -> nn.Module:
            asked.append(pretrained)
            raise error

        monkeypatch.setattr(loading, "_is_reachable", lambda _address: True)
        monkeypatch.setattr(timm, "create_model", create)
        with pytest.raises(ModelError, match=rf"test_resnet cannot be had \({type(error).__name__}: "):
            load_model("test_resnet")
        assert asked == [True]

    def test_a_checkpoint_needs_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_name: str) -> nn.Module:
            raise AssertionError("asked for the network")

        monkeypatch.setattr(loading, "_pretrained", refuse)
        torch.save(saved(), "a.pt")
        assert are_same(load_model("test_resnet", "a.pt"), saved())
