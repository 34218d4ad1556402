"""The end of a run: what is counted, what is listed, in which order, and what a bar says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from pytest_gradcam.report.summary import bar, summary, told_apart


def record(**changes: Any) -> dict[str, Any]:
    return {
        "assertion": "assert_attention_in_region",
        "metric": "calibrated_energy",
        "value": -0.26,
        "threshold": 0.15,
        "chance": 0.0,
        "at_most": False,
        "outcome": "failed",
        "nodeid": "test_demo.py::test_reads_the_object[cup-017]",
        "passed": False,
        "failed": True,
        "overlay": "gradcam-report/test_demo.py/test_reads_the_object[cup-017].png",
        "folder": "gradcam-report",
        **changes,
    }


def test_the_section_of_the_design() -> None:
    passed = record(value=0.8, passed=True, failed=False, overlay=None)
    second = record(value=0.11, nodeid="test_demo.py::test_reads_the_object[cat-004]")
    title, lines = summary([passed, second, *[passed] * 38, record()])
    assert title == "attention: 41 judged, 2 failed"
    assert lines == [
        "  -0.26 ░░░░░░░▐██│░░░░░░░░░░  needs 0.15    test_demo.py::test_reads_the_object[cup-017]",
        "   0.11 ░░░░░░░░░░│█▏░░░░░░░░  needs 0.15    test_demo.py::test_reads_the_object[cat-004]",
        "  bars start at chance, │",
        "  overlays: gradcam-report",
    ]


def test_where_all_passed_there_is_a_title_and_no_line() -> None:
    passed = record(value=0.8, passed=True, failed=False, overlay=None)
    assert summary([passed, passed]) == ("attention: 2 judged, 0 failed", [])


def test_a_verdict_that_was_expected_to_fail_is_judged_and_not_listed() -> None:
    assert summary([record(failed=False)]) == ("attention: 1 judged, 0 failed", [])


def test_the_worst_is_the_one_farthest_beyond_its_own_threshold() -> None:
    records = [
        record(nodeid="by 0.20", value=0.1, threshold=0.3),
        record(nodeid="by 0.50", value=0.5, threshold=0.0, at_most=True),
        record(nodeid="by 0.41", value=-0.26, threshold=0.15),
        record(nodeid="by 0.05", value=0.05, threshold=0.0, at_most=True),
    ]
    _, lines = summary(records)
    assert [line[-7:] for line in lines[:-2]] == ["by 0.50", "by 0.41", "by 0.20", "by 0.05"]


def test_equals_are_in_the_order_of_their_names_however_workers_finished() -> None:
    records = [record(nodeid=f"test_{letter}") for letter in "cab"]
    assert [line[-6:] for line in summary(records)[1][:-2]] == ["test_a", "test_b", "test_c"]


def test_at_most_20_are_listed_and_the_rest_is_counted() -> None:
    records = [record(value=-index / 100, nodeid=f"test_{index:02}") for index in range(25)]
    title, lines = summary(records)
    assert title == "attention: 25 judged, 25 failed"
    assert [line[-7:] for line in lines[:20]] == [f"test_{index:02}" for index in range(24, 4, -1)]
    assert lines[20:] == ["  … and 5 more", "  bars start at chance, │", "  overlays: gradcam-report"]


def test_20_are_listed_without_a_rest() -> None:
    assert len(summary([record()] * 20)[1]) == 22


def test_folders_are_named_once_and_only_where_something_was_written() -> None:
    records = [
        record(folder="one"),
        record(folder="two"),
        record(folder="one"),
        record(folder="never", overlay=None),
    ]
    assert summary(records)[1][5:] == ["  overlays: one", "  overlays: two"]


def test_what_is_allowed_outside_is_not_called_needed() -> None:
    outside = record(at_most=True, value=0.4, threshold=0.0)
    assert "  allowed 0.00  " in summary([outside])[1][0]


@pytest.mark.parametrize(
    ("value", "threshold", "shown"),
    [
        (-0.26, 0.15, ("-0.26", "0.15")),
        (0.1496, 0.15, ("0.1496", "0.1500")),
        (0.14999999, 0.15, ("0.14999999", "0.15")),
        (-1.5, 0.0, ("-1.50", "0.00")),
    ],
)
def test_a_value_is_never_shown_as_the_threshold_that_it_missed(
    value: float, threshold: float, shown: tuple[str, str]
) -> None:
    assert told_apart(value, threshold) == shown


class TestBar:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (0.0, "░░░░░░░░░░│░░░░░░░░░░"),
            (0.5, "░░░░░░░░░░│█████░░░░░"),
            (0.25, "░░░░░░░░░░│██▌░░░░░░░"),
            (1.0, "░░░░░░░░░░│██████████"),
            (1.7, "░░░░░░░░░░│██████████"),
            (-0.25, "░░░░░░░▐██│░░░░░░░░░░"),
            (-1.0, "██████████│░░░░░░░░░░"),
            (-9.0, "██████████│░░░░░░░░░░"),
        ],
    )
    def test_calibrated_energy_grows_from_the_mark_in_the_middle(self, value: float, shown: str) -> None:
        assert bar(record(value=value)) == shown

    @pytest.mark.parametrize(
        ("value", "chance", "shown"),
        [
            (0.25, 0.25, "░░░░░│░░░░░░░░░░░░░░░"),
            (1.0, 0.25, "░░░░░│███████████████"),
            (0.0, 0.25, "█████│░░░░░░░░░░░░░░░"),
            (0.5, 0.0, "│██████████░░░░░░░░░░"),
            (0.5, 1.0, "░░░░░░░░░░██████████│"),
        ],
    )
    def test_energy_grows_from_the_mark_at_chance(self, value: float, chance: float, shown: str) -> None:
        assert bar(record(metric="energy", value=value, chance=chance)) == shown

    @given(
        value=st.floats(-1e6, 1e6),
        chance=st.floats(0, 1),
        metric=st.sampled_from(["calibrated_energy", "energy", "pointing_game"]),
    )
    def test_a_bar_has_21_cells_and_one_mark_whatever_the_value(self, value: float, chance: float, metric: str) -> None:
        drawn = bar(record(metric=metric, value=value, chance=chance))
        assert len(drawn) == 21
        assert drawn.count("│") == 1


def test_an_xdist_controller_needs_neither_numpy_nor_torch_for_it() -> None:
    """Asked of a fresh interpreter: in this one everything is loaded."""
    code = (
        "import sys\n"
        "import pytest_gradcam.report.summary, pytest_gradcam.report.lines\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'cv2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
