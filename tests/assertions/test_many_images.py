"""Several images judged together: what is taken, what is refused, and the interval, computed once more by the test."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pytest_gradcam import (
    AttentionError,
    ClassError,
    GradcamError,
    ImageError,
    ImageTypeError,
    InconclusiveError,
    NonFiniteError,
    Region,
    RegionError,
    SettingsError,
    VacuousRegionError,
    Verdict,
    ZeroEvidenceError,
    assert_attention_in_region,
    assert_attention_outside_region,
    explain,
)
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import clopper_pearson, skewed_interval
from tests.models import Floats, apart, coloured, picture, reads_colours, small

Box = tuple[int, int, int, int]
RED, BLUE, EMPTY = (8, 16, 24, 32), (40, 40, 64, 56), (40, 0, 56, 16)
# What is red lies in RED wholly, by half, by a third, not at all, and by two thirds.
BOXES: tuple[Box, ...] = (RED, (0, 16, 16, 32), (16, 16, 40, 32), (32, 0, 48, 16), (8, 16, 24, 40))
IMAGES = [coloured((0, box), (2, BLUE)) for box in BOXES]
LEAST = METRICS["calibrated_energy"].inside  # of calibrated energy, unasked: of one image
LEAST_MEAN, MOST_MEAN = METRICS["calibrated_energy"].together or (math.nan, math.nan)  # of the mean of several
INSIDE, OUTSIDE = assert_attention_in_region, assert_attention_outside_region


def ask(
    images: Any = IMAGES, bbox: Any = RED, cls: Any = 0, *, by: Any = INSIDE, model: Any = None, **keywords: Any
) -> Verdict:
    """The verdict, whatever it is."""
    try:
        verdict: Verdict = by(model or reads_colours(), images, bbox, cls, **keywords)
    except (AttentionError, InconclusiveError) as error:
        if error.verdict is None:
            raise
        return error.verdict
    return verdict


def alone(images: Sequence[Tensor], bboxes: Sequence[Any], classes: Sequence[Any], **keywords: Any) -> list[float]:
    given = zip(images, bboxes, classes, strict=True)
    return [ask(image, bbox, cls, **keywords).value for image, bbox, cls in given]


def facts(verdict: Verdict) -> dict[str, str]:
    return dict(verdict.facts)


def many(count: int, box: Box = RED, start: int = 0) -> list[Tensor]:
    """As many pictures, all red in the box and each with a little red elsewhere, of another strength."""
    images = []
    for i in range(start, start + count):
        image = coloured((0, box), (2, BLUE))
        image[0, 0, 48:56, 8 * (i % 8) : 8 * (i % 8) + 8] = 0.02 * (1 + i)
        image[0, 0, 0:8, 40:48] = 0.001 * (1 + i)  # a trace in EMPTY, so that no two values are equal
        images.append(image)
    return images


class TestWhatIsTaken:
    def test_values_are_those_that_the_images_have_alone_in_their_order(self) -> None:
        verdict = ask()
        assert list(verdict.values) == pytest.approx(alone(IMAGES, [RED] * 5, [0] * 5), rel=1e-6)

    @pytest.mark.parametrize("kind", [list, tuple, torch.cat], ids=["list", "tuple", "batch"])
    def test_a_list_a_tuple_and_a_batch_are_the_same(self, kind: Any) -> None:
        assert ask(kind(IMAGES)).values == ask().values

    def test_an_array_of_pictures_is_a_batch(self) -> None:
        pixels = np.concatenate([(255 * image.permute(0, 2, 3, 1).numpy()).astype(np.uint8) for image in IMAGES])

        def transform(picture: Any) -> Tensor:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

        assert ask(pixels, transform=transform).values == pytest.approx(ask().values, rel=1e-6)

    def test_a_batch_of_one_is_one_image(self) -> None:
        assert ask(IMAGES[0]).interval is None

    def test_a_region_and_a_class_for_each(self) -> None:
        regions, classes = [RED, BLUE, (8, 16, 16, 32), Region.of(EMPTY), [RED, EMPTY]], [0, 1, 0, 0, 0]
        verdict = ask(IMAGES, regions, classes)
        assert list(verdict.values) == pytest.approx(alone(IMAGES, regions, classes), rel=1e-6)

    @pytest.mark.parametrize("bbox", [RED, list(RED), Region.of(RED), Region.of([RED, (8, 16, 16, 32)])], ids=str)
    @pytest.mark.parametrize("count", [4, 5])
    def test_one_box_or_region_is_that_of_all_also_of_four(self, bbox: Any, count: int) -> None:
        """A box has four numbers: of four images it is still one box."""
        assert ask(IMAGES[:count], bbox).values == ask(IMAGES[:count], [RED] * count).values

    def test_an_array_of_masks_is_one_for_each(self) -> None:
        masks = np.zeros((5, 64, 64), bool)
        for mask, box in zip(masks, BOXES, strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
        verdict = ask(bbox=masks)
        assert verdict.values == pytest.approx(ask(bbox=list(BOXES)).values, rel=1e-6)
        assert verdict.values == pytest.approx([1.0] * 5, abs=1e-4)  # each mask is where its own image is red
        assert ask(bbox=masks[0]).values == pytest.approx(ask().values, rel=1e-6)  # one is that of all

    @pytest.mark.parametrize("classes", [np.array([0, 1, 0, 0, 1]), torch.tensor([0, 1, 0, 0, 1]), (0, 1, 0, 0, 1)])
    def test_classes_may_be_arrays(self, classes: Any) -> None:
        assert [each.cls for each in ask(cls=classes).explanations] == [0, 1, 0, 0, 1]

    def test_a_callable_is_that_of_all_and_labels_may_be_mixed_in(self) -> None:
        verdict = ask(cls=lambda output: output[:, 0] if output.ndim == 1 else output[0, 0])
        assert verdict.values == pytest.approx(ask().values, rel=1e-6)
        mixed = ask(cls=["red", 0, "blue", 1, 0], labels=["red", "blue", "grey"])
        assert [each.cls for each in mixed.explanations] == [0, 0, 1, 1, 0]

    def test_sizes_may_be_mixed_and_go_through_the_model_in_batches(self) -> None:
        sizes = [(64, 64), (72, 64), (64, 64), (64, 80), (72, 64), (64, 64)]
        images = [coloured((0, box), height=h, width=w) for (h, w), box in zip(sizes, (*BOXES, BLUE), strict=True)]
        seen: list[tuple[int, ...]] = []
        model = reads_colours()
        ask(images, model=model)  # finds the layer for each size
        model.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
        verdict = ask(images, model=model)
        assert sorted(seen) == [(1, 3, 64, 80), (2, 3, 72, 64), (3, 3, 64, 64)]
        assert list(verdict.values) == pytest.approx(alone(images, [RED] * 6, [0] * 6), rel=1e-6)

    def test_more_than_a_batch_keep_their_order(self) -> None:
        images = many(37)
        verdict = ask(images)
        assert list(verdict.values) == pytest.approx(alone(images, [RED] * 37, [0] * 37), rel=1e-5)
        assert list(verdict.values) == sorted(verdict.values, reverse=True)  # the red elsewhere grows


class TestWhatIsRefused:
    @pytest.mark.parametrize("images", [[], (), torch.zeros(0, 3, 64, 64), np.zeros((0, 64, 64, 3), np.uint8)])
    def test_no_images(self, images: Any) -> None:
        with pytest.raises(ImageError, match=r"^there are no images: the list is empty$"):
            ask(images)

    def test_another_number_of_regions(self) -> None:
        with pytest.raises(RegionError, match=r"^2 regions for 5 images: pass one for each image, or one for all$"):
            ask(bbox=[RED, BLUE])

    @pytest.mark.parametrize("classes", [[0, 1], np.array([0, 1]), torch.tensor([0, 1]), []])
    def test_another_number_of_classes(self, classes: Any) -> None:
        with pytest.raises(ClassError, match=rf"^{len(classes)} classes for 5 images: pass one for each image, or one"):
            ask(cls=classes)

    def test_the_same_image_twice(self) -> None:
        with pytest.raises(ImageError, match=r"^images 1 and 3 are the same, and are asked the same: "):
            ask([*IMAGES[:3], IMAGES[1].clone()])

    def test_the_same_image_may_be_asked_of_another_region_or_class(self) -> None:
        images = [IMAGES[0]] * 3
        verdict = ask(images, [RED, BLUE, BLUE], [0, 0, 1])
        assert verdict.values == pytest.approx(alone(images, [RED, BLUE, BLUE], [0, 0, 1]), rel=1e-6)

    @pytest.mark.parametrize(
        ("place", "change", "error"),
        [
            (3, {"bbox": (80, 80, 90, 90)}, RegionError),
            (1, {"bbox": (0, 0, 64, 62)}, VacuousRegionError),
            (2, {"image": "text.txt"}, GradcamError),
            (4, {"image": 3}, ImageTypeError),
            (0, {"image": IMAGES[0] * float("nan")}, NonFiniteError),
            (3, {"image": coloured((2, BLUE))}, ZeroEvidenceError),
        ],
        ids=["outside", "vacuous", "no file", "no image", "NaN", "zero evidence"],
    )
    def test_errors_about_one_image_say_which(self, place: int, change: dict[str, Any], error: Any) -> None:
        images: list[Any] = [*IMAGES]
        regions = [RED] * 5
        images[place] = change.get("image", images[place])
        regions[place] = change.get("bbox", RED)
        with pytest.raises(error) as raised:
            ask(images, regions)
        assert str(raised.value).startswith(f"image {place}: ")

    @pytest.mark.parametrize("keyword", ["pass_rate", "confidence", "judge_by"])
    @pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), "much", None])
    def test_settings_out_of_range(self, keyword: str, value: Any) -> None:
        with pytest.raises(SettingsError, match=keyword):
            ask(**{keyword: value})


class TestZeroEvidence:
    def test_is_an_error_where_the_mean_is_judged(self) -> None:
        with pytest.raises(ZeroEvidenceError, match=r"^image 5: no evidence") as raised:
            ask([*IMAGES, coloured((2, BLUE))], judge_by="mean")
        assert raised.value.verdict is None

    @pytest.mark.parametrize("by", [INSIDE, OUTSIDE])
    @pytest.mark.parametrize("metric", METRICS)
    def test_counts_as_failed_where_the_rate_is_whatever_is_asked(self, by: Any, metric: str) -> None:
        """Not even outside: a map that is not there has not stayed out of the region."""
        images = [IMAGES[0], IMAGES[3], coloured((2, BLUE))]
        single = [ask(image, by=by, metric=metric).passed for image in images[:2]]
        verdict = ask(images, by=by, metric=metric, judge_by="rate")
        assert single.count(True) == 1
        assert verdict.value == pytest.approx(1 / 3)
        assert facts(verdict)["lacking"] == "1 without any evidence: image 2; they count as failed"
        assert facts(verdict)["alone"] == "1 of 3 images are on the right side of the threshold by themselves"
        low_passes = (by is OUTSIDE) != (metric == "mass_outside")
        assert verdict.values[2] == (max if low_passes else min)(verdict.values)


def interval_of(verdict: Verdict, thresholds: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Hall's interval of the distances from the thresholds, put where the mean of the thresholds is."""
    apart = skewed_interval([v - t for v, t in zip(verdict.values, thresholds, strict=True)], confidence)
    return apart.low + float(np.mean(thresholds)), apart.high + float(np.mean(thresholds))


class TestInterval:
    @pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
    def test_of_the_mean(self, confidence: float) -> None:
        verdict = ask(confidence=confidence)
        assert verdict.value == pytest.approx(np.mean(verdict.values))
        assert verdict.interval == pytest.approx(interval_of(verdict, [LEAST_MEAN] * 5, confidence))
        assert verdict.metric == "calibrated_energy"
        assert verdict.threshold == pytest.approx(LEAST_MEAN)

    @pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
    def test_of_the_rate_is_clopper_and_pearsons(self, confidence: float) -> None:
        """By scipy's beta quantiles, of the images whose own value reaches the threshold."""
        verdict = ask(judge_by="rate", confidence=confidence)
        passes = sum(value >= LEAST for value in verdict.values)
        assert verdict.interval is not None
        assert 0 < passes < 5
        assert verdict.value == passes / 5
        assert verdict.interval[0] == pytest.approx(stats.beta.ppf(1 - confidence, passes, 5 - passes + 1))
        assert verdict.interval[1] == pytest.approx(stats.beta.ppf(confidence, passes + 1, 5 - passes))
        assert (verdict.metric, verdict.threshold, verdict.at_most) == ("pass_rate", 0.8, False)

    @pytest.mark.parametrize("by", [INSIDE, OUTSIDE])
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("judge_by", ["auto", "mean", "rate"])
    def test_what_is_judged_by_the_rate(self, by: Any, metric: str, judge_by: str) -> None:
        """`auto` takes the rate of the pointing game alone, whose values are 0 and 1."""
        verdict = ask(by=by, metric=metric, judge_by=judge_by)
        by_rate = judge_by == "rate" or (judge_by == "auto" and metric == "pointing_game")
        singles = [ask(image, by=by, metric=metric) for image in IMAGES]
        passes = sum(single.passed for single in singles)
        assert verdict.metric == ("pass_rate" if by_rate else metric)
        assert list(verdict.values) == pytest.approx([single.value for single in singles], rel=1e-6)
        assert facts(verdict)["alone"] == f"{passes} of 5 images are on the right side of the threshold by themselves"
        if by_rate:
            expected = clopper_pearson(passes, 5)
            assert verdict.interval == pytest.approx((expected.low, expected.high))
            assert (verdict.value, verdict.threshold, verdict.at_most) == (passes / 5, 0.8, False)
        else:
            lenient = METRICS[metric].together  # where the mean of several has a threshold of its own
            wanted = [lenient[by is OUTSIDE] if lenient else single.threshold for single in singles]
            assert verdict.interval == pytest.approx(interval_of(verdict, wanted))
            assert verdict.value == pytest.approx(np.mean([single.value for single in singles]))
            assert verdict.threshold == pytest.approx(np.mean(wanted))
            assert verdict.chance == pytest.approx(np.mean([single.chance for single in singles]))
            assert verdict.at_most == singles[0].at_most

    @pytest.mark.parametrize(("pass_rate", "outcome"), [(0.9, "inconclusive"), (0.85, "passed"), (0.5, "passed")])
    def test_the_pass_rate_decides(self, pass_rate: float, outcome: str) -> None:
        """All of 20: at least .05^(1/20) = .861 of such images pass."""
        verdict = ask(many(20), judge_by="rate", pass_rate=pass_rate)
        assert verdict.interval is not None and verdict.interval[0] == pytest.approx(0.05 ** (1 / 20))
        assert (verdict.outcome, verdict.threshold) == (outcome, pass_rate)

    def test_one_image_in_a_list_tells_nothing_of_others(self) -> None:
        verdict = ask(IMAGES[:1])
        assert verdict.outcome == "inconclusive"
        assert verdict.interval == (-math.inf, math.inf)
        assert ask(IMAGES[:1], metric="pointing_game").outcome == "inconclusive"


class TestThresholdsThatDiffer:
    """Energy outside: what is allowed is chance, which is the area of each image's own region."""

    REGIONS: tuple[Box, ...] = ((8, 16, 16, 24), (0, 0, 64, 32), (0, 0, 32, 64), (32, 32, 64, 64), (0, 32, 64, 64))

    def test_each_image_is_held_against_its_own(self) -> None:
        verdict = ask(bbox=list(self.REGIONS), by=OUTSIDE, metric="energy")
        areas = [(x1 - x0) * (y1 - y0) / 64**2 for x0, y0, x1, y1 in self.REGIONS]
        assert verdict.threshold == pytest.approx(np.mean(areas))
        assert verdict.interval == pytest.approx(interval_of(verdict, areas))
        plain = skewed_interval(list(verdict.values))  # what it would be if the thresholds were one
        assert verdict.interval != pytest.approx((plain.low, plain.high), abs=0.01)

    def test_the_worst_is_the_one_farthest_beyond_its_own(self) -> None:
        images = [coloured((0, (8, 16, 24, 32))), coloured((0, (0, 0, 64, 40)))]
        verdict = ask(images, [(8, 16, 24, 32), (0, 0, 64, 56)], by=OUTSIDE, metric="energy")
        areas = [1 / 16, 56 / 64]
        assert verdict.values[1] > verdict.values[0]  # and still
        assert verdict.values[0] - areas[0] > verdict.values[1] - areas[1]
        assert verdict.worst == 0


class TestWords:
    @pytest.mark.parametrize(
        ("by", "region", "outcome", "verb", "bound", "needs"),
        [
            (INSIDE, RED, "passed", "are", "at least", f"needs {LEAST_MEAN:.2f}"),
            (INSIDE, EMPTY, "failed", "are not", "at most", f"needs {LEAST_MEAN:.2f}"),
            (OUTSIDE, EMPTY, "passed", "are not", "at most", f"allowed {MOST_MEAN:.2f}"),
            (OUTSIDE, RED, "failed", "are", "at least", f"allowed {MOST_MEAN:.2f}"),
        ],
    )
    def test_of_the_mean(self, by: Any, region: Box, outcome: str, verb: str, bound: str, needs: str) -> None:
        """The bound that decided is the one that is said."""
        verdict = ask(many(20), region, by=by)
        assert verdict.interval is not None
        decided = verdict.interval[0 if bound == "at least" else 1]
        assert verdict.message == (
            f"of 20 images, the classes {verb} explained by their regions: mean calibrated energy {verdict.value:.2f}, "
            f"{bound} {decided:.2f} with 95% confidence, {needs}"
        )
        assert verdict.outcome == outcome

    @pytest.mark.parametrize(("by", "word"), [(INSIDE, "are"), (OUTSIDE, "are not")])
    def test_inconclusive(self, by: Any, word: str) -> None:
        needs = {INSIDE: f"needs {LEAST_MEAN:.2f}", OUTSIDE: f"allowed {MOST_MEAN:.2f}"}[by]
        verdict = ask(IMAGES[2:4], by=by)
        assert verdict.interval is not None
        low, high = verdict.interval
        assert verdict.message == (
            f"2 images (fewer than 20) cannot tell whether the classes {word} explained by their regions: mean "
            f"calibrated energy {verdict.value:.2f}, between {low:.2f} and {high:.2f} with 95% confidence each way, "
            f"{needs}"
        )

    def test_of_a_rate(self) -> None:
        assert ask(many(20), metric="pointing_game").message.endswith(
            "regions: pointing game passes on 100%, at least 86% with 95% confidence, needs 80%"
        )

    @pytest.mark.parametrize(("count", "said"), [(19, True), (20, False)])
    def test_fewer_than_twenty_are_told(self, count: int, said: bool) -> None:
        verdict = ask(many(count))
        assert ("(fewer than 20)" in verdict.message) == said
        assert ("few" in facts(verdict)) == said

    def test_of_a_metric_that_is_low_inside(self) -> None:
        """Mass outside: what passes inside is little of it."""
        assert ask(many(20), metric="mass_outside").outcome == "passed"
        assert ask(many(20), EMPTY, metric="mass_outside").outcome == "failed"
        verdict = ask(many(20), EMPTY, metric="mass_outside", by=OUTSIDE)
        assert (verdict.outcome, verdict.at_most) == ("passed", False)
        assert verdict.threshold == pytest.approx(1 - 4 / 64)
        verdict = ask(many(20), by=OUTSIDE, metric="mass_outside")
        assert verdict.outcome == "failed"

    def test_the_worst_is_shown_and_named(self) -> None:
        verdict = ask(judge_by="mean")
        order = np.argsort(verdict.values)
        assert verdict.worst == order[0]
        assert verdict.sight is not None and verdict.shown == (verdict.sight,)
        assert verdict.explanation is verdict.explanations[order[0]]
        assert facts(verdict)["worst"] == ", ".join(f"image {i} ({verdict.values[i]:.2f})" for i in order)
        assert facts(verdict)["shown"] == f"image {order[0]}, the worst"
        assert ask(by=OUTSIDE).worst == order[-1]
        assert facts(ask(many(20)))["worst"].count("image") == 5


def test_a_verdict_is_plain_json() -> None:
    verdict = ask()
    values = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert verdict.interval is not None
    assert values["interval"] == list(verdict.interval)
    assert values["values"] == list(verdict.values)
    assert (values["outcome"], values["passed"], values["confidence"]) == ("inconclusive", False, 0.95)


def test_maps_of_a_list_are_those_of_the_images_alone() -> None:
    """Also where batch norm and convolutions lie before the layer."""
    model: nn.Module = small()
    images = [picture(seed=seed) for seed in range(5)]
    verdict = ask(images, (8, 8, 40, 40), 1, model=model)
    for image, explanation in zip(images, verdict.explanations, strict=True):
        raw: Floats = explain(model, image, 1).raw
        assert apart(explanation.raw, raw) < 1e-5
