"""The marker: keywords only, the nearest wins name by name, and a mistake ends the run with its place and its mend."""

from __future__ import annotations

import pytest

USAGE_ERROR = pytest.ExitCode.USAGE_ERROR


def test_pytest_lists_it_with_its_keywords(pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest("--markers").stdout
    shown.fnmatch_lines(["@pytest.mark.gradcam(method, engine, device, layer, metric, threshold, *): settings of *"])


def test_it_is_known_where_markers_are_strict(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.gradcam(metric="energy")
        def test_it(gradcam):
            assert gradcam.settings.metric == "energy"
        """
    )
    pytester.runpytest("--strict-markers").assert_outcomes(passed=1)


def test_it_wins_over_the_command_line_and_the_nearest_wins_name_by_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.gradcam(metric="pointing_game", engine="split", threshold=0.1)

        @pytest.mark.gradcam(threshold=0.2, outside_threshold=0.3)
        class TestThem:
            @pytest.mark.gradcam(outside_threshold=None)
            @pytest.mark.gradcam(outside_threshold=0.5, metric="energy")
            def test_nearest(self, gradcam):
                s = gradcam.settings
                assert (s.metric, s.engine, s.threshold, s.outside_threshold) == ("energy", "split", 0.2, 0.5)

            def test_class(self, gradcam):
                s = gradcam.settings
                assert (s.metric, s.engine, s.threshold, s.outside_threshold) == ("pointing_game", "split", 0.2, 0.3)

        def test_module(gradcam):
            s = gradcam.settings
            assert (s.metric, s.engine, s.threshold, s.method) == ("pointing_game", "split", 0.1, "hirescam")
        """
    )
    done = pytester.runpytest("--gradcam-threshold=0.9", "--gradcam-method=hirescam")
    done.assert_outcomes(passed=3)


def test_it_may_hold_what_no_command_line_can(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest, torch

        LAYER = torch.nn.ReLU()

        @pytest.mark.gradcam(layer=LAYER, transform=len, labels=["cat"], device=torch.device("cpu"))
        def test_it(gradcam):
            s = gradcam.settings
            assert (s.layer, s.transform, s.labels, s.device) == (LAYER, len, ("cat",), "cpu")
        """
    )
    pytester.runpytest().assert_outcomes(passed=1)


WRONG = [
    (
        "0.3",
        "test_wrong.py::test_it: @pytest.mark.gradcam takes keyword arguments only, and was given 0.3: known are ",
    ),
    (
        "treshold=0.3",
        "test_wrong.py::test_it: @pytest.mark.gradcam(treshold=…): unknown setting 'treshold': known are method, "
        "engine, device, layer, metric, threshold, outside_threshold, judge_by, pass_rate, confidence, inconclusive, "
        "floor, previews, output_dir, labels, transform, forward, cache; did you mean 'threshold'?",
    ),
    ("metric='top5'", "test_wrong.py::test_it: @pytest.mark.gradcam(metric=…): unknown metric 'top5': known are"),
    ("threshold='much'", "test_wrong.py::test_it: @pytest.mark.gradcam(threshold=…): threshold 'much' is not a number"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_one_stops_the_run_before_any_test(pytester: pytest.Pytester, arguments: str, message: str) -> None:
    pytester.makepyfile(
        test_wrong=f"""
        import pytest

        def test_first():
            print("RAN")

        @pytest.mark.gradcam({arguments})
        def test_it():
            pass
        """
    )
    done = pytester.runpytest("-s")
    assert done.ret == USAGE_ERROR
    assert f"ERROR: {message}" in done.stderr.str()
    assert "RAN" not in done.stdout.str()


def test_a_wrong_one_stops_a_run_with_xdist_and_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_first():
            pass

        @pytest.mark.gradcam(treshold=0.3)
        def test_it():
            pass
        """
    )
    done = pytester.runpytest_subprocess("-n2")
    done.assert_outcomes(errors=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["*::test_it: @pytest.mark.gradcam(treshold=…): unknown setting 'treshold': known are *"])
