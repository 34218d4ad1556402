"""Tokens before images, (L, N, C), `nn.TransformerEncoder`'s default: read as the same weights batch first.

Maps are compared with the paper's formula on a plain backward, and with those of a twin that differs in the order only.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import ModelError, TargetLayerError, explain, explain_batch, explain_classes
from pytest_gradcam.cam.views import View, views_of
from tests.models import Floats, apart, hirescam_of, picture, reference, seeded

pytestmark = pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")

SIZE, GRID, CELLS = (32, 48), (4, 6), 24
CLASSES = 5
EQUAL = 1e-5

engines = pytest.mark.parametrize("engine", ["hooks", "split"])
readouts = pytest.mark.parametrize("readout", ["mean", "class token"])


class Encoder(nn.Module):
    """Patches, an `nn.TransformerEncoder`, and a head that reads the tokens' mean, or a class token behind a norm."""

    def __init__(self, *, batch_first: bool, readout: str = "mean") -> None:
        super().__init__()
        self.batch_first, self.has_class_token = batch_first, readout == "class token"
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.place = nn.Parameter(torch.zeros(1, CELLS + self.has_class_token, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)
        seeded(self)

    def features(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        if self.has_class_token:
            tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self.place
        found: Tensor = self.encoder.layers[0](tokens if self.batch_first else tokens.transpose(0, 1))
        return found

    def rest(self, tokens: Tensor) -> Tensor:
        tokens = self.encoder.layers[1](tokens)
        axis = 1 if self.batch_first else 0
        logits: Tensor = self.head(tokens.select(axis, 0) if self.has_class_token else tokens.mean(axis))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.features(x))


def twins(readout: str) -> tuple[Encoder, Encoder]:
    """The same weights, tokens first and batch first."""
    return Encoder(batch_first=False, readout=readout), Encoder(batch_first=True, readout=readout)


def oracle(model: Encoder, x: Tensor, cls: int) -> Floats:
    """HiResCAM of the first block, (L, 1, C), token by token."""

    def grid(tokens: Tensor) -> Tensor:
        cells = tokens[1:] if model.has_class_token else tokens
        found = torch.zeros(1, 16, *GRID)
        for cell in range(CELLS):
            found[0, :, cell // GRID[1], cell % GRID[1]] = cells[cell, 0]
        return found

    activations, gradients = reference(model, x, "encoder.layers.0", cls)
    return hirescam_of(grid(activations), grid(gradients))


class TestTheView:
    def test_has_its_images_on_the_second_axis(self) -> None:
        view = next(view for view in views_of((CELLS + 1, 1, 7), SIZE) if view.prefix)
        assert view == View("sequence-first tokens", GRID, 1)
        output = torch.arange((CELLS + 1) * 3 * 7).view(CELLS + 1, 3, 7)
        assert (view.batch_axis, view.of_one(output)) == (1, (CELLS + 1, 7))
        for image, channel, row, column in [(0, 0, 0, 0), (2, 3, 1, 4), (1, 6, 3, 5)]:
            expected = output[1 + row * GRID[1] + column, image, channel]
            assert view(output)[image, channel, row, column] == expected

    def test_is_one_of_one_image_only(self) -> None:
        """(L, N, C) with more than one image could be a batch of L: that is not proposed."""
        assert not [view for view in views_of((CELLS, 3, 7), SIZE) if view.kind == "sequence-first tokens"]


@readouts
class TestOneImage:
    @pytest.mark.parametrize("cls", range(CLASSES))
    def test_is_the_papers_formula(self, readout: str, cls: int) -> None:
        model, x = Encoder(batch_first=False, readout=readout), picture(*SIZE)
        got = explain(model, x, cls, layer="encoder.layers.0", method="hirescam")
        assert got.grid == GRID
        assert apart(got.raw, oracle(model, x, cls)) <= EQUAL

    @pytest.mark.parametrize("method", ["auto", "grad-cam", "hirescam"])
    def test_is_found_and_read_as_batch_first(self, readout: str, method: str) -> None:
        model, twin = twins(readout)
        got, expected = (explain(each, picture(*SIZE), method=method) for each in (model, twin))
        assert (got.layer, got.grid, got.method) == (expected.layer, GRID, expected.method)
        assert got.layer.startswith("encoder")  # no silent fall back to the patches
        assert apart(got.raw, expected.raw) <= EQUAL

    def test_of_many_classes_is_that_of_each(self, readout: str) -> None:
        model, x = Encoder(batch_first=False, readout=readout), picture(*SIZE)
        for cls, got in enumerate(explain_classes(model, x, layer="encoder.layers.0", method="hirescam")):
            assert apart(got.raw, oracle(model, x, cls)) <= EQUAL


@engines
class TestBatches:
    @pytest.mark.parametrize("count", [3, CELLS])
    def test_give_what_each_image_gives_alone(self, count: int, engine: str) -> None:
        """Also of as many images as there are tokens, where no shape tells which axis is which."""
        model, images = Encoder(batch_first=False), picture(*SIZE, count=count)
        got = explain_batch(model, images, engine=engine, layer="encoder.layers.0", method="hirescam")
        for image, each in zip(images, got, strict=True):
            cls = int(model(image[None]).argmax())
            assert each.cls == cls
            assert apart(each.raw, oracle(model, image[None], cls)) <= EQUAL

    def test_of_a_shape_that_was_no_batch_before(self, engine: str) -> None:
        """What was found with one image serves three."""
        model, images = Encoder(batch_first=False), picture(*SIZE, count=3)
        explain(model, images[0], engine=engine)
        batch = explain_batch(model, images, engine=engine)
        for image, each in zip(images, batch, strict=True):
            assert apart(each.raw, explain(model, image, engine=engine).raw) <= EQUAL


class TestAPair:
    """(features, head), cut by the user between two blocks."""

    def test_gives_the_map_of_the_model(self) -> None:
        model, images = Encoder(batch_first=False, readout="class token"), picture(*SIZE, count=3)
        pair = (model.features, model.rest)
        for image, each in zip(images, explain_batch(pair, images, [0, 1, 2], engine="split"), strict=True):
            assert each.cls is not None
            assert apart(each.raw, oracle(model, image[None], each.cls)) <= EQUAL

    def test_of_many_classes_gives_that_of_each(self) -> None:
        model, x = Encoder(batch_first=False), picture(*SIZE)
        pair = (model.features, model.rest)
        for cls, got in enumerate(explain_classes(pair, x, engine="split")):
            assert apart(got.raw, oracle(model, x, cls)) <= EQUAL


class Shuffled(Encoder):
    """Tokens first, in an order of their own."""

    def features(self, x: Tensor) -> Tensor:
        order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(3))
        return super().features(x)[order]


def test_in_another_order_than_the_image_is_refused() -> None:
    model = Shuffled(batch_first=False)
    with pytest.raises(TargetLayerError, match="do not stand for their places"):
        explain((model.features, model.rest), picture(*SIZE), engine="split")


class OnePerPatch(nn.Module):
    """Patches folded into the batch, one token each: (N · L, 1, C), which for one image looks like tokens first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 64, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)
        tokens = self.mix(self.embed(patches.reshape(-1, 1, 3 * 64)).relu())
        logits: Tensor = self.head(tokens.view(len(x), CELLS, 16).mean(1))
        return logits


def test_patches_folded_into_the_batch_are_no_images() -> None:
    with pytest.raises(TargetLayerError, match=re.escape("layer 'mix' gives 1 rows for 3 images")):
        explain_batch(OnePerPatch(), picture(*SIZE, count=3))


@pytest.mark.parametrize("make", [lambda p: p.softmax(1), lambda p: p.log_softmax(1)], ids=["softmax", "log"])
def test_a_saturated_softmax_is_refused_for_the_image_that_has_it(make: Callable[[Tensor], Tensor]) -> None:
    """Image by image along the second axis: of two images, one is certain."""

    class Certain(Encoder):
        def rest(self, tokens: Tensor) -> Tensor:
            return make(super().rest(tokens) * self.factor)

        factor: Tensor

    model, images = Certain(batch_first=False), picture(*SIZE, count=2)
    model.factor = torch.tensor([[1.0], [1e4]])
    pair = (model.features, model.rest)
    classes = Encoder.rest(model, model.features(images)).argmax(1).tolist()
    with pytest.raises(ModelError, match="saturated softmax"):
        explain_batch(pair, images, classes, engine="split")
    model.factor = torch.tensor([[1.0], [1.0]])
    assert np.isfinite([each.evidence for each in explain_batch(pair, images, classes, engine="split")]).all()
