"""The message of a failed verdict: the numbers in words, the map, and where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_gradcam.regions import Region
from pytest_gradcam.report.maps import plain_map
from pytest_gradcam.report.terminal import direction, failure_text
from tests.report.synthetic import box_mask, explanation, verdict


def facts(**changes: Any) -> dict[str, str]:
    """The lines between the first one and the map, by their names."""
    lines = failure_text(verdict(**changes), None).split("\n\n")[1].splitlines()
    return {name: text for name, _, text in (line.strip().partition("  ") for line in lines) for text in [text.strip()]}


def test_the_whole_message() -> None:
    shown = verdict()
    drawn = "\n".join(f"  {line}" for line in plain_map(shown.explanation.cam, shown.mask))
    assert failure_text(shown, "gradcam-report/test_demo.py/test_it.png") == (
        "class 3 (rocket) is not explained by the box: calibrated energy -0.26, needs 0.15\n"
        "\n"
        "  energy     0.01 of the map's mass is in the box (36, 6, 76, 46)\n"
        "  chance     0.17 would be there if the model looked everywhere alike\n"
        "  filled     0.83 would be there if it filled the box evenly on this 12×12 grid\n"
        "  peak       at (5, 89) of the 96×96 input, 53 px outside the box, bottom left\n"
        "  predicted  rocket, p = 0.99 (the class asked for)\n"
        "\n"
        f"{drawn}\n"
        "\n"
        "layer stages.3 · grad-cam · hooks · cpu · 31 ms\n"
        "overlay gradcam-report/test_demo.py/test_it.png"
    )


def test_without_an_overlay_nothing_is_said_about_it() -> None:
    assert failure_text(verdict(), None).endswith("\nlayer stages.3 · grad-cam · hooks · cpu · 31 ms")


@pytest.mark.parametrize(("seconds", "shown"), [(0.0004, "0 ms"), (0.9, "900 ms"), (1.26, "1.3 s"), (75.0, "75.0 s")])
def test_time_is_in_the_unit_that_reads_well(seconds: float, shown: str) -> None:
    assert failure_text(verdict(explanation=explanation(seconds=seconds)), None).endswith(f" · {shown}")


class TestPredicted:
    def test_another_class_than_the_one_asked_for(self) -> None:
        seen = explanation(predicted=5, predicted_label="tower", predicted_probability=0.7, probability=0.21)
        assert facts(explanation=seen)["predicted"] == "tower, p = 0.70; asked for was rocket, p = 0.21"

    def test_without_labels_classes_have_numbers(self) -> None:
        seen = explanation(label=None, predicted=5, predicted_label=None, predicted_probability=0.7, probability=0.21)
        assert facts(explanation=seen)["predicted"] == "class 5, p = 0.70; asked for was class 3, p = 0.21"

    def test_without_probabilities_none_are_claimed(self) -> None:
        seen = explanation(predicted=5, predicted_label="tower", predicted_probability=None, probability=None)
        assert facts(explanation=seen)["predicted"] == "tower; asked for was rocket"

    def test_a_callables_score_has_no_prediction(self) -> None:
        seen = explanation(cls=None, label=None, probability=None, predicted=None, predicted_probability=None)
        assert "predicted" not in facts(explanation=seen)

    def test_a_prediction_is_told_beside_a_callables_score_where_there_is_one(self) -> None:
        assert facts(explanation=explanation(cls=None))["predicted"] == "rocket, p = 0.99"


class TestPeak:
    def test_inside_the_region_there_is_no_distance(self) -> None:
        assert facts(peak=(50, 20), peak_distance=0.0)["peak"] == "at (50, 20) of the 96×96 input, inside the box"

    @pytest.mark.parametrize(
        ("peak", "side"),
        [
            ((5, 89), "bottom left"),
            ((95, 85), "bottom right"),
            ((90, 90), "bottom"),
            ((5, 1), "left"),
            ((20, 0), "left"),
            ((30, 0), "top left"),
            ((95, 0), "right"),
            ((50, 90), "bottom"),
            ((50, 0), "top"),
            ((0, 20), "left"),
            ((95, 30), "right"),
            ((80, 90), "bottom"),
            ((50, 20), ""),
        ],
    )
    def test_the_side_is_told_as_seen_from_the_nearest_point_of_the_box(self, peak: tuple[int, int], side: str) -> None:
        assert direction(verdict(peak=peak)) == side

    def test_the_side_is_told_as_seen_from_the_nearest_of_two_boxes(self) -> None:
        mask = np.maximum(box_mask(box=(0, 0, 10, 10)), box_mask(box=(80, 80, 96, 96)))
        assert direction(verdict(mask=mask, peak=(60, 88))) == "left"
        assert direction(verdict(mask=mask, peak=(30, 5))) == "right"

    def test_the_side_is_told_of_a_region_that_covers_no_pixel_by_half(self) -> None:
        assert direction(verdict(mask=0.3 * box_mask(box=(60, 40, 61, 50)), peak=(5, 45))) == "left"

    def test_an_oblong_frame_is_named_width_first(self) -> None:
        mask = np.zeros((48, 96), dtype=np.float32)
        mask[:10, :10] = 1.0
        seen = explanation(image=np.zeros((48, 96, 3), dtype=np.uint8))
        assert facts(explanation=seen, mask=mask)["peak"].startswith("at (5, 89) of the 96×48 input")


def test_a_picture_of_another_size_than_the_input_is_named_where_its_numbers_stand() -> None:
    """Two frames in one message: the region's numbers are of the picture, the peak's of the input."""
    assert facts(frame=(128, 200))["energy"] == (
        "0.01 of the map's mass is in the box (36, 6, 76, 46) of the 200×128 picture"
    )
    assert facts()["energy"].endswith("in the box (36, 6, 76, 46)")


class TestAllowed:
    """A forbidden region's default surprises most: the message names what sets another."""

    OUTSIDE = "assert_attention_outside_region"

    @pytest.mark.parametrize(
        ("metric", "threshold", "shown"),
        [("calibrated_energy", 0.0, "0.00"), ("energy", 0.17, "0.17"), ("pointing_game", 0.0, "0.00")],
    )
    def test_the_default_names_its_knob(self, metric: str, threshold: float, shown: str) -> None:
        assert facts(assertion=self.OUTSIDE, metric=metric, threshold=threshold)["allowed"] == (
            f"{shown} is the metric's default outside; threshold=… or gradcam_outside_threshold sets another"
        )

    def test_what_somebody_set_and_what_is_needed_inside_says_nothing(self) -> None:
        assert "allowed" not in facts(assertion=self.OUTSIDE, threshold=0.05)
        assert "allowed" not in facts(threshold=0.0)


@pytest.mark.parametrize(
    ("region", "noun"),
    [
        (Region.box(1, 2, 3, 4), "the box"),
        (Region.of([(1, 2, 3, 4), (5, 6, 7, 8)]), "the 2 boxes"),
        (Region.polygon([(0, 0), (9, 0), (4, 9)]), "the polygon"),
        (Region.mask(np.eye(4, dtype=bool)), "the mask"),
        (Region.box(1, 2, 3, 4) | Region.polygon([(0, 0), (9, 0), (4, 9)]), "the region"),
    ],
    ids=str,
)
def test_a_region_that_was_named_is_called_by_its_kind(region: Region, noun: str) -> None:
    assert region.noun == noun
    assert noun in facts(region=region)["filled"]


def test_an_interval_is_told_where_there_is_one() -> None:
    assert facts(interval=(0.123, 0.456), confidence=0.9)["interval"] == (
        "0.12 to 0.46, each bound with 90% confidence"
    )
    assert "interval" not in facts()


def test_no_line_is_blank_noise() -> None:
    """A trailing space would show in a diff of two logs."""
    assert all(line == line.rstrip() for line in failure_text(verdict(), "here.png").splitlines())
