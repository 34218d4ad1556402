"""Options and ini names: where a setting comes from, and what a wrong one says."""

from __future__ import annotations

import pytest

USAGE_ERROR = pytest.ExitCode.USAGE_ERROR


def test_the_help_lists_every_option_with_what_it_takes(pytester: pytest.Pytester) -> None:
    shown = " ".join(pytester.runpytest("--help").stdout.str().split())
    for text in (
        "attention assertions for image models (pytest-gradcam): --gradcam-method=NAME",
        "--gradcam-method=NAME CAM method: auto, grad-cam, hirescam, grad-cam++,",
        "--gradcam-engine=NAME How activations and gradients are obtained: hooks, split.",
        "--gradcam-device=NAME Where maps are computed: auto, cpu, cuda, cuda:<n>, mps, xpu, xpu:<n>.",
        "--gradcam-layer=NAME Dotted name of the target layer.",
        "--gradcam-metric=NAME What is measured and judged: calibrated_energy, energy, lift, pointing_game,",
        "--gradcam-threshold=NUMBER Least value",
        "--gradcam-outside-threshold=NUMBER Most",
        "--gradcam-output-dir=DIR Folder of the overlays",
        "gradcam_labels (linelist): The model's class names",
    ):
        assert text in shown
    for name in ("method", "engine", "device", "layer", "metric", "threshold", "outside_threshold", "output_dir"):
        assert f" gradcam_{name} (str" in shown


def test_the_fixture_says_what_it_is(pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest("--fixtures").stdout
    shown.fnmatch_lines(["gradcam -- *plugin*:*", "    Where a model looks, judged:*"])


def test_the_defaults_hold_where_nothing_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pytest_gradcam import Settings

        def test_settings(gradcam):
            assert gradcam.settings == Settings()
        """
    )
    pytester.runpytest().assert_outcomes(passed=1)


def test_an_option_wins_over_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradcam_metric = energy\ngradcam_threshold = 0.4\ngradcam_engine = split\n")
    pytester.makepyfile(
        """
        def test_settings(gradcam):
            settings = gradcam.settings
            assert (settings.metric, settings.threshold, settings.engine) == ("energy", 0.7, "split")
        """
    )
    pytester.runpytest("--gradcam-threshold=0.7").assert_outcomes(passed=1)


def test_every_setting_can_be_given_in_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        """
        [pytest]
        gradcam_method = hirescam
        gradcam_engine = split
        gradcam_device = cpu
        gradcam_layer = layer4.1
        gradcam_metric = energy
        gradcam_threshold = 0.4
        gradcam_outside_threshold = 0.05
        gradcam_judge_by = rate
        gradcam_pass_rate = 0.9
        gradcam_confidence = 0.99
        gradcam_inconclusive = warn
        gradcam_floor = retrained
        gradcam_previews = true
        gradcam_cache = false
        gradcam_output_dir = build/attention
        gradcam_labels =
            cat
            polar bear
        """
    )
    pytester.makepyfile(
        """
        from pytest_gradcam import Settings

        def test_settings(gradcam):
            assert gradcam.settings == Settings(
                "hirescam", "split", "cpu", "layer4.1", "energy", 0.4, 0.05, "rate", 0.9, 0.99, "warn",
                "retrained", True, "build/attention", ("cat", "polar bear"),
                cache=False,
            )
        """
    )
    pytester.runpytest().assert_outcomes(passed=1)


def test_an_empty_line_of_the_ini_file_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradcam_metric =\ngradcam_labels =\n")
    pytester.makepyfile("def test_settings(gradcam): assert gradcam.settings.metric == 'calibrated_energy'")
    pytester.runpytest().assert_outcomes(passed=1)


@pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="native TOML settings came with pytest 9")
def test_a_number_may_be_a_number_in_toml(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml('[tool.pytest]\ngradcam_threshold = 0.4\ngradcam_labels = ["cat", "dog"]\n')
    pytester.makepyfile(
        """
        def test_settings(gradcam):
            assert (gradcam.settings.threshold, gradcam.settings.labels) == (0.4, ("cat", "dog"))
        """
    )
    pytester.runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--gradcam-threshold=much", "--gradcam-threshold: threshold 'much' is not a number: give one such as 0.15"),
        ("--gradcam-outside-threshold=nan", "--gradcam-outside-threshold: outside_threshold 'nan' is not finite:"),
        ("--gradcam-method=gradcam", "occlusion, rise, legrad; did you mean 'grad-cam'?"),
        ("--gradcam-engine=hook", "--gradcam-engine: unknown engine 'hook': known are hooks, split;"),
        ("--gradcam-device=gpu", "--gradcam-device: unknown device 'gpu': known are auto, cpu, cuda,"),
        ("--gradcam-metric=top5", "--gradcam-metric: unknown metric 'top5': known are calibrated_energy, energy,"),
        ("--gradcam-layer=", "--gradcam-layer: layer '' is no layer: give the dotted name of a module"),
        ("--gradcam-output-dir=", "--gradcam-output-dir: output_dir '' is no folder"),
    ],
)
def test_a_wrong_option_stops_the_run_before_it_starts(pytester: pytest.Pytester, option: str, message: str) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest(option)
    assert done.ret == USAGE_ERROR
    assert f"ERROR: {option.partition('=')[0]}: " in done.stderr.str()
    assert message in done.stderr.str()
    assert "collected" not in done.stdout.str()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gradcam_metric = top5", "gradcam_metric in the ini file: unknown metric 'top5': known are"),
        ("gradcam_threshold = much", "gradcam_threshold in the ini file: threshold 'much' is not a number"),
        (
            "gradcam_labels = red, green, blue",
            "gradcam_labels in the ini file: labels holds one name with commas in it, 'red, green, blue': write",
        ),
        ("gradcam_threshold = inf", "gradcam_threshold in the ini file: threshold 'inf' is not finite"),
    ],
)
def test_a_wrong_line_of_the_ini_file_stops_the_run(pytester: pytest.Pytester, line: str, message: str) -> None:
    pytester.makeini(f"[pytest]\n{line}\n")
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest()
    assert done.ret == USAGE_ERROR
    assert f"ERROR: {message}" in done.stderr.str()


@pytest.mark.parametrize("where", ["ini", "toml", "override"])
def test_an_unknown_name_in_the_ini_file_stops_the_run(pytester: pytest.Pytester, where: str) -> None:
    """A misspelt threshold would leave every test with the default."""
    arguments = []
    if where == "ini":
        pytester.makeini("[pytest]\ngradcam_treshold = 0.9\n")
    elif where == "toml":
        pytester.makepyprojecttoml("[tool.pytest.ini_options]\ngradcam_treshold = 0.9\n")
    else:
        arguments = ["-o", "gradcam_treshold=0.9"]
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest(*arguments)
    assert done.ret == USAGE_ERROR
    assert "ERROR: unknown key 'gradcam_treshold' in the ini file: known are gradcam_method, " in done.stderr.str()
    assert "did you mean 'gradcam_threshold'?" in done.stderr.str()


def test_a_name_that_somebody_else_added_is_theirs(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradcam_dataset = cats\n")
    pytester.makeconftest("def pytest_addoption(parser): parser.addini('gradcam_dataset', 'ours')")
    pytester.makepyfile("def test_it(pytestconfig): assert pytestconfig.getini('gradcam_dataset') == 'cats'")
    pytester.runpytest().assert_outcomes(passed=1)


def test_a_wrong_option_stops_a_run_with_xdist_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest("-n2", "--gradcam-metric=top5")
    assert done.ret == USAGE_ERROR
    assert "ERROR: --gradcam-metric: unknown metric 'top5'" in done.stderr.str()


def test_no_test_has_the_fixture_unless_it_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(request): assert 'gradcam' not in request.fixturenames")
    pytester.runpytest().assert_outcomes(passed=1)
