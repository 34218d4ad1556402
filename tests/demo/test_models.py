"""The demo's two models do what the demo says of them, on 200 pictures that neither was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pytest_gradcam import AttentionError, assert_attention_in_region
from pytest_gradcam.demo import models
from pytest_gradcam.demo.models import NAMES, Name, build, load_model, predict
from pytest_gradcam.demo.pictures import LABELS, Picture, held_out

WEIGHTS = files("pytest_gradcam.demo") / "weights"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return list(held_out(200))


@pytest.fixture(scope="module")
def loaded() -> dict[Name, nn.Module]:
    return {name: load_model(name) for name in NAMES}


def predictions(model: nn.Module, pictures: list[Picture]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(predict(model, [picture.image for picture in pictures]))


def passes(model: nn.Module, picture: Picture) -> bool:
    """Whether the attention assertion at its default settings passes; any other error is raised."""
    try:
        assert_attention_in_region(model, picture.image, picture.box, picture.cls)
    except AttentionError as error:
        assert error.verdict is not None, "a failure without a map is no verdict on where the model looks"
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_both_models_are_right_where_object_and_stamp_agree(
    loaded: dict[Name, nn.Module], pictures: list[Picture], name: Name
) -> None:
    right = predictions(loaded[name], pictures) == [picture.cls for picture in pictures]
    assert right.mean() >= 0.99


def test_swapping_the_stamp_flips_the_shortcut_model_and_not_the_honest_one(
    loaded: dict[Name, nn.Module], pictures: list[Picture]
) -> None:
    swapped = list(held_out(200, swap_stamps=True))
    flipped = {
        name: (predictions(loaded[name], pictures) != predictions(loaded[name], swapped)).mean() for name in NAMES
    }
    assert flipped["shortcut"] >= 0.98
    assert flipped["honest"] <= 0.01


def test_the_attention_assertion_at_default_settings_tells_them_apart(
    loaded: dict[Name, nn.Module], pictures: list[Picture]
) -> None:
    passed = {name: np.mean([passes(loaded[name], picture) for picture in pictures]) for name in NAMES}
    assert passed["honest"] >= 0.98
    assert passed["shortcut"] <= 0.02


def test_both_models_have_the_same_architecture_and_a_grid_of_at_least_7_by_7(loaded: dict[Name, nn.Module]) -> None:
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in loaded.values()]
    assert shapes[0] == shapes[1]
    assert isinstance(features := loaded["honest"].forward_features(torch.zeros(1, 3, 96, 96)), torch.Tensor)  # type: ignore[operator]
    assert min(features.shape[2:]) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_safetensors_of_at_most_2_mb(name: Name) -> None:
    data = (WEIGHTS / f"{name}.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # the format: length, JSON header, tensors
    assert len(data) <= 2_000_000
    assert "fc.weight" in header


def test_what_the_models_are_given_is_what_timm_would_give_them(pictures: list[Picture]) -> None:
    """The transform that the model declares leaves a 96-pixel picture as `inputs` has it: no resize, no crop."""
    timm = import_module("timm.data")
    transform = timm.create_transform(**timm.resolve_model_data_config(build()), is_training=False)
    theirs = torch.stack([transform(Image.fromarray(picture.image)) for picture in pictures[:4]])
    ours = models.inputs([picture.image for picture in pictures[:4]])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_models_know_their_labels() -> None:
    model = build()
    assert tuple(model.pretrained_cfg["label_names"]) == LABELS  # type: ignore[index]


def test_the_recorded_measurements_are_of_these_weights(loaded: dict[Name, nn.Module], pictures: list[Picture]) -> None:
    recorded = json.loads((WEIGHTS / "measured.json").read_text(encoding="utf-8"))
    assert recorded["held_out_pictures"] == len(pictures)
    for name in NAMES:
        right = predictions(loaded[name], pictures) == [picture.cls for picture in pictures]
        assert right.mean() == pytest.approx(recorded["measured"][name]["accuracy"], abs=0.005)
