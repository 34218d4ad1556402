"""Runs in which several images cannot tell: outcomes, the summary line, the section at the end, xdist."""

from __future__ import annotations

import re

import pytest

# Four pictures of which two have their red in the box, and a model that reads what is red: no interval settles that.
TESTS = """
import pytest, torch
from conftest import BLUE, RED
from pytest_gradcam import AttentionError, InconclusiveError

BOXES = (RED, (40, 0, 56, 16), (0, 64, 16, 96), (64, 40, 80, 56))


def images():
    made = torch.zeros(4, 3, 96, 96)
    for image, (x0, y0, x1, y1) in zip(made, BOXES):
        image[0, y0:y1, x0:x1] = 1.0
    for i, image in enumerate(made):
        image[0, 24:32, 80:96] = 0.05 * i  # besides, so that no two values are equal
    return list(made)


def test_unsure(gradcam, model):
    gradcam.assert_attention_in_region(model, images(), RED, 0)
"""
SURE = """

def test_passes(gradcam, model):
    gradcam.assert_attention_in_region(model, images(), list(BOXES), 0)


def test_fails(gradcam, model):
    gradcam.assert_attention_outside_region(model, images(), list(BOXES), 0)
"""
MESSAGE = "4 images (fewer than 20) cannot tell whether the classes are explained by their regions: mean calibrated"


def text(done: pytest.RunResult) -> str:
    return str(done.stdout.str())


def section(done: pytest.RunResult) -> str:
    """What the end of the run says of attention: the title and all lines of it, or nothing."""
    found = re.search(r"^=+ (attention: .*?) =+\n(.*?)(?=^=)", text(done), re.DOTALL | re.MULTILINE)
    return f"{found[1]}\n{found[2]}" if found else ""


@pytest.fixture
def unsure(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(test_demo=TESTS)
    return project


def test_unasked_the_test_fails_with_an_error_of_its_own_name(unsure: pytest.Pytester) -> None:
    done = unsure.runpytest()
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([f"E  *InconclusiveError: {MESSAGE}*", "*1 failed*"])
    title, row, legend, report = section(done).splitlines()
    assert title == "attention: 1 judged, 0 failed, 1 inconclusive"
    assert re.fullmatch(r" +0\.4\d .*  needs 0\.1[05] +test_demo\.py::test_unsure", row)
    assert (legend, report) == ("  bars start at chance, │", "  report: gradcam-report/index.html")
    assert (unsure.path / "gradcam-report/test_demo.py/test_unsure.png").is_file()


def test_as_a_failure_it_is_counted_as_one(unsure: pytest.Pytester) -> None:
    done = unsure.runpytest("--gradcam-inconclusive=fail")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([f"E  *AttentionError: {MESSAGE}*"])
    assert section(done).splitlines()[0] == "attention: 1 judged, 1 failed"


def test_as_a_skip_the_reason_is_in_the_summary(unsure: pytest.Pytester) -> None:
    done = unsure.runpytest("--gradcam-inconclusive=skip", "-rs")
    done.assert_outcomes(skipped=1)
    assert done.ret == 0
    assert MESSAGE in text(done)
    assert section(done) == ""


def test_as_a_warning_the_test_passes_and_is_warned_of(unsure: pytest.Pytester) -> None:
    done = unsure.runpytest("--gradcam-inconclusive=warn", "-W", "default")
    done.assert_outcomes(passed=1, warnings=1)
    assert f"InconclusiveWarning: {MESSAGE}" in text(done)
    assert section(done) == ""


def test_a_warning_that_is_an_error_fails(unsure: pytest.Pytester) -> None:
    done = unsure.runpytest("--gradcam-inconclusive=warn", "-W", "error")
    done.assert_outcomes(failed=1)
    assert "InconclusiveWarning" in text(done)


@pytest.mark.parametrize("how", ["skip", "warn"])
def test_where_nothing_failed_a_verbose_run_still_says_what_was_judged(unsure: pytest.Pytester, how: str) -> None:
    done = unsure.runpytest(f"--gradcam-inconclusive={how}", "-v")
    assert "attention: 1 judged, 0 failed" in text(done)


def test_the_ini_file_the_option_and_the_mark_win_in_this_order(unsure: pytest.Pytester) -> None:
    unsure.makeini("[pytest]\ngradcam_inconclusive = skip\n")
    unsure.runpytest().assert_outcomes(skipped=1)
    unsure.runpytest("--gradcam-inconclusive=warn", "-W", "default").assert_outcomes(passed=1, warnings=1)
    marked = TESTS.replace("def test_unsure", '@pytest.mark.gradcam(inconclusive="fail")\ndef test_unsure')
    unsure.makepyfile(test_demo=marked)
    unsure.runpytest("--gradcam-inconclusive=warn", "-W", "default").assert_outcomes(failed=1)


def test_another_word_ends_the_run_before_it_begins(unsure: pytest.Pytester) -> None:
    done = unsure.runpytest("--gradcam-inconclusive=maybe")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--gradcam-inconclusive: unknown inconclusive 'maybe': known are error, fail,*"])


def test_who_expects_a_failure_is_not_given_an_inconclusive_verdict(unsure: pytest.Pytester) -> None:
    """`pytest.raises(AttentionError)` guards that a broken model is caught: who cannot tell catches nothing."""
    expecting = TESTS.replace("    gradcam.", "    with pytest.raises(AttentionError):\n        gradcam.")
    unsure.makepyfile(test_demo=expecting)
    done = unsure.runpytest()
    done.assert_outcomes(failed=1)
    assert "InconclusiveError" in text(done)
    assert section(done).splitlines()[0] == "attention: 1 judged, 0 failed, 1 inconclusive"
    unsure.runpytest("--gradcam-inconclusive=skip").assert_outcomes(skipped=1)
    warned = unsure.runpytest("--gradcam-inconclusive=warn", "-W", "default")
    warned.assert_outcomes(failed=1)  # nothing was raised
    unsure.runpytest("--gradcam-inconclusive=fail").assert_outcomes(passed=1)  # who asks for failures gets them


def test_an_xfail_takes_it_for_what_was_expected_only_if_told(unsure: pytest.Pytester) -> None:
    marked = TESTS.replace("def test_unsure", "@pytest.mark.xfail(raises=AttentionError)\ndef test_unsure")
    unsure.makepyfile(test_demo=marked)
    unsure.runpytest().assert_outcomes(failed=1)
    unsure.runpytest("--gradcam-inconclusive=fail").assert_outcomes(xfailed=1)


def test_one_that_is_expected_is_not_listed(unsure: pytest.Pytester) -> None:
    expecting = TESTS.replace("    gradcam.", "    with pytest.raises(InconclusiveError):\n        gradcam.")
    unsure.makepyfile(test_demo=expecting)
    done = unsure.runpytest()
    done.assert_outcomes(passed=1)
    assert section(done) == ""


def test_beside_others_each_is_counted_as_what_it_is(unsure: pytest.Pytester) -> None:
    unsure.makepyfile(test_demo=TESTS + SURE)
    done = unsure.runpytest()
    done.assert_outcomes(passed=1, failed=2)
    title, *rows = section(done).splitlines()
    assert title == "attention: 3 judged, 1 failed, 1 inconclusive"
    assert [row.rpartition("::")[2] for row in rows[:2]] == ["test_fails", "test_unsure"]  # the worst first


@pytest.mark.parametrize(
    ("how", "outcomes", "title"),
    [
        ("error", {"passed": 1, "failed": 2}, "attention: 3 judged, 1 failed, 1 inconclusive"),
        ("fail", {"passed": 1, "failed": 2}, "attention: 3 judged, 2 failed"),
        ("skip", {"passed": 1, "failed": 1, "skipped": 1}, "attention: 3 judged, 1 failed, 1 inconclusive"),
        ("warn", {"passed": 2, "failed": 1, "warnings": 1}, "attention: 3 judged, 1 failed, 1 inconclusive"),
    ],
)
def test_xdist_workers_say_the_same(unsure: pytest.Pytester, how: str, outcomes: dict[str, int], title: str) -> None:
    pytest.importorskip("xdist")
    unsure.makepyfile(test_demo=TESTS + SURE)
    done = unsure.runpytest("-n", "2", f"--gradcam-inconclusive={how}", "-W", "default")
    done.assert_outcomes(**outcomes)
    assert section(done).splitlines()[0] == title


def test_a_list_of_one_image_crosses_from_a_worker(unsure: pytest.Pytester) -> None:
    """Its interval is infinite."""
    pytest.importorskip("xdist")
    unsure.makepyfile(test_demo=TESTS.replace("images(), RED", "images()[:1], RED"))
    done = unsure.runpytest("-n", "2")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E  *InconclusiveError: 1 image (fewer than 20) cannot tell*"])
    assert section(done).splitlines()[0] == "attention: 1 judged, 0 failed, 1 inconclusive"
