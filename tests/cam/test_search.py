"""What is read of layers with several grids, of scores asked for together, and of models that changed since; what moves
the image before the model sees it; and what the search leaves in the model.

All weights are set by hand, so that the true place of the evidence is known.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import (
    ClassError,
    TargetLayerError,
    ZeroEvidenceWarning,
    explain,
    explain_batch,
    explain_classes,
)
from pytest_gradcam.cam.methods import fuse
from tests.models import apart, picture, small


class Pick(nn.Module):
    """One colour of the image, in cells of `side` × `side` pixels."""

    def __init__(self, colour: int, side: int) -> None:
        super().__init__()
        self.colour, self.side = colour, side
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * functional.avg_pool2d(x, self.side)[:, self.colour : self.colour + 1]


class Neck(nn.Module):
    """Two grids: red in cells of 4 pixels, green in cells of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = Pick(0, 4), Pick(1, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(x), self.coarse(x)


class TwoScales(nn.Module):
    """Class 0 reads red, class 1 green, class 2 both."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = Neck()

    def forward(self, x: Tensor) -> Tensor:
        grids = self.neck(x)
        red, green = grids[0].mean((2, 3)), grids[1].mean((2, 3))
        return torch.cat([red, green, red + green], 1)


def red_and_green() -> Tensor:
    """Red in a corner, green in the other, (1, 3, 64, 64)."""
    x = torch.zeros(1, 3, 64, 64)
    x[0, 0, 8:16, 8:16] = 1
    x[0, 1, 40:56, 48:56] = 1
    return x


def true_raw(cls: int) -> Any:
    """What each cell of 4 × 4 pixels contributes to the score: the mean colours of the image, shared out."""
    red, green = functional.avg_pool2d(red_and_green(), 4)[0, :2].double().numpy() / 256
    coarse = functional.avg_pool2d(red_and_green(), 8)[0, 1].double().numpy() / 64
    assert np.isclose(coarse.sum(), green.sum())
    return {0: red, 1: np.zeros_like(red), 2: red}[cls] + (
        fuse([coarse[None]], (16, 16))[0] if cls > 0 else np.zeros_like(red)
    )


class TestSeveralGrids:
    @pytest.mark.parametrize("engine", ["hooks", "split"])
    @pytest.mark.parametrize("before", [None, 0, 1, 2])
    @pytest.mark.parametrize("cls", [0, 1, 2])
    def test_every_class_is_read_at_all_of_them_whatever_was_asked_before(
        self, cls: int, before: int | None, engine: str
    ) -> None:
        model, x = TwoScales(), red_and_green()
        if before is not None:
            explain(model, x, before, engine=engine)
        found = explain(model, x, cls, engine=engine)
        assert (found.layer, found.grid) == ("neck", (16, 16))
        assert apart(found.raw, true_raw(cls)) <= 1e-5

    def test_in_one_image_and_in_a_batch(self) -> None:
        model, x = TwoScales(), red_and_green()
        for found in (explain_classes(model, x, [0, 2, 1]), explain_batch(model, x.repeat(3, 1, 1, 1), [0, 2, 1])):
            for cls, each in zip((0, 2, 1), found, strict=True):
                assert apart(each.raw, true_raw(cls)) <= 1e-5

    def test_what_is_fused_adds_up(self) -> None:
        """Contributions to the score are neither made nor lost, and one grid alone stays as it is."""
        generator = np.random.default_rng(0)
        fine, coarse = generator.normal(size=(2, 8, 8)), generator.normal(size=(2, 4, 4))
        assert np.allclose(fuse([fine], (8, 8)), fine)
        both = fuse([fine, np.ones((2, 4, 4))], (8, 8))
        assert np.allclose(both - fine, 0.25)
        assert np.allclose(fuse([fine, coarse], (8, 8)), fuse([coarse, fine], (8, 8)))


class GridAndVector(nn.Module):
    """A block that gives a grid and something else made of the image, which are both read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = Pick(0, 4), Beside()

    def forward(self, x: Tensor) -> Tensor:
        grid, vector = self.block(self.stem(x))
        score = grid.mean((2, 3)) + 100 * vector
        return torch.cat([score, -score], 1)


class Beside(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 1.0, x[:, :, 2:4, 2:4].mean((2, 3))


def test_a_grid_is_not_taken_beside_a_vector_that_is_read_too() -> None:
    assert explain(GridAndVector(), red_and_green(), 0).layer == "stem"


class TestScoresAskedForTogether:
    def test_of_one_layer(self) -> None:
        model, x = TwoScales(), red_and_green()
        both = explain_classes(model, x, [0, lambda output: output[0, 2]])
        assert apart(both[1].raw, true_raw(2)) <= 1e-5

    @pytest.mark.parametrize("together", ["classes", "batch"])
    def test_of_different_layers_are_refused(self, together: str) -> None:
        """The callable alone is read at the stem, around which the other's layer goes."""

        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.late = Pick(0, 4), nn.Conv2d(1, 1, 1)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                stem = self.stem(x)
                return self.late(stem).mean((2, 3)), stem.mean((2, 3))

        def early(output: Any) -> Tensor:
            found: Tensor = output[1][0, 0] + output[0][0, 0]
            return found

        model, x = Two(), red_and_green()
        assert explain(model, x, early).layer == "stem"
        with pytest.raises(TargetLayerError, match="are read at different layers, late, stem"):
            if together == "classes":
                explain_classes(model, x, [0, early])
            else:
                explain_batch(model, x.repeat(2, 1, 1, 1), [0, early])


class TestModelsThatChanged:
    def test_a_layer_before_that_turns_the_image_is_noticed(self) -> None:
        model, x = small(), picture(32, 32)
        explain(model, x, 1)
        model.conv1 = nn.Sequential(Flip(), copy.deepcopy(model.get_submodule("conv1")))
        with pytest.raises(TargetLayerError):
            explain(model, x, 1)

    def test_so_are_weights_that_open_another_branch(self) -> None:
        class Gate(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = Pick(0, 4), nn.Conv2d(1, 1, 1)
                self.skip = nn.Parameter(torch.zeros(()))

            def forward(self, x: Tensor) -> Any:
                first = self.first(x)
                return self.second(first).mean((2, 3)) + self.skip * first.mean((2, 3))

        model, x = Gate(), red_and_green()
        assert explain(model, x, 0).layer == "second"
        with torch.no_grad():
            model.skip.fill_(100.0)
        assert explain(model, x, 0).layer == "first"


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(3)


def cropped(x: Tensor) -> Tensor:
    return x[:, :, 16:48, 16:48]


def three_quarters(x: Tensor) -> Tensor:
    return x[:, :, :48, :48]


def letterboxed(x: Tensor) -> Tensor:
    return functional.pad(x, (0, 0, 0, 64))


def padded(x: Tensor) -> Tensor:
    return functional.pad(x, (32, 32, 32, 32))


class After(nn.Module):
    """A patch embedding of the image after it was moved."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move
        self.patches, self.fc = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.patches(self.move(x)).mean((2, 3)))


@pytest.mark.parametrize("layer", [None, "patches"])
@pytest.mark.parametrize("move", [cropped, three_quarters, letterboxed, padded])
def test_a_grid_over_a_part_of_the_image_is_not_taken_for_one_over_all_of_it(
    move: Callable[[Tensor], Tensor], layer: str | None
) -> None:
    with pytest.raises(TargetLayerError, match="do not stand for their places"):
        explain(After(move), picture(64, 64), 1, layer=layer)


@pytest.mark.parametrize("grid", [2, 3])
@pytest.mark.parametrize("move", [lambda x: x.flip(3), lambda x: x.transpose(2, 3), lambda x: x.flip(2, 3)])
def test_a_small_grid_of_a_turned_image_is_not_read(move: Callable[[Tensor], Tensor], grid: int) -> None:
    model = nn.Sequential(
        OrderedDict(turn=Turned(move), conv=nn.Conv2d(3, 8, 8, stride=8), pool=nn.AdaptiveAvgPool2d(1))
    )
    model.add_module("flat", nn.Flatten())
    with pytest.raises(TargetLayerError):
        explain(model, picture(8 * grid, 8 * grid), 1)


class Turned(nn.Module):
    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(x)


@pytest.mark.parametrize("cut", [Tensor.detach, lambda x: x.detach() * 1.0])
def test_a_branch_that_is_cut_off_is_seen_all_the_same(cut: Callable[[Tensor], Tensor]) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.closed = Pick(0, 4), Pick(1, 4)

        def forward(self, x: Tensor) -> Any:
            return self.open(x).mean((2, 3)) + 100 * self.closed(cut(x)).mean((2, 3))

    with pytest.raises(TargetLayerError, match="around it too"):
        explain(Half(), red_and_green(), 0)


def test_positions_that_a_module_gives_are_no_part_of_the_image() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.places = nn.Conv2d(3, 8, 8, stride=8), nn.Embedding(64, 8)
            self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Any:
            tokens = self.patches(x.detach()).flatten(2).transpose(1, 2)
            return self.fc(self.norm(tokens + self.places(torch.arange(64))[None]).mean(1))

    found = explain(Positions(), picture(64, 64), 1)
    assert (found.layer, found.grid) == ("norm", (8, 8))


def test_a_stem_under_inference_mode_is_not_in_the_way() -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.net = nn.Conv2d(3, 3, 1), small()

        def forward(self, x: Tensor) -> Any:
            with torch.inference_mode():
                x = self.stem(x)
            return self.net(x.clone())

    model, x = Stem(), picture(32, 32)
    with torch.no_grad():
        before = model.stem(x)
    assert apart(explain(model, x, 1).raw, explain(model.net, before, 1).raw) <= 1e-6


def test_logits_that_are_no_floating_numbers_are_refused() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor) -> Any:
            return self.net(x).round().long()

    with pytest.raises(ClassError, match=r"output is of torch\.int64, in which nothing can be differentiated"):
        explain(Rounded(), picture(32, 32), 1)


class Careless(nn.Module):
    """Leaves things in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()
        self.cache: dict[str, Tensor] = {}
        self.seen: list[int] = []
        self.aux = torch.zeros(())
        self.handle = self.net.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Any:
        self.cache["bias"] = x.mean()
        self.seen.append(1)
        self.aux = x.sum() * 0  # as large as before, with a graph
        self.made = nn.Parameter(torch.ones(1))
        self.child = nn.Linear(1, 1, bias=False, device="meta").to_empty(device="cpu")
        self.handle.remove()
        self.handle = self.net.register_forward_hook(lambda *_: None)
        return self.net(x)


def test_what_a_forward_leaves_in_a_model_is_taken_out_again() -> None:
    model = Careless()
    aux, handle, hooks = model.aux, model.handle, list(model.net._forward_hooks.items())
    names = sorted(vars(model))
    with torch.random.fork_rng():
        explain(model, picture(32, 32), 1)
    assert model.cache == {} and model.seen == []
    assert model.aux is aux and model.handle is handle
    assert sorted(vars(model)) == names
    assert [name for name, _ in model.named_children()] == ["net"] and "made" not in dict(model.named_parameters())
    assert list(model.net._forward_hooks.items()) == hooks
    copy.deepcopy(model)


@pytest.mark.parametrize("engine", ["hooks", "split"])
def test_before_a_norm_of_each_token_hirescam_is_zero_and_auto_is_grad_cam(engine: str) -> None:
    """The gradient is at right angles to each token: what its products with the token add up to is rounding."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.block = nn.Conv2d(3, 16, 8, stride=8), nn.Linear(16, 16)
            self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Any:
            tokens = self.block(self.patches(x).flatten(2).transpose(1, 2))
            return self.fc(self.norm(tokens).mean(1))

    torch.manual_seed(0)
    model, x = Normed(), picture(64, 64)
    assert explain(model, x, 1, engine=engine).layer == "norm"
    before = explain(model, x, 1, layer="block", engine=engine)
    assert (before.method, before.evidence > 0) == ("grad-cam", True)
    with pytest.warns(ZeroEvidenceWarning):
        assert explain(model, x, 1, layer="block", method="hirescam", engine=engine).evidence == 0
