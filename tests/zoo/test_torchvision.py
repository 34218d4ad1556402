"""Every architecture of `torchvision.models` gives a map without configuration, and what is built on them.

One member stands for a family, built with random weights; segmenters and detectors have a callable for a score. Maps
are compared with the formula at the layer that was found, on the grid that the architecture is known to have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from pytest_gradcam import Explanation, GradcamError, explain
from tests.models import Floats, apart, grad_cam_of, hirescam_of, picture, reference, seeded

CLASSES = 7
FORMULAS = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}


def from_torchvision(name: str, **keywords: Any) -> Any:
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **keywords)


def with_wide_head(name: str) -> Any:
    """Without the time that it takes to initialise a hundred million weights of its classifier as the library does."""
    with patch.object(nn.Linear, "reset_parameters"):
        model = from_torchvision(name)
    seeded(model.classifier)
    return model


def tiny_maxvit() -> Any:
    return torchvision.models.MaxVit(
        input_size=(128, 128),
        stem_channels=16,
        partition_size=2,
        block_channels=[16, 24, 32, 48],
        block_layers=[1, 1, 1, 1],
        head_dim=8,
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )


def tiny_vit() -> Any:
    """With drawn weights: those of its head are zero at first, and nothing would be evidence."""
    return seeded(torchvision.models.VisionTransformer(64, 8, 12, 2, 32, 64, num_classes=CLASSES))


# Family (what its members' names begin with): its smallest member, how that is built (keywords, where by its name), the
# size of the input, the layer expected (a pattern) and its grid.
Case = tuple[str, Callable[[], Any] | dict[str, Any], tuple[int, int], str, tuple[int, int]]
FAMILIES: dict[str, Case] = {
    "alexnet": ("alexnet", lambda: with_wide_head("alexnet"), (192, 192), r"features\.11", (11, 11)),
    "convnext": ("convnext_tiny", {}, (128, 96), "features", (4, 3)),
    "densenet": ("densenet121", {}, (128, 192), "features", (4, 6)),
    "efficientnet_b": ("efficientnet_b0", {}, (192, 192), "features", (6, 6)),
    "efficientnet_v2": ("efficientnet_v2_s", {}, (128, 128), "features", (4, 4)),
    "googlenet": ("googlenet", {"init_weights": False}, (192, 192), "inception5b", (6, 6)),
    "inception": ("inception_v3", {"init_weights": False}, (224, 224), "Mixed_7c", (5, 5)),
    "maxvit": ("maxvit_t", tiny_maxvit, (128, 128), r"blocks\.3", (4, 4)),
    "mnasnet": ("mnasnet0_5", {}, (192, 192), "layers", (6, 6)),
    "mobilenet_v2": ("mobilenet_v2", {}, (160, 192), "features", (5, 6)),
    "mobilenet_v3": ("mobilenet_v3_small", {}, (192, 192), "features", (6, 6)),
    "regnet": ("regnet_y_400mf", {}, (192, 192), "trunk_output", (6, 6)),
    "resnet": ("resnet18", {}, (192, 128), "layer4", (6, 4)),
    "resnext": ("resnext50_32x4d", {}, (128, 128), "layer4", (4, 4)),
    "shufflenet": ("shufflenet_v2_x0_5", {}, (192, 192), "conv5", (6, 6)),
    "squeezenet": ("squeezenet1_1", {}, (128, 128), r"classifier\.2|features", (7, 7)),
    "swin_": ("swin_t", {}, (96, 128), "norm|permute", (3, 4)),
    "swin_v2": ("swin_v2_t", {}, (96, 96), "norm|permute", (3, 3)),
    "vgg": ("vgg11", lambda: with_wide_head("vgg11"), (64, 64), r"features\.19", (4, 4)),
    "vit": ("vit_b_16", tiny_vit, (64, 64), r"encoder\.layers\.encoder_layer_11\.ln_1", (8, 8)),
    "wide_resnet": ("wide_resnet50_2", {}, (96, 96), "layer4", (3, 3)),
}


def family_of(name: str) -> str | None:
    return max((family for family in FAMILIES if name.startswith(family)), key=len, default=None)


def parameters_of(name: str) -> int:
    count: int = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    return count


def test_no_family_is_left_out_and_the_smallest_member_stands_for_each() -> None:
    members: dict[str | None, list[str]] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        members.setdefault(family_of(name), []).append(name)
    assert {family: min(names, key=parameters_of) for family, names in members.items()} == {
        family: name for family, (name, *_) in FAMILIES.items()
    }


def settled(model: Any, height: int, width: int) -> Any:
    """The same model with the batch norm statistics of four pictures: activations keep their size.

    Only the batch norms are set to training: auxiliary heads, which run in training only, have no room on a small grid.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean of the batches
    with torch.no_grad():
        model(picture(height, width, count=4, seed=2))
    return model.eval()


def built(family: str) -> tuple[Any, Tensor]:
    name, how, (height, width), _, _ = FAMILIES[family]
    model = from_torchvision(name, **how) if isinstance(how, dict) else how()
    return settled(model, height, width), picture(height, width)


def as_grid(output: Tensor, grid: tuple[int, int]) -> Tensor:
    """A layer's output, whose grid is known, as (N, C, h, w); tokens that have no place in it come first."""
    h, w = grid
    if output.ndim == 3:
        return output[:, -h * w :].transpose(1, 2).reshape(len(output), -1, h, w)
    return output if output.shape[2:] == (h, w) else output.permute(0, 3, 1, 2)


def written_out(model: nn.Module, x: Tensor, got: Explanation, score: int | Callable[[Any], Tensor]) -> Floats:
    """The mean over the layers that were read, one in each block of tokens, of what speaks for the score."""
    raws = []
    for layer in got.layers:
        activations, gradients = reference(model, x, layer, score)
        raws.append(FORMULAS[got.method](as_grid(activations, got.grid), as_grid(gradients, got.grid)))
    if len(raws) == 1:
        return raws[0]
    positive = np.mean(np.maximum(raws, 0), axis=0)
    return np.asarray(np.where(positive > 0, positive, np.minimum(np.mean(raws, axis=0), 0)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_predicted_class_has_a_map_on_the_grid_of_the_architecture(family: str) -> None:
    model, x = built(family)
    *_, layer, grid = FAMILIES[family]
    got = explain(model, x)
    assert got.grid == grid
    assert re.fullmatch(layer, got.layers[-1])
    with torch.no_grad():
        assert got.cls == got.predicted == int(model(x).argmax())
    assert got.evidence > 0
    assert apart(got.raw, written_out(model, x, got, got.cls)) <= 1e-4


@pytest.mark.parametrize("family", ["googlenet", "inception"])
def test_auxiliary_heads_of_a_model_in_training_change_nothing(family: str) -> None:
    """In training they are called, and the output is a named tuple; for the map the model is in eval mode."""
    model, x = built(family)
    assert any("aux" in name.lower() for name, _ in model.named_children())
    expected = explain(model, x, 2)
    got = explain(model.train(), x, 2)
    assert model.training
    assert got.layer == expected.layer
    assert apart(got.raw, expected.raw) <= 1e-6


# DeepLab's head mixes in a mean of the whole image: whether what comes out is still local is the weights' business.
SEGMENTERS: dict[str, tuple[dict[str, Any], tuple[int, int], str, tuple[int, int]]] = {
    "deeplabv3_mobilenet_v3_large": ({}, (96, 128), ".*", (6, 8)),
    "deeplabv3_mobilenet_v3_large with an auxiliary head": ({"aux_loss": True}, (96, 128), ".*", (6, 8)),
    "fcn_resnet50": ({}, (64, 64), r"classifier(\.\d)?", (8, 8)),
    "lraspp_mobilenet_v3_large": ({}, (96, 128), "classifier", (12, 16)),
}


def segmenter(case: str) -> tuple[Any, Tensor]:
    keywords, (height, width), *_ = SEGMENTERS[case]
    model = from_torchvision(case.split()[0], weights_backbone=None, **keywords)
    return settled(model, height, width), picture(height, width)


def mean_of_class_3(output: Any) -> Tensor:
    found: Tensor = output["out"][0, 3].mean()
    return found


@pytest.mark.parametrize("case", SEGMENTERS)
def test_a_segmenter_has_a_map_of_what_a_callable_reads(case: str) -> None:
    model, x = segmenter(case)
    *_, layer, grid = SEGMENTERS[case]
    got = explain(model, x, mean_of_class_3)
    assert (got.cls, got.grid) == (None, grid)
    assert re.fullmatch(layer, got.layers[-1])
    with torch.no_grad():
        assert got.score == pytest.approx(float(mean_of_class_3(model(x))), rel=1e-4)
    assert apart(got.raw, written_out(model, x, got, mean_of_class_3)) <= 1e-4


@pytest.mark.parametrize(("lower", "right"), [(False, True), (True, False)])
def test_the_score_of_one_corner_is_read_there(lower: bool, right: bool) -> None:
    """HiResCAM is zero where the score does not look."""
    model, x = segmenter("lraspp_mobilenet_v3_large")
    rows, columns = slice(80 * lower, 80 * lower + 16), slice(112 * right, 112 * right + 16)

    def corner(output: Any) -> Tensor:
        found: Tensor = output["out"][0, 3, rows, columns].square().sum()
        return found

    got = explain(model, x, corner, method="hirescam")
    assert got.grid == (12, 16)
    # Two cells of eight pixels, and one beyond, for the bilinear step to the size of the image.
    read = np.zeros((12, 16), bool)
    read[9 * lower : 9 * lower + 3, 13 * right : 13 * right + 3] = True
    assert got.raw[read].any()
    assert not got.raw[~read].any()


# With the layer that a person would name, and its grid.
DETECTORS: dict[str, tuple[dict[str, Any], str, tuple[int, int]]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": ({"box_score_thresh": 0.0}, "backbone.body.16", (4, 4)),
    "retinanet_resnet50_fpn": ({"score_thresh": 0.0}, "backbone.body.layer4", (4, 4)),
}


def detector(name: str) -> tuple[Any, Tensor]:
    """With random weights nothing is found with certainty: whatever is found counts."""
    keywords, *_ = DETECTORS[name]
    model = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=CLASSES, min_size=128, max_size=128, **keywords
    )
    return model.eval(), picture(128, 128)


def sum_of_scores(output: Any) -> Tensor:
    found: Tensor = output[0]["scores"].sum()
    return found


@pytest.mark.parametrize("name", DETECTORS)
class TestDetectors:
    """Their features are read at several sizes, so that little but an early layer has all of the evidence."""

    def test_a_map_or_an_error_that_says_what_to_do(self, name: str) -> None:
        model, x = detector(name)
        try:
            got = explain(model, x, sum_of_scores)
        except GradcamError as error:
            assert "layer=" in str(error)
        else:
            assert got.evidence > 0
            assert min(got.grid) >= 2

    def test_a_named_layer_is_read(self, name: str) -> None:
        _, layer, grid = DETECTORS[name]
        model, x = detector(name)
        got = explain(model, x, sum_of_scores, layer=layer)
        assert (got.layer, got.grid) == (layer, grid)
        assert apart(got.raw, written_out(model, x, got, sum_of_scores)) <= 1e-4
