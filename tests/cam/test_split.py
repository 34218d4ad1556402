"""The split engine: three ways to cut, each accepted only if it gives what the model gives; and the user's own pair."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pytest_gradcam import ModelError, TargetLayerError, explain, explain_batch, explain_classes
from pytest_gradcam.cam import split
from tests.models import apart, calibrated, picture, seeded, small

EQUAL = 1e-6
CUTS = {
    "children": "_cut_children",
    "forward_features": "_cut_forward_features",
    "fx": "_cut_graph",
    "fx with sizes": "_cut_sized_graph",
}


def only(monkeypatch: pytest.MonkeyPatch, *cuts: str) -> None:
    """Leave only these ways to cut."""
    for name, function in CUTS.items():
        if name not in cuts:
            monkeypatch.setattr(split, function, lambda module, name, layer, inputs: None)


def as_with_hooks(model: Any, x: Tensor, **keywords: Any) -> bool:
    a, b = (explain(model, x, 1, engine=engine, **keywords) for engine in ("split", "hooks"))
    assert (a.layer, a.grid, a.method, a.engine) == (b.layer, b.grid, b.method, "split")
    assert a.score == pytest.approx(b.score, rel=1e-6)
    return apart(a.raw, b.raw) <= EQUAL


class Block(nn.Module):
    """Grid and head beside each other, the forward to be said by those who inherit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, 4)
        seeded(self)

    def grid(self, x: Tensor) -> Tensor:
        grid: Tensor = self.body(self.stem(x).relu()).relu()
        return grid


class Plain(Block):
    def forward(self, x: Tensor) -> Any:
        return self.fc(self.grid(x).mean((2, 3)))


class Scaled(nn.Sequential):
    """Its children in a row are not all that it does."""

    def forward(self, x: Tensor) -> Any:
        for child in self:
            x = child(x)
        return 3 * x + 1


class Skips(Block):
    """The head needs more than the layer's output: the input, and what lies before the layer."""

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x).relu()
        pooled = self.body(stem).relu().mean((2, 3)) + stem.mean((2, 3)) + x.mean()
        return self.fc(pooled) * stem.shape[0]


class TwoOutputs(Block):
    def forward(self, x: Tensor) -> Any:
        pooled = self.grid(x).mean((2, 3))
        return {"logits": self.fc(pooled), "pooled": pooled}


class Decides(Block):
    """What it does depends on the values that it sees: no graph holds that."""

    def forward(self, x: Tensor) -> Any:
        grid = self.grid(x)
        return self.fc(grid.mean((2, 3)) if float(grid.detach().sum()) > 0 else grid.amax((2, 3)))


class TestTheThreeCuts:
    def test_a_chain_of_children(self, monkeypatch: pytest.MonkeyPatch) -> None:
        only(monkeypatch, "children")
        for layer in (None, "conv1", "relu1", "conv2"):
            assert as_with_hooks(small(inplace=True), picture(32, 32), layer=layer)

    def test_the_models_own_features_and_head(self, monkeypatch: pytest.MonkeyPatch) -> None:
        only(monkeypatch, "forward_features")
        x = picture(64, 64)
        model = calibrated(timm.create_model("test_resnet", pretrained=False), picture(64, 64, count=4))
        assert as_with_hooks(model, x)

    @pytest.mark.parametrize("kind", [Plain, Skips, TwoOutputs])
    @pytest.mark.parametrize("layer", ["body", "stem"])
    def test_a_graph(self, kind: type[Block], layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
        only(monkeypatch, "fx")
        assert as_with_hooks(kind(), picture(32, 32), layer=layer)

    def test_a_layer_inside_a_child_needs_the_graph(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = nn.Sequential(small()[:4], small()[4:])
        only(monkeypatch, "fx")
        assert as_with_hooks(model, picture(32, 32), layer="0.conv1")
        only(monkeypatch, "children")
        with pytest.raises(ModelError, match=r"cannot be cut at '0\.conv1'"):
            explain(model, picture(32, 32), 1, layer="0.conv1", engine="split")

    @pytest.mark.parametrize("count", [1, 3])
    def test_batches_and_classes(self, count: int) -> None:
        model, x, engines = Skips(), picture(32, 32, count=count), ("split", "hooks")
        pairs = [
            *zip(*(explain_batch(model, x, 1, layer="body", engine=e) for e in engines), strict=True),
            *zip(
                *(explain_classes(model, x[:1], [1, 3], engine=e, layer="body") for e in ("split", "hooks")),
                strict=True,
            ),
        ]
        for a, b in pairs:
            assert apart(a.raw, b.raw) <= EQUAL


class TestACutIsProved:
    """head(features(x)) must be model(x), and the features what the layer gives."""

    def test_children_that_are_not_all_the_model_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = Scaled(*small().children())
        assert as_with_hooks(model, picture(32, 32))  # by its graph
        only(monkeypatch, "children")
        with pytest.raises(ModelError, match="children: its head does not give what the model gives"):
            explain(model, picture(32, 32), 1, engine="split")

    def test_children_in_another_order_than_they_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Reversed(nn.Sequential):
            def forward(self, x: Tensor) -> Any:
                for child in reversed(list(self)):
                    x = child(x)
                return x

        model = Reversed(*reversed(list(small(channels=3).children())))
        assert as_with_hooks(model, picture(32, 32))
        only(monkeypatch, "children")
        with pytest.raises(ModelError, match=r"\n  children: "):
            explain(model, picture(32, 32), 1, engine="split")

    def test_features_of_another_layer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        only(monkeypatch, "forward_features")
        model = timm.create_model("test_resnet", pretrained=False)
        with pytest.raises(ModelError, match="forward_features: its features are not what 'layer3' gives"):
            explain(model, picture(64, 64), 1, layer="layer3", engine="split")

    def test_a_model_that_no_cut_reproduces(self) -> None:
        with pytest.raises(ModelError) as raised:
            explain(Decides(), picture(32, 32), 1, engine="split")
        first, *reasons = str(raised.value).splitlines()
        assert first == (
            "Decides cannot be cut at 'body' into features and head: pass the pair (features, head) yourself, or use "
            'engine="hooks", which gives the same map'
        )
        assert any(reason.startswith("  fx: ") for reason in reasons)
        assert explain(Decides(), picture(32, 32), 1, engine="hooks").layer == "body"


def as_pair(model: nn.Sequential, at: int) -> Any:
    return model[:at], model[at:]


class TestThePair:
    """Features and head that the user cut."""

    @pytest.mark.parametrize("cls", [1, None, lambda output: output[0, 1] - output[0, 2]])
    def test_gives_what_the_model_gives(self, cls: Any) -> None:
        model, x = small(), picture(32, 32)
        whole, pair = explain(model, x, cls), explain(as_pair(model, 5), x, cls, engine="split")
        assert (pair.layer, pair.grid, pair.engine, pair.method) == ("features", (8, 8), "split", "grad-cam")
        assert (pair.cls, pair.predicted, pair.probability) == (whole.cls, whole.predicted, whole.probability)
        assert apart(pair.raw, whole.raw) <= EQUAL

    def test_may_be_functions(self) -> None:
        model, x = small(), picture(32, 32)
        got = explain((lambda x: model[:5](2 * x), lambda grid: model[5:](grid) / 3), x / 2, 1, engine="split")
        assert apart(got.raw, explain(model, x, 1).raw / 3) <= EQUAL

    def test_is_left_untouched(self) -> None:
        """Also where it is methods of a model: that is put into eval mode, and back."""
        model = timm.create_model("test_resnet", pretrained=False).train()
        expected = explain(model, picture(64, 64))
        means = {name: buffer.clone() for name, buffer in model.named_buffers()}
        got = explain((model.forward_features, model.forward_head), picture(64, 64), engine="split")  # type: ignore[arg-type]
        assert apart(got.raw, expected.raw) <= EQUAL
        assert all(m.training for m in model.modules())
        assert all(torch.equal(buffer, means[name]) for name, buffer in model.named_buffers())
        assert all(p.grad is None for p in model.parameters())

    def test_whose_head_starts_in_place(self) -> None:
        model, x = small(inplace=True), picture(32, 32)
        got = explain(as_pair(model, 4), x, 1, engine="split")
        assert apart(got.raw, explain(small(), x, 1, layer="conv2").raw) <= EQUAL

    def test_takes_batches_and_classes(self) -> None:
        model, x = small(), picture(32, 32, count=3)
        for a, b in zip(
            explain_batch(as_pair(model, 5), x, [1, 2, 3], engine="split"),
            explain_batch(model, x, [1, 2, 3]),
            strict=True,
        ):
            assert apart(a.raw, b.raw) <= EQUAL
        classes = [3, 1, 2]
        for a, b in zip(
            explain_classes(as_pair(model, 5), x[:1], classes, engine="split"),
            explain_classes(model, x[:1], classes),
            strict=True,
        ):
            assert apart(a.raw, b.raw) <= EQUAL

    @pytest.mark.parametrize(
        ("pair", "keywords", "error", "message"),
        [
            ((small(),), {"engine": "split"}, ModelError, "the model is a tuple, but not of two callables"),
            ((small(), small(), small()), {"engine": "split"}, ModelError, "the model is a tuple, but not of two"),
            ((small(), 3), {"engine": "split"}, ModelError, "the model is a tuple, but not of two callables"),
            ((small(), small()), {}, ModelError, 'is for the split engine: pass engine="split", or the whole model'),
            (as_pair(small(), 5), {"engine": "split", "layer": "x"}, TargetLayerError, "is cut already: layer cannot"),
            (
                as_pair(small(), 6),
                {"engine": "split"},
                TargetLayerError,
                "have no spatial grid: their shape is (1, 12, 1",
            ),
            ((lambda x: [x, x], small()), {"engine": "split"}, TargetLayerError, "return a list: one floating tensor"),
            ((lambda x: x.long(), small()), {"engine": "split"}, TargetLayerError, "one floating tensor is needed"),
            (
                (as_pair(small(), 5)[0], lambda grid: small()[5:](grid.detach())),
                {"engine": "split"},
                TargetLayerError,
                "the score does not depend on layer 'features'",
            ),
        ],
    )
    def test_that_cannot_be_used(
        self, pair: Any, keywords: dict[str, str], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error) as raised:
            explain(pair, picture(32, 32), 1, **keywords)  # type: ignore[arg-type]
        assert message in str(raised.value)

    def test_of_tokens_that_only_a_class_token_reads_is_refused(self) -> None:
        features = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Flatten(2))
        token = torch.ones(1, 8, 1)
        with pytest.raises(TargetLayerError, match="all of its gradient is in the prefix tokens"):
            explain(
                (lambda x: torch.cat([token, features(x)], 2).transpose(1, 2), lambda tokens: tokens[:, 0]),
                picture(32, 32),
                1,
                engine="split",
            )
