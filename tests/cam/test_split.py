"""The split engine: four ways to cut, each accepted only if it gives what the model gives; and the user's own pair."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pytest_gradcam import ModelError, TargetLayerError, explain, explain_batch, explain_classes
from pytest_gradcam.cam import captured, split
from tests.models import apart, calibrated, picture, seeded, small
from tests.zoo import redraw, test_timm as zoo, timm_families

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


class Asks(Block):
    """A forward that goes by sizes, in all ways in which one does: no graph for any size holds that."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.linspace(-1, 1, 8)[None, :, None, None])
        self.several = Several()

    def forward(self, x: Tensor) -> Any:
        if x.shape[-1] % 4 or x.dim() != 4 or not x.is_floating_point():
            raise ValueError(tuple(x.shape))
        places = self.places if x.size(2) == x.size(3) else self.places * 2
        grid = self.grid(x) + places
        first, rest, nothing = self.several(grid)
        if nothing is None:
            first = first + rest["half"]
        first[:, 1] = first[:, 1] * 2
        cells = first.flatten(2).mT
        total = torch.zeros(x.shape[0], 8) + sum(cells[:, i] for i in range(cells.shape[1]))
        for row in first:
            total = total + row.mean((1, 2)) * len(first)
        return self.fc(total / cells.shape[1])


class Several(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.relu(), {"half": x / 2}, None


class Counts(Block):
    """How many cells are read depends on their values."""

    def forward(self, x: Tensor) -> Any:
        assert x.shape[2] > 4
        grid = self.grid(x)
        return self.fc(grid.mean((2, 3)) * len(grid[:, 0].nonzero()))


class Attends(Block):
    """Weights that no gradient goes through, by sizes or not."""

    def __init__(self, *, asks: bool) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, x: Tensor) -> Any:
        grid = self.grid(x)
        if self.asks and grid.shape[2] < 2:
            raise ValueError
        with torch.no_grad():
            weights = grid.sigmoid()
        return self.fc((grid * weights).mean((2, 3)))


class Remembers(Block):
    """It keeps what it computed for the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Any:
        if "bias" not in self.kept:
            self.kept["bias"] = self.fc.bias[None].expand(x.shape[0], 4)
        if x.shape[2] < 4:
            raise ValueError
        return self.fc(self.grid(x).relu().mean((2, 3))) + self.kept["bias"]


class TestTheCuts:
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

    @pytest.mark.parametrize("layer", ["body", "stem"])
    @pytest.mark.parametrize("size", [(32, 32), (32, 64)])
    def test_a_graph_for_these_sizes(self, size: tuple[int, int], layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert as_with_hooks(Asks(), picture(*size), layer=layer)
        with monkeypatch.context() as patch:
            only(patch, "fx with sizes")
            assert as_with_hooks(Asks(), picture(*size), layer=layer)
            assert as_with_hooks(Skips(), picture(*size), layer=layer)
        only(monkeypatch, "fx")
        with pytest.raises(ModelError, match="cannot be used as inputs to control flow"):
            explain(Asks(), picture(*size), 1, layer=layer, engine="split")

    @pytest.mark.parametrize("cut", ["fx", "fx with sizes"])
    def test_a_graph_takes_apart_only_what_is_around_the_layer(self, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Decided(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.relu() if float(x.detach().sum()) > 0 else -x

        only(monkeypatch, cut)
        model = nn.Sequential(small()[:4], Decided(), small()[5:])
        assert as_with_hooks(model, picture(32, 32), layer="0.conv2")

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

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (Counts(), "fx with sizes: .*nonzero.* gives a shape that depends on the values"),
            (Attends(asks=False), "fx: TraceError: a part of the forward that follows runs without autograd"),
            (Attends(asks=True), "fx with sizes: TraceError: a part of the forward that follows runs without autograd"),
        ],
    )
    def test_what_a_graph_would_not_hold(self, model: nn.Module, reason: str) -> None:
        with pytest.raises(ModelError, match=reason):
            explain(model, picture(32, 32), 1, layer="body", engine="split")

    @pytest.mark.parametrize("model", [Plain(), Asks()], ids=["fx", "fx with sizes"])
    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda cut: split.Cut(cut.how, lambda x: cut.features(2 * x), cut.head), "its features are not what"),
            (lambda cut: split.Cut(cut.how, cut.features, lambda *x: 1.001 * cut.head(*x)), "its head does not give"),
        ],
        ids=["features", "head"],
    )
    def test_a_graph_that_is_wrong(
        self, model: nn.Module, spoil: Callable[[Any], Any], reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for function in ("_cut_graph", "_cut_sized_graph"):
            make = getattr(split, function)
            monkeypatch.setattr(split, function, lambda *asked, make=make: spoil(make(*asked)))
        with pytest.raises(ModelError, match=rf"fx with sizes: {reason}"):
            explain(model, picture(32, 32), 1, layer="body", engine="split")


class TestTokensInAllBlocks:
    """Transformers whose forward asks for sizes, or whose blocks do what no graph holds, read in several blocks."""

    @pytest.mark.parametrize("family", ["vision_transformer", "hiera", "levit"])
    def test_the_engines_give_one_map(self, family: str) -> None:
        model, size = timm_families.build(family, 0), timm_families.input_size(family)
        (x,) = redraw.pictures(1, size, torch.Generator().manual_seed(0))
        before = zoo.state(model)
        hooks, split = (explain(model, x, 3, engine=engine) for engine in ("hooks", "split"))
        assert zoo.changes(before, zoo.state(model)) == []
        assert len(hooks.layers) > 1
        assert split.layers == hooks.layers
        assert split.score == pytest.approx(hooks.score, rel=EQUAL)
        assert split.raw.any()
        assert np.array_equal(split.raw, hooks.raw)

    def test_with_registers_and_a_batch(self) -> None:
        model = seeded(timm.create_model("test_vit2", pretrained=False))
        x = picture(160, 160, count=2)
        hooks, split = (explain_batch(model, x, [3, 5], engine=engine) for engine in ("hooks", "split"))
        for a, b in zip(hooks, split, strict=True):
            assert len(a.layers) == len(b.layers) > 1
            assert apart(a.raw, b.raw) <= EQUAL

    @pytest.mark.parametrize("method", ["ablation-cam", "score-cam"])
    def test_methods_that_run_the_head_again(self, method: str) -> None:
        """Also on batches, where the graph is one for a single image."""
        a, b = (explain(Asks(), picture(32, 32), 1, layer="body", method=method, engine=e) for e in ("split", "hooks"))
        assert apart(a.raw, b.raw) <= 1e-5

    @pytest.mark.parametrize(
        ("family", "first"), [("vision_transformer", "blocks.0.norm1"), ("levit", "stages.2.blocks.0")]
    )
    def test_one_cut_serves_all(self, family: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also what is read around the layer that is cut at, which no graph calls (LeViT's stages)."""
        model = timm_families.build(family, 0)
        cuts: list[str] = []

        def counted(forward: Any, site: Any, *rest: Any) -> Any:
            cuts.append(site.name)
            return split.run_split(forward, site, *rest)

        monkeypatch.setattr(captured, "run_split", counted)
        (x,) = redraw.pictures(1, timm_families.input_size(family), torch.Generator().manual_seed(0))
        explain(model, x, 3, engine="split")
        assert cuts == [first]


class TestTracing:
    """What a trace leaves behind: nothing."""

    def test_nodes_that_a_forward_keeps_are_thrown_away(self) -> None:
        """What one trace left would stand in the next."""
        model, x = Remembers(), picture(32, 32)
        with pytest.raises(Exception, match="control flow"):
            split._cut_graph(model, "body", model.body, x)
        assert model.kept == {}
        for _ in range(2):
            split._cut_sized_graph(model, "body", model.body, x)
            assert model.kept == {}
            assert list(vars(model)) == list(vars(Remembers()))
        assert as_with_hooks(model, x, layer="body")

    def test_inputs_that_a_forward_writes_to_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Writes(Asks):
            def forward(self, x: Tensor) -> Any:
                return super().forward(x.mul_(2))

        only(monkeypatch, "fx with sizes")
        x = picture(32, 32)
        before = x.clone()
        assert as_with_hooks(Writes(), x, layer="body")
        assert torch.equal(x, before)

    def test_no_value_outlives_it(self) -> None:
        model, x = Asks(), picture(64, 64)

        def values() -> int:
            gc.collect()
            return sum(issubclass(type(each), Tensor) and each.numel() >= 512 for each in gc.get_objects())

        before = values()
        cut = split._cut_sized_graph(model, "body", model.body, x)
        assert cut is not None
        assert values() <= before

    @pytest.mark.parametrize("model", [Plain(), Asks(), small()], ids=["fx", "fx with sizes", "children"])
    @pytest.mark.parametrize("part", ["features", "head"])
    def test_nothing_is_left_where_features_or_head_raise(self, model: nn.Module, part: str) -> None:
        """From any of the calls on: in the plain forward, in the trace, in the cut that runs."""
        x, layer = picture(32, 32), "body" if hasattr(model, "body") else "conv2"
        explain(model, x, 1, layer=layer)  # it is known then
        calls, nth = 0, 0

        class Broken(RuntimeError):
            pass

        def fail(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls >= nth:
                raise Broken

        broken = next(model.children()) if part == "features" else model.get_submodule("fc")
        handle = broken.register_forward_pre_hook(fail)
        before = zoo.state(model)
        ends: list[str] = []
        for nth in range(1, 10):  # noqa: B007  # read by the hook
            calls = 0
            try:
                explain(model, x, 1, layer=layer, engine="split")
            except (Broken, ModelError) as error:
                ends.append(type(error).__name__)
            assert zoo.changes(before, zoo.state(model)) == []
            assert torch.is_grad_enabled()
        handle.remove()
        assert ends[0] == "Broken"
        assert "ModelError" in ends  # no cut ran then
        assert as_with_hooks(model, x, layer=layer)


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
