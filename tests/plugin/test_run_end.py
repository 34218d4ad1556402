"""The end of a run: a section where a verdict failed, a line where somebody asked for more, else nothing."""

from __future__ import annotations

import pytest

PASSES = """
from conftest import RED

def test_reads_red(gradcam, model, image):
    gradcam.assert_attention_in_region(model, image, RED, 0)
"""


def section(done: pytest.RunResult) -> list[str]:
    """The lines from the section's title to the next title."""
    lines = done.stdout.str().splitlines()
    [at] = [index for index, line in enumerate(lines) if " attention: " in line]
    end = next(index for index in range(at + 1, len(lines)) if lines[index].startswith("="))
    return [lines[at].strip("= "), *lines[at + 1 : end]]


def test_failed_verdicts_are_listed_with_value_bar_and_threshold(project: pytest.Pytester) -> None:
    assert section(project.runpytest()) == [
        "attention: 2 judged, 1 failed",
        "  -0.14 ░░░░░░░░▐█│░░░░░░░░░░  needs 0.15    test_demo.py::test_reads_the_object[cup-017]",
        "  bars start at chance, │",
        "  report: gradcam-report/index.html",
    ]


def test_where_all_passed_nothing_is_said(project: pytest.Pytester) -> None:
    project.makepyfile(test_demo=PASSES)
    assert "attention:" not in project.runpytest().stdout.str()


def test_where_all_passed_a_line_is_said_to_whoever_wants_more(project: pytest.Pytester) -> None:
    project.makepyfile(test_demo=PASSES)
    assert "attention: 1 judged, 0 failed" in project.runpytest("-v").stdout.str().splitlines()


def test_a_run_that_judged_nothing_says_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_demo="""
        def test_explains(gradcam, model, image):
            assert gradcam.explain(model, image, 0).cls == 0
        """
    )
    done = project.runpytest("-v")
    done.assert_outcomes(passed=1)
    assert "attention:" not in done.stdout.str()


def test_what_a_test_expects_to_fail_is_judged_and_not_listed(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_demo="""
        import pytest
        from conftest import BLUE
        from pytest_gradcam import AttentionError

        def test_raises(gradcam, model, image):
            with pytest.raises(AttentionError):
                gradcam.assert_attention_in_region(model, image, BLUE, 0)

        @pytest.mark.xfail(raises=AttentionError, strict=True)
        def test_xfail(gradcam, model, image):
            gradcam.assert_attention_in_region(model, image, BLUE, 0)
        """
    )
    done = project.runpytest("-v")
    done.assert_outcomes(passed=1, xfailed=1)
    assert "attention: 2 judged, 0 failed" in done.stdout.str().splitlines()


def test_verdicts_of_fixtures_count_in_setup_and_in_teardown(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_demo="""
        import pytest
        from conftest import BLUE, RED

        @pytest.fixture
        def before(gradcam, model, image):
            gradcam.assert_attention_in_region(model, image, BLUE, 0)

        @pytest.fixture
        def after(gradcam, model, image):
            yield
            gradcam.assert_attention_in_region(model, image, RED, 1)

        def test_before(before):
            pass

        def test_after(after, gradcam, model, image):
            gradcam.assert_attention_in_region(model, image, RED, 0)
        """
    )
    done = project.runpytest()
    done.assert_outcomes(passed=1, errors=2)
    title, *lines = section(done)
    assert title == "attention: 3 judged, 2 failed"
    assert sorted(line.split()[-1] for line in lines[:2]) == ["test_demo.py::test_after", "test_demo.py::test_before"]


def test_the_worst_20_are_listed_and_the_others_counted(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_demo="""
        import pytest
        from conftest import BLUE

        @pytest.mark.parametrize("number", range(23))
        def test_many(gradcam, model, image, number):
            threshold = 0.1 + number / 100
            gradcam.assert_attention_in_region(model, image, BLUE, 0, threshold=threshold)
        """
    )
    title, *lines = section(project.runpytest("--tb=no"))
    assert title == "attention: 23 judged, 23 failed"
    assert [line.split()[-1] for line in lines[:20]] == [f"test_demo.py::test_many[{n}]" for n in range(22, 2, -1)]
    assert lines[20:] == ["  … and 3 more", "  bars start at chance, │", "  report: gradcam-report/index.html"]


def test_subtests_keep_their_verdicts(project: pytest.Pytester) -> None:
    pytest.importorskip("_pytest.subtests", reason="subtests came with pytest 9")
    project.makepyfile(
        test_demo="""
        from conftest import BLUE, RED

        def test_both(gradcam, model, image, subtests):
            for cls, region in enumerate((BLUE, BLUE)):
                with subtests.test(cls=cls):
                    gradcam.assert_attention_in_region(model, image, region, cls)
        """
    )
    assert section(project.runpytest())[0] == "attention: 2 judged, 1 failed"


@pytest.mark.parametrize("plugin", ["terminal", "junitxml", "cacheprovider"])
def test_a_run_without_one_of_pytests_own_plugins_works(project: pytest.Pytester, plugin: str) -> None:
    assert project.runpytest("-p", f"no:{plugin}").ret == pytest.ExitCode.TESTS_FAILED
