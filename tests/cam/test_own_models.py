"""Modules as users write them: functional calls, several heads and inputs, skips, layers called twice, odd orders.

All weights are drawn; maps are compared with one plain backward of the whole model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import (
    Explanation,
    GradcamError,
    ModelError,
    TargetLayerError,
    explain,
    explain_batch,
    explain_classes,
)
from tests.models import Floats, TwoHeads, apart, grad_cam_of, hirescam_of, picture, reference, seeded

# Maps are compared with the oracle's whether they have evidence or not.
pytestmark = pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")

EQUAL = 1e-5
CLASSES = 4

engines = pytest.mark.parametrize("engine", ["hooks", "split"])

FORMULAS = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}
Score: TypeAlias = int | Callable[[Any], Tensor]


def oracle(model: nn.Module, x: Tensor, layer: str, score: Score) -> Floats:
    """Grad-CAM of a layer that gives (N, C, h, w)."""
    return grad_cam_of(*reference(model, x, layer, score))


def assert_read_at(layer: str, model: nn.Module, x: Tensor, **keywords: Any) -> None:
    """The layer is found, unasked, and the map of every class is the oracle's."""
    for cls in range(CLASSES):
        expected = oracle(model, x, layer, cls)
        got = explain(model, x, cls, **{"method": "grad-cam", **keywords})
        assert (got.layer, got.grid, got.method) == (layer, expected.shape, "grad-cam")
        assert apart(got.raw, expected) <= EQUAL


class Functional(nn.Module):
    """ReLU and pooling are functions: the grids that they give are no module's output."""

    def __init__(self, channels: int = 3, *, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.fc = nn.Linear(12, CLASSES)
        self.inplace = inplace
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        x = functional.max_pool2d(functional.relu(self.conv1(x), inplace=self.inplace), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x), inplace=self.inplace), 2)
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@engines
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 32, 32), (1, 32, 32), (5, 32, 32), (3, 24, 40), (1, 48, 16)]
)
def test_functional_relu_and_pooling(channels: int, height: int, width: int, inplace: bool, engine: str) -> None:
    """The last convolution is read: before the ReLU, also where that writes to its output."""
    x = picture(height, width, channels)
    assert_read_at("conv2", Functional(channels, inplace=inplace), x, engine=engine)


class KindAndColour(NamedTuple):
    kind: Tensor
    colour: Tensor


class TwoQuestions(nn.Module):
    """Two heads read one grid, of what kind it is and of what colour; `pack` makes the output of both."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.kind = nn.Linear(12, CLASSES)
        self.colour = nn.Linear(12, 6)
        self.pack = pack
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        features = self.conv2(self.conv1(x).relu()).relu().mean((2, 3))
        return self.pack(self.kind(features), self.colour(features))


# How the heads are packed, and how a callable finds the colour.
PACKED: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda kind, colour: (kind, colour), lambda output: output[1]),
    "list": (lambda kind, colour: [kind, colour], lambda output: output[1]),
    "named tuple": (KindAndColour, lambda output: output.colour),
    "dict": (lambda kind, colour: {"kind": kind, "colour": colour}, lambda output: output["colour"]),
    "dict with logits": (lambda kind, colour: {"colour": colour, "logits": kind}, lambda output: output["colour"]),
    "nested": (lambda kind, colour: {"heads": (kind, {"colour": colour})}, lambda output: output["heads"][1]["colour"]),
}


@engines
@pytest.mark.parametrize("pack", PACKED)
class TestSeveralHeads:
    def test_a_class_is_one_of_the_first_or_of_the_logits(self, pack: str, engine: str) -> None:
        x = picture(32, 32)
        kind_alone = TwoQuestions(lambda kind, colour: kind)
        for cls in range(CLASSES):
            got = explain(TwoQuestions(PACKED[pack][0]), x, cls, engine=engine)
            assert (got.layer, got.cls) == ("conv2", cls)
            assert apart(got.raw, oracle(kind_alone, x, "conv2", cls)) <= EQUAL

    def test_a_callable_reads_any_of_them(self, pack: str, engine: str) -> None:
        make, colour_of = PACKED[pack]
        x = picture(32, 32)
        colour_alone = TwoQuestions(lambda kind, colour: colour)
        for colour in (0, 5):
            got = explain(TwoQuestions(make), x, lambda output: colour_of(output)[0, colour], engine=engine)  # noqa: B023 (called at once)
            assert (got.layer, got.cls, got.predicted) == ("conv2", None, None)
            assert apart(got.raw, oracle(colour_alone, x, "conv2", colour)) <= EQUAL

    def test_in_a_batch_a_callable_sees_the_output_of_each_image(self, pack: str, engine: str) -> None:
        make, colour_of = PACKED[pack]
        x = picture(32, 32, count=3, seed=5)

        def margin(output: Any) -> Tensor:
            colours = colour_of(output)[0]
            return colours.logsumexp(0) - colours[2]

        found = explain_batch(TwoQuestions(make), x, margin, engine=engine)
        for each, image in zip(found, x, strict=True):
            assert apart(each.raw, oracle(TwoQuestions(make), image[None], "conv2", margin)) <= EQUAL


# Models that are not called with one tensor.


class Net(nn.Module):
    """What the models below share: two convolutions, and as many features as the second has channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.conv2(self.conv1(x).relu()).relu().mean((2, 3))


class WithNumbers(nn.Module):
    """An image and four numbers beside it, a patient's age and so on, without which there is no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.fc = Net(), nn.Linear(16, CLASSES)
        seeded(self)

    def forward(self, x: Tensor, numbers: Tensor) -> Any:
        return self.fc(torch.cat([self.net(x), numbers], 1))


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.fc = Net(), nn.Linear(12, CLASSES)
        seeded(self)

    def forward(self, *, pixel_values: Tensor, scale: float = 1.0) -> Any:
        features = self.net(pixel_values)
        return SimpleNamespace(loss=None, features=features, logits=scale * self.fc(features))


class OfAList(nn.Module):
    """As detectors are called: with a list of images, (C, H, W) each."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.fc = Net(), nn.Linear(12, CLASSES)
        seeded(self)

    def forward(self, images: list[Tensor]) -> Any:
        assert isinstance(images, list)
        return {"out": self.fc(self.net(torch.stack(images)))}


class TwoImages(nn.Module):
    """What the image has and another has not; each goes through layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.other, self.net, self.fc = Net(), Net(), nn.Linear(12, CLASSES)
        seeded(self)

    def forward(self, x: Tensor, other: Tensor) -> Any:
        return self.fc(self.net(x) - self.other(other))


class Called(nn.Module):
    """A model that takes one tensor, for the oracle: the same call inside a module."""

    def __init__(self, inner: nn.Module, call: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.inner, x)


CALLS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Tensor], Any]]] = {
    "numbers beside the image": (WithNumbers, lambda model, x: model(x, torch.ones(len(x), 4))),
    "by keyword": (ByKeyword, lambda model, x: model(pixel_values=x, scale=2.0)),
    "by keyword, the logits": (ByKeyword, lambda model, x: model(pixel_values=x).logits),
    "a list": (OfAList, lambda model, x: model(list(x))),
    "a list, one head": (OfAList, lambda model, x: model(list(x))["out"]),
    "two images": (TwoImages, lambda model, x: model(x, torch.full_like(x, 0.5))),
}


def logit(cls: int) -> Callable[[Any], Tensor]:
    def score(output: Any) -> Tensor:
        found: Tensor = (output["out"] if isinstance(output, dict) else getattr(output, "logits", output))[0, cls]
        return found

    return score


@pytest.mark.parametrize("case", CALLS)
class TestForward:
    """`forward=` says how a model is called."""

    def test_explain(self, case: str) -> None:
        make, call = CALLS[case]
        model, x = make(), picture(32, 32)
        for cls in range(CLASSES):
            got = explain(model, x, cls, forward=call)
            assert (got.layer, got.grid, got.cls) == ("net.conv2", (8, 8), cls)
            assert apart(got.raw, oracle(Called(model, call), x, "inner.net.conv2", logit(cls))) <= EQUAL

    def test_explain_with_a_callable_and_a_named_layer(self, case: str) -> None:
        make, call = CALLS[case]
        model, x = make(), picture(32, 32)
        got = explain(model, x, logit(2), forward=call, layer="net.conv1", method="hirescam")
        assert (got.layer, got.grid, got.cls) == ("net.conv1", (16, 16), None)
        expected = hirescam_of(*reference(Called(model, call), x, "inner.net.conv1", logit(2)))
        assert apart(got.raw, expected) <= EQUAL

    def test_explain_batch(self, case: str) -> None:
        make, call = CALLS[case]
        model, x = make(), picture(32, 32, count=3, seed=4)
        for each, image, cls in zip(explain_batch(model, x, [2, 0, 1], forward=call), x, [2, 0, 1], strict=True):
            assert each.cls == cls
            expected = oracle(Called(model, call), image[None], "inner.net.conv2", logit(cls))
            assert apart(each.raw, expected) <= EQUAL

    def test_explain_classes(self, case: str) -> None:
        make, call = CALLS[case]
        model, x = make(), picture(32, 32)
        found = explain_classes(model, x, forward=call)
        assert [each.cls for each in found] == list(range(CLASSES))
        for cls, each in enumerate(found):
            assert apart(each.raw, oracle(Called(model, call), x, "inner.net.conv2", logit(cls))) <= EQUAL

    def test_a_split_engine_gives_the_same_or_says_that_it_cannot(self, case: str) -> None:
        make, call = CALLS[case]
        model, x = make(), picture(32, 32)
        try:
            got = explain(model, x, 1, forward=call, engine="split")
        except ModelError as error:
            assert "forward" in str(error)
        else:
            assert apart(got.raw, oracle(Called(model, call), x, "inner.net.conv2", logit(1))) <= EQUAL


class TestForwardsOfAllKinds:
    def test_is_called_with_the_model_in_eval_mode_and_a_batch(self) -> None:
        model, x = OfAList().train(), picture(32, 32)
        seen: list[tuple[bool, bool, tuple[int, ...]]] = []

        def call(called: Any, inputs: Tensor) -> Any:
            seen.append((called is model, called.training, tuple(inputs.shape)))
            return called(list(inputs))

        explain(model, x[0], 1, forward=call)
        assert set(seen) == {(True, False, (1, 3, 32, 32))}
        assert model.training

    def test_is_called_with_the_model_inside_its_wrappers(self) -> None:
        model, x = OfAList(), picture(32, 32)
        call = CALLS["a list"][1]
        got = explain(nn.DataParallel(model), x, 1, forward=call)
        assert apart(got.raw, oracle(Called(model, call), x, "inner.net.conv2", logit(1))) <= EQUAL

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_what_was_found_for_one_is_not_kept_for_another(self, order: tuple[int, int]) -> None:
        """Two heads behind branches of their own: which is read is the forward's business."""
        model, x = TwoHeads(), picture(32, 32)
        for branch in (*order, *order):

            def call(model: Any, x: Tensor, branch: int = branch) -> Any:
                return model(x)[branch]

            got = explain(model, x, 2, forward=call)
            layer = ("branch_a", "branch_b")[branch]
            assert got.layer == layer
            assert apart(got.raw, oracle(Called(model, call), x, f"inner.{layer}", 2)) <= EQUAL

    def test_that_call_the_model_twice_call_every_layer_twice(self) -> None:
        """Test-time augmentation: no layer has one output that stands for the image."""

        def call(model: Any, x: Tensor) -> Any:
            return (model(x) + model(x.flip(-1))) / 2

        with pytest.raises(TargetLayerError, match="called 2 times in a forward"):
            explain(Functional(), picture(32, 32), 1, forward=call)
        with pytest.raises(TargetLayerError, match="'conv2' is called 2 times in a forward"):
            explain(Functional(), picture(32, 32), 1, forward=call, layer="conv2")

    def test_what_it_raises_passes_unchanged(self) -> None:
        def call(model: Any, x: Tensor) -> Any:
            raise LookupError("no such patient")

        with pytest.raises(LookupError, match="no such patient"):
            explain(Functional(), picture(32, 32), 1, forward=call)

    @pytest.mark.parametrize("forward", [3, "model", picture(8, 8)])
    def test_what_is_not_callable_is_refused(self, forward: Any) -> None:
        with pytest.raises(GradcamError, match="forward"):
            explain(Functional(), picture(32, 32), 1, forward=forward)


# Layers that others go around, and layers that are called twice.


class Skips(nn.Module):
    """A convolution with its input beside it: added to it, or before it as channels."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(16 if how == "concatenated" else 8, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        if self.how == "added":
            x = x + self.conv2(self.conv1(x).relu())
        elif self.how == "added in place":
            y = self.conv2(self.conv1(x).relu())
            y += x
            x = y
        elif self.how == "gated":
            x = x * torch.sigmoid(self.conv2(self.conv1(x).relu()))
        else:
            x = torch.cat([x, self.conv2(self.conv1(x).relu())], 1)
        return self.fc(x.relu().mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return (x + self.conv2(self.conv1(x).relu())).relu()


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.block1, self.block2 = Block(), Block()
        self.fc = nn.Linear(8, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.block2(self.block1(self.stem(x))).mean((2, 3)))


@engines
class TestSkips:
    @pytest.mark.parametrize("how", ["added", "added in place", "gated", "concatenated"])
    def test_a_sum_that_no_module_gives_is_read_before_it_parts(self, how: str, engine: str) -> None:
        """The last convolution has a part of the evidence, of any size; the rest goes around it."""
        assert_read_at("stem", Skips(how), picture(32, 32), engine=engine)

    def test_a_sum_that_a_module_gives_is_read_there(self, engine: str) -> None:
        assert_read_at("block2", Blocks(), picture(32, 32), engine=engine)


class Shared(nn.Module):
    """Two branches, of the image as it is and of its negative, go through one convolution."""

    def __init__(self, *, stem: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1) if stem else None
        self.shared = nn.Conv2d(8 if stem else 3, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(16, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        x = x if self.stem is None else self.stem(x)
        a, b = (self.shared(part).relu().mean((2, 3)) for part in (x, -x))
        return self.fc(torch.cat([a, b], 1))


class OneRelu(nn.Module):
    """One ReLU for all layers, as many older models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(12, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3)))


@engines
class TestCalledTwice:
    def test_a_shared_layer_is_passed_over(self, engine: str) -> None:
        assert_read_at("stem", Shared(stem=True), picture(32, 32), engine=engine)

    def test_a_shared_activation_is_passed_over(self, engine: str) -> None:
        assert_read_at("conv2", OneRelu(), picture(32, 32), engine=engine)

    @pytest.mark.parametrize(("model", "layer"), [(Shared(stem=True), "shared"), (OneRelu(), "relu")])
    def test_one_that_is_named_is_refused(self, model: nn.Module, layer: str, engine: str) -> None:
        with pytest.raises(TargetLayerError, match=f"layer '{layer}' is called 2 times in a forward"):
            explain(model, picture(32, 32), 1, layer=layer, engine=engine)

    def test_where_nothing_else_is_left_the_error_says_so(self, engine: str) -> None:
        with pytest.raises(TargetLayerError, match=r"(?s)shared.*called 2 times in a forward"):
            explain(Shared(stem=False), picture(32, 32), 1, engine=engine)


# Tokens and cells that are not where a grid would have them.

Grid: TypeAlias = tuple[int, int]
WIDTH = 24


class Mixing(nn.Module):
    """A block of a transformer with one head: every token sees a little of every other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.qkv, self.proj = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + 0.3 * self.proj(functional.scaled_dot_product_attention(q, k, v))
        return x + 0.3 * self.fc2(functional.gelu(self.fc1(self.norm2(x))))


def by_windows(tokens: Tensor, grid: Grid) -> Tensor:
    """Windows of 2 × 2 one after the other, as attention in windows has them."""
    h, w = grid
    windows = tokens.unflatten(1, (h // 2, 2, w // 2, 2))  # type: ignore[no-untyped-call]  # torch's own
    ordered: Tensor = windows.transpose(2, 3).flatten(1, 4)
    return ordered


def by_quarters(tokens: Tensor, grid: Grid) -> Tensor:
    """Four windows."""
    h, w = grid
    windows = tokens.unflatten(1, (2, h // 2, 2, w // 2))  # type: ignore[no-untyped-call]  # torch's own
    ordered: Tensor = windows.transpose(2, 3).flatten(1, 4)
    return ordered


def by_parity(tokens: Tensor, grid: Grid) -> Tensor:
    """Every second row and column, then what is between them, as Hiera unrolls its tokens."""
    h, w = grid
    windows = tokens.unflatten(1, (h // 2, 2, w // 2, 2))  # type: ignore[no-untyped-call]  # torch's own
    ordered: Tensor = windows.permute(0, 2, 4, 1, 3, 5).flatten(1, 4)
    return ordered


def serpentine(tokens: Tensor, grid: Grid) -> Tensor:
    """Every second row from right to left, so that neighbours stay neighbours, as state space models scan."""
    rows = tokens.unflatten(1, grid).clone()  # type: ignore[no-untyped-call]  # torch's own
    rows[:, 1::2] = rows[:, 1::2].flip(2)
    ordered: Tensor = rows.flatten(1, 2)
    return ordered


def by_columns(tokens: Tensor, grid: Grid) -> Tensor:
    unfolded: Tensor = tokens.unflatten(1, grid)  # type: ignore[no-untyped-call]  # torch's own
    return unfolded.transpose(1, 2).flatten(1, 2)


def from_right_to_left(tokens: Tensor, grid: Grid) -> Tensor:
    unfolded: Tensor = tokens.unflatten(1, grid)  # type: ignore[no-untyped-call]  # torch's own
    return unfolded.flip(2).flatten(1, 2)


def reversed_(tokens: Tensor, grid: Grid) -> Tensor:
    return tokens.flip(1)


def rolled_by_half(tokens: Tensor, grid: Grid) -> Tensor:
    """As a cyclic shift that is not undone."""
    unfolded: Tensor = tokens.unflatten(1, grid)  # type: ignore[no-untyped-call]  # torch's own
    return unfolded.roll((grid[0] // 2, grid[1] // 2), (1, 2)).flatten(1, 2)


def shuffled(tokens: Tensor, grid: Grid) -> Tensor:
    order = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(3))
    return tokens[:, order]


def class_token_at_the_end(tokens: Tensor, grid: Grid) -> Tensor:
    """Taken for the first, as it mostly is, it would move every other by one."""
    return torch.cat([tokens, tokens.mean(1, keepdim=True)], 1)


def class_token_in_the_middle(tokens: Tensor, grid: Grid) -> Tensor:
    """As Vision Mamba has it."""
    half = tokens.shape[1] // 2
    return torch.cat([tokens[:, :half], tokens.mean(1, keepdim=True), tokens[:, half:]], 1)


ORDERS = [
    by_windows,
    by_quarters,
    by_parity,
    serpentine,
    by_columns,
    from_right_to_left,
    reversed_,
    rolled_by_half,
    shuffled,
    class_token_in_the_middle,
]


def as_it_is(tokens: Tensor, grid: Grid) -> Tensor:
    return tokens


class Tokens(nn.Module):
    """Patches in an order that `order` makes, mixed by blocks and averaged.

    With `embedded`, layers before that have the grid in its own order; without, nothing but the blocks sees the image.
    """

    def __init__(self, order: Callable[[Tensor, Grid], Tensor], *, embedded: bool) -> None:
        super().__init__()
        self.order, self.embedded = order, embedded
        self.patch = nn.Conv2d(3, WIDTH, 8, stride=8) if embedded else None
        self.first = Mixing() if embedded else nn.Linear(3 * 64, WIDTH)
        self.blocks = nn.Sequential(Mixing(), Mixing())
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        grid = (x.shape[2] // 8, x.shape[3] // 8)
        if self.patch is not None:
            tokens = self.order(self.first(self.patch(x).flatten(2).transpose(1, 2)), grid)
        else:
            tokens = self.first(self.order(functional.unfold(x, 8, stride=8).transpose(1, 2), grid))
        return self.fc(self.norm(self.blocks(tokens)).mean(1))


def as_grid(output: Tensor, grid: Grid) -> Tensor:
    """Tokens, in their own order, as (N, C, h, w); such a grid as it is."""
    return output if output.ndim == 4 else output.transpose(1, 2).reshape(len(output), -1, *grid)


def assert_true(got: Explanation, model: nn.Module, x: Tensor, cls: int) -> None:
    activations, gradients = reference(model, x, got.layer, cls)
    expected = FORMULAS[got.method](as_grid(activations, got.grid), as_grid(gradients, got.grid))
    assert apart(got.raw, expected) <= EQUAL


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 64)])
class TestOrderOfTokens:
    def test_in_its_own_order_the_last_grid_is_read(self, height: int, width: int) -> None:
        """So that it is the order alone that the layers below are refused for."""
        for embedded in (False, True):
            model, x = Tokens(as_it_is, embedded=embedded), picture(height, width)
            got = explain(model, x, 1)
            assert (got.layer, got.grid) == ("norm", (height // 8, width // 8))
            assert_true(got, model, x, 1)
            assert_true(explain(model, x, 1, layer="blocks.0"), model, x, 1)

    @pytest.mark.parametrize("layer", [None, "norm", "blocks.0"])
    def test_behind_them_a_class_token_is_left_out(self, layer: str | None, height: int, width: int) -> None:
        model, x = Tokens(class_token_at_the_end, embedded=False), picture(height, width)
        got = explain(model, x, 1, layer=layer)
        assert (got.layer, got.grid) == (layer or "norm", (height // 8, width // 8))
        activations, gradients = (each[:, :-1] for each in reference(model, x, got.layer, 1))
        expected = FORMULAS[got.method](as_grid(activations, got.grid), as_grid(gradients, got.grid))
        assert apart(got.raw, expected) <= EQUAL

    @pytest.mark.parametrize("order", ORDERS)
    def test_another_is_never_read_in_place_of_it(
        self, order: Callable[[Tensor, Grid], Tensor], height: int, width: int
    ) -> None:
        """A layer before is found, whose cells stand for their places, or none."""
        model, x = Tokens(order, embedded=True), picture(height, width)
        try:
            got = explain(model, x, 1)
        except TargetLayerError:
            return
        assert re.match(r"first|patch", got.layer)
        assert got.grid == (height // 8, width // 8)
        assert_true(got, model, x, 1)

    @pytest.mark.parametrize("order", ORDERS)
    def test_where_there_is_no_other_none_is_read(
        self, order: Callable[[Tensor, Grid], Tensor], height: int, width: int
    ) -> None:
        with pytest.raises(TargetLayerError):
            explain(Tokens(order, embedded=False), picture(height, width), 1)

    @pytest.mark.parametrize("embedded", [False, True])
    @pytest.mark.parametrize("layer", ["blocks.0", "blocks", "norm"])
    @pytest.mark.parametrize("order", ORDERS)
    def test_one_that_is_named_is_refused(
        self, order: Callable[[Tensor, Grid], Tensor], layer: str, embedded: bool, height: int, width: int
    ) -> None:
        model = Tokens(order, embedded=embedded)
        with pytest.raises(TargetLayerError, match="do not stand for their place"):
            explain(model, picture(height, width), 1, layer=layer)


def mirrored(x: Tensor) -> Tensor:
    return x.flip(-1)


def upside_down(x: Tensor) -> Tensor:
    return x.flip(-2)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3)


def turned(x: Tensor) -> Tensor:
    return x.rot90(1, (2, 3))


def half_turned(x: Tensor) -> Tensor:
    return x.rot90(2, (2, 3))


def shifted(x: Tensor) -> Tensor:
    return x.roll((x.shape[2] // 2, x.shape[3] // 2), (2, 3))


MOVES = [mirrored, upside_down, transposed, turned, half_turned, shifted]


class Moved(nn.Module):
    """A convolution of the grid, or of the image, when it was moved."""

    def __init__(self, move: Callable[[Tensor], Tensor], *, first: bool) -> None:
        super().__init__()
        self.move, self.first = move, first
        self.conv1 = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.fc = nn.Linear(12, CLASSES)
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        x = self.conv1(self.move(x) if self.first else x).relu()
        return self.fc(self.conv2(x if self.first else self.move(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("move", MOVES)
class TestCellsOfConvolutions:
    """Their grids too are read only where each cell stands for its place."""

    def test_what_was_moved_is_never_read_in_place_of_what_was_not(self, move: Callable[[Tensor], Tensor]) -> None:
        model, x = Moved(move, first=False), picture(32, 32)
        try:
            got = explain(model, x, 1, method="grad-cam")
        except TargetLayerError:
            return
        assert got.layer == "conv1"
        assert apart(got.raw, oracle(model, x, "conv1", 1)) <= EQUAL

    def test_nothing_is_read_where_all_was_moved(self, move: Callable[[Tensor], Tensor]) -> None:
        with pytest.raises(TargetLayerError):
            explain(Moved(move, first=True), picture(32, 32), 1)

    def test_what_was_moved_is_refused_when_it_is_named(self, move: Callable[[Tensor], Tensor]) -> None:
        with pytest.raises(TargetLayerError, match="do not stand for their place"):
            explain(Moved(move, first=False), picture(32, 32), 1, layer="conv2")
