"""Finding the target layer: which one, in which models, for which score; and checking one that is named."""

from __future__ import annotations

import copy
import gc
import itertools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import ModelError, TargetLayerError, ZeroEvidenceWarning, explain, explain_batch
from tests.models import (
    Floats,
    TwoHeads,
    apart,
    calibrated,
    cam_of,
    coloured,
    grad_cam_of,
    hirescam_of,
    picture,
    reads_colours,
    reference,
    seeded,
    small,
)

EQUAL = 1e-6


def from_timm(name: str, **keywords: Any) -> Any:
    return timm.create_model(name, pretrained=False, num_classes=7, **keywords)


def from_torchvision(name: str, **keywords: Any) -> Any:
    return torchvision.models.get_model(name, weights=None, num_classes=7, **keywords)


def sequential(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def convolution(before: int, after: int, stride: int = 2) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=1)


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7)


def small_vgg() -> Any:
    """VGG-11 of torchvision with a classifier that is not 120 million weights wide."""
    model: Any = from_torchvision("vgg11", init_weights=False)
    model.classifier = nn.Sequential(nn.Flatten(), nn.Linear(512 * 49, 7))
    return model


# The model, the size of its input, the layer that is expected, and its grid.
Case = tuple[Callable[[], Any], tuple[int, ...], str, tuple[int, int]]
FOUND: dict[str, Case] = {
    "timm ResNet": (lambda: from_timm("resnet18"), (3, 96, 96), "layer4", (3, 3)),
    "timm ResNet, bottlenecks": (lambda: from_timm("resnet26"), (3, 64, 96), "layer4", (2, 3)),
    "torchvision ResNet": (lambda: from_torchvision("resnet18"), (3, 96, 96), "layer4", (3, 3)),
    "timm DenseNet": (lambda: from_timm("densenet121", growth_rate=8), (3, 96, 96), "features", (3, 3)),
    "torchvision DenseNet": (lambda: from_torchvision("densenet121"), (3, 128, 128), "features", (4, 4)),
    "timm MobileNetV2": (lambda: from_timm("mobilenetv2_035"), (3, 160, 160), "bn2", (5, 5)),
    "torchvision MobileNetV2": (lambda: from_torchvision("mobilenet_v2"), (3, 160, 160), "features", (5, 5)),
    "timm MobileNetV3": (lambda: from_timm("mobilenetv3_small_050"), (3, 128, 128), "blocks", (4, 4)),
    "torchvision MobileNetV3": (lambda: from_torchvision("mobilenet_v3_small"), (3, 160, 160), "features", (5, 5)),
    "timm EfficientNet": (lambda: from_timm("efficientnet_b0"), (3, 160, 160), "bn2", (5, 5)),
    "torchvision EfficientNet": (lambda: from_torchvision("efficientnet_b0"), (3, 128, 192), "features", (4, 6)),
    "timm ConvNeXt": (lambda: from_timm("convnext_atto"), (3, 96, 96), "stages", (3, 3)),
    "torchvision ConvNeXt": (lambda: from_torchvision("convnext_tiny"), (3, 64, 64), "features", (2, 2)),
    "timm RegNet": (lambda: from_timm("regnetx_002"), (3, 96, 96), "s4", (3, 3)),
    "Sequential": (
        lambda: sequential(convolution(3, 8), nn.ReLU(), convolution(8, 8), nn.ReLU(), *head(8)),
        (3, 32, 32),
        "3",
        (8, 8),
    ),
    "Sequential with names": (small, (3, 32, 32), "relu2", (8, 8)),
    "Sequential, in place": (lambda: small(inplace=True), (3, 32, 32), "relu2", (8, 8)),
    "Sequential without a last ReLU": (lambda: small(functional_end=True), (3, 32, 32), "conv2", (8, 8)),
    "Sequential, not square": (small, (3, 24, 56), "relu2", (6, 14)),
    "Sequential, a small image": (small, (3, 8, 8), "relu2", (2, 2)),
    "Sequential, sizes that no stride divides": (small, (3, 29, 31), "relu2", (8, 8)),
    "Sequential, one channel": (lambda: small(channels=1), (1, 32, 32), "relu2", (8, 8)),
    "Sequential, five channels": (lambda: small(channels=5), (5, 32, 32), "relu2", (8, 8)),
    "Sequential, one class": (lambda: small(classes=1), (3, 32, 32), "relu2", (8, 8)),
    "Sequential that ends in a pool": (
        lambda: sequential(convolution(3, 8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 7)),
        (3, 16, 16),
        "1",
        (8, 8),
    ),
    "Sequential with dropout of channels": (
        lambda: sequential(convolution(3, 8), nn.ReLU(), nn.Dropout2d(0.5), *head(8)),
        (3, 32, 32),
        "1",
        (16, 16),
    ),
    "Sequential that flattens its grid": (
        lambda: sequential(convolution(3, 8), nn.ReLU(), convolution(8, 4), nn.Flatten(), nn.Linear(4 * 16, 7)),
        (3, 16, 16),
        "2",
        (4, 4),
    ),
    "a backbone inside": (
        lambda: nn.Sequential(
            OrderedDict(backbone=sequential(convolution(3, 8), nn.ReLU()), rest=nn.Sequential(*head(8)))
        ),
        (3, 32, 32),
        "backbone",
        (16, 16),
    ),
    "a backbone inside that ends in a pool": (
        lambda: nn.Sequential(
            OrderedDict(
                backbone=sequential(convolution(3, 8, 1), nn.ReLU(), nn.MaxPool2d(2)), rest=nn.Sequential(*head(8))
            )
        ),
        (3, 32, 32),
        "backbone.1",
        (32, 32),
    ),
    "torchvision VGG": (small_vgg, (3, 64, 64), "features.19", (4, 4)),
}


def built(case: str) -> tuple[Any, Tensor]:
    """The model with activations that keep their size, and its input."""
    build, (channels, height, width), _, _ = FOUND[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    x = picture(height, width, channels)
    return calibrated(model, picture(height, width, channels, count=4, seed=2)), x


def evident(raw: Callable[[int], Floats]) -> tuple[int, Floats]:
    """The first class that has evidence, and its raw CAM."""
    maps = ((cls, raw(cls)) for cls in range(7))
    return next((cls, found) for cls, found in maps if found.max() > 0.1 * np.abs(found).max())


@pytest.mark.parametrize("case", FOUND)
def test_the_layer_is_found_and_both_engines_give_its_map(case: str) -> None:
    model, x = built(case)
    _, (_, height, width), layer, grid = FOUND[case]
    cls, expected = evident(lambda cls: grad_cam_of(*reference(model, x, layer, cls)))
    hooks = explain(model, x, cls, method="grad-cam")
    assert (hooks.layer, hooks.grid, hooks.method) == (layer, grid, "grad-cam")
    assert apart(hooks.raw, expected) <= 1e-5
    assert apart(hooks.cam, cam_of(hooks.raw, height, width)) <= EQUAL

    split = explain(model, x, cls, engine="split", method="grad-cam")
    assert (split.layer, split.grid, split.engine) == (layer, grid, "split")
    assert apart(split.raw, hooks.raw) <= EQUAL
    assert apart(split.cam, hooks.cam) <= EQUAL


def small_vit(**keywords: Any) -> Any:
    keywords = {"global_pool": "avg", **keywords}
    return timm.models.VisionTransformer(
        num_classes=7, img_size=64, patch_size=16, depth=3, embed_dim=32, num_heads=2, **keywords
    )


def mixer() -> Any:
    return timm.models.mlp_mixer.MlpMixer(num_classes=7, img_size=64, patch_size=16, num_blocks=2, embed_dim=32)


# The model, the side of its input, the layer that is expected, and its grid.
TOKENS: dict[str, tuple[Callable[[], Any], int, str, tuple[int, int]]] = {
    "timm ViT": (small_vit, 64, "blocks", (4, 4)),
    "timm ViT, class token": (lambda: small_vit(global_pool="token"), 64, "blocks.2.norm1", (4, 4)),
    "timm ViT, four registers": (
        lambda: small_vit(global_pool="token", reg_tokens=4, no_embed_class=True),
        64,
        "blocks.2.norm1",
        (4, 4),
    ),
    "timm Swin": (
        lambda: from_timm(
            "swin_tiny_patch4_window7_224",
            img_size=64,
            window_size=2,
            embed_dim=24,
            depths=(1, 1, 1, 1),
            num_heads=(1, 2, 2, 4),
        ),
        64,
        "norm",
        (2, 2),
    ),
    "timm mixer": (mixer, 64, "norm", (4, 4)),
    "torchvision ViT": (
        lambda: torchvision.models.VisionTransformer(64, 16, 3, 2, 32, 64, num_classes=7),
        64,
        "encoder.layers.encoder_layer_2.ln_1",
        (4, 4),
    ),
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_grid_of_tokens_is_found_and_both_engines_give_its_map(case: str) -> None:
    build, side, layer, grid = TOKENS[case]
    torch.manual_seed(0)
    model, x = build().eval(), picture(side, side)
    for module in model.modules():  # heads that begin at zero
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)
    for cls in range(7):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroEvidenceWarning)
            got = explain(model, x, cls, method="hirescam")
        if got.evidence > 0:
            break
    assert (got.layer, got.grid) == (layer, grid)
    assert np.abs(got.raw).max() > 0
    split = explain(model, x, cls, method="hirescam", engine="split")
    assert (split.layer, split.grid) == (layer, grid)
    assert apart(split.raw, got.raw) <= EQUAL


def tokens_as_grid(prefix: int, h: int, w: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, prefix:].permute(0, 2, 1).reshape(len(x), -1, h, w)


def nhwc_as_grid(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


# The model, the layer, what `auto` is there, its output as a grid; whether it can be cut there.
NAMED: dict[str, tuple[str, str, str, Callable[[Tensor], Tensor], bool]] = {
    "ViT, a block": ("timm ViT", "blocks.1", "hirescam", tokens_as_grid(1, 4, 4), True),
    "ViT, a norm inside": ("timm ViT", "blocks.2.norm1", "hirescam", tokens_as_grid(1, 4, 4), True),
    "torchvision ViT": (
        "torchvision ViT",
        "encoder.layers.encoder_layer_0",
        "hirescam",
        tokens_as_grid(1, 4, 4),
        True,
    ),
    "mixer": ("timm mixer", "norm", "hirescam", tokens_as_grid(0, 4, 4), True),
    "mixer, a block": ("timm mixer", "blocks.0", "hirescam", tokens_as_grid(0, 4, 4), True),
    "Swin": ("timm Swin", "norm", "grad-cam", nhwc_as_grid, True),
    "Swin, a stage": ("timm Swin", "layers.1", "grad-cam", nhwc_as_grid, True),
}
FORMULAS = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}


@pytest.mark.parametrize("method", ["auto", "grad-cam", "hirescam"])
@pytest.mark.parametrize("case", NAMED)
def test_a_named_layer_of_tokens_gives_the_formula_on_its_grid(case: str, method: str) -> None:
    which, layer, auto, as_grid, cuttable = NAMED[case]
    build, side, *_ = TOKENS[which]
    model, x = seeded(build()), picture(side, side)
    name = auto if method == "auto" else method

    def written_out(cls: int) -> Floats:
        activations, gradients = reference(model, x, layer, cls)
        return FORMULAS[name](as_grid(activations), as_grid(gradients))

    cls, expected = evident(written_out)
    got = explain(model, x, cls, layer=layer, method=method)
    assert (got.layer, got.grid, got.method) == (layer, expected.shape, name)
    assert apart(got.raw, expected) <= 1e-5
    assert apart(got.cam, cam_of(got.raw, side, side)) <= EQUAL
    if cuttable:
        split = explain(model, x, cls, layer=layer, method=method, engine="split")
        assert (split.layer, split.grid, split.method) == (layer, expected.shape, name)
        assert apart(split.raw, got.raw) <= EQUAL
    else:
        with pytest.raises(ModelError, match=rf"cannot be cut at '{layer}' into features and head: pass the pair"):
            explain(model, x, cls, layer=layer, method=method, engine="split")


class Odd(nn.Module):
    """Layers of every kind that cannot be read, beside one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = convolution(3, 8)
        self.twice = nn.ReLU()
        self.unused = nn.Conv2d(3, 8, 3)
        self.aside = nn.Conv2d(3, 8, 3, padding=1)
        self.pooled = nn.AdaptiveAvgPool2d(1)
        self.shapeless = nn.Flatten()
        self.listing = Listing()
        self.fc = nn.Linear(8, 4)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        (grid,) = self.listing(self.twice(self.grid(x)))
        logits: Tensor = self.fc(self.shapeless(self.pooled(self.twice(grid))))
        return logits


class Listing(nn.Module):
    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return dict.fromkeys([0], x) and DictOfOne(x)


class DictOfOne(dict[int, Tensor]):
    """A mapping that unpacks into its values; no tensor, tuple or list."""

    def __init__(self, x: Tensor) -> None:
        super().__init__({0: x})

    def __iter__(self) -> Any:
        return iter(self.values())


@pytest.mark.parametrize("engine", ["hooks", "split"])
class TestNamedLayers:
    """What is said of a layer that cannot be read."""

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            ("gird", "Odd has no layer 'gird'; did you mean 'grid'?"),
            ("layer4", "Odd has no layer 'layer4'"),
            ("", "Odd has no layer ''"),
            ("unused", "layer 'unused' is not called in the forward of Odd; name a layer that is"),
            ("twice", "layer 'twice' is called 2 times in a forward: which of its outputs the map should be read from"),
            ("pooled", "layer 'pooled' has no spatial grid: its output has shape (1, 8, 1, 1) for an input of 32×32"),
            ("fc", "layer 'fc' has no spatial grid: its output has shape (1, 4) for an input of 32×32 pixels"),
            ("listing", "layer 'listing' gives no tensor; name another layer"),
            ("aside", "the score does not depend on layer 'aside'; name a layer that lies before the score"),
            (3, "layer is a int: pass a dotted name or a module of the model"),
        ],
    )
    def test_that_give_no_map(self, engine: str, layer: Any, message: str) -> None:
        with pytest.raises(TargetLayerError) as raised:
            explain(Odd(), picture(32, 32), 1, layer=layer, engine=engine)
        assert str(raised.value).startswith(message)

    def test_a_module_of_the_model_stands_for_its_name(self, engine: str) -> None:
        model, x = small(), picture(32, 32)
        by_module = explain(model, x, 1, layer=model.get_submodule("relu1"), engine=engine)
        assert (by_module.layer, by_module.grid) == ("relu1", (16, 16))
        assert apart(by_module.raw, grad_cam_of(*reference(model, x, "relu1", 1))) <= 1e-5
        assert apart(by_module.raw, explain(model, x, 1, layer="relu1", engine=engine).raw) == 0

    def test_a_module_of_another_model_is_refused(self, engine: str) -> None:
        with pytest.raises(TargetLayerError, match=r"^the layer given, a Conv2d, is not part of Sequential$"):
            explain(small(), picture(32, 32), 1, layer=small().get_submodule("conv2"), engine=engine)

    def test_a_class_token_readout_is_refused(self, engine: str) -> None:
        """Behind the last block only the class token is read: all gradient is in it, and the cells have none."""
        model = seeded(from_timm("test_vit", global_pool="token"))
        for layer in ("norm", "blocks.5") if engine == "hooks" else ("norm",):
            with pytest.raises(TargetLayerError, match=rf"^the score does not depend on the cells of layer '{layer}'"):
                explain(model, picture(160, 160), 1, layer=layer, engine=engine)
        before = explain(model, picture(160, 160), 0, layer="blocks.5.norm1")
        assert before.evidence > 0

    def test_a_pooled_layer_may_be_named(self, engine: str) -> None:
        model = seeded(sequential(convolution(3, 8, 1), nn.ReLU(), nn.MaxPool2d(2), *head(8)))
        got = explain(model, picture(16, 16), 1, layer="2", engine=engine)
        assert (got.layer, got.grid) == ("2", (8, 8))

    def test_a_model_without_a_grid_is_refused(self, engine: str) -> None:
        model = sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
        with pytest.raises(TargetLayerError, match="no layer of Sequential gives a grid over the image") as raised:
            explain(model, picture(8, 8), 1, engine=engine)
        assert "its children are '0', '1'" in str(raised.value)

    def test_a_score_that_depends_on_no_grid_is_refused(self, engine: str) -> None:
        model = small()
        with pytest.raises(TargetLayerError, match="the score does not depend on it"):
            explain(model, picture(32, 32), lambda output: torch.ones(()), engine=engine)


class Counting(nn.Module):
    """Counts its forwards, elsewhere: what a forward leaves in the model is put back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.counter = itertools.count()
        self.seen = 0

    def forward(self, x: Tensor) -> Any:
        next(self.counter)
        return self.inner(x)

    def taken(self) -> int:
        """The forwards since this was last asked."""
        now = next(self.counter)
        count, self.seen = now - self.seen, now + 1
        return count


class TestRemembering:
    """A layer that was found is not looked for again, and never used where it does not belong."""

    def test_the_first_map_takes_few_forwards_and_later_ones_one(self) -> None:
        model = Counting(small())
        explain(model, picture(32, 32), 1)
        assert 1 <= model.taken() <= 4
        explain(model, picture(32, 32), 2)
        assert model.taken() == 1
        explain_batch(model, picture(32, 32, count=5), [0, 1, 2, 3, None])
        assert model.taken() == 1
        explain(model, picture(32, 32), 1, method="hirescam")
        assert model.taken() == 1

    def test_also_of_a_named_layer(self) -> None:
        model = Counting(small())
        explain(model, picture(32, 32), 1, layer="inner.relu1")
        assert 1 <= model.taken() <= 4
        explain(model, picture(32, 32), 2, layer="inner.relu1")
        assert model.taken() == 1

    def test_a_copy_is_a_model_of_its_own(self) -> None:
        model = small()
        explain(model, picture(32, 32), 1)
        assert explain(copy.deepcopy(model), picture(32, 32), 1).layer == "relu2"

    def test_another_size_is_looked_at_anew(self) -> None:
        """On a smaller image the last grid has too few cells, and the one before it is taken."""
        model = seeded(sequential(convolution(3, 8), nn.ReLU(), convolution(8, 8), nn.ReLU(), *head(8)), 1)
        for _ in range(2):
            for height, width, layer, grid in ((32, 32, "3", (8, 8)), (4, 4, "1", (2, 2)), (16, 32, "3", (4, 8))):
                got = explain(model, picture(height, width), 1, method="hirescam")
                assert (got.layer, got.grid) == (layer, grid)

    def test_a_replaced_layer_of_the_same_name_is_noticed(self) -> None:
        model, x = small(), picture(32, 32)
        explain(model, x, 1)
        conv2 = convolution(8, 12)
        model.conv2, model.relu2 = seeded(conv2, 9), nn.GELU()
        got = explain(model, x, 1)
        assert got.layer == "relu2"
        assert apart(got.raw, grad_cam_of(*reference(model, x, "relu2", 1))) <= 1e-5

    def test_a_replaced_layer_that_is_named_is_noticed_too(self) -> None:
        model, x = small(), picture(32, 32)
        explain(model, x, 1, layer="relu1")
        model.relu1 = nn.GELU()
        got = explain(model, x, 1, layer="relu1")
        assert apart(got.raw, grad_cam_of(*reference(model, x, "relu1", 1))) <= 1e-5

    def test_a_layer_replaced_by_one_that_is_no_grid_is_not_used(self) -> None:
        model, x = small(), picture(32, 32)
        explain(model, x, 1)
        model.relu2 = nn.AdaptiveMaxPool2d(1)
        got = explain(model, x, 1)
        assert (got.layer, got.grid) == ("conv2", (8, 8))

    def test_a_model_is_not_kept_alive(self) -> None:
        model = small()
        explain(model, picture(32, 32), 1)
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None


def of_branch(branch: int) -> Callable[[Any], Tensor]:
    def score(output: Any) -> Tensor:
        found: Tensor = output[branch][0, 2]
        return found

    return score


class TestScoresWithLayersOfTheirOwn:
    """The layer is found for the score that is asked for, whatever was asked for before."""

    @pytest.mark.parametrize("engine", ["hooks", "split"])
    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_two_heads(self, order: tuple[int, int], engine: str) -> None:
        model, x = TwoHeads(), picture(32, 32)
        for branch in (*order, *order):
            score = of_branch(branch)
            layer = ("branch_a", "branch_b")[branch]
            got = explain(model, x, score, engine=engine)
            assert got.layer == layer
            assert apart(got.raw, grad_cam_of(*reference(model, x, layer, score))) <= 1e-5

    @pytest.mark.parametrize("engine", ["hooks", "split"])
    @pytest.mark.parametrize("order", [(2, 5), (5, 2)])
    def test_two_heads_with_joined_logits(self, order: tuple[int, int], engine: str) -> None:
        """All classes are read at one layer, through which all of their evidence goes: the order changes nothing."""
        model, x, layer = TwoHeads(joined=True), picture(32, 32), "trunk"
        for cls in (*order, *order):
            got = explain(model, x, cls, engine=engine, method="grad-cam")
            assert got.layer == layer
            assert apart(got.raw, grad_cam_of(*reference(model, x, layer, cls))) <= 1e-5

    def test_an_early_layer_found_for_one_score_is_not_kept_for_another(self) -> None:
        """Else the map of a class would depend on what was asked before."""

        class Early(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.fc = convolution(3, 8), convolution(8, 8), nn.Linear(8, 4)
                seeded(self)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                first = self.first(x).relu()
                return self.fc(self.second(first).relu().mean((2, 3))), first.mean((2, 3))

        model, x = Early(), picture(32, 32)
        assert explain(model, x, lambda output: output[1][0, 3]).layer == "first"
        assert explain(model, x, 1).layer == "second"
        assert explain(model, x, lambda output: output[0][0, 1]).layer == "second"
        assert explain(model, x, lambda output: output[1][0, 3]).layer == "first"

    def test_a_class_with_no_weights_has_zero_evidence_at_the_usual_layer(self) -> None:
        """That nothing speaks for a class is a finding, and no reason to look at another layer."""
        model = reads_colours()
        with pytest.warns(UserWarning, match="no evidence: nothing at reads speaks for class 2"):
            got = explain(model, coloured((0, (0, 0, 16, 16))), 2)
        assert (got.layer, got.evidence) == ("reads", 0.0)


class Aside(nn.Module):
    """Many layers beside the one that the score is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.main = convolution(3, 8)
        self.aside = nn.ModuleList(convolution(3, 8) for _ in range(20))
        self.fc = nn.Linear(8, 4)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.main(x)
        for layer in self.aside:
            layer(x)
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(grid, 1).flatten(1))
        return logits


@pytest.mark.parametrize("name", [None, "inner.main"])
def test_layers_aside_of_the_score_cost_no_forwards(name: str | None) -> None:
    model = Counting(Aside())
    assert explain(model, picture(32, 32), 1, layer=name).layer == "inner.main"
    assert model.taken() <= 4
