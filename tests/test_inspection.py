"""`gradcam layers`: which layers are shown, what is said of each, and of models that cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_gradcam.cli import main

MODELS = """
import torch
from torch import nn

def two_convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def no_grid():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))

def of_32():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))

def no_model():
    return "a string"
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def rows(text: str) -> dict[str, str]:
    """What is said of each layer, by name; the one taken has an arrow."""
    table = text.split("\n\n")[1].splitlines()[1:]
    return {line[4:].split()[0]: line for line in table}


def test_a_model_of_the_users_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "my_models:two_convolutions", "--size", "32", "48"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Sequential, input 3×32×48, the last layer first\n")
    found = rows(out)
    assert list(found) == ["3", "2", "1", "0"]
    assert found["3"].startswith("->") and "1×8×8×12" in found["3"] and "nchw 8×12" in found["3"]
    assert "taken: its cells follow their places (correlation" in found["3"]
    assert all("would do, named" in found[name] and not found[name].startswith("->") for name in ("2", "1", "0"))


def test_a_vision_transformer_of_timm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "test_vit"]) == 0
    found = rows(capsys.readouterr().out)
    assert "its gradient is in the prefix tokens" in found["blocks"]
    assert found["blocks.5.norm1"].startswith("->") and "tokens 1+10×10" in found["blocks.5.norm1"]
    assert "blocks.5.mlp" not in found  # inside a layer that is shown


def test_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "test_vit", "--all", "--cls", "3"]) == 0
    out = capsys.readouterr().out
    assert "blocks.5.mlp" in rows(out)
    assert "more: see them with --all" not in out


def test_a_model_without_a_grid_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "my_models:no_grid", "--size", "16", "16"]) == 1
    assert "no layer of Sequential gives a grid over the image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_model"], "ModelError: timm has no model 'no_such_model', and it is no module:factory"),
        (["test_vi"], "did you mean test_vit"),
        (["no_such_module:factory"], "ModelError: 'no_such_module:factory' cannot be imported: No module named"),
        (["my_models:nothing"], "ModelError: 'my_models:nothing' cannot be imported:"),
        (["my_models:no_model"], "ModelTypeError: my_models:no_model gives a str: it must give a torch.nn.Module"),
        (["test_vit", "--size", "3"], "SettingsError: size (3,) is not (height, width) or (channels, height, width)"),
        (["test_vit", "--cls", "1000"], "ClassError: class 1000 is out of range"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err and len(said.err.splitlines()) == 1


def test_what_the_model_raises_is_said_with_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "my_models:of_32", "--size", "16", "24"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert "Sequential raised this for one input of 3×16×24: give its own with --size" in said
