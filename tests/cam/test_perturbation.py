"""Score-CAM and Ablation-CAM against loops over their papers' formulas, on every kind of grid and by both engines."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import ModelError, ZeroEvidenceWarning, explain, explain_batch, explain_classes
from pytest_gradcam.cam import perturbed
from pytest_gradcam.cam.perturbation import ablation_cam, masked_channels, score_cam
from pytest_gradcam.cam.running import Options, ready
from tests.cam.perturbation_twins import Doubles, ablation_cam_of, output_of, score_cam_of
from tests.models import Floats, apart, picture, seeded, small

METHODS = ["score-cam", "ablation-cam"]
methods = pytest.mark.parametrize("method", METHODS)
engines = pytest.mark.parametrize("engine", ["hooks", "split"])
CLOSE = 1e-10
PREFIX = 2


class Grid(nn.Module):
    """A convolution whose output is laid out in one of the four ways; tokens come with two before them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv: Any = nn.Conv2d(3, 6, 4, stride=4)
        self.first = nn.Parameter(torch.ones(1, PREFIX, 6))
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        a = self.conv(x).relu() + 0.1 * self.conv(x)
        if self.kind == "nhwc":
            return a.permute(0, 2, 3, 1)
        if self.kind == "tokens":
            return torch.cat([self.first.expand(len(x), -1, -1), a.flatten(2).transpose(1, 2)], dim=1)
        return a.flatten(2) if self.kind == "channels-first tokens" else a


class Reads(nn.Module):
    """A grid, and a head that reads every cell in its own way and bends what it reads."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.grid = Grid(kind)
        self.mix = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 4)
        self.kind = kind
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        a = self.grid(x)
        if self.kind in ("nchw", "channels-first tokens"):
            a = a.flatten(2).transpose(1, 2)
        elif self.kind == "nhwc":
            a = a.flatten(1, 2)
        read = self.mix(a).tanh()
        places = torch.linspace(0.5, 1.5, read.shape[1], dtype=read.dtype)
        return self.fc((read * places[:, None]).mean(1))


KINDS = ["nchw", "nhwc", "tokens", "channels-first tokens"]
SIDE = 24
CELLS = 6


def as_grid(output: Tensor, kind: str) -> Tensor:
    """(C, h, w) of a layer's output for one image."""
    if kind == "nhwc":
        return output[0].permute(2, 0, 1)
    if kind == "tokens":
        return output[0, PREFIX:].T.reshape(6, CELLS, CELLS)
    return output[0].reshape(6, CELLS, CELLS)


def without(kind: str) -> Callable[[Tensor, int], Tensor]:
    """Channel k of the cells set to zero; tokens without a place in the image stay."""

    def ablate(output: Tensor, k: int) -> Tensor:
        if kind == "nhwc":
            output[..., k] = 0
        elif kind == "tokens":
            output[:, PREFIX:, k] = 0
        else:
            output[:, k] = 0
        return output

    return ablate


def own_class(cls: int) -> Callable[[Any], Tensor]:
    return lambda output: output[0, cls]


def twin(method: str, model: nn.Module, x: Tensor, kind: str, score: Callable[[Any], Tensor], layer: str) -> Doubles:
    a = as_grid(output_of(model, layer, x), kind)
    if method == "score-cam":
        return score_cam_of(model, x, a, score)
    return ablation_cam_of(model, x, layer, a, without(kind), score)


def raws(model: Any, x: Tensor, classes: Any, **options: Any) -> Doubles:
    """Raw CAMs as they are before they are stored in float32."""
    with ready(model, x, Options(**options)) as run:
        return perturbed.of_image(run, classes).raws


@methods
class TestThePapersFormulas:
    @engines
    @pytest.mark.parametrize("kind", KINDS)
    def test_on_every_kind_of_grid(self, method: str, kind: str, engine: str) -> None:
        model, x = Reads(kind).double(), picture(SIDE, SIDE).double()
        for cls in range(4):
            got = raws(model, x, [cls], method=method, layer="grid", engine=engine)[0]
            assert apart(got, twin(method, model, x, kind, own_class(cls), "grid")) <= CLOSE

    @engines
    def test_of_a_score_of_the_users_own(self, method: str, engine: str) -> None:
        model, x = Reads("nchw").double(), picture(SIDE, SIDE).double()

        def score(output: Any) -> Any:
            return (output[0, 0] - output[0, 1]) ** 2

        got = raws(model, x, [score], method=method, layer="grid", engine=engine)[0]
        assert apart(got, twin(method, model, x, "nchw", score, "grid")) <= CLOSE

    def test_of_a_pair_of_features_and_head(self, method: str) -> None:
        model: Any = small().double()
        x = picture(SIDE, SIDE).double()
        expected = raws(model, x, [1], method=method, layer="relu2")
        got = raws((model[:5], model[5:]), x, [1], method=method, engine="split")
        assert apart(got, expected) <= CLOSE

    def test_several_classes_share_the_forwards(self, method: str) -> None:
        model, x = Reads("nchw"), picture(SIDE, SIDE)
        together = explain_classes(model, x, [2, None, lambda output: output[0, 0]], method=method, layer="grid")
        alone = [explain(model, x, cls, method=method, layer="grid") for cls in (2, None, 0)]
        for one, other in zip(together, alone, strict=True):
            assert apart(one.raw, other.raw) <= 1e-5
            assert (one.score, one.predicted) in {(other.score, other.predicted), (other.score, None)}
        assert [e.cls for e in together] == [2, alone[1].predicted, None]

    def test_all_classes_too(self, method: str) -> None:
        model, x = Reads("nchw"), picture(SIDE, SIDE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroEvidenceWarning)
            assert [e.cls for e in explain_classes(model, x, method=method)] == [0, 1, 2, 3]

    def test_each_image_of_a_batch_has_the_map_that_it_has_alone(self, method: str) -> None:
        model, x = Reads("nchw"), picture(SIDE, SIDE, count=3)
        for i, got in enumerate(explain_batch(model, x, [0, 1, 2], method=method, layer="grid")):
            alone = explain(model, x[i : i + 1], i, method=method, layer="grid")
            assert np.array_equal(got.raw, alone.raw)
            assert got.cls == i
            assert got.score == pytest.approx(alone.score, rel=1e-6)

    def test_two_layers_have_the_mean_of_their_maps(self, method: str) -> None:
        """On grids of one size, where nothing is resized."""
        model, x = small(), picture(32, 32)
        layers = ["conv2", "relu2"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroEvidenceWarning)
            one, other = (explain(model, x, 1, method=method, layer=layer) for layer in layers)
            both = explain(model, x, 1, method=method, layer=layers)
        assert apart(both.raw, (one.raw + other.raw) / 2) <= 1e-5
        assert both.layer == "conv2 + relu2"

    def test_twice_it_is_the_same_bit_by_bit_and_no_generator_moves(self, method: str) -> None:
        model, x = Reads("tokens"), picture(SIDE, SIDE)
        before = torch.get_rng_state()
        one, other = (explain(model, x, 1, method=method, layer="grid") for _ in range(2))
        assert np.array_equal(one.raw, other.raw)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_model_is_left_as_it_was(self, method: str) -> None:
        model, x = small().train(), picture(32, 32)
        model(x).sum().backward()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        grads = [p.grad for p in model.parameters()]
        explain(model, x, 1, method=method)
        assert model.training and all(m.training for m in model.modules())
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
        assert not any(m._forward_hooks for m in model.modules())


class TestScoreCam:
    def test_a_constant_channel_has_no_weight(self) -> None:
        """Channel 0 is 3 everywhere: with a weight, it would add a constant to the map."""
        a = torch.stack([torch.full((2, 2), 3.0), torch.tensor([[0.0, 1.0], [2.0, 4.0]])]).double()
        assert masked_channels(a).tolist() == [1]
        raw = score_cam(a, masked_channels(a), np.array([[7.0]]))
        assert torch.equal(raw[0], a[1])

    def test_by_hand(self) -> None:
        """Scores log 1 and log 3: weights of a quarter and three quarters."""
        a = torch.tensor([[[4.0, 0.0]], [[0.0, -4.0]]])
        raw = score_cam(a, torch.tensor([0, 1]), np.log([[1.0], [3.0]]))
        assert raw[0].tolist() == [[pytest.approx(1.0), pytest.approx(-3.0)]]

    def test_without_any_channel_that_varies_there_is_no_evidence(self) -> None:
        model, x = small(), torch.full((1, 3, 32, 32), 0.5)
        for name in ("conv1", "conv2"):
            model.get_submodule(name).padding_mode = "replicate"  # type: ignore[assignment]  # a flat image stays flat
            conv: Any = model.get_submodule(name)
            conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
        with pytest.warns(ZeroEvidenceWarning):
            assert explain(model, x, 1, method="score-cam", layer="relu2").evidence == 0


class TestAblationCam:
    def test_by_hand(self) -> None:
        """The score falls by 2 without the first channel, and rises by 1 without the second."""
        a = torch.tensor([[[1.0, 0.0]], [[1.0, 3.0]]])
        raw = ablation_cam(a, torch.tensor([0, 1]), np.array([5.0]), np.array([[3.0], [6.0]]))
        assert raw.tolist() == [[[2 * 1 - 1 * 1, 2 * 0 - 1 * 3]]]

    def test_a_negative_score_does_not_turn_the_map_inside_out(self) -> None:
        """The paper's division by the score would; what speaks for the class keeps its place."""
        model, x = Reads("nchw"), picture(SIDE, SIDE)
        plain = explain(model, x, 1, method="ablation-cam", layer="grid")
        with torch.no_grad():
            model.fc.bias.sub_(100)
        lower = explain(model, x, 1, method="ablation-cam", layer="grid")
        assert lower.score < 0
        assert apart(lower.raw, plain.raw) <= 1e-3

    def test_a_class_that_no_channel_moves_has_no_evidence(self) -> None:
        """Not rounding made a full-strength map: the score hangs on a channel of which there is nothing here."""
        model, x = small(), picture(32, 32)
        fc, conv2 = model.get_submodule("fc"), model.get_submodule("conv2")
        assert isinstance(fc, nn.Linear) and isinstance(conv2, nn.Conv2d) and conv2.bias is not None
        with torch.no_grad():
            fc.weight[1] = 0
            fc.weight[1, 3] = 1
            conv2.bias[3] = -1000
        with pytest.warns(ZeroEvidenceWarning):
            assert explain(model, x, 1, method="ablation-cam", layer="relu2").evidence == 0

    def test_features_run_once_for_all_channels(self) -> None:
        model, x = small(), picture(32, 32)
        explain(model, x, 1, method="ablation-cam", layer="relu2")  # finds the layer
        calls: list[int] = []
        model.get_submodule("conv1").register_forward_hook(lambda m, i, output: calls.append(len(output)))
        explain(model, x, 1, method="ablation-cam", layer="relu2")
        assert calls == [
            1,
            1,
            1,
        ]  # the captured forward, one for all copies, and one for the copy that is checked alone


class ForOneImage(nn.Module):
    """A tail that reshapes by the number of images that came in, and so takes no more rows than these."""

    def __init__(self) -> None:
        super().__init__()
        self.body: Any = small()[:5]
        self.fc: Any = small()[-1]

    def forward(self, x: Tensor) -> Any:
        a = self.body(x)
        return self.fc(a.reshape(x.shape[0], 12, -1).mean(2))


class Sums(ForOneImage):
    """The same, but what is too much is added up without a word."""

    def forward(self, x: Tensor) -> Any:
        a = self.body(x)
        return self.fc(a.reshape(-1, x.shape[0], 12, 6, 6).sum(0).mean((2, 3)))


class MixesTheBatch(ForOneImage):
    """Batch norm by the batch's own statistics behind the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(12, track_running_stats=False)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.norm(self.body(x)).relu().mean((2, 3)))


class MixesUnseen(ForOneImage):
    """Rows of a batch are held against its mean, which no module says."""

    def forward(self, x: Tensor) -> Any:
        a = self.body(x)
        return self.fc((a - 0.1 * a.mean((0, 2, 3), keepdim=True)).relu().mean((2, 3)))


class HeldAgainstTheFirst(ForOneImage):
    """Rows of a batch are held against its first, which itself has the score that it has alone."""

    def forward(self, x: Tensor) -> Any:
        a = self.body(x)
        return self.fc((a - 0.6 * a[:1]).mean((2, 3)).tanh())


class WritesToWhatItKept(ForOneImage):
    """What was made before the grid is used behind it, and written to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem: Any = nn.Conv2d(3, 12, 4, stride=4)

    def forward(self, x: Tensor) -> Any:
        kept = self.stem(x)
        return self.fc((self.body(x) + kept.mul_(0.5)).relu().mean((2, 3)))


class TestTailsThatTakeNoBatchOfCopies:
    @engines
    @pytest.mark.parametrize(
        "make",
        [ForOneImage, Sums, MixesTheBatch, MixesUnseen, HeldAgainstTheFirst, WritesToWhatItKept],
        ids=lambda c: c.__name__,
    )
    def test_give_the_same_map_another_way(self, make: Callable[[], nn.Module], engine: str) -> None:
        model, x = make().eval().double(), picture(SIDE, SIDE).double()
        a = output_of(model, "body.relu2", x)[0]
        for cls in range(2):
            expected = ablation_cam_of(model, x, "body.relu2", a, without("nchw"), own_class(cls))
            got = raws(model, x, [cls], method="ablation-cam", layer="body.relu2", engine=engine)[0]
            assert apart(got, expected) <= CLOSE

    def test_that_give_another_score_when_they_run_again_are_refused(self) -> None:
        """Found out before it matters, at its second forward: the layer is known by then."""
        drawn = iter(range(1, 1000))
        is_unsteady = False
        model, x = small(), picture(SIDE, SIDE)
        fc = model.get_submodule("fc")
        fc.register_forward_hook(lambda m, i, output: output * (next(drawn) if is_unsteady else 1))
        explain(model, x, 1, layer="relu2")
        is_unsteady = True
        with pytest.raises(ModelError, match="gives another score when it runs again"):
            explain(model, x, 1, method="ablation-cam", layer="relu2")


def shape_of(raw: Floats) -> Floats:
    """ReLU, divided by the maximum."""
    positive = np.maximum(raw, 0)
    shape: Floats = positive / positive.max()
    return shape


def fine() -> nn.Module:
    """A net whose grid is as fine as its input, where nothing is enlarged; its weights differ."""
    model: nn.Module = seeded(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    )
    with torch.no_grad():
        model.get_submodule("4").weight.mul_(5)  # type: ignore[operator]  # a parameter
    return model


class TestPeers:
    """The same map, each divided by its maximum.

    Score-CAM's masks are enlarged in three ways: torchcam scales them to [0, 1] before and not after, as the paper has
    it; grad-cam aligns corners. Where nothing is enlarged, the maps are the same to the last digits.
    """

    @pytest.mark.parametrize(("make", "layer", "most"), [(fine, "1", 2e-6), (small, "relu2", 0.02)])
    def test_torchcams_score_cam(self, make: Callable[[], nn.Module], layer: str, most: float) -> None:
        torchcam = pytest.importorskip("torchcam.methods")
        model, x = make(), picture(SIDE, SIDE)
        with torchcam.ScoreCAM(model, layer, input_shape=(3, SIDE, SIDE)) as extractor, torch.no_grad():
            model(x)
            theirs = extractor(class_idx=1, normalized=False)[0][0].numpy()
        ours = explain(model, x, 1, method="score-cam", layer=layer)
        assert np.abs(shape_of(ours.raw) - shape_of(theirs)).max() <= most

    @pytest.mark.parametrize(("make", "layer", "most"), [(fine, "1", 2e-6), (small, "relu2", 0.02)])
    def test_grad_cams_score_cam(self, make: Callable[[], nn.Module], layer: str, most: float) -> None:
        model, x = make(), picture(SIDE, SIDE)
        ours = explain(model, x, 1, method="score-cam", layer=layer)
        assert np.abs(shape_of(ours.raw) - shape_of(self.of_grad_cam("ScoreCAM", model, layer, x))).max() <= most

    @pytest.mark.parametrize(("make", "layer"), [(fine, "1"), (small, "relu2")])
    def test_grad_cams_ablation_cam(self, make: Callable[[], nn.Module], layer: str) -> None:
        """Of a positive score, by which the paper divides, and behind a ReLU, where it ablates to zero as the paper."""
        model, x = make(), picture(SIDE, SIDE)
        with torch.no_grad():
            cls = int(model(x).argmax())
        ours = explain(model, x, cls, method="ablation-cam", layer=layer)
        assert ours.score > 0
        theirs = self.of_grad_cam("AblationCAM", model, layer, x, cls)
        assert np.abs(shape_of(ours.raw) - shape_of(theirs)).max() <= 1e-4

    def of_grad_cam(self, kind: str, model: nn.Module, name: str, x: Tensor, cls: int = 1) -> Floats:
        """Its weights, times the activations: what it returns itself is resized and min-max normalised."""
        package = pytest.importorskip("pytorch_grad_cam")
        targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
        layer, a = model.get_submodule(name), output_of(model, name, x).numpy()
        with getattr(package, kind)(model, [layer]) as cam:
            weights = cam.get_cam_weights(x, layer, [targets.ClassifierOutputTarget(cls)], a, None)
        raw: Floats = (np.asarray(weights).reshape(-1, 1, 1) * a[0]).sum(0)
        return raw
