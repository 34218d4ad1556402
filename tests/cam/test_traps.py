"""Models made to mislead, each of which once got a wrong verdict or a wrong map.

All have weights set by hand, so that the true place of the evidence is known; the general cases stand beside the module
that they are about.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from pytest_gradcam import (
    ClassError,
    Explanation,
    GradcamError,
    ModelError,
    ModelTypeError,
    TargetLayerError,
    ZeroEvidenceWarning,
    explain,
    explain_batch,
    explain_classes,
)

Box = tuple[int, int, int, int]

OBJECT: Box = (4, 4, 12, 12)
STAMP: Box = (22, 22, 30, 30)
CORNER: Box = (24, 24, 32, 32)
RED, GREEN, BLUE = 0, 1, 2
AROUND = "the score reaches the image around it too"

engines = pytest.mark.parametrize("engine", ["hooks", "split"])


def scene(*squares: tuple[int, Box, float], side: int = 32) -> Tensor:
    """Model input, (3, side, side), black but for squares of a colour and a brightness."""
    x = torch.zeros(3, side, side)
    for colour, (x0, y0, x1, y1), value in squares:
        x[colour, y0:y1, x0:x1] = value
    return x


def object_and_stamp() -> Tensor:
    return scene((RED, OBJECT, 1.0), (GREEN, STAMP, 1.0))


def picking(*colours: int) -> nn.Conv2d:
    """A convolution whose channels are these colours of the image."""
    conv = nn.Conv2d(3, len(colours), 1, bias=False)
    weight = torch.zeros(len(colours), 3, 1, 1)
    weight[range(len(colours)), list(colours)] = 1
    conv.weight = nn.Parameter(weight)
    return conv


def linear(rows: Sequence[Sequence[float]]) -> nn.Linear:
    fc = nn.Linear(len(rows[0]), len(rows), bias=False)
    fc.weight = nn.Parameter(torch.tensor(rows))
    return fc


def share(explanation: Explanation, box: Box) -> float:
    """Which part of the map lies in the box."""
    x0, y0, x1, y1 = box
    return float(explanation.cam[y0:y1, x0:x1].sum() / explanation.cam.sum())


class Colours(nn.Module):
    """Class 0 reads red, class 1 green."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = picking(RED, GREEN)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x).mean((2, 3))


class Headed(nn.Module):
    """Red and green, then a linear head of given weights and whatever follows it."""

    def __init__(self, rows: Sequence[Sequence[float]], last: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = picking(RED, GREEN)
        self.fc = linear(rows)
        self.last = last if last is not None else nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return self.last(self.fc(self.conv(x).mean((2, 3))))


# What the image does around the layer.


class Net(nn.Module):
    def __init__(self, colour: int, gain: float) -> None:
        super().__init__()
        self.conv = picking(colour)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        score = self.gain * self.conv(x).mean((2, 3))
        return torch.cat([score, -score], 1)


class Ensemble(nn.Module):
    """Its first net reads the stamp, a hundred times as strongly as the second reads the object."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList([Net(GREEN, 100.0), Net(RED, 1.0)])

    def forward(self, x: Tensor) -> Any:
        first, second = (net(x) for net in self.nets)
        return (first + second) / 2


class LateBranch(nn.Module):
    """A body that reads the stamp, and a branch called after it that adds next to nothing from the object."""

    def __init__(self) -> None:
        super().__init__()
        self.body = picking(GREEN)
        self.aux = picking(RED)

    def forward(self, x: Tensor) -> Tensor:
        score = 100 * self.body(x).mean((2, 3)) + 1e-6 * self.aux(x).mean((2, 3))
        return torch.cat([score, -score], 1)


@engines
@pytest.mark.parametrize(("make", "reader"), [(Ensemble, "nets.0.conv"), (LateBranch, "body")])
class TestBranchesBesideEachOther:
    def test_neither_branch_is_taken_unasked(self, make: Callable[[], nn.Module], reader: str, engine: str) -> None:
        with pytest.raises(TargetLayerError, match=AROUND):
            explain(make(), object_and_stamp(), 0, engine=engine)

    def test_a_named_branch_shows_what_it_reads(self, make: Callable[[], nn.Module], reader: str, engine: str) -> None:
        found = explain(make(), object_and_stamp(), 0, engine=engine, layer=reader)
        assert share(found, STAMP) == pytest.approx(1)


class Gated(nn.Module):
    """Class 0 reads red, let through by a gate that opens at green."""

    def __init__(self) -> None:
        super().__init__()
        self.body = picking(RED, GREEN)
        self.gate = nn.Conv2d(2, 1, 1, bias=False)
        self.gate.weight = nn.Parameter(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Any:
        grid = self.body(x)
        return (grid * torch.sigmoid(self.gate(grid))).mean((2, 3))


@engines
def test_an_attention_gate_is_not_read_in_place_of_what_it_gates(engine: str) -> None:
    found = explain(Gated(), object_and_stamp(), 0, engine=engine)
    assert found.layer == "body"
    assert share(found, OBJECT) > 0.9


# Which class was explained before.


class Branches(nn.Module):
    """Class 0 reads one branch, class 1 the other, class 2 both, the stamp five times as strongly."""

    def __init__(self, trunk: bool) -> None:
        super().__init__()
        self.trunk = picking(RED, GREEN, BLUE) if trunk else nn.Identity()
        self.a = picking(RED)
        self.b = picking(GREEN)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        a, b = self.a(x).mean((2, 3)), self.b(x).mean((2, 3))
        return torch.cat([a, b, a + 5 * b], 1)


TRUE_SHARE_OF_OBJECT = [1.0, 0.0, 1 / 6]


@pytest.mark.parametrize("before", [None, 0, 1, 2])
@pytest.mark.parametrize("cls", [0, 1, 2])
class TestClassesReadDifferentBranches:
    def test_without_a_trunk_every_class_is_refused(self, cls: int, before: int | None) -> None:
        model, x = Branches(trunk=False), object_and_stamp()
        if before is not None:
            with pytest.raises(TargetLayerError, match=AROUND):
                explain(model, x, before)
        with pytest.raises(TargetLayerError, match=AROUND):
            explain(model, x, cls)

    def test_after_naming_a_branch_every_class_is_still_refused(self, cls: int, before: int | None) -> None:
        model, x = Branches(trunk=False), object_and_stamp()
        if before is not None:
            explain(model, x, before, layer="a" if before == 0 else "b")
        with pytest.raises(TargetLayerError, match=AROUND):
            explain(model, x, cls)

    def test_with_a_trunk_the_trunk_is_read(self, cls: int, before: int | None) -> None:
        model, x = Branches(trunk=True), object_and_stamp()
        if before is not None:
            explain(model, x, before)
        found = explain(model, x, cls)
        assert found.layer == "trunk"
        assert share(found, OBJECT) == pytest.approx(TRUE_SHARE_OF_OBJECT[cls])


ORDERS = [[0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 1, 0]]


def in_a_batch(model: nn.Module, x: Tensor, classes: list[int]) -> list[Explanation]:
    return explain_batch(model, torch.stack([x] * len(classes)), classes)


def in_one_image(model: nn.Module, x: Tensor, classes: list[int]) -> list[Explanation]:
    return explain_classes(model, x, classes)


@pytest.mark.parametrize("together", [in_a_batch, in_one_image])
@pytest.mark.parametrize("order", ORDERS)
class TestOrderOfClasses:
    def test_the_first_class_does_not_choose_a_branch(self, together: Callable[..., Any], order: list[int]) -> None:
        with pytest.raises(TargetLayerError, match=AROUND):
            together(Branches(trunk=False), object_and_stamp(), order)

    def test_every_class_has_its_own_place_in_the_trunk(self, together: Callable[..., Any], order: list[int]) -> None:
        found = together(Branches(trunk=True), object_and_stamp(), order)
        assert [e.layer for e in found] == ["trunk"] * 3
        assert [share(e, OBJECT) for e in found] == pytest.approx([TRUE_SHARE_OF_OBJECT[cls] for cls in order])


# Rows that are not images.


class Crops(nn.Module):
    """Four quarters of the picture, folded into the batch."""

    def __init__(self, stem: bool = False) -> None:
        super().__init__()
        self.stem = picking(RED, GREEN, BLUE) if stem else nn.Identity()
        self.conv = picking(RED)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        rows, columns = x[..., :16, :], x[..., 16:, :]
        crops = torch.cat([rows[..., :16], rows[..., 16:], columns[..., :16], columns[..., 16:]])
        score = self.conv(crops).mean((2, 3)).view(4, -1, 1).mean(0)
        return torch.cat([score, -score], 1)


@engines
class TestCropsInTheBatch:
    # Weak evidence in the first crop, which stretched over the picture would lie elsewhere, and strong in the last.
    x = scene((RED, (4, 4, 8, 8), 0.2), (RED, (18, 18, 30, 30), 1.0))

    @pytest.mark.parametrize("layer", [None, "conv"])
    def test_a_crop_is_not_read_as_the_image(self, engine: str, layer: str | None) -> None:
        with pytest.raises(TargetLayerError):
            explain(Crops(), self.x, 0, engine=engine, layer=layer)

    def test_crops_of_a_batch_are_not_read_as_its_images(self, engine: str) -> None:
        with pytest.raises(TargetLayerError):
            explain_batch(Crops(), torch.stack([self.x] * 4), 0, engine=engine, layer="conv")

    def test_the_layer_before_the_crops_is_read(self, engine: str) -> None:
        found = explain(Crops(stem=True), self.x, 0, engine=engine)
        assert found.layer == "stem"
        assert share(found, (18, 18, 30, 30)) == pytest.approx(144 / (144 + 0.2 * 16))


# Shapes that can be read either way.


class ChannelsLast(nn.Module):
    """Cells of 4×4 pixels, (N, 8, 8, channels), through a block that leaves them as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.block = nn.Sequential(linear(torch.eye(channels).tolist()))

    def forward(self, x: Tensor) -> Any:
        cells = nn.functional.avg_pool2d(x, 4).permute(0, 2, 3, 1)
        cells = nn.functional.pad(cells, (0, self.channels - 3))
        return self.block(cells).mean((1, 2))[:, :2]


@engines
@pytest.mark.parametrize("channels", [7, 8, 9])
class TestChannelsLast:
    @pytest.mark.parametrize("layer", [None, "block", "block.0"])
    def test_channels_are_not_taken_for_columns(self, channels: int, engine: str, layer: str | None) -> None:
        """The map shows the evidence where it is, also where as many channels as columns leave the shape open."""
        found = explain(ChannelsLast(channels), scene((RED, CORNER, 1.0)), 0, engine=engine, layer=layer)
        assert found.grid == (8, 8)
        assert found.raw[6:, 6:].sum() == pytest.approx(found.raw.sum())
        assert found.evidence > 0


def test_as_many_channels_as_columns_after_a_convolution_are_channels() -> None:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 12, 4, stride=4, bias=False))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    conv = model.get_submodule("conv")
    conv.weight = nn.Parameter(torch.zeros(12, 3, 4, 4))
    with torch.no_grad():
        conv.weight[0, RED] = 1
    found = explain(model, scene((RED, (36, 36, 48, 48), 1.0), side=48), 0)
    assert (found.layer, found.grid) == ("conv", (12, 12))
    assert found.raw[9:, 9:].sum() == pytest.approx(found.raw.sum())


class Unknown(nn.Module):
    """(N, 8, 8, 8), and no module that says where its channels are."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([nn.functional.avg_pool2d(x, 4)] * 3, 1)[:, :8]


@pytest.mark.parametrize("layer", [None, "0"])
def test_a_shape_that_no_module_settles_is_settled_by_what_its_cells_depend_on(layer: str | None) -> None:
    model = nn.Sequential(Unknown(), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    found = explain(model, scene((RED, CORNER, 1.0)), 0, layer=layer)
    assert (found.layer, found.grid) == (layer or "1", (8, 8))  # the flattened grid is a grid still
    assert found.raw[6:, 6:].sum() == pytest.approx(found.raw.sum())


class StemAndTokens(nn.Module):
    """A convolution with a batch norm, then tokens, of which each is read with weights of its own."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = norm(8)
        self.read = nn.Linear(64 * 8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.read(self.norm(self.conv(x)).flatten(2).transpose(1, 2).flatten(1))


@engines
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_a_gradient_that_torch_misreads_behind_a_batch_norm_is_right(norm: type[nn.Module], engine: str) -> None:
    """One image's gradient of transposed tokens has strides that torch's CPU kernel takes for another layout."""
    torch.manual_seed(0)
    model, x = StemAndTokens(norm).double().eval(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        a = model.conv(x)
    step, expected = 1e-6, torch.zeros(8, 8, 8, dtype=torch.float64)  # by finite differences: no gradient of torch's
    for at in range(512):
        moved = torch.zeros(512, dtype=torch.float64)
        moved[at] = step
        with torch.no_grad():
            high, low = (
                model.read(model.norm(a + sign * moved.view_as(a)).flatten(2).transpose(1, 2).flatten(1))[0, 1]
                for sign in (1, -1)
            )
        expected.view(-1)[at] = (high - low) / (2 * step)
    raw = (a[0] * expected).sum(0).numpy()
    found = explain(model, x, 1, layer="conv", method="hirescam", engine=engine)
    assert np.abs(found.raw - raw).max() <= 1e-5 * np.abs(raw).max()


# Outputs behind a softmax.

SATURATED = [
    (nn.LogSoftmax(1), torch.float32, 20_000.0),
    (nn.LogSoftmax(1), torch.float64, 50_000.0),
    (nn.LogSoftmax(1), torch.bfloat16, 20_000.0),
    (nn.Softmax(1), torch.float32, 20_000.0),
    (nn.Softmax(1), torch.bfloat16, 20_000.0),
    (nn.Softmax(1), torch.bfloat16, 4_000.0),  # logits 6 apart: one step of bfloat16 below 1 is further away
]


@pytest.mark.parametrize(("last", "dtype", "weight"), SATURATED)
class TestSaturated:
    # Class 0 reads the faint stamp, class 1 speaks against the object: rounding alone would show the object.
    x = scene((RED, OBJECT, 1.0), (GREEN, STAMP, 0.02))

    def test_the_rounding_of_a_certain_class_is_no_map(
        self, last: nn.Module, dtype: torch.dtype, weight: float
    ) -> None:
        model = Headed([[0.0, weight], [-20.0, 0.0]], last).to(dtype)
        with pytest.raises(ModelError, match="saturated softmax"):
            explain(model, self.x, 0)

    def test_nor_when_all_classes_are_asked_for(self, last: nn.Module, dtype: torch.dtype, weight: float) -> None:
        model = Headed([[0.0, weight], [-20.0, 0.0]], last).to(dtype)
        with pytest.raises(ModelError, match="saturated softmax"):
            explain_classes(model, self.x)


@engines
@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_uncertain_softmax_is_served(last: nn.Module, dtype: torch.dtype, engine: str) -> None:
    model = Headed([[0.0, 32.0], [0.0, 0.0]], last).to(dtype)  # logits (2, 0)
    assert share(explain(model, object_and_stamp(), 0, engine=engine), STAMP) == pytest.approx(1)


@engines
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_that_happen_to_look_certain_are_served(engine: str, sign: float) -> None:
    rows = [[0.0, 16.0], [0.0, 0.0]] if sign > 0 else [[16.0, -16.0], [-800.0, 0.0]]  # logits (1, 0) and (0, -50)
    found = explain(Headed(rows), object_and_stamp(), 0, engine=engine)
    assert found.score == pytest.approx(1.0 if sign > 0 else 0.0)
    assert share(found, STAMP if sign > 0 else OBJECT) == pytest.approx(1)


# Half precision.


class MeanTakenOut(nn.Module):
    """The score cannot depend on a channel's mean, so the weights of Grad-CAM at the convolution are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("cls", [0, 1])
class TestRoundingInHalfPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_what_is_only_rounding_is_no_evidence(self, dtype: torch.dtype, cls: int) -> None:
        with pytest.warns(ZeroEvidenceWarning):
            found = explain(MeanTakenOut().to(dtype), torch.rand(3, 32, 32), cls, layer="conv", device="cpu")
        assert found.evidence == 0

    def test_nor_is_it_under_autocast(self, cls: int) -> None:
        with torch.autocast("cpu", torch.bfloat16), pytest.warns(ZeroEvidenceWarning):
            found = explain(MeanTakenOut(), torch.rand(3, 32, 32), cls, layer="conv", device="cpu")
        assert found.evidence == 0


class Backbone16(Headed):
    """The backbone in bfloat16, the head in float32."""

    def __init__(self) -> None:
        super().__init__([[0.0, 1.0], [1.0, 0.0]])
        self.conv.bfloat16()

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.conv(x).float().mean((2, 3)))


@engines
def test_a_half_backbone_with_a_full_head_takes_its_own_precision(engine: str) -> None:
    assert share(explain(Backbone16(), object_and_stamp(), 0, engine=engine), STAMP) == pytest.approx(1)


# A model that is another one at the next call.


class Pooled(nn.Module):
    def __init__(self, grid: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.conv = picking(RED, GREEN)

    def forward(self, x: Tensor) -> Any:
        return self.conv(self.pool(x)).mean((2, 3))


@engines
@pytest.mark.parametrize("layer", [None, "conv"])
class TestGridReplaced:
    def changed(self, engine: str, layer: str | None) -> nn.Module:
        model = Pooled(4)
        assert explain(model, object_and_stamp(), 0, engine=engine, layer=layer).grid == (4, 4)
        model.pool = nn.AdaptiveAvgPool2d(16)
        return model

    def test_the_new_grid_is_read(self, engine: str, layer: str | None) -> None:
        found = explain(self.changed(engine, layer), object_and_stamp(), 0, engine=engine, layer=layer)
        assert found.grid == (16, 16)
        np.testing.assert_array_equal(found.raw, explain(Pooled(16), object_and_stamp(), 0).raw)

    def test_for_all_classes_too(self, engine: str, layer: str | None) -> None:
        found = explain_classes(self.changed(engine, layer), object_and_stamp(), engine=engine, layer=layer)
        for each, fresh in zip(found, explain_classes(Pooled(16), object_and_stamp()), strict=True):
            np.testing.assert_array_equal(each.raw, fresh.raw)


class Misbehaves(Colours):
    """Does something to its parameters from the moment when `deed` is set."""

    deed: Callable[[nn.Parameter], None] | None = None

    def forward(self, x: Tensor) -> Any:
        if self.deed is not None:
            for p in self.parameters():
                self.deed(p)
        return super().forward(x)


def frozen_and_zeroed(p: nn.Parameter) -> None:
    p.requires_grad_(False)
    p.grad = torch.zeros_like(p)


def doubled(p: nn.Parameter) -> None:
    p.data.mul_(2)


def doubled_under_no_grad(p: nn.Parameter) -> None:
    with torch.no_grad():
        p.mul_(2)


@engines
@pytest.mark.parametrize("known", [False, True], ids=["first call", "later call"])
class TestParametersTouchedByTheForward:
    def make(self, known: bool, engine: str, deed: Callable[[nn.Parameter], None]) -> Misbehaves:
        model = Misbehaves()
        if known:
            explain(model, object_and_stamp(), 0, engine=engine)
        model.deed = deed
        return model

    @pytest.mark.parametrize("own", [False, True], ids=["no gradient", "a gradient"])
    def test_gradients_and_their_flags_are_put_back(self, known: bool, engine: str, own: bool) -> None:
        model = self.make(known, engine, frozen_and_zeroed)
        weight = model.conv.weight
        before = weight.grad = torch.ones_like(weight) if own else None
        explain(model, object_and_stamp(), 0, engine=engine)
        assert weight.requires_grad
        assert weight.grad is before
        assert before is None or bool((before == 1).all())

    def test_a_parameter_written_in_place_is_an_error(self, known: bool, engine: str) -> None:
        with pytest.raises(ModelError):
            explain(self.make(known, engine, doubled_under_no_grad), object_and_stamp(), 0, engine=engine)


@engines
def test_a_parameter_written_behind_its_version_is_seen_in_the_answers_of_the_first_call(engine: str) -> None:
    """`.data` writes raise no version: what gives them away is that the same input is answered differently."""
    model = Misbehaves()
    model.deed = doubled
    with pytest.raises(ModelError, match="answers the same input differently twice"):
        explain(model, object_and_stamp(), 0, engine=engine)


# Wrappers, labels, tokens.


class Delegating(nn.Module):
    """Swaps two colours, and has every attribute of the net inside."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x[:, [GREEN, RED, BLUE]])

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # from torch's own tracing
@pytest.mark.parametrize("compiled", [False, True])
def test_a_wrapper_that_delegates_its_attributes_is_part_of_the_model(compiled: bool) -> None:
    model = Delegating(torch.compile(Colours(), backend="eager") if compiled else Colours())
    x = scene((RED, OBJECT, 1.0), (GREEN, STAMP, 2.0))
    found = explain(model, x, 0)
    assert found.score == pytest.approx(2 * 64 / 32**2)  # of green, which the net inside sees as red
    assert share(found, STAMP) == pytest.approx(1)


class Configured(Headed):
    """Class 2 of twelve reads green, the others red."""

    def __init__(self, id2label: dict[Any, str]) -> None:
        super().__init__([[0.0, 1.0] if i == 2 else [1.0, 0.0] for i in range(len(id2label))])
        self.config = SimpleNamespace(id2label=id2label)


class TestLabelsOfTheModel:
    @pytest.mark.parametrize("key", [int, str])
    def test_keys_are_numbers_whatever_their_type_and_order(self, key: Callable[[int], Any]) -> None:
        model = Configured({key(i): f"name{i}" for i in reversed(range(12))})
        found = explain(model, object_and_stamp(), "name2")
        assert (found.cls, found.label) == (2, "name2")
        assert share(found, STAMP) == pytest.approx(1)

    @pytest.mark.parametrize("keys", [[1, 2, 3], [0, 2, 3], ["a", "b", "c"], ["1", "2", "3"]])
    def test_keys_that_do_not_number_the_classes_are_ignored(self, keys: list[Any]) -> None:
        model = Configured({key: f"name{key}" for key in keys})
        assert explain(model, object_and_stamp(), 0).label is None
        with pytest.raises(ClassError, match="neither the model nor the settings name"):
            explain(model, object_and_stamp(), f"name{keys[0]}")


class TokenReadout(nn.Module):
    """Sixteen patches and a class token that gathers them, before or after them, and alone is read."""

    def __init__(self, at_end: bool) -> None:
        super().__init__()
        self.at_end = at_end
        self.block = linear(torch.eye(3).tolist())

    def forward(self, x: Tensor) -> Any:
        patches = nn.functional.avg_pool2d(x, 8).flatten(2).transpose(1, 2)
        gathered = patches.mean(1, keepdim=True)
        tokens = self.block(torch.cat([patches, gathered] if self.at_end else [gathered, patches], 1))
        return tokens[:, -1 if self.at_end else 0, :2]


@engines
@pytest.mark.parametrize("at_end", [False, True])
def test_a_class_token_that_alone_is_read_is_no_place_in_the_image(at_end: bool, engine: str) -> None:
    with pytest.raises(TargetLayerError, match="name an earlier layer"):
        explain(TokenReadout(at_end), object_and_stamp(), 0, engine=engine, layer="block")


class MeanOfTokens(TokenReadout):
    """The same, with the mean of the patches read too."""

    def forward(self, x: Tensor) -> Any:
        patches = nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        extra = torch.zeros_like(patches[:, :1])
        tokens = self.block(torch.cat([patches, extra] if self.at_end else [extra, patches], 1))
        return tokens.mean(1)[:, :2]


@engines
@pytest.mark.parametrize("layer", [None, "block"])
@pytest.mark.parametrize("at_end", [False, True])
def test_tokens_are_in_their_places_whether_the_class_token_is_first_or_last(
    at_end: bool, layer: str | None, engine: str
) -> None:
    found = explain(MeanOfTokens(at_end), object_and_stamp(), 1, engine=engine, layer=layer)
    assert (found.layer, found.grid) == ("block", (8, 8))
    seen = functional.avg_pool2d(object_and_stamp()[None, GREEN], 4)[0].numpy()
    assert np.abs(found.raw / found.raw.sum() - seen / seen.sum()).max() <= 1e-6


# In place, and by batch.


class Shifted(Colours):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.sub_(0.25).mul_(2) if self.inplace else (x - 0.25) * 2)


class Rectified(Colours):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.relu(x))


@engines
@pytest.mark.parametrize("make", [Shifted, Rectified])
class TestFirstOperationInPlace:
    x = object_and_stamp() - 0.125

    def test_the_first_map_and_the_later_ones_are_those_out_of_place(
        self, make: Callable[[bool], nn.Module], engine: str
    ) -> None:
        model, truth = make(True), explain(make(False), self.x, 0, engine=engine)
        for _ in range(3):
            found = explain(model, self.x, 0, engine=engine)
            np.testing.assert_array_equal(found.raw, truth.raw)
            assert found.score == truth.score

    def test_the_users_tensor_is_as_it_was(self, make: Callable[[bool], nn.Module], engine: str) -> None:
        model, x = make(True), self.x.clone()
        for _ in range(2):
            explain(model, x, 0, engine=engine)
            explain_batch(model, x[None], 0, engine=engine)
        assert torch.equal(x, self.x)

    def test_the_picture_shows_what_the_model_was_given(self, make: Callable[[bool], nn.Module], engine: str) -> None:
        model, truth = make(True), explain(make(False), self.x, 0, engine=engine).image
        for _ in range(2):
            np.testing.assert_array_equal(explain(model, self.x.clone(), 0, engine=engine).image, truth)

    def test_a_forward_that_begins_to_write_later_is_seen(self, make: Callable[[bool], Any], engine: str) -> None:
        model, x = make(False), self.x.clone()
        truth = explain(model, x, 0, engine=engine)
        for m in model.modules():
            m.inplace = True
        for _ in range(2):
            found = explain(model, x, 0, engine=engine)
            np.testing.assert_array_equal(found.raw, truth.raw)
            np.testing.assert_array_equal(found.image, truth.image)
        assert torch.equal(x, self.x)


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@engines
def test_images_of_a_batch_do_not_mix_in_its_own_statistics(engine: str) -> None:
    model = BatchStatistics().eval()
    images = torch.rand(3, 3, 32, 32) * torch.tensor([0.2, 1.0, 3.0]).view(3, 1, 1, 1)
    found = explain_batch(model, images, [0, 1, 0], engine=engine, layer="norm")
    for each, image, cls in zip(found, images, [0, 1, 0], strict=True):
        alone = explain(model, image, cls, engine=engine, layer="norm")
        np.testing.assert_array_equal(each.raw, alone.raw)
        assert each.score == alone.score


# The user's own work around the call.


class WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        self.fc = parametrizations.weight_norm(nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Any:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


@engines
def test_weights_cached_by_the_user_still_train_after_an_explanation(engine: str) -> None:
    model, x = WeightNormed(), torch.rand(4, 3, 32, 32)

    def gradients(explained: bool) -> dict[str, Tensor | None]:
        model.zero_grad()
        with parametrize.cached():
            if explained:
                explain(model, x[0], 0, engine=engine)
            model(x).sum().backward()
        return {name: p.grad for name, p in model.named_parameters()}

    plain, after = gradients(False), gradients(True)
    for name, grad in plain.items():
        seen = after[name]
        assert grad is not None and seen is not None, name
        torch.testing.assert_close(seen, grad)


class Normed(Colours):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x)).relu().mean((2, 3))


def test_threads_that_explain_one_model_leave_it_training() -> None:
    model, x = Normed().train(), torch.zeros(3, 96, 96)
    x[:, 10:40, 10:40] = 1
    truth = explain(model, x, 0).raw
    maps: list[Any] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            maps.extend(explain(model, x, 0).raw for _ in range(15))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [m.training for m in model.modules()] == [True] * 3
    assert len(maps) == 60
    for found in maps:
        np.testing.assert_array_equal(found, truth)
    assert model.norm.num_batches_tracked is not None and int(model.norm.num_batches_tracked) == 0


# Errors that say what is wrong.


class ForwardInInferenceMode(Headed):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


class BackboneInInferenceMode(Headed):
    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            grid = self.conv(x)
        return self.fc(grid.clone().mean((2, 3)))


@engines
@pytest.mark.parametrize("layer", [None, "conv"])
@pytest.mark.parametrize("make", [ForwardInInferenceMode, BackboneInInferenceMode])
def test_inference_mode_in_the_forward_gives_a_true_map_or_an_error_of_ours(
    make: Callable[..., nn.Module], layer: str | None, engine: str
) -> None:
    model = make([[0.0, 1.0], [1.0, 0.0]]).train()
    try:
        found = explain(model, object_and_stamp(), 0, layer=layer, engine=engine)
    except GradcamError:
        pass
    else:
        assert share(found, STAMP) == pytest.approx(1)
    assert model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3)
        self.fc = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.conv(x).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
class TestLazy:
    def test_a_lazy_module_that_was_not_run_is_named(self) -> None:
        model = Lazy()
        with pytest.raises(ModelError, match=r"LazyConv2d.*run the model once"):
            explain(model, object_and_stamp(), 0)
        assert isinstance(model.conv, nn.LazyConv2d)

    def test_once_run_it_is_explained(self) -> None:
        model = Lazy()
        model(torch.rand(1, 3, 32, 32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroEvidenceWarning)
            assert explain(model, object_and_stamp(), 0).layer == "conv"


class Scripted(Headed):
    def __init__(self) -> None:
        super().__init__([[0.0, 1.0], [1.0, 0.0]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and still in use
            self.fc = torch.jit.trace(self.fc, torch.zeros(1, 2))  # type: ignore[no-untyped-call]


def test_a_scripted_part_is_named() -> None:
    model = Scripted().train()
    with pytest.raises(ModelTypeError, match="holds a TorchScript module"):
        explain(model, object_and_stamp(), 0)
    assert [m.training for m in model.modules()] == [True] * len(list(model.modules()))


class Cyclic(Colours):
    def forward(self, x: Tensor) -> Any:
        output = SimpleNamespace(logits=super().forward(x))
        output.everything = [output, {"self": output}]
        return output


class CyclicWithoutLogits(Colours):
    def forward(self, x: Tensor) -> Any:
        output: dict[str, Any] = {}
        output["self"] = [output]
        return output


def test_an_output_that_holds_itself_is_read() -> None:
    assert share(explain(Cyclic(), object_and_stamp(), 1), STAMP) == pytest.approx(1)


@engines
def test_an_output_that_holds_nothing_but_itself_is_an_error_of_ours(engine: str) -> None:
    with pytest.raises(GradcamError):
        explain(CyclicWithoutLogits(), object_and_stamp(), 0, engine=engine)


def test_a_class_of_models_is_no_model() -> None:
    with pytest.raises(ModelTypeError, match=r"the model is the class Colours: pass an instance of it, Colours\("):
        explain(Colours, object_and_stamp(), 0)  # type: ignore[arg-type]


class TestOneLogit:
    no = r"cls=lambda output: -output\[0, 0\]"

    def test_a_negative_one_predicts_no_class(self) -> None:
        with pytest.raises(ClassError, match=f"speaks against class 0.*{self.no}"):
            explain(Headed([[-16.0, 0.0]]), object_and_stamp())

    def test_a_positive_one_predicts_class_0(self) -> None:
        found = explain(Headed([[16.0, 0.0]]), object_and_stamp())
        assert found.cls == 0
        assert found.score == pytest.approx(1.0)
        assert share(found, OBJECT) == pytest.approx(1)

    def test_the_answer_no_can_be_asked_for_as_the_message_says(self) -> None:
        found = explain(Headed([[-16.0, 1.0]]), object_and_stamp(), lambda output: -output[0, 0])
        assert share(found, OBJECT) == pytest.approx(1)

    @pytest.mark.parametrize("cls", [1, -1, "cat"])
    def test_another_class_or_a_label_is_told_what_to_ask(self, cls: int | str) -> None:
        with pytest.raises(ClassError, match=self.no):
            explain(Headed([[16.0, 0.0]]), object_and_stamp(), cls)


class Mirrored(nn.Module):
    """Averages the answers for the image and its mirror image, once it is told to: two rows for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.mirror = False

    def forward(self, x: Tensor) -> Any:
        rows = torch.cat([x, x.flip(-1)]) if self.mirror else x
        return self.conv(rows).mean((2, 3)).view(-1, x.shape[0], 2).mean(0)


@engines
@pytest.mark.parametrize("layer", [None, "conv"])
def test_a_layer_that_begins_to_fold_images_into_its_batch_is_refused(engine: str, layer: str | None) -> None:
    """Its first row has the shape that was found before, and would pass for the map of the whole."""
    model, x = Mirrored(), object_and_stamp()
    explain(model, x, 0, engine=engine, layer=layer)
    model.mirror = True
    with pytest.raises(TargetLayerError):
        explain(model, x, 0, engine=engine, layer=layer)


def test_a_pair_that_folds_images_into_its_batch_is_refused() -> None:
    model, x = Mirrored(), object_and_stamp()

    def features(image: Tensor) -> Tensor:
        found: Tensor = model.conv(torch.cat([image, image.flip(-1)]))
        return found

    def head(maps: Tensor) -> Tensor:
        return maps.mean((2, 3)).view(2, -1, 2).mean(0)

    with pytest.raises(TargetLayerError, match="gives 2 rows for 1 images"):
        explain((features, head), x, 0, engine="split")
