"""The assertions on a model whose attention is known: what passes, what fails, in which words; and nothing vacuous."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pytest_gradcam
from pytest_gradcam import (
    AttentionError,
    ClassError,
    Gradcam,
    GradcamError,
    NonFiniteError,
    RegionError,
    Settings,
    SettingsError,
    VacuousRegionError,
    VacuousThresholdError,
    Verdict,
    ZeroEvidenceError,
    assert_attention_in_region,
    assert_attention_outside_region,
    explain,
    explain_batch,
    explain_classes,
)
from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.attention import judge_map
from pytest_gradcam.cam import Explanation
from pytest_gradcam.metrics import METRICS, chance, filled
from pytest_gradcam.regions import Region
from tests.models import Floats, cam_of, coloured, reads_colours

# On a grid of 8×8 cells of 8 pixels: a red square of 2×2 cells, a blue one of 3×2.
RED, BLUE, EMPTY = (8, 16, 24, 32), (40, 40, 64, 56), (40, 0, 56, 16)
IMAGE = coloured((0, RED), (2, BLUE))


def mask_of(box: tuple[int, int, int, int]) -> Floats:
    mask = np.zeros((64, 64))
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return mask


def cells_of(box: tuple[int, int, int, int]) -> Floats:
    x0, y0, x1, y1 = (side // 8 for side in box)
    cells = np.zeros((8, 8))
    cells[y0:y1, x0:x1] = 1
    return cells


def share(attention: tuple[int, int, int, int], region: tuple[int, int, int, int]) -> float:
    """Energy in a region, of the map that fills a box of whole cells."""
    cam = cam_of(cells_of(attention), 64, 64)
    return float((cam * mask_of(region)).sum() / cam.sum())


def calibrated(attention: tuple[int, int, int, int], region: tuple[int, int, int, int]) -> float:
    chance = mask_of(region).mean()
    return float((share(attention, region) - chance) / (share(region, region) - chance))


class TestInside:
    def test_passes_where_the_model_looks_and_returns_the_verdict(self) -> None:
        verdict = assert_attention_in_region(reads_colours(), IMAGE, RED, 0)
        assert isinstance(verdict, Verdict)
        assert verdict.passed
        assert (verdict.assertion, verdict.metric, verdict.threshold) == (
            "assert_attention_in_region",
            "calibrated_energy",
            0.15,
        )
        assert verdict.value == pytest.approx(1.0, abs=1e-5)
        assert verdict.values == (verdict.value,)
        assert verdict.chance == 0.0
        assert verdict.place.chance == pytest.approx(4 / 64)
        assert verdict.energy == pytest.approx(share(RED, RED), rel=1e-5)
        assert verdict.filled == pytest.approx(share(RED, RED), rel=1e-5)
        assert verdict.interval is None
        assert np.array_equal(verdict.mask, mask_of(RED))
        assert str(verdict.region) == "the box (8, 16, 24, 32)"
        x, y = verdict.peak
        assert 8 <= x < 24 and 16 <= y < 32 and verdict.peak_distance == 0.0
        assert verdict.message == "class 0 is explained by the box: calibrated energy 1.00, needs 0.15"
        assert (verdict.explanation.cls, verdict.explanation.layer) == (0, "reads")

    def test_fails_where_it_does_not_and_carries_the_verdict(self) -> None:
        with pytest.raises(AttentionError) as raised:
            assert_attention_in_region(reads_colours(), IMAGE, BLUE, 0, labels=["red", "blue", "grey"])
        error = raised.value
        assert isinstance(error, AssertionError) and isinstance(error, GradcamError)
        assert error.verdict is not None and not error.verdict.passed
        assert error.verdict.value == pytest.approx(calibrated(RED, BLUE), rel=1e-4)
        assert error.verdict.peak_distance == pytest.approx(
            np.hypot(40 - error.verdict.peak[0], 40 - error.verdict.peak[1])
        )
        first = f"class 0 (red) is not explained by the box: calibrated energy {calibrated(RED, BLUE):.2f}, needs 0.15"
        assert str(error).splitlines()[0] == error.verdict.message == first

    def test_judges_the_predicted_class_unasked(self) -> None:
        assert assert_attention_in_region(reads_colours(), IMAGE, BLUE).explanation.cls == 1

    def test_judges_a_callable(self) -> None:
        def score(output: Tensor) -> Tensor:
            return output[0, 0]

        verdict = assert_attention_in_region(reads_colours(), IMAGE, RED, score)
        assert verdict.message == "the score is explained by the box: calibrated energy 1.00, needs 0.15"

    @pytest.mark.parametrize(
        ("bbox", "name"),
        [
            (list(RED), "the box"),
            ([RED, EMPTY], "the 2 boxes"),
            (mask_of(RED).astype(bool), "the mask"),
            ([(8, 16), (24, 16), (24, 32), (8, 32)], "the polygon"),
            (Region.of(RED) | Region.of(mask_of(EMPTY).astype(bool)), "the region"),
        ],
    )
    def test_takes_any_region(self, bbox: Any, name: str) -> None:
        verdict = assert_attention_in_region(reads_colours(), IMAGE, bbox, 0)
        assert verdict.energy == pytest.approx(share(RED, RED), abs=0.01)
        assert verdict.message.startswith(f"class 0 is explained by {name}")


class TestOutside:
    def test_passes_where_the_model_does_not_look(self) -> None:
        verdict = assert_attention_outside_region(reads_colours(), IMAGE, BLUE, 0)
        assert verdict.passed
        assert (verdict.assertion, verdict.threshold) == ("assert_attention_outside_region", 0.0)
        assert verdict.value == pytest.approx(calibrated(RED, BLUE), rel=1e-4)
        assert verdict.message == (
            f"class 0 is not explained by the box: calibrated energy {calibrated(RED, BLUE):.2f}, allowed 0.00"
        )

    def test_fails_where_it_does(self) -> None:
        with pytest.raises(AttentionError) as raised:
            assert_attention_outside_region(reads_colours(), IMAGE, RED, 0)
        verdict = raised.value.verdict
        assert verdict is not None and not verdict.passed
        assert str(raised.value).splitlines()[0] == verdict.message
        assert verdict.message == "class 0 is explained by the box: calibrated energy 1.00, allowed 0.00"

    def test_fails_a_little_above_chance(self) -> None:
        """A small forbidden patch never holds much of a coarse map: 0.05 is not "almost none" of it."""
        x = coloured((0, RED), (0, (40, 0, 41, 2)))
        with pytest.raises(AttentionError):
            assert_attention_outside_region(reads_colours(), coloured((0, RED), (0, BLUE)), BLUE, 0)
        verdict = assert_attention_in_region(reads_colours(), x, RED, 0)
        assert verdict.passed


class TestMetrics:
    @pytest.mark.parametrize(
        ("metric", "inside", "outside"),
        [("calibrated_energy", 0.15, 0.0), ("energy", 0.5, 4 / 64), ("pointing_game", 1.0, 0.0)],
    )
    def test_have_defaults_of_their_own(self, metric: str, inside: float, outside: float) -> None:
        model = reads_colours()
        verdict = assert_attention_in_region(model, IMAGE, RED, 0, metric=metric)
        assert (verdict.metric, verdict.threshold) == (metric, inside)
        verdict = assert_attention_outside_region(model, IMAGE, EMPTY, 0, metric=metric)
        assert verdict.threshold == pytest.approx(outside)
        with pytest.raises(AttentionError):
            assert_attention_in_region(model, IMAGE, EMPTY, 0, metric=metric)
        with pytest.raises(AttentionError):
            assert_attention_outside_region(model, IMAGE, RED, 0, metric=metric)

    @pytest.mark.parametrize("metric", METRICS)
    def test_measure_the_cam(self, metric: str) -> None:
        verdict = assert_attention_outside_region(reads_colours(), IMAGE, EMPTY, 0, metric=metric)
        inside = share(RED, EMPTY)
        expected = {"calibrated_energy": calibrated(RED, EMPTY), "energy": inside, "lift": inside / (4 / 64)}
        expected |= {"pointing_game": 0.0, "rank_accuracy": 0.0, "iou": 0.0, "mass_outside": 1 - inside}
        assert verdict.value == pytest.approx(expected[metric], abs=1e-6)

    def test_two_tied_maxima_point_nowhere(self) -> None:
        """Two red squares alike: each alone holds one of the tied maxima."""
        x = coloured((0, RED), (0, (40, 40, 56, 56)))
        for box in (RED, (40, 40, 56, 56)):
            with pytest.raises(AttentionError):
                assert_attention_in_region(reads_colours(), x, box, 0, metric="pointing_game")
        assert assert_attention_in_region(reads_colours(), x, [RED, (40, 40, 56, 56)], 0, metric="pointing_game").passed

    def test_an_unknown_one_is_refused(self) -> None:
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            with pytest.raises(SettingsError, match=r"unknown metric 'enrgy': .*did you mean 'energy'\?"):
                ask(reads_colours(), IMAGE, RED, 0, metric="enrgy")


@pytest.mark.parametrize("metric", ["calibrated_energy", "energy"])
class TestThresholds:
    def value(self, metric: str) -> float:
        """A value in the middle: half of the red is in the box."""
        box = (8, 16, 16, 32)
        return assert_attention_in_region(reads_colours(), IMAGE, box, 0, metric=metric, threshold=0.1).value

    def test_at_exactly_the_value_pass_both_ways(self, metric: str) -> None:
        value = self.value(metric)
        box = (8, 16, 16, 32)
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            verdict = ask(reads_colours(), IMAGE, box, 0, metric=metric, threshold=value)
            assert verdict.passed and verdict.value == verdict.threshold

    def test_one_step_beyond_the_value_fail(self, metric: str) -> None:
        value = self.value(metric)
        box = (8, 16, 16, 32)
        with pytest.raises(AttentionError) as raised:
            above = float(np.nextafter(value, 2))
            assert_attention_in_region(reads_colours(), IMAGE, box, 0, metric=metric, threshold=above)
        shown, needed = str(raised.value).splitlines()[0].rsplit("energy ")[-1].split(", needs ")
        assert float(shown) < float(needed)
        with pytest.raises(AttentionError):
            below = float(np.nextafter(value, -1))
            assert_attention_outside_region(reads_colours(), IMAGE, box, 0, metric=metric, threshold=below)


def test_a_narrow_miss_is_written_with_the_digits_that_show_it() -> None:
    box = (8, 16, 16, 32)
    value = assert_attention_in_region(reads_colours(), IMAGE, box, 0).value
    with pytest.raises(AttentionError) as raised:
        assert_attention_in_region(reads_colours(), IMAGE, box, 0, threshold=value + 1e-4)
    first = str(raised.value).splitlines()[0]
    shown = float(first.split("calibrated energy ")[1].split(",")[0])
    needed = float(first.split("needs ")[1])
    assert shown < needed
    assert (shown, needed) == pytest.approx((value, value + 1e-4), abs=5e-4)


WIDE, HALF = (0, 0, 64, 62), (0, 0, 64, 32)


class TestNothingIsVacuous:
    """Questions that any map, or none, would answer: each raises, and says what to do instead."""

    def test_zero_evidence(self) -> None:
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            with pytest.raises(ZeroEvidenceError) as raised:
                ask(reads_colours(), IMAGE, RED, 2)
            assert isinstance(raised.value, AttentionError)
            assert raised.value.verdict is None
            assert str(raised.value).startswith(
                "no evidence: nothing at reads (grad-cam) speaks for class 2, its score is 0"
            )

    @pytest.mark.parametrize("metric", METRICS)
    def test_a_region_of_all_but_the_whole_picture(self, metric: str) -> None:
        with pytest.raises(VacuousRegionError) as raised:
            assert_attention_in_region(reads_colours(), IMAGE, WIDE, 0, metric=metric)
        assert str(raised.value) == (
            "the box (0, 0, 64, 62) covers 97% of what the model sees: any map would pass. Use a smaller region, or "
            "assert_attention_outside_region on the rest."
        )
        with pytest.raises(VacuousRegionError, match=r"97% of what the model sees: no map could stay outside of it\."):
            assert_attention_outside_region(reads_colours(), IMAGE, WIDE, 0, metric=metric)

    def test_a_region_of_the_whole_picture(self) -> None:
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            with pytest.raises(VacuousRegionError, match="covers 100% of what the model sees"):
                ask(reads_colours(), IMAGE, (0, 0, 64, 64), 0)

    @pytest.mark.parametrize(
        ("metric", "threshold", "least"),
        [
            ("calibrated_energy", 0.0, "0.00"),
            ("calibrated_energy", -0.2, "0.00"),
            ("energy", 0.5, "0.50"),
            ("energy", 0.4, "0.50"),
            ("energy", 0.0, "0.50"),
            ("energy", None, "0.50"),
            ("pointing_game", 0.0, "0.00"),
            ("pointing_game", -1, "0.00"),
        ],
    )
    def test_a_threshold_inside_that_chance_would_pass(self, metric: str, threshold: float | None, least: str) -> None:
        """In half of the picture, a uniform map has energy 0.5: the default of plain energy is chance there."""
        with pytest.raises(
            VacuousThresholdError, match=f"would be passed by chance alone: a uniform map has {least} in"
        ):
            assert_attention_in_region(reads_colours(), IMAGE, HALF, 0, metric=metric, threshold=threshold)

    @pytest.mark.parametrize(
        ("metric", "threshold"),
        [
            ("calibrated_energy", 1.0),
            ("calibrated_energy", 3),
            ("energy", filled(mask_of(HALF), (8, 8))),
            ("energy", 1.0),
            ("pointing_game", 1.0),
        ],
    )
    def test_a_threshold_outside_that_any_map_would_pass(self, metric: str, threshold: float) -> None:
        with pytest.raises(
            VacuousThresholdError, match="outside would be passed by any map: one that fills this region"
        ):
            assert_attention_outside_region(reads_colours(), IMAGE, HALF, 0, metric=metric, threshold=threshold)

    @pytest.mark.parametrize(
        ("ask", "metric", "threshold"),
        [
            (assert_attention_in_region, "calibrated_energy", 1e-6),
            (assert_attention_in_region, "energy", 0.5 + 1e-6),
            (assert_attention_in_region, "pointing_game", 0.5),
        ],
    )
    def test_a_threshold_just_above_chance_is_served(self, ask: Any, metric: str, threshold: float) -> None:
        assert ask(reads_colours(), IMAGE, HALF, 0, metric=metric, threshold=threshold).passed

    @pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf"), "much", True])
    def test_a_threshold_that_is_no_number(self, threshold: Any) -> None:
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            with pytest.raises(SettingsError, match=r"is not finite|is not a number"):
                ask(reads_colours(), IMAGE, RED, 0, threshold=threshold)

    @pytest.mark.parametrize(
        ("metric", "threshold", "most"),
        [
            ("calibrated_energy", 1.08, 0.5 / (31 / 32 - 0.5)),  # one of the 32 rows' mass is smeared beyond the edge
            ("energy", 1.01, 1.0),
            ("pointing_game", 1.5, 1.0),
        ],
    )
    def test_a_threshold_inside_that_no_map_could_pass(self, metric: str, threshold: float, most: float) -> None:
        """The model is not to blame: not even a map that lies wholly inside would do."""
        with pytest.raises(VacuousThresholdError) as raised:
            assert_attention_in_region(reads_colours(), IMAGE, HALF, 0, metric=metric, threshold=threshold)
        said, bound = str(raised.value).removesuffix(". Use a lower threshold").rsplit(" ", 1)
        assert said == (
            f"{METRICS[metric].title} {threshold:g} inside is what no map could pass: the most that there can be in "
            "this region is"
        )
        assert float(bound) == pytest.approx(most, abs=0.005)

    @pytest.mark.parametrize(
        ("metric", "threshold"), [("calibrated_energy", -3.0), ("energy", -0.01), ("pointing_game", -1.0)]
    )
    def test_a_threshold_outside_that_no_map_could_pass(self, metric: str, threshold: float) -> None:
        with pytest.raises(VacuousThresholdError, match=r"outside is what no map could pass: the least .*higher"):
            assert_attention_outside_region(reads_colours(), IMAGE, HALF, 0, metric=metric, threshold=threshold)

    @pytest.mark.parametrize("metric", METRICS)
    def test_a_threshold_at_what_a_map_can_reach_at_most_and_at_least_is_served(self, metric: str) -> None:
        """On a grid as fine as the picture, filled is 1 up to rounding: it must not decide."""
        mask = mask_of(RED)
        bounds = chance(mask), filled(mask, (64, 64))
        rule = METRICS[metric]
        best = rule.most(*bounds) if rule.higher_is_inside else rule.least(*bounds)
        judged = judge_map(
            Asking("ask", Settings(metric=metric, threshold=best)),
            replace(self.map(), grid=(64, 64)),
            Region.of(RED),
            mask.astype(np.float32),
            (64, 64),
            inside=True,
        )
        assert judged.threshold == best
        judged = judge_map(
            Asking("ask", Settings(metric="energy", outside_threshold=0.0)),
            self.map(),
            Region.of(EMPTY),
            mask_of(EMPTY).astype(np.float32),
            (64, 64),
            inside=False,
        )
        assert judged.threshold == 0.0

    def test_a_small_region_that_the_grid_cannot_show(self) -> None:
        """In the middle of a grid of 2×2, where all cells have an equal share of it: the grid is at fault."""
        reads = torch.nn.Conv2d(3, 2, 1)
        torch.nn.init.ones_(reads.weight)
        model = torch.nn.Sequential(
            torch.nn.AvgPool2d(32), reads, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        ).eval()
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            with pytest.raises(VacuousRegionError) as raised:
                ask(model, IMAGE, (28, 28, 36, 36), 0, layer="1")
            assert str(raised.value) == (
                "the box (28, 28, 36, 36) cannot be told from the rest on the 2×2 grid of 1: a map that fills it has "
                "energy 0.016, a uniform one 0.016. Use a larger region, or name an earlier layer with a finer grid: "
                "layer=…"
            )

    def test_a_thin_forbidden_region_that_holds_the_maximum_is_caught(self) -> None:
        """It covers no pixel by half: the maximum is in it all the same."""
        verdict = assert_attention_in_region(reads_colours(), IMAGE, RED, 0)
        x, y = verdict.peak
        thin = mask_of((x, 0, x + 1, 64)).astype(np.float32) * 0.3
        raw = np.zeros((64, 64), np.float32)
        raw[y, x] = 1.0
        one_peak = replace(verdict.explanation, raw=raw, grid=(64, 64))
        asking = Asking("ask", Settings(metric="pointing_game"))
        judged = judge_map(asking, one_peak, Region.of((x, 0, x + 1, 64)), thin, (64, 64), inside=False)
        assert not judged.passed
        assert judged.peak_distance == 0.0

    def map(self) -> Explanation:
        return explain(reads_colours(), IMAGE, 0)

    @pytest.mark.parametrize(
        "bbox",
        [(70, 0, 80, 10), (24, 32, 8, 16), (8, 8, 8, 16), np.zeros((64, 64), bool), (8, 16, float("nan"), 32), []],
        ids=["outside", "inside out", "empty", "empty mask", "NaN", "no box"],
    )
    def test_a_region_that_is_none(self, bbox: Any) -> None:
        for ask in (assert_attention_in_region, assert_attention_outside_region):
            with pytest.raises(RegionError):
                ask(reads_colours(), IMAGE, bbox, 0)

    def test_a_class_that_is_none(self) -> None:
        with pytest.raises(ClassError, match=r"^class 3 is out of range: the model has 3 classes \(0\.\.2\)$"):
            assert_attention_in_region(reads_colours(), IMAGE, RED, 3)

    def test_an_image_that_is_not_finite(self) -> None:
        with pytest.raises(NonFiniteError):
            assert_attention_outside_region(reads_colours(), IMAGE * float("nan"), RED, 0)


def halved(picture: Image.Image) -> Tensor:
    """Half the size, in [0, 1]."""
    small = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def test_the_region_is_in_the_frame_of_the_picture() -> None:
    """A picture of 128×128 pixels, which the transform halves: so is the box."""
    pixels = np.kron((255 * IMAGE[0].permute(1, 2, 0).numpy()).astype(np.uint8), np.ones((2, 2, 1), np.uint8))
    box = tuple(2 * side for side in RED)
    verdict = assert_attention_in_region(reads_colours(), pixels, box, 0, transform=halved)
    assert np.allclose(verdict.mask, mask_of(RED), atol=1e-6)
    assert verdict.value == pytest.approx(1.0, abs=1e-4)
    assert str(verdict.region) == "the box (16, 32, 48, 64)"
    assert verdict.frame == (128, 128)
    blue = tuple(2 * side for side in BLUE)
    with pytest.raises(AttentionError, match=r"of the map's mass is in the box \(80, .*\) of the 128×128 picture"):
        assert_attention_in_region(reads_colours(), pixels, blue, 0, transform=halved)


ASSERTIONS = ["assert_attention_in_region", "assert_attention_outside_region"]


class TestGradcam:
    """The same, bound to settings."""

    @pytest.mark.parametrize(
        ("settings", "field", "value"),
        [
            ({"metric": "energy"}, "metric", "energy"),
            ({"threshold": 0.3}, "threshold", 0.3),
        ],
    )
    def test_settings_are_used(self, settings: dict[str, Any], field: str, value: object) -> None:
        gradcam = Gradcam(Settings(**settings))
        assert getattr(gradcam.assert_attention_in_region(reads_colours(), IMAGE, RED, 0), field) == value

    def test_each_assertion_has_its_threshold(self) -> None:
        gradcam = Gradcam(Settings(threshold=0.3, outside_threshold=0.1))
        assert gradcam.assert_attention_in_region(reads_colours(), IMAGE, RED, 0).threshold == 0.3
        assert gradcam.assert_attention_outside_region(reads_colours(), IMAGE, EMPTY, 0).threshold == 0.1

    def test_keywords_win(self) -> None:
        gradcam = Gradcam(Settings(threshold=0.3, outside_threshold=0.1, metric="energy", method="hirescam"))
        keywords: dict[str, Any] = {"threshold": 0.2, "metric": "calibrated_energy", "method": "grad-cam"}
        for name, region in zip(ASSERTIONS, (RED, EMPTY), strict=True):
            verdict = getattr(gradcam, name)(reads_colours(), IMAGE, region, 0, **keywords)
            assert (verdict.threshold, verdict.metric) == (0.2, "calibrated_energy")
            assert verdict.explanation.method == "grad-cam"
        assert gradcam.settings == Settings(
            threshold=0.3, outside_threshold=0.1, metric="energy", method="hirescam"
        )  # of this call only

    @pytest.mark.parametrize("name", ASSERTIONS)
    def test_none_as_a_threshold_takes_the_settings(self, name: str) -> None:
        region = RED if name == ASSERTIONS[0] else EMPTY
        gradcam = Gradcam(Settings(threshold=0.3, outside_threshold=0.1))
        wanted = 0.3 if name == ASSERTIONS[0] else 0.1
        assert getattr(gradcam, name)(reads_colours(), IMAGE, region, 0, threshold=None).threshold == wanted

    @pytest.mark.parametrize("keyword", ["treshold", "outside_threshold", "output_dir", "classes"])
    @pytest.mark.parametrize("name", ASSERTIONS)
    def test_keywords_that_an_assertion_does_not_take_are_refused(self, name: str, keyword: str) -> None:
        for ask in (getattr(Gradcam(), name), getattr(pytest_gradcam, name)):
            with pytest.raises(SettingsError) as raised:
                ask(reads_colours(), IMAGE, RED, 0, **{keyword: 0.2})
            guess = "; did you mean 'threshold'?" if "reshold" in keyword else ""
            assert str(raised.value) == (
                f"unknown keyword {keyword!r} of {name}: known are method, layer, engine, transform, device, labels, "
                f"forward, judge_by, pass_rate, confidence, inconclusive, metric, threshold{guess}"
            )

    @pytest.mark.parametrize("keyword", ["threshold", "metric", "outside_threshold", "output_dir", "metod"])
    @pytest.mark.parametrize("name", ["explain", "explain_batch", "explain_classes"])
    def test_keywords_that_an_explanation_does_not_take_are_refused(self, name: str, keyword: str) -> None:
        with pytest.raises(SettingsError) as raised:
            getattr(Gradcam(), name)(reads_colours(), IMAGE, **{keyword: "energy"})
        assert str(raised.value).startswith(
            f"unknown keyword {keyword!r} of {name}: known are method, layer, engine, transform, device, labels"
        )
        assert ("did you mean 'method'?" in str(raised.value)) == (keyword == "metod")

    def test_a_misspelt_keyword_is_a_type_error_too(self) -> None:
        """Each `type: ignore` would itself be an error, were it not needed."""
        model, gradcam = reads_colours(), Gradcam()
        with pytest.raises(SettingsError):
            gradcam.explain(model, IMAGE, metod="grad-cam")  # type: ignore[call-arg]
        with pytest.raises(SettingsError):
            gradcam.explain_batch(model, IMAGE, threshold=0.2)  # type: ignore[call-arg]
        with pytest.raises(SettingsError):
            gradcam.assert_attention_in_region(model, IMAGE, RED, 0, treshold=0.2)  # type: ignore[call-arg]
        with pytest.raises(SettingsError):
            assert_attention_outside_region(model, IMAGE, RED, 0, outside_threshold=0.2)  # type: ignore[call-arg]
        with pytest.raises(SettingsError):
            assert_attention_in_region(model, IMAGE, RED, 0, method=3)  # type: ignore[arg-type]

    def test_classes_may_be_arrays(self) -> None:
        gradcam, images = Gradcam(), torch.cat([IMAGE, IMAGE])
        for classes in (torch.tensor([1, 0]), np.array([1, 0])):
            assert [e.cls for e in gradcam.explain_batch(reads_colours(), images, classes)] == [1, 0]
            assert [e.cls for e in gradcam.explain_classes(reads_colours(), IMAGE, classes)] == [1, 0]
        assert gradcam.explain(reads_colours(), IMAGE, np.int64(1)).cls == 1

    def test_explains_as_the_functions_do(self) -> None:
        model, labels = reads_colours(), ("red", "blue", "grey")
        gradcam = Gradcam(Settings(method="hirescam", engine="split", layer="reads", device="cpu", labels=labels))
        keywords: dict[str, Any] = {"method": "hirescam", "engine": "split", "layer": "reads", "labels": labels}
        pairs: list[tuple[list[Explanation], list[Explanation]]] = [
            ([gradcam.explain(model, IMAGE, "red")], [explain(model, IMAGE, "red", **keywords)]),
            (gradcam.explain_batch(model, IMAGE, 1), explain_batch(model, IMAGE, 1, **keywords)),
            (gradcam.explain_classes(model, IMAGE, [1, 0]), explain_classes(model, IMAGE, [1, 0], **keywords)),
        ]
        for ours, theirs in pairs:
            for a, b in zip(ours, theirs, strict=True):
                assert np.array_equal(a.raw, b.raw)
                assert (a.cls, a.label, a.method, a.engine, a.layer) == (b.cls, b.label, b.method, b.engine, b.layer)
                assert (a.method, a.engine, a.layer) == ("hirescam", "split", "reads")

    def test_records_every_verdict_before_anything_is_raised(self) -> None:
        made: list[Verdict] = []

        def record(verdict: Verdict) -> str:
            made.append(verdict)
            return f"report/{len(made)}.png"

        gradcam = Gradcam(record=record)
        assert gradcam.assert_attention_in_region(reads_colours(), IMAGE, RED, 0) is made[0]
        with pytest.raises(AttentionError) as raised:
            gradcam.assert_attention_in_region(reads_colours(), IMAGE, BLUE, 0)
        assert raised.value.verdict is made[1]
        assert "report/2.png" in str(raised.value)
        with pytest.raises(AttentionError) as raised:
            gradcam.assert_attention_outside_region(reads_colours(), IMAGE, RED, 0)
        assert raised.value.verdict is made[2] and "report/3.png" in str(raised.value)
        assert [verdict.passed for verdict in made] == [True, False, False]

    def test_questions_that_could_not_be_judged_leave_no_record(self) -> None:
        made: list[Verdict] = []
        gradcam = Gradcam(record=made.append)
        asks: list[Callable[[], object]] = [
            lambda: gradcam.assert_attention_in_region(reads_colours(), IMAGE, RED, 2),
            lambda: gradcam.assert_attention_in_region(reads_colours(), IMAGE, WIDE, 0),
            lambda: gradcam.assert_attention_in_region(reads_colours(), IMAGE, RED, 9),
        ]
        for ask in asks:
            with pytest.raises(GradcamError):
                ask()
        assert made == []

    def test_the_functions_are_the_methods_with_default_settings(self) -> None:
        for name, region in zip(ASSERTIONS, (RED, EMPTY), strict=True):
            method = getattr(Gradcam(), name)(reads_colours(), IMAGE, region, 0)
            function = getattr(pytest_gradcam, name)(reads_colours(), IMAGE, region, 0)
            a, b = method.to_json(), function.to_json()
            assert {**a, "seconds": 0} == {**b, "seconds": 0}
            json.dumps(a)
