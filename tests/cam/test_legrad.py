"""LeGrad against its paper's formula, written out for a small transformer; what it reads; what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import ModelError, SettingsError, TargetLayerError, explain, explain_batch, explain_classes
from pytest_gradcam.cam import legrad
from pytest_gradcam.cam.running import Options, ready
from tests.cam.legrad_twin import CELLS, CLASSES, EQUAL, GRID, SIZE, WIDTH, Block, ViT, legrad_of, raw_of
from tests.models import Floats, apart, picture, small

readouts = pytest.mark.parametrize("readout", ["class token", "mean"])


def exact(model: nn.Module, x: Tensor, classes: list[Any]) -> Floats:
    """Our maps in float64, (M, h, w), before they are stored in float32."""
    with ready(model, x, Options(method="legrad")) as run:
        return legrad.of_image(run, classes).raws


@readouts
class TestThePapersFormula:
    @pytest.mark.parametrize("cls", range(CLASSES))
    def test_in_float64(self, readout: str, cls: int) -> None:
        model, x = ViT(readout).double(), picture(*SIZE).double()
        expected = legrad_of(model, x, cls)
        assert expected.max() > 1e-4
        np.testing.assert_allclose(exact(model, x, [cls])[0], expected, rtol=0, atol=1e-10 * expected.max())

    def test_of_many_classes_is_that_of_each(self, readout: str) -> None:
        model, x = ViT(readout), picture(*SIZE)
        for cls, got in enumerate(explain_classes(model, x, method="legrad")):
            assert got.cls == cls
            assert apart(got.raw, legrad_of(model, x, cls)) <= EQUAL

    def test_of_a_callable(self, readout: str) -> None:
        model, x = ViT(readout), picture(*SIZE)

        def margin(logits: Tensor) -> Tensor:
            return logits[0, 1] - logits[0, 3]

        assert apart(raw_of(model, x, margin), legrad_of(model, x, margin)) <= EQUAL

    def test_of_a_class_and_a_callable_together(self, readout: str) -> None:
        model, x = ViT(readout), picture(*SIZE)

        def negated(logits: Tensor) -> Tensor:
            return -logits[0, 2]

        first, second = explain_classes(model, x, [negated, 4], method="legrad")
        assert apart(first.raw, legrad_of(model, x, negated)) <= EQUAL
        assert apart(second.raw, legrad_of(model, x, 4)) <= EQUAL

    def test_of_a_batch_is_that_of_each_image(self, readout: str) -> None:
        """And each image's class is the one that the model predicts, not the one that a block would."""
        model, images = ViT(readout), picture(*SIZE, count=3)
        for image, got in zip(images, explain_batch(model, images, method="legrad"), strict=True):
            logits = model(image[None]).detach()[0]
            predicted = int(logits.argmax())
            assert got.cls == predicted
            assert got.score == pytest.approx(float(logits[predicted]), rel=1e-5)
            assert apart(got.raw, legrad_of(model, image[None], predicted)) <= EQUAL

    def test_of_one_block(self, readout: str) -> None:
        model, x = ViT(readout, depth=1), picture(*SIZE)
        assert apart(raw_of(model, x, 0), legrad_of(model, x, 0)) <= EQUAL

    def test_of_blocks_that_write_to_their_inputs(self, readout: str) -> None:
        model, x = ViT(readout, "in place"), picture(*SIZE)
        assert apart(raw_of(model, x, 0), legrad_of(model, x, 0)) <= EQUAL

    def test_of_fused_attention(self, readout: str) -> None:
        model, x = ViT(readout, "fused"), picture(*SIZE)
        assert apart(raw_of(model, x, 0), legrad_of(ViT(readout), x, 0)) <= EQUAL


class TestTheExplanation:
    def test_says_what_was_read(self) -> None:
        got = explain(ViT(), picture(*SIZE), method="legrad")
        assert (got.layer, got.grid, got.method) == ("blocks.0 … blocks.2 (3 attentions)", GRID, "legrad")
        assert got.engine == "hooks"


class TestLayer:
    """`layer` chooses blocks: the paper's code reads the last two unless it is told otherwise."""

    def test_takes_the_mean_of_those_alone(self) -> None:
        model, x = ViT(), picture(*SIZE)
        got = explain(model, x, 0, method="legrad", layer=["blocks.1", "blocks.2"])
        assert got.layer == "blocks.1 … blocks.2 (2 attentions)"
        assert apart(got.raw, legrad_of(model, x, 0, range(1, 3))) <= EQUAL

    def test_may_be_one_module(self) -> None:
        model, x = ViT(), picture(*SIZE)
        got = explain(model, x, 0, method="legrad", layer=model.blocks[0])
        assert got.layer == "blocks.0"
        assert apart(got.raw, legrad_of(model, x, 0, range(1))) <= EQUAL

    def test_must_be_a_block(self) -> None:
        expected = (
            "layer 'patch' is not one of the blocks whose attention LeGrad reads: they are 'blocks.0', 'blocks.1', "
            "'blocks.2'"
        )
        with pytest.raises(TargetLayerError, match=re.escape(expected)):
            raw_of(ViT(), picture(*SIZE), layer="patch")

    def test_is_a_name_or_a_module(self) -> None:
        with pytest.raises(TargetLayerError, match="layer is a int: pass a dotted name or a module of the model"):
            raw_of(ViT(), picture(*SIZE), layer=3)

    def test_is_named_once(self) -> None:
        with pytest.raises(TargetLayerError, match=re.escape("layer 'blocks.1' is named twice")):
            raw_of(ViT(), picture(*SIZE), layer=["blocks.1", "blocks.1"])


class Bare(nn.Module):
    """After one block, attention and MLPs side by side: the sums are in the forward, and no module gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViT("mean")
        self.attentions = nn.ModuleList([Attended(block) for block in self.vit.blocks if isinstance(block, Block)])

    def forward(self, x: Tensor) -> Tensor:
        z = self.vit.blocks[0](self.vit.tokens(x))
        for attended, block in list(zip(self.attentions, self.vit.blocks, strict=True))[1:]:
            z = z + attended(z)
            z = z + (block.mlp(z) if isinstance(block, Block) else z)
        return self.vit.tail(z)


class Attended(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, z: Tensor) -> Tensor:
        return self.block.attention(z)


class ReadsTwoBlocks(ViT):
    """Its head reads the last block and the first."""

    def forward(self, x: Tensor) -> Tensor:
        z = first = self.blocks[0](self.tokens(x))
        for block in list(self.blocks)[1:]:
            z = block(z)
        return self.tail(z) + self.tail(first)


class Shuffled(ViT):
    """Its tokens are in an order of their own."""

    def tokens(self, x: Tensor) -> Tensor:
        order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(2))
        return super().tokens(x)[:, order]


class ClassAttention(ViT):
    """A class token that attends to the tokens after the blocks, as in CaiT."""

    def tail(self, z: Tensor) -> Tensor:
        q = self.head.weight.mean(0).expand(len(z), 1, -1)
        found: Tensor = self.head(self.norm(functional.scaled_dot_product_attention(q, z, z))[:, 0])
        return found


class Windows(ViT):
    """Each block attends within windows of four tokens."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.tokens(x)
        for block in self.blocks:
            z = block(z.reshape(-1, 4, WIDTH)).reshape(z.shape)
        return self.tail(z)


class Pooled(ViT):
    """Two stages: the last block sees a token for every two."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.blocks[1](self.blocks[0](self.tokens(x)))
        return self.tail(self.blocks[2](z.unflatten(1, (12, 2)).mean(2)))


class Again(ViT):
    """One block, called three times."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.tokens(x)
        for _ in range(3):
            z = self.blocks[0](z)
        return self.tail(z)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a convolutional network": (small, "no attention was seen in the forward of Sequential"),
    "windows": (lambda: Windows("mean"), "attention of 4 queries over 4 keys in 'blocks.0'"),
    "class attention": (
        lambda: ClassAttention("mean"),
        "ClassAttention has attention besides that of its tokens to each other: attention of 1 queries over 24 keys in "
        "\"the model's own forward\", beside attention of 24 queries over 24 keys in 'blocks.0'",
    ),
    "two stages": (
        lambda: Pooled("mean"),
        "Pooled has attention besides that of its tokens to each other: attention of 12 queries over 12 keys in "
        "'blocks.2'",
    ),
    "one block, called again and again": (lambda: Again("mean"), "no module around it, called once"),
    "sums outside of the modules": (Bare, "the score reaches the image around 'attentions.1' too"),
    "a head that reads two blocks": (
        lambda: ReadsTwoBlocks("mean"),
        "the score reaches the image around 'blocks.1' too",
    ),
    "tokens in another order": (
        lambda: Shuffled("mean"),
        "the tokens of 'blocks.0' (tokens 4×6) give no map: its cells do not stand for their places",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_is_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(TargetLayerError, match=re.escape(message)) as raised:
        raw_of(make(), picture(*SIZE), 0)
    assert "name another method" in str(raised.value)


def test_the_split_engine_is_refused() -> None:
    with pytest.raises(SettingsError, match=re.escape("LeGrad reads attention in the whole model")):
        raw_of(ViT(), picture(*SIZE), 0, engine="split")


def test_a_pair_is_refused() -> None:
    model = ViT()
    pair = (lambda x: model.blocks[0](model.tokens(x)), model.tail)
    with pytest.raises(SettingsError, match="pass the whole model"):
        explain(pair, picture(*SIZE), 0, method="legrad", engine="split")


def test_a_model_that_answers_differently_is_refused() -> None:
    class Counts(ViT):
        calls = 0

        def tail(self, z: Tensor) -> Tensor:
            self.calls += 1
            return super().tail(z) * self.calls

    with pytest.raises(ModelError, match="answers the same input differently twice"):
        raw_of(Counts(), picture(*SIZE), 0)


def test_a_saturated_softmax_is_refused() -> None:
    class Certain(ViT):
        def tail(self, z: Tensor) -> Tensor:
            return (super().tail(z) * 1e4).softmax(1)

    with pytest.raises(ModelError, match="saturated softmax"):
        raw_of(Certain(), picture(*SIZE))
