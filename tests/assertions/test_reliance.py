"""What predictions rely on: models whose answer is known exactly, the demo's two, and what cannot be judged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    AttentionError,
    ClassError,
    Gradcam,
    ImageError,
    RegionError,
    Settings,
    VacuousRegionError,
    VacuousThresholdError,
    Verdict,
    assert_prediction_ignores,
    assert_prediction_needs,
)
from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.fillings import FILLINGS, filled
from pytest_gradcam.assertions.margins import margins
from pytest_gradcam.assertions.reliance import judge_ignores, judge_needs
from pytest_gradcam.demo.models import Name, load_model
from pytest_gradcam.demo.pictures import Picture, held_out
from tests.models import Floats

Box = tuple[int, int, int, int]
ONE: Box = (8, 8, 16, 16)
TWO: Box = (44, 44, 52, 52)
PATCH: Box = (8, 44, 16, 52)


class ReadsBoxes(nn.Module):
    """Class 0 reads the mean brightness of two boxes, the second three times as much; classes 1 and 2 read nothing."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        means = [x[:, :, y0:y1, x0:x1].mean((1, 2, 3)) for x0, y0, x1, y1 in (ONE, TWO)]
        read = self.factor * (means[0] + 3.0 * means[1])
        return torch.stack([read, 0.0 * read, 0.0 * read - 1.0], dim=1)


def lit(*boxes: Box, level: float = 1.0) -> Tensor:
    """A black picture with these boxes lit, (1, 3, 64, 64): every filling of one of them is black."""
    x = torch.zeros(1, 3, 64, 64)
    for x0, y0, x1, y1 in boxes:
        x[..., y0:y1, x0:x1] = level
    return x


IMAGE = lit(ONE, TWO, PATCH)


def asking(**settings: Any) -> Asking:
    return Asking("ask", Settings(device="cpu", **settings))


def ignores(model: Any, image: Any, region: Any, cls: Any = None, *, threshold: Any = None, **settings: Any) -> Verdict:
    return judge_ignores(asking(**settings), model, image, region, cls, threshold=threshold)


def needs(model: Any, image: Any, region: Any, cls: Any = None, *, threshold: Any = None, **settings: Any) -> Verdict:
    return judge_needs(asking(**settings), model, image, region, cls, threshold=threshold)


@cache
def demo(name: Name) -> nn.Module:
    return load_model(name)


@cache
def pictures() -> list[Picture]:
    return list(held_out(6))


class TestWhatIsKnownExactly:
    def test_what_is_not_read_changes_nothing(self) -> None:
        verdict = ignores(ReadsBoxes(), IMAGE, PATCH, threshold=0.0)
        assert verdict.passed and verdict.value == 0.0
        assert (verdict.metric, verdict.at_most, verdict.sights) == ("margin_change", True, ())
        assert verdict.message == (
            "the prediction of class 0 ignores the box: largest change of the margin 0.00, allowed 0.00"
        )

    def test_a_quarter_of_the_margin_is_a_quarter(self) -> None:
        """Of the margin 1 + 3, the first box gives 1: at exactly that threshold both assertions pass."""
        for judge in (ignores, needs):
            verdict = judge(ReadsBoxes(), IMAGE, ONE, threshold=0.25)
            assert verdict.passed and verdict.value == pytest.approx(0.25, abs=1e-6)
        assert ignores(ReadsBoxes(), IMAGE, ONE, threshold=0.24).outcome == "failed"
        assert needs(ReadsBoxes(), IMAGE, ONE, threshold=0.26).outcome == "failed"
        assert needs(ReadsBoxes(), IMAGE, TWO).value == pytest.approx(0.75, abs=1e-6)

    def test_both_boxes_are_all_of_it(self) -> None:
        verdict = needs(ReadsBoxes(), IMAGE, [ONE, TWO], threshold=1.0)
        assert verdict.passed and verdict.value == 1.0 and verdict.chance == 0.0
        assert (
            verdict.message == "the prediction of class 0 needs the 2 boxes: smallest loss of margin 1.00, needs 1.00"
        )

    def test_a_certain_probability_does_not_hide_it(self) -> None:
        """The probability is 1 in float32 before and after; the margin loses a quarter as without the factor."""
        model = ReadsBoxes(100.0)
        assert float(model(lit(TWO)).detach().softmax(1)[0, 0]) == 1.0
        assert ignores(model, IMAGE, ONE).value == pytest.approx(0.25, abs=1e-6)

    def test_a_change_for_the_better_is_a_change(self) -> None:
        """A lit box that speaks against the class: filling it raises the margin, from 2 to 3."""

        def model(x: Tensor) -> Tensor:
            read = 3.0 * x[:, :, 44:52, 44:52].mean((1, 2, 3)) - x[:, :, 8:16, 8:16].mean((1, 2, 3))
            return torch.stack([read, 0.0 * read], dim=1)

        assert ignores(model, IMAGE, ONE).value == pytest.approx(0.5, abs=1e-6)
        assert needs(model, IMAGE, ONE).value == pytest.approx(-0.5, abs=1e-6)

    def test_one_filling_that_says_something_decides_ignores_and_not_needs(self) -> None:
        """The model reads whether the box is noisy: of a picture with noise around, some fillings are, and some not."""
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

        def model(x: Tensor) -> Tensor:
            rough = x[:, :, 20:36, 20:36].std((2, 3)).mean(1)
            return torch.stack([rough, 0.0 * rough], dim=1)

        box = (20, 20, 36, 36)
        assert ignores(model, x, box).value > 0.9
        assert needs(model, x, box).value < 0.15

    def test_a_prediction_that_anything_breaks_needs_nothing_in_particular(self) -> None:
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

        def brittle(inputs: Tensor) -> Tensor:
            same = (inputs == x).all(dim=(1)).all(dim=1).all(dim=1).float()
            return torch.stack([same, 1.0 - same], dim=1) * 3.0

        verdict = needs(brittle, x, ONE)
        assert verdict.outcome == "failed" and verdict.value == pytest.approx(1.0) and verdict.threshold == 1.0
        assert dict(verdict.facts)["needed"] == "more than is lost where the same shape is filled at other places"

    def test_a_callable_is_followed_in_shares_of_its_score(self) -> None:
        verdict = needs(ReadsBoxes(), IMAGE, TWO, lambda output: output[0, 0])
        assert verdict.value == pytest.approx(0.75, abs=1e-6)
        assert verdict.message == "the score needs the box: smallest loss of score 0.75, needs 0.50"

    def test_one_logit_is_its_own_margin(self) -> None:
        def model(x: Tensor) -> Tensor:
            return ReadsBoxes().forward(x)[:, :1]

        assert needs(model, IMAGE, TWO).value == pytest.approx(0.75, abs=1e-6)

    def test_the_region_is_carried_through_a_transform(self) -> None:
        picture = (IMAGE[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)

        def transform(image: Any) -> Tensor:
            """The left and right halves change places."""
            return torch.from_numpy(np.roll(np.asarray(image), 32, axis=1).copy()).permute(2, 0, 1) / 255.0

        def model(x: Tensor) -> Tensor:
            return ReadsBoxes().forward(torch.roll(x, -32, dims=3))

        assert needs(model, picture, TWO, transform=transform).value == pytest.approx(0.75, abs=0.01)


class TestMargins:
    def test_are_over_the_runner_up(self) -> None:
        logits = np.array([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0]])
        assert margins(logits, 0).tolist() == [0.5, -4.0]
        assert margins(7.0 + 2.0 * logits, 0).tolist() == [1.0, -8.0]
        assert margins(logits[:, :1], 0).tolist() == [3.0, 0.0]

    def test_of_probabilities_are_those_of_their_logits(self) -> None:
        logits = np.array([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0]])
        odds = np.exp(logits)
        assert margins(odds / odds.sum(axis=1, keepdims=True), 0) == pytest.approx(margins(logits, 0))

    def test_of_logits_that_happen_to_sum_to_one_once_are_theirs(self) -> None:
        assert margins(np.array([[1.0, 0.0], [0.5, 0.0]]), 0).tolist() == [1.0, 0.5]


class TestFillings:
    @pytest.mark.parametrize("channels", [1, 3, 5])
    def test_show_nothing_of_what_was_in_the_region_and_all_of_the_rest(self, channels: int) -> None:
        random = np.random.default_rng(0)
        image = random.normal(size=(channels, 48, 64)).astype(np.float32)
        mask = np.zeros((48, 64), np.float32)
        mask[10:30, 5:40] = 1.0
        other = np.where(mask > 0, 50.0 * random.normal(size=image.shape), image).astype(np.float32)
        first, second = filled(image, mask), filled(other, mask)
        assert first.shape == (len(FILLINGS), channels, 48, 64)
        assert np.array_equal(first, second)
        for each in first:
            assert np.array_equal(each[:, mask == 0], image[:, mask == 0])
            inside = each[:, mask > 0]
            assert inside.min() >= image.min() - 1e-4 and inside.max() <= image.max() + 1e-4

    def test_of_a_soft_mask_are_blended(self) -> None:
        image = np.zeros((1, 32, 32), np.float32)
        image[:, 8:16, 8:16] = 1.0
        mask = np.zeros((32, 32), np.float32)
        mask[8:16, 8:16] = 0.25
        for each in filled(image, mask):
            assert each[0, 8:16, 8:16] == pytest.approx(np.full((8, 8), 0.75))

    def test_the_reflection_is_the_other_side_of_the_border(self) -> None:
        image = np.arange(32, dtype=np.float32) * np.ones((1, 32, 1), np.float32)
        mask = np.zeros((32, 32), np.float32)
        mask[:, 10:20] = 1.0
        reflection = filled(image, mask)[FILLINGS.index("reflection")][0, 5]
        assert reflection[10:15].tolist() == [8.0, 7.0, 6.0, 5.0, 4.0]
        assert reflection[15:20].tolist() == [25.0, 24.0, 23.0, 22.0, 21.0]


class TestTheDemo:
    @pytest.mark.parametrize("name", ["honest", "shortcut"])
    def test_each_picture_tells_the_models_apart(self, name: Name) -> None:
        """Measured on 60: .06 and .94 of the margin by the stamp, .64 and .01 by the object."""
        honest = name == "honest"
        for picture in pictures()[:3]:
            assert ignores(demo(name), picture.image, picture.stamp_box).passed == honest
            assert needs(demo(name), picture.image, picture.box).passed == honest
            assert needs(demo(name), picture.image, picture.stamp_box).passed != honest

    def test_the_same_verdict_to_the_last_bit_and_nothing_touched(self) -> None:
        picture, model = pictures()[1], copy.deepcopy(demo("honest")).train()
        state = copy.deepcopy(model.state_dict())
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
        verdicts = [needs(model, picture.image, picture.box) for _ in range(2)]
        assert verdicts[0].to_json() == verdicts[1].to_json()
        assert model.training and all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]

    def test_the_functions_pass_and_raise(self) -> None:
        picture = pictures()[0]
        verdict = assert_prediction_ignores(demo("honest"), picture.image, picture.stamp_box, picture.cls)
        assert verdict.passed and verdict.assertion == "assert_prediction_ignores"
        with pytest.raises(AttentionError, match=r"class 0 \(astronaut\) does not need the box: smallest loss of") as e:
            assert_prediction_needs(demo("shortcut"), picture.image, picture.box, "astronaut")
        assert e.value.verdict is not None and e.value.verdict.metric == "margin_loss"
        assert "fillings   share of the margin that each takes: mean " in str(e.value)


class TestAnythingThatIsCalled:
    @pytest.mark.filterwarnings("ignore:`?torch.jit.trace")
    def test_a_function_and_torchscript(self) -> None:
        model = ReadsBoxes()
        scripted = torch.jit.trace(model, IMAGE)  # type: ignore[no-untyped-call]
        served: list[Callable[[Tensor], Any]] = [model.forward, scripted, lambda x: model(x).detach().numpy()]
        for each in served:
            assert needs(each, IMAGE, TWO).value == pytest.approx(0.75, abs=1e-6)

    @pytest.mark.filterwarnings("ignore")  # torch says that its own quantisation is deprecated, in three ways
    def test_a_model_of_int8(self) -> None:
        head = nn.Linear(192, 2)
        with torch.no_grad():
            head.weight.zero_()
            head.weight[0, 9] = 1.0  # channel 0 of the cell that is the first box
            head.bias.zero_()
        whole, quantize = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), head).eval(), torch.ao.quantization
        model = quantize.quantize_dynamic(whole, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
        assert needs(model, IMAGE, ONE, 0).value == pytest.approx(1.0, abs=0.02)

    def test_the_method_and_layer_of_the_settings_do_not_matter(self) -> None:
        verdict = needs(ReadsBoxes(), IMAGE, TWO, layer="not.there", method="hirescam")
        assert verdict.value == pytest.approx(0.75, abs=1e-6)


def images(*levels: float) -> list[Tensor]:
    """Pictures in which the second box is lit so much, and the first one fully."""
    return [torch.maximum(lit(ONE), lit(TWO, level=level)) for level in levels]


class TestSeveral:
    def shares(self, *levels: float) -> Floats:
        return np.array([3 * level / (1 + 3 * level) for level in levels])

    def test_are_judged_by_their_mean(self) -> None:
        levels = (0.8, 0.9, 1.0)
        verdict = needs(ReadsBoxes(), images(*levels), TWO)
        assert verdict.passed and verdict.values == pytest.approx(self.shares(*levels), abs=1e-6)
        assert verdict.value == pytest.approx(self.shares(*levels).mean(), abs=1e-6)
        assert "of 3 images" in verdict.message and "the predictions need their regions" in verdict.message

    def test_may_be_too_few_to_tell(self) -> None:
        verdict = needs(ReadsBoxes(), images(0.05, 0.1, 1.0, 1.1), TWO)
        assert verdict.outcome == "inconclusive"
        verdict = ignores(ReadsBoxes(), images(0.05, 0.1, 1.0), TWO)
        assert verdict.outcome == "inconclusive"

    def test_fail_together(self) -> None:
        assert needs(ReadsBoxes(), images(0.05, 0.06, 0.07), TWO).outcome == "failed"
        assert ignores(ReadsBoxes(), images(0.9, 1.0, 1.1), TWO).outcome == "failed"

    def test_one_that_is_predicted_otherwise_is_named(self) -> None:
        several = [*images(1.0), -IMAGE]
        with pytest.raises(ClassError, match=r"^image 1: class 0 is not what the model predicts: class 1 is, so "):
            needs(ReadsBoxes(), several, TWO, 0)

    def test_one_that_is_predicted_otherwise_counts_as_failed_by_rate(self) -> None:
        dark = -IMAGE
        for judge, region in ((needs, TWO), (ignores, PATCH)):
            several = [torch.maximum(each, lit(PATCH)) for each in images(0.9, 1.0)]
            verdict = judge(ReadsBoxes(), [*several, dark], region, 0, judge_by="rate")
            assert verdict.value == pytest.approx(2 / 3)
            assert "1 of 3" not in dict(verdict.facts)["alone"] and "2 of 3" in dict(verdict.facts)["alone"]

    def test_copies_are_refused(self) -> None:
        with pytest.raises(ImageError, match="images 0 and 1 are the same"):
            needs(ReadsBoxes(), [IMAGE, IMAGE.clone()], TWO)

    def test_regions_may_be_one_for_each(self) -> None:
        several = images(0.9, 1.0)
        assert needs(ReadsBoxes(), several, [ONE, TWO]).values == pytest.approx([1 / 3.7, 0.75], abs=1e-6)
        with pytest.raises(RegionError, match="1 regions for 2 images"):
            needs(ReadsBoxes(), several, [TWO])

    def test_the_demo(self) -> None:
        shown = [picture.image for picture in pictures()[:4]]
        boxes = [picture.box for picture in pictures()[:4]]
        assert Gradcam().assert_prediction_needs(demo("honest"), shown, boxes).passed
        assert needs(demo("shortcut"), shown, boxes).outcome == "failed"


class TestNothingIsVacuous:
    def test_a_class_that_is_not_predicted(self) -> None:
        for judge in (ignores, needs):
            with pytest.raises(ClassError) as raised:
                judge(ReadsBoxes(), IMAGE, TWO, 2, labels=["a", "b", "c"])
            assert str(raised.value) == (
                "class 2 (c) is not what the model predicts: class 0 (a) is, so there is no prediction that could rely "
                "on anything. Judge the predicted class, cls=None, or an image that is predicted right"
            )

    def test_a_region_of_nearly_everything(self) -> None:
        with pytest.raises(VacuousRegionError, match=r"^the box \(0, 0, 64, 60\) covers 94% of what the model sees: "):
            needs(ReadsBoxes(), IMAGE, (0, 0, 64, 60))

    def test_a_region_in_which_nothing_is(self) -> None:
        with pytest.raises(VacuousRegionError, match=r"there is nothing in the box \(24, 8, 32, 16\) that could be"):
            ignores(ReadsBoxes(), IMAGE, (24, 8, 32, 16))

    def test_a_region_outside(self) -> None:
        with pytest.raises(RegionError, match="outside the image"):
            ignores(ReadsBoxes(), IMAGE, (80, 80, 90, 90))

    def test_a_score_of_zero(self) -> None:
        with pytest.raises(ClassError, match="the score is 0: what a filling takes of it has no size"):
            needs(ReadsBoxes(), IMAGE, TWO, lambda output: output[0, 1])

    @pytest.mark.parametrize("threshold", [-0.1, 1.0, 2.0, float("nan"), float("inf")])
    def test_thresholds_of_ignores(self, threshold: float) -> None:
        with pytest.raises(VacuousThresholdError, match=r"is not in \[0, 1\): a change of 1 flips the prediction"):
            ignores(ReadsBoxes(), IMAGE, TWO, threshold=threshold)

    @pytest.mark.parametrize("threshold", [-0.1, 0.0, 1.1, float("nan"), float("inf")])
    def test_thresholds_of_needs(self, threshold: float) -> None:
        with pytest.raises(VacuousThresholdError, match=r"is not in \(0, 1\]: a prediction that nothing happens to"):
            needs(ReadsBoxes(), IMAGE, TWO, threshold=threshold)
