"""Several layers read as one map: which `auto` takes of a grid of tokens, and what they are together."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pytest_gradcam import (
    Gradcam,
    Settings,
    TargetLayerError,
    assert_attention_in_region,
    explain,
    explain_batch,
    explain_classes,
)
from pytest_gradcam.cam.methods import fuse_layers
from tests.models import Floats, apart, hirescam_of, picture, reference, seeded, small

# What random weights speak for is no matter here: raw maps are compared, which are signed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")
NORMS = [f"blocks.{i}.norm1" for i in range(3)]
CLASS = 2  # of the five, one with evidence in every picture below
# The mean of three maps in float32, against one that is made in float64.
CLOSE = 1e-5


def vit(**keywords: Any) -> Any:
    """timm's, on a grid of 4×4 beside a class token, with weights that make it look somewhere."""
    return seeded(
        VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5, **keywords)
    )


def image(seed: int = 1) -> Tensor:
    return picture(32, 32, seed=seed)


def by_hand(model: nn.Module, x: Tensor, names: Sequence[str], cls: int, prefix: int = 1) -> Floats:
    """Activations times gradients of each layer, from a plain backward, together."""
    maps = []
    for name in names:
        grids = [each[:, prefix:].transpose(1, 2).reshape(1, -1, 4, 4) for each in reference(model, x, name, cls)]
        maps.append(hirescam_of(*grids))
    return together(maps)


def together(maps: Sequence[Floats]) -> Floats:
    """Cell by cell, the mean of what is positive; where no layer has anything positive, the mean of all."""
    found = np.zeros(maps[0].shape)
    for cell in np.ndindex(*found.shape):
        said = [float(each[cell]) for each in maps]
        positive = [value for value in said if value > 0]
        found[cell] = sum(positive or said) / len(said)
    return found


class TestUnasked:
    @pytest.mark.parametrize(("keywords", "prefix"), [({}, 1), ({"reg_tokens": 2}, 3)], ids=["class", "registers"])
    def test_auto_reads_the_same_layer_in_all_blocks(self, keywords: dict[str, Any], prefix: int) -> None:
        model, x = vit(**keywords), image()
        found = explain(model, x, CLASS)
        assert (found.layer, found.method, found.grid) == (" + ".join(NORMS), "hirescam", (4, 4))
        assert apart(found.raw, by_hand(model, x, NORMS, CLASS, prefix)) < CLOSE
        assert apart(found.raw, by_hand(model, x, NORMS[2:], CLASS, prefix)) > 0.1  # the last alone says another thing

    def test_it_is_what_naming_them_gives(self) -> None:
        model, x = vit(), image()
        assert np.array_equal(
            explain(model, x, CLASS).raw, explain(model, x, CLASS, layer=NORMS, method="hirescam").raw
        )

    def test_it_is_the_mean_of_the_single_maps(self) -> None:
        model, x = vit(), image()
        singles = [explain(model, x, CLASS, layer=name, method="hirescam").raw for name in NORMS]
        assert apart(explain(model, x, CLASS).raw, together(singles)) < CLOSE

    @pytest.mark.parametrize("method", ["grad-cam", "hirescam", "layercam"])
    def test_another_method_reads_the_last_block_alone(self, method: str) -> None:
        model, x = vit(), image()
        found = explain(model, x, CLASS, method=method)
        assert found.layer == NORMS[2]
        assert np.array_equal(found.raw, explain(model, x, CLASS, layer=NORMS[2], method=method).raw)

    def test_a_layer_that_is_named_is_read_alone(self) -> None:
        found = explain(vit(), image(), CLASS, layer=NORMS[1])
        assert (found.layer, found.method) == (NORMS[1], "hirescam")

    def test_of_a_callable_too(self) -> None:
        model, x = vit(), image()
        found = explain(model, x, lambda output: output[0, CLASS])
        assert found.layer == " + ".join(NORMS)
        assert apart(found.raw, explain(model, x, CLASS).raw) < CLOSE

    def test_a_convolutional_grid_is_read_at_one_layer(self) -> None:
        model, x = small(), picture()
        assert explain(model, x, 1).layer == "relu2"
        assert np.array_equal(explain(model, x, 1).raw, explain(model, x, 1, layer="relu2", method="grad-cam").raw)

    def test_long_names_are_told_by_the_first_and_the_last(self) -> None:
        model = seeded(VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=5, num_heads=4, num_classes=5))
        assert explain(model, image(), predicted(model)).layer == "blocks.0.norm1 … blocks.4.norm1 (5 layers)"


def predicted(model: nn.Module) -> int:
    """The predicted class, which has evidence."""
    return int(model(image()).argmax())


class Block(nn.Module):
    """What a token adds to itself, by itself."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.linear(x).relu()
        return x + added if x.shape == added.shape else added


class OtherBlock(Block):
    """The same sum, of another kind."""


class Tokens(nn.Module):
    """Tokens of a grid of 4×4, blocks one after the other, and the mean over tokens."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, stride=8)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(12, 5)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.head(tokens.mean(dim=1))
        return logits


class TestWhichBlocks:
    def layers(self, model: nn.Module) -> str:
        return explain(model, image(), predicted(model)).layer

    def test_all_of_one_kind_and_shape(self) -> None:
        model = Tokens(nn.Linear(8, 12), Block(12, 12), Block(12, 12), Block(12, 12))
        assert self.layers(model) == "blocks.1 + blocks.2 + blocks.3"

    def test_none_of_another_width(self) -> None:
        model = Tokens(Block(8, 8), Block(8, 12), Block(12, 12))
        assert self.layers(model) == "blocks.1 + blocks.2"

    def test_none_of_another_class(self) -> None:
        model = Tokens(Block(8, 12), OtherBlock(12, 12), Block(12, 12))
        assert self.layers(model) == "blocks.0 + blocks.2"

    def test_none_that_is_called_more_than_once(self) -> None:
        """Which of its outputs would be meant? The others are read."""
        twice = Block(12, 12)
        model = Tokens(Block(8, 12), twice, twice, Block(12, 12))
        assert self.layers(model) == "blocks.0 + blocks.3"


class TestNamed:
    @pytest.mark.parametrize("engine", ["hooks", "split"])
    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
    def test_their_order_does_not_matter(self, engine: str, order: tuple[int, ...]) -> None:
        model, x = vit(), image()
        names = [NORMS[i] for i in order]
        found = explain(model, x, CLASS, layer=names, engine=engine)
        assert apart(found.raw, by_hand(model, x, NORMS, CLASS)) < CLOSE
        assert (found.layer, found.engine) == (" + ".join(names), engine)

    @pytest.mark.parametrize(
        "names", [["blocks.1.norm1"], ["blocks.0.norm1", "blocks.2"], ["blocks.1", "blocks.2.norm1"]]
    )
    def test_the_split_engine_gives_the_same(self, names: list[str]) -> None:
        model, x = vit(global_pool="avg", class_token=False), image()
        hooks, split = (explain(model, x, CLASS, layer=names, engine=engine) for engine in ("hooks", "split"))
        assert apart(split.raw, hooks.raw) < CLOSE
        assert apart(hooks.raw, by_hand(model, x, names, CLASS, prefix=0)) < CLOSE

    @pytest.mark.parametrize("engine", ["hooks", "split"])
    def test_of_grids_of_two_sizes_contributions_are_shared_out(self, engine: str) -> None:
        """A coarse cell is four fine ones: each has a quarter of it."""
        model, x = small(), picture()
        fine, coarse = (explain(model, x, 1, layer=name).raw.astype(float) for name in ("relu1", "relu2"))
        assert fine.shape == (32, 32) and coarse.shape == (16, 16)
        for names in (["relu1", "relu2"], ["relu2", "relu1"]):
            found = explain(model, x, 1, layer=names, engine=engine)
            assert found.grid == (32, 32)
            spread = [
                nn.functional.interpolate(torch.from_numpy(each)[None, None], (32, 32), mode="bilinear")[0, 0].numpy()
                for each in (np.maximum(coarse, 0.0), coarse)
            ]
            positive, signed = (np.maximum(fine, 0.0) + spread[0] / 4) / 2, (fine + spread[1] / 4) / 2
            assert apart(found.raw, np.where(positive > 0, positive, np.minimum(signed, 0.0))) < CLOSE

    def test_fuse_layers_is_the_mean_of_contributions(self) -> None:
        first, second = np.array([[[1.0, 2.0], [3.0, -4.0]]]), np.array([[[5.0, 0.0], [-1.0, -2.0]]])
        assert np.array_equal(fuse_layers([first, second], (2, 2)), [[[3.0, 1.0], [1.5, -3.0]]])
        even = fuse_layers([np.full((1, 2, 2), 8.0), np.full((1, 1, 1), 8.0)], (2, 2))
        assert np.array_equal(even, [[[5.0, 5.0], [5.0, 5.0]]])  # (8 + 8/4) / 2

    def test_modules_and_names_may_be_mixed(self) -> None:
        model, x = vit(), image()
        found = explain(model, x, CLASS, layer=[NORMS[0], model.blocks[1].norm1])
        assert found.layer == " + ".join(NORMS[:2])
        assert apart(found.raw, by_hand(model, x, NORMS[:2], CLASS)) < CLOSE

    def test_one_named_twice_is_refused(self) -> None:
        model = vit()
        for named in ([NORMS[0], NORMS[0]], [NORMS[0], model.blocks[0].norm1]):
            with pytest.raises(TargetLayerError, match=r"^layer 'blocks\.0\.norm1' is named twice: "):
                explain(model, image(), CLASS, layer=named)

    @pytest.mark.parametrize("text", ["blocks.0.norm1,blocks.1.norm1", " blocks.0.norm1 , blocks.1.norm1 "])
    def test_settings_take_them_separated_by_commas(self, text: str) -> None:
        model, x = vit(), image()
        found = Gradcam(Settings(layer=text)).explain(model, x, CLASS)
        assert np.array_equal(found.raw, explain(model, x, CLASS, layer=NORMS[:2]).raw)

    def test_one_that_is_not_there_is_named(self) -> None:
        with pytest.raises(TargetLayerError, match=r"has no layer 'blocks\.7\.norm1'"):
            explain(vit(), image(), CLASS, layer=[NORMS[0], "blocks.7.norm1"])


class TestManyAtOnce:
    @pytest.mark.parametrize("engine", ["hooks", "split"])
    def test_a_batch_is_its_images(self, engine: str) -> None:
        model, images = vit(), [image(seed) for seed in range(4)]
        found = explain_batch(model, torch.cat(images), [CLASS, 0, 4, CLASS], engine=engine)
        for x, cls, each in zip(images, [CLASS, 0, 4, CLASS], found, strict=True):
            assert each.layer == " + ".join(NORMS)
            assert apart(each.raw, by_hand(model, x, NORMS, cls)) < CLOSE

    @pytest.mark.parametrize("engine", ["hooks", "split"])
    def test_many_classes_are_each_alone(self, engine: str) -> None:
        model, x = vit(), image()
        classes: list[Any] = [CLASS, 4, lambda output: output[0, 0]]
        for cls, each in zip([CLASS, 4, 0], explain_classes(model, x, classes, engine=engine), strict=True):
            assert each.layer == " + ".join(NORMS)
            assert apart(each.raw, by_hand(model, x, NORMS, cls)) < CLOSE

    def test_assertions_judge_the_fused_map(self) -> None:
        model, x = vit(), image()
        box = (0, 0, 16, 32)
        left = explain(model, x, CLASS)
        box = box if left.cam[:, :16].sum() > left.cam[:, 16:].sum() else (16, 0, 32, 32)
        verdict = assert_attention_in_region(model, x, box, CLASS, threshold=0.001)
        assert np.array_equal(verdict.explanation.raw, left.raw)


class TestRemembered:
    def test_the_layers_are_looked_for_once_for_each_state_of_the_model(self) -> None:
        model, x = vit(), image()
        calls: list[None] = []
        model.register_forward_pre_hook(lambda _module, _inputs: calls.append(None))

        def forwards() -> int:
            calls.clear()
            assert explain(model, x, CLASS).layer == " + ".join(NORMS)
            return len(calls)

        searching = forwards()
        assert searching > 1
        assert [forwards(), forwards()] == [1, 1]
        with torch.no_grad():
            model.blocks[0].attn.qkv.weight.mul_(1.0)  # the same values, and another version of them
        assert forwards() == searching
        assert forwards() == 1

    def test_the_map_after_a_change_is_that_of_the_changed_model(self) -> None:
        model, x = vit(), image()
        before = explain(model, x, CLASS).raw
        with torch.no_grad():
            model.blocks[1].mlp.fc2.weight.mul_(-1.0)
        after = explain(model, x, CLASS).raw
        assert apart(after, by_hand(model, x, NORMS, CLASS)) < CLOSE
        assert apart(after, before) > 0.1

    def test_all_blocks_and_the_last_alone_are_not_taken_for_each_other(self) -> None:
        for methods in (["auto", "hirescam", "auto"], ["hirescam", "auto", "hirescam"]):
            model, x = vit(), image()
            found = [explain(model, x, CLASS, method=method).layer for method in methods]
            assert found == [NORMS[2] if method == "hirescam" else " + ".join(NORMS) for method in methods]

    def test_a_block_that_was_replaced_is_looked_for_again(self) -> None:
        model, x = vit(), image()
        explain(model, x, CLASS)
        model.blocks[0].norm1 = seeded(copy.deepcopy(model.blocks[0].norm1), 7)
        assert apart(explain(model, x, CLASS).raw, by_hand(model, x, NORMS, CLASS)) < CLOSE


@pytest.mark.parametrize("engine", ["hooks", "split"])
@pytest.mark.parametrize("layer", [None, NORMS, [NORMS[2], "blocks.0"], [NORMS[0], NORMS[0]]], ids=str)
def test_the_model_is_left_as_it_was(engine: str, layer: Any) -> None:
    """Also where the layers are refused."""
    model = vit().train()
    model.blocks[1].eval()
    model.head.weight.requires_grad_(False)
    grad = torch.ones_like(model.cls_token)
    model.cls_token.grad = grad
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()
    try:
        explain(model, image(), CLASS, layer=layer, engine=engine)
    except TargetLayerError:
        assert layer == [NORMS[0], NORMS[0]]
    else:
        assert layer != [NORMS[0], NORMS[0]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert model.cls_token.grad is grad and bool((grad == 1).all())
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == ["cls_token"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "forward" not in vars(model)
