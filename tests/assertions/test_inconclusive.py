"""What becomes of several images that cannot tell: an error, a failure, a skip, or a warning."""

from __future__ import annotations

import unittest
import warnings
from typing import Any

import pytest
from torch import Tensor

import pytest_gradcam
from pytest_gradcam import (
    AttentionError,
    Gradcam,
    GradcamError,
    InconclusiveError,
    InconclusiveWarning,
    Settings,
    SettingsError,
    Verdict,
    assert_attention_in_region,
    assert_attention_on_every,
    assert_attention_outside_region,
)
from tests.models import coloured, reads_colours

RED, BLUE, EMPTY = (8, 16, 24, 32), (40, 40, 64, 56), (40, 0, 56, 16)
# Half of the red squares lie in the box RED, half of them far from it: no interval of four settles that.
BOXES = (RED, (32, 0, 48, 16), (8, 16, 16, 32), (0, 48, 16, 64))
IMAGES: list[Tensor] = [coloured((0, box)) for box in BOXES]
FEW = "4 images (fewer than 20) cannot tell whether the classes are explained by their regions: mean calibrated energy"


def unsure(**keywords: Any) -> Verdict:
    return assert_attention_in_region(reads_colours(), IMAGES, RED, 0, **keywords)


def test_by_default_it_is_an_error_that_carries_the_verdict() -> None:
    with pytest.raises(InconclusiveError) as raised:
        unsure()
    verdict = raised.value.verdict
    assert (verdict.outcome, verdict.passed) == ("inconclusive", False)
    assert str(raised.value).splitlines()[0] == verdict.message
    assert verdict.message.startswith(FEW)
    assert verdict.interval is not None
    low, high = verdict.interval
    assert low < verdict.threshold < high


def test_it_says_nothing_against_the_model() -> None:
    """Who expects a failure, by `pytest.raises(AttentionError)` or `except AssertionError`, must not be given this."""
    assert not issubclass(InconclusiveError, AssertionError)
    assert not issubclass(InconclusiveError, AttentionError)
    assert issubclass(InconclusiveError, GradcamError)
    with pytest.raises(InconclusiveError), pytest.raises(AttentionError):
        unsure()


def test_as_a_failure_it_is_one_throughout() -> None:
    with pytest.raises(AttentionError) as raised:
        unsure(inconclusive="fail")
    verdict = raised.value.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.passed) == ("failed", False)
    assert verdict.to_json()["outcome"] == "failed"
    assert verdict.message.startswith(FEW)  # why it failed is still said


def test_as_a_skip_it_is_what_any_test_runner_knows() -> None:
    with pytest.raises(unittest.SkipTest, match=r"^4 images \(fewer than 20\) cannot tell"):
        unsure(inconclusive="skip")


def test_as_a_warning_it_returns_a_verdict_that_did_not_pass() -> None:
    with pytest.warns(InconclusiveWarning) as warned:
        verdict = unsure(inconclusive="warn")
    assert (verdict.outcome, verdict.passed) == ("inconclusive", False)
    assert [str(each.message) for each in warned] == [verdict.message]


def test_the_warning_of_the_function_points_to_the_line_that_asked() -> None:
    with pytest.warns(InconclusiveWarning) as warned:
        assert_attention_in_region(reads_colours(), IMAGES, RED, 0, inconclusive="warn")
    assert warned[0].filename == __file__


@pytest.mark.parametrize("inconclusive", ["error", "fail", "skip", "warn"])
def test_verdicts_that_can_tell_are_not_touched(inconclusive: str) -> None:
    """Five images, each with all of its red in its own box, or none of it."""
    own = [*BOXES, (48, 48, 64, 64)]
    images = [coloured((0, box)) for box in own]
    for i, image in enumerate(images):
        image[0, 0, 32:40, 48:64] = 0.05 * i  # besides, so that no two values are equal
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ask in (assert_attention_in_region, assert_attention_on_every):
            asked: Any = own if ask is assert_attention_in_region else [_halves(box) for box in own]
            assert ask(reads_colours(), images, asked, 0, inconclusive=inconclusive).outcome == "passed"
        with pytest.raises(AttentionError) as raised:
            assert_attention_outside_region(reads_colours(), images, own, 0, inconclusive=inconclusive)
    assert raised.value.verdict is not None and raised.value.verdict.outcome == "failed"


def test_one_image_by_itself_always_can() -> None:
    verdict = assert_attention_in_region(reads_colours(), IMAGES[0], RED, 0)
    assert (verdict.outcome, verdict.interval, verdict.confidence) == ("passed", None, None)
    with pytest.raises(AttentionError) as raised:
        assert_attention_in_region(reads_colours(), IMAGES[1], RED, 0)
    assert raised.value.verdict is not None and raised.value.verdict.outcome == "failed"


@pytest.mark.parametrize(("inconclusive", "kept"), [("error", "inconclusive"), ("fail", "failed")])
def test_it_is_recorded_before_it_is_raised(inconclusive: str, kept: str) -> None:
    made: list[Verdict] = []

    def record(verdict: Verdict) -> str:
        made.append(verdict)
        return "report/unsure.png"

    gradcam = Gradcam(Settings(inconclusive=inconclusive), record=record)
    with pytest.raises(GradcamError, match=r"report/unsure\.png"):
        gradcam.assert_attention_in_region(reads_colours(), IMAGES, RED, 0)
    assert [verdict.outcome for verdict in made] == [kept]


@pytest.mark.parametrize(
    ("inconclusive", "raised"), [("skip", unittest.SkipTest), ("warn", None)], ids=["skip", "warn"]
)
def test_it_is_recorded_where_nothing_fails(inconclusive: str, raised: Any) -> None:
    made: list[Verdict] = []
    gradcam = Gradcam(Settings(inconclusive=inconclusive), record=made.append)
    with pytest.raises(raised) if raised else pytest.warns(InconclusiveWarning):
        gradcam.assert_attention_in_region(reads_colours(), IMAGES, RED, 0)
    assert [verdict.outcome for verdict in made] == ["inconclusive"]


def test_the_keyword_wins_over_the_settings() -> None:
    gradcam = Gradcam(Settings(inconclusive="skip"))
    with pytest.raises(AttentionError):
        gradcam.assert_attention_in_region(reads_colours(), IMAGES, RED, 0, inconclusive="fail")


def test_every_assertion_on_regions_can_be_unsure() -> None:
    parts = [[RED, (32, 0, 48, 16)] if i % 2 else [(8, 16, 16, 32), (16, 16, 24, 32)] for i in range(4)]
    for ask, asked in (
        (assert_attention_in_region, RED),
        (assert_attention_outside_region, RED),
        (assert_attention_on_every, parts),
    ):
        with pytest.raises(InconclusiveError) as raised:
            ask(reads_colours(), IMAGES, asked, 0)
        assert raised.value.verdict.assertion == ask.__name__


def test_another_word_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"unknown inconclusive 'warning': known are error, fail, skip, warn"):
        unsure(inconclusive="warning")


def test_the_names_are_public() -> None:
    for name in ("InconclusiveError", "InconclusiveWarning"):
        assert getattr(pytest_gradcam, name).__module__ == "pytest_gradcam"


def _halves(box: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    x0, y0, x1, y1 = box
    return [(x0, y0, (x0 + x1) // 2, y1), ((x0 + x1) // 2, y0, x1, y1)]
