"""From model input to maps: noise is no evidence, what is not finite is refused, every image gets its own map."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    ClassError,
    ModelError,
    NonFiniteError,
    SettingsError,
    TargetLayerError,
    ZeroEvidenceWarning,
    explain,
    explain_batch,
    explain_classes,
)
from pytest_gradcam.cam.explain import explain_input_classes, explain_inputs
from pytest_gradcam.cam.running import Options
from tests.models import (
    TwoHeads,
    apart,
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

engines = pytest.mark.parametrize("engine", ["hooks", "split"])


class TestKnownMaps:
    """A model that reads colours shows where they are."""

    @engines
    @pytest.mark.parametrize("cls", [0, 1])
    def test_the_map_is_the_colour(self, cls: int, engine: str) -> None:
        """Class 0 reads red, class 1 blue; α is 1/64, and the raw CAM that of the mean colour of each cell."""
        x = coloured((0, (8, 16, 24, 32)), (2, (40, 40, 64, 64)), (0, (48, 0, 52, 8)))
        got = explain(reads_colours(), x, cls, engine=engine)
        cells = np.zeros((8, 8))
        if cls == 0:
            cells[2:4, 1:3] = 1
            cells[0, 6] = 0.5
        else:
            cells[5:8, 5:8] = 1
        assert (got.layer, got.grid, got.method) == ("reads", (8, 8), "grad-cam")
        assert np.allclose(got.raw, cells / 64, rtol=1e-6, atol=0)
        assert apart(got.cam, cam_of(cells, 64, 64)) <= 1e-6
        assert got.evidence == pytest.approx(cells.sum() / 64)
        assert got.score == pytest.approx(cells.mean())

    @pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")
    def test_a_negative_score_turns_the_map_round(self) -> None:
        x = picture(32, 32)
        for method in ("grad-cam", "hirescam"):
            raws = [
                explain(small(), x, score, method=method, layer="conv2").raw
                for score in (lambda output: output[0, 1], lambda output: -output[0, 1])
            ]
            assert raws[0].any()
            assert np.array_equal(raws[0], -raws[1])

    @pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
    @pytest.mark.parametrize("layer", ["relu1", "relu2"])
    def test_each_method_at_each_layer_is_its_formula(self, method: str, layer: str) -> None:
        formula = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}[method]
        model, x = small(), picture(32, 48)
        for cls in range(4):
            got = explain(model, x, cls, method=method, layer=layer)
            expected = formula(*reference(model, x, layer, cls))
            assert got.method == method
            assert apart(got.raw, expected) <= 1e-5
            assert got.evidence == pytest.approx(np.maximum(expected, 0).sum(), rel=1e-5)

    def test_the_devices_clock_and_names_are_kept(self) -> None:
        got = explain(small(), picture(32, 32), 1, device="cpu", labels=list("abcd"))
        assert (got.device, got.label, got.engine) == ("cpu", "b", "hooks")
        assert 0 < got.seconds < 60


class Cancelling(nn.Module):
    """Two copies of each channel, one rounded once more, with opposite weights: what is left of them is rounding."""

    weights: Tensor

    def __init__(self, left: float = 0.0) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.doubling = Doubling()
        weights = torch.linspace(0.5, 1.0, 8) * torch.tensor([1.0, -1.0]).repeat(4)
        self.register_buffer("weights", torch.cat([weights * (1 + left), -weights]))
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.doubling(self.convolution(x).relu())
        return torch.stack([grid.mean((2, 3)) @ self.weights, grid.mean((2, 3)).sum(1)], dim=1)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x * 0.1 * 10.0], dim=1)


class TestNoise:
    """A map that is only rounding has no evidence; a real one keeps its map, however faint."""

    @engines
    @pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
    def test_terms_that_cancel_leave_no_map(self, method: str, engine: str) -> None:
        x = picture(32, 32)
        formula = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}[method]
        rounding = formula(*reference(Cancelling(), x, "doubling", 0))
        assert 0 < rounding.max() < 1e-7  # divided by its maximum it would be a map at full strength
        with pytest.warns(ZeroEvidenceWarning):
            got = explain(Cancelling(), x, 0, method=method, engine=engine)
        assert (got.layer, got.evidence) == ("doubling", 0.0)
        assert not got.cam.any()
        with pytest.warns(ZeroEvidenceWarning):
            one, other = explain_classes(Cancelling(), x, [0, 1], method=method, engine=engine)
        assert one.evidence == 0.0 and other.evidence > 0.1
        with pytest.warns(ZeroEvidenceWarning):
            one, other = explain_batch(Cancelling(), picture(32, 32, count=2), [0, 1], method=method, engine=engine)
        assert one.evidence == 0.0 and other.evidence > 0.1

    @pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
    def test_what_does_not_cancel_is_kept(self, method: str) -> None:
        """A thousandth of what was added up is left, and is a map."""
        x = picture(32, 32)
        got = explain(Cancelling(1e-3), x, 0, method=method)
        formula = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}[method]
        expected = formula(*reference(Cancelling(1e-3).double(), x.double(), "doubling", 0))
        assert apart(got.raw, expected) <= 1e-2
        assert got.evidence > 0

    def test_a_residual_stream_that_is_only_read_through_a_norm(self) -> None:
        """HiResCAM is zero there: a norm's output does not change with its input's length, so G is orthogonal to A."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = seeded(timm.create_model("test_vit", pretrained=False, num_classes=3, global_pool="token"))
        for name, module in model.named_modules():
            if name.startswith("blocks.5") and isinstance(module, nn.LayerNorm):
                nn.init.zeros_(module.bias)
        x = picture(160, 160)
        activations, gradients = (t[:, 1:].transpose(1, 2) for t in reference(model, x, "blocks.4", 1))
        terms = (activations * gradients).abs().sum(1).max()
        assert float((activations * gradients).sum(1).abs().max()) < 1e-5 * float(terms)
        with pytest.warns(ZeroEvidenceWarning):
            assert explain(model, x, 1, layer="blocks.4", method="hirescam").evidence == 0.0
        assert explain(model, x, 1, layer="blocks.4").method == "grad-cam"  # so that is what `auto` is there
        # Of the same layer, Grad-CAM has a map: its channels' means are not orthogonal to anything.
        expected = grad_cam_of(*(t.reshape(1, -1, 10, 10) for t in (activations, gradients)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroEvidenceWarning)
            got = explain(model, x, 1, layer="blocks.4", method="grad-cam")
        assert apart(got.raw, expected) <= 1e-4

    @engines
    @pytest.mark.parametrize("factor", [1e-20, 1e-30, 1e20])
    def test_a_score_may_be_of_any_size(self, factor: float, engine: str) -> None:
        x = coloured((0, (8, 16, 24, 32)))
        plain, got = (explain(reads_colours(factor=f), x, 0, engine=engine) for f in (1.0, factor))
        assert apart(got.cam, plain.cam) <= 1e-5
        assert got.evidence == pytest.approx(factor * plain.evidence, rel=1e-5)

    @engines
    def test_a_map_too_faint_for_float32_has_no_evidence(self, engine: str) -> None:
        """Evidence without a map would be neither a finding nor a picture."""
        with pytest.warns(ZeroEvidenceWarning):
            model = reads_colours(factor=1e-60, dtype=torch.float64)
            got = explain(model, coloured((0, (8, 16, 24, 32))).double(), 0, engine=engine)
        assert got.evidence == 0.0 and not got.raw.any() and not got.cam.any()

    def test_a_negative_map_has_no_evidence(self) -> None:
        with pytest.warns(ZeroEvidenceWarning):
            got = explain(reads_colours(factor=-1.0), coloured((0, (8, 16, 24, 32))), 0)
        assert got.evidence == 0.0 and got.raw.min() < 0


class Deaf(nn.Module):
    """A classifier whose head hears nothing of what is not finite in its grid."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.spoiled = Spoiling(spoil)
        self.fc = nn.Linear(8, 4)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.spoiled(self.convolution(x))
        logits: Tensor = self.fc(torch.nan_to_num(grid, 0.0, 0.0, 0.0).mean((2, 3)))
        return logits


class Spoiling(nn.Module):
    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.spoil = spoil

    def forward(self, x: Tensor) -> Tensor:
        return self.spoil(x)


class Rooted(nn.Module):
    """The gradient of a square root at zero is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 4)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.relu(self.convolution(x)).sqrt().mean((2, 3)))
        return logits


def one_cell(value: float) -> Callable[[Tensor], Tensor]:
    """Sets one value of one cell of the first image."""

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 2, 1, 1] = value
        return x

    return spoil


@engines
class TestWhatIsNotFinite:
    """Never a map of zeros in its place."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
    def test_in_activations_behind_finite_logits(self, value: float, method: str, engine: str) -> None:
        model = Deaf(one_cell(value))
        assert torch.isfinite(model(picture(32, 32))).all()
        message = r"^the activations of layer 'spoiled' are NaN or infinite: no map can be made of them"
        keywords: dict[str, Any] = {"layer": "spoiled", "method": method, "engine": engine}
        with pytest.raises(NonFiniteError, match=message):
            explain(model, picture(32, 32), 1, **keywords)
        with pytest.raises(NonFiniteError, match=message):
            explain_batch(model, picture(32, 32, count=3), 1, **keywords)
        with pytest.raises(NonFiniteError, match=message):
            explain_classes(model, picture(32, 32), **keywords)

    def test_in_gradients(self, engine: str) -> None:
        with pytest.raises(NonFiniteError, match="the gradients of layer 'relu' are NaN or infinite"):
            explain(Rooted(), picture(32, 32), 1, engine=engine)

    def test_beyond_float32(self, engine: str) -> None:
        with pytest.raises(NonFiniteError, match="of layer 'reads' are NaN or infinite"):
            model = reads_colours(factor=1e60, dtype=torch.float64)
            explain(model, coloured((0, (8, 16, 24, 32))).double(), 0, engine=engine)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("cls", [0, 1, None])
    def test_in_weights(self, value: float, cls: int | None, engine: str) -> None:
        """Whichever class is asked for: a model with one logit of NaN is broken."""
        model: Any = small()
        with torch.no_grad():
            model.fc.weight[1, 3] = value
        message = r"^the model's logits are not finite \(NaN or infinity\): no score can be explained$"
        for call in (
            lambda: explain(model, picture(32, 32), cls, engine=engine),
            lambda: explain_batch(model, picture(32, 32, count=2), cls, engine=engine),
            lambda: explain_classes(model, picture(32, 32), [cls], engine=engine),
        ):
            with pytest.raises(NonFiniteError, match=message):
                call()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_in_the_image(self, value: float, engine: str) -> None:
        x = picture(32, 32, count=2)
        x[1, 0, 5, 7] = value
        with pytest.raises(NonFiniteError):
            explain(small(), x[1], 1, engine=engine)
        with pytest.raises(NonFiniteError):
            explain_batch(small(), x, 1, engine=engine)

    def test_one_image_of_a_batch_does_not_hide_behind_the_others(self, engine: str) -> None:
        x = torch.cat([picture(32, 32), 4 * picture(32, 32)])
        model = Deaf(lambda grid: torch.where(grid > limit, torch.nan, grid))
        limit = float(model.convolution(x[:1]).detach().max())
        assert explain(model, x[0], 1, engine=engine, layer="spoiled").evidence >= 0
        with pytest.raises(NonFiniteError):
            explain_batch(model, x, 1, engine=engine, layer="spoiled")


class TestBatches:
    @engines
    @pytest.mark.parametrize("method", ["grad-cam", "hirescam"])
    def test_give_what_their_images_give_alone(self, method: str, engine: str) -> None:
        model, x = small(), picture(32, 40, count=5)
        classes: list[Any] = [3, None, lambda output: output[0, 1], 1, 0]
        together = explain_batch(model, x, classes, method=method, engine=engine)
        for got, image, cls in zip(together, x, classes, strict=True):
            alone = explain(model, image, cls, method=method, engine=engine)
            assert apart(got.raw, alone.raw) <= 1e-5
            assert apart(got.cam, alone.cam) <= 1e-5
            assert (got.cls, got.predicted, got.layer, got.grid) == (alone.cls, alone.predicted, "relu2", (8, 10))
            assert got.score == pytest.approx(alone.score, rel=1e-5)
            assert np.array_equal(got.image, alone.image)

    @pytest.mark.parametrize(
        ("classes", "asked"),
        [
            (2, [2, 2, 2]),
            ("b", [1, 1, 1]),
            ([1, 2, 3], [1, 2, 3]),
            ((1, "c", 3), [1, 2, 3]),
            (torch.tensor([1, 2, 3]), [1, 2, 3]),
            (torch.tensor(2), [2, 2, 2]),
        ],
    )
    def test_take_one_class_for_each_image_or_one_for_all(self, classes: Any, asked: list[int]) -> None:
        got = explain_batch(small(), picture(32, 32, count=3), classes, labels=list("abcd"))
        assert [explanation.cls for explanation in got] == asked

    def test_predict_for_each_image_without_classes(self) -> None:
        model, x = reads_colours(), picture(32, 32, count=6, seed=5)
        predicted = model(x).argmax(1).tolist()
        assert len(set(predicted)) > 1
        assert [explanation.cls for explanation in explain_batch(model, x)] == predicted

    @pytest.mark.parametrize("given", [1, 3, 5])
    def test_with_another_number_of_classes_are_refused(self, given: int) -> None:
        """Other tools give empty maps for the images that have no class."""
        message = f"{given} classes for 4 images: pass one for each image, or None"
        for classes in ([1] * given, torch.ones(given, dtype=torch.long)):
            with pytest.raises(ClassError) as raised:
                explain_batch(small(), picture(32, 32, count=4), classes)
            assert str(raised.value) == message
        with pytest.raises(ClassError) as raised:
            explain_inputs(small(), picture(32, 32, count=4), [1] * given, [], Options())
        assert str(raised.value) == message

    def test_without_images_are_refused(self) -> None:
        with pytest.raises(ModelError, match="there are no images: the batch is empty"):
            explain_inputs(small(), torch.zeros(0, 3, 8, 8), [], [], Options())

    def test_without_classes_are_refused(self) -> None:
        with pytest.raises(ClassError, match="classes is empty: pass class indices, labels or callables, or None"):
            explain_classes(small(), picture(32, 32), [])
        with pytest.raises(ClassError, match="classes is empty"):
            explain_input_classes(small(), picture(32, 32), [], lambda: np.zeros((32, 32, 3), np.uint8), Options())


class TestOptions:
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"method": "gradcam"}, "unknown method 'gradcam': the methods are auto, grad-cam, hirescam, grad-cam++,"),
            ({"method": None}, "unknown method None: the methods are auto, grad-cam, hirescam"),
            ({"engine": "hook"}, "unknown engine 'hook': the engines are hooks, split"),
            ({"engine": None}, "unknown engine None: the engines are hooks, split"),
            ({"layer": []}, "layer is an empty list: name layers, or pass None to have one found"),
        ],
    )
    def test_that_are_unknown_are_refused(self, keywords: dict[str, Any], message: str) -> None:
        for call in (explain, explain_batch, explain_classes):
            with pytest.raises(SettingsError) as raised:
                call(small(), picture(32, 32), **keywords)
            assert str(raised.value).startswith(message)

    def test_both_engines_refuse_a_score_that_reads_nothing(self) -> None:
        for engine in ("hooks", "split"):
            with pytest.raises(TargetLayerError, match="does not depend"):
                explain(small(), picture(32, 32), lambda output: torch.ones(()), layer="relu2", engine=engine)


def test_classes_of_two_branches_are_read_where_both_begin() -> None:
    """`explain_classes` reads one layer, through which every class's evidence goes, whichever class comes first."""
    for classes in ([2, 5], [5, 2]):
        assert {got.layer for got in explain_classes(TwoHeads(joined=True), picture(32, 32), classes)} == {"trunk"}
