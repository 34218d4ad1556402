"""Where verdicts are told beside the terminal: page, results, JUnit XML, pytest-html, GitHub; the same with workers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import TESTS
from tests.plugin.life import Life

PASSES = """
from conftest import RED

def test_reads_red(gradcam, model, image):
    gradcam.assert_attention_in_region(model, image, RED, 0)
"""


def results(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "gradcam-report" / "results.json").read_text(encoding="utf-8"))
    return found


def without_times(values: Any) -> Any:
    """The same without what no two runs share."""
    if isinstance(values, dict):
        return {name: without_times(each) for name, each in values.items() if name not in ("seconds", "started")}
    return [without_times(each) for each in values] if isinstance(values, list) else values


class TestPage:
    def test_lies_where_the_run_says(self, project: pytest.Pytester) -> None:
        result = project.runpytest()
        result.stdout.fnmatch_lines(["*attention: 2 judged, 1 failed*", "  report: gradcam-report/index.html"])
        page = (project.path / "gradcam-report" / "index.html").read_text(encoding="utf-8")
        assert "test_reads_the_object[cup-017]" in page
        assert (project.path / "gradcam-report" / ".gitignore").read_text() == "*\n"

    def test_is_written_where_all_passed_too(self, project: pytest.Pytester) -> None:
        project.makepyfile(test_demo=PASSES)
        assert "report:" not in project.runpytest().stdout.str()
        assert results(project.path)["counts"]["passed"] == 1

    def test_is_not_written_where_nothing_was_judged(self, project: pytest.Pytester) -> None:
        project.makepyfile(test_demo="def test_it(): pass")
        project.runpytest()
        assert not (project.path / "gradcam-report").exists()

    @pytest.mark.parametrize(("keep", "pictured"), [("all", 2), ("failed", 1)])
    def test_has_pictures_of_those_that_were_asked_for(
        self, project: pytest.Pytester, keep: str, pictured: int
    ) -> None:
        project.runpytest(f"--gradcam-report={keep}")
        page = (project.path / "gradcam-report" / "index.html").read_text(encoding="utf-8")
        assert page.count("<details") == pictured
        assert len(results(project.path)["verdicts"]) == 2

    def test_is_not_written_where_none_is_wanted(self, project: pytest.Pytester) -> None:
        project.makeini("[pytest]\ngradcam_report = none\n")
        result = project.runpytest()
        assert not (project.path / "gradcam-report" / "index.html").exists()
        result.stdout.fnmatch_lines(["  overlays: gradcam-report"])

    def test_an_unknown_choice_ends_the_run(self, project: pytest.Pytester) -> None:
        project.runpytest("--gradcam-report=most").stderr.fnmatch_lines(["*--gradcam-report: unknown report 'most'*"])

    def test_that_cannot_be_written_is_told_and_hides_nothing(self, project: pytest.Pytester) -> None:
        (project.path / "gradcam-report").write_text("a file")
        result = project.runpytest()
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["  report: not written: *"])

    def test_says_what_a_check_waits_for(self, life: Life) -> None:
        life.pytester.makepyfile(test_it="def test_reads(gradcam, model, image): gradcam.check(model, image, 0)")
        life.run()
        (record,) = results(life.root)["verdicts"]
        assert record["baseline"] == "test_it.py::test_reads"
        assert record["received"] == "gradcam-report/received/__gradcam__/test_it/test_reads.safetensors"
        assert record["message"].startswith("there is no baseline for test_it.py::test_reads")


class TestRecords:
    def test_say_whose_they_are(self, project: pytest.Pytester) -> None:
        project.makepyfile(
            test_demo="""
            import pytest
            from conftest import RED

            pytestmark = pytest.mark.filterwarnings("default")


            @pytest.mark.skipif(False, reason="never")
            def test_reads_red(gradcam, model, image):
                gradcam.assert_attention_in_region(model, image, RED, 0)
            """
        )
        project.runpytest()
        (record,) = results(project.path)["verdicts"]
        assert (record["file"], record["line"]) == ("test_demo.py", 7)
        assert record["markers"] == ["skipif", "filterwarnings"]
        assert record["model"] == "Sequential"

    def test_of_a_try_that_is_run_again_do_not_count(self, project: pytest.Pytester) -> None:
        pytest.importorskip("pytest_rerunfailures", reason="pytest-rerunfailures is not installed")
        project.makepyfile(
            test_demo="""
            from conftest import BLUE, RED
            tries = []

            def test_reads(gradcam, model, image):
                tries.append(1)
                gradcam.assert_attention_in_region(model, image, RED if len(tries) > 2 else BLUE, 0)
            """
        )
        result = project.runpytest("--reruns", "3")
        assert result.parseoutcomes() == {"passed": 1, "rerun": 2}
        assert [record["passed"] for record in results(project.path)["verdicts"]] == [True]
        assert "attention:" not in result.stdout.str()


class TestWorkers:
    @pytest.mark.parametrize("workers", [2, 4])
    def test_give_the_same_results(self, project: pytest.Pytester, workers: int) -> None:
        project.runpytest()
        alone = without_times(results(project.path))
        project.runpytest_subprocess("-n", str(workers))
        assert without_times(results(project.path)) == alone

    def test_that_are_killed_cost_their_test_alone(self, project: pytest.Pytester) -> None:
        project.makepyfile(
            test_killed="""
            import os, signal

            def test_killed(gradcam, model, image):
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        project.runpytest("test_demo.py")
        alone = without_times(results(project.path))
        result = project.runpytest_subprocess("-n", "2")
        assert result.parseoutcomes()["failed"] == 2  # that one, and the one that fails anyway
        assert without_times(results(project.path)) == alone


class TestJunit:
    def test_properties_are_flat(self, project: pytest.Pytester) -> None:
        project.runpytest("--junitxml=junit.xml")
        root = ElementTree.parse(project.path / "junit.xml").getroot()
        cases = {case.get("name"): case for case in root.iter("testcase")}
        found = {each.get("name"): each.get("value") for each in cases["test_reads_red"].iter("property")}
        assert found["gradcam_outcome"] == "passed"
        assert float(found["gradcam_value"] or "nan") >= float(found["gradcam_threshold"] or "nan")
        failed = {
            each.get("name"): each.get("value") for each in cases["test_reads_the_object[cup-017]"].iter("property")
        }
        assert failed["gradcam_outcome"] == "failed"
        assert len([*cases["test_reads_red"].iter("property")]) == len(found)


class TestHtml:
    @pytest.mark.parametrize(
        "arguments", [(), ("--self-contained-html",), ("-n", "2", "--self-contained-html")], ids=str
    )
    def test_pytest_html_shows_the_overlays(self, project: pytest.Pytester, arguments: tuple[str, ...]) -> None:
        pytest.importorskip("pytest_html", reason="pytest-html is not installed")
        project.runpytest_subprocess("--html=report.html", *arguments, "-p", "no:warnings")
        page = (project.path / "report.html").read_text(encoding="utf-8")
        assert "overlay" in page and "test_reads_red" in page
        written = [*(project.path / "assets").glob("*")] if (project.path / "assets").exists() else []
        pictures = page.count("data:image/webp;base64,") + sum(path.suffix == ".webp" for path in written)
        assert pictures >= 2


class TestGitHub:
    def test_a_step_summary_is_added_to_what_is_there(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "summary.md"
        file.write_text("before\n")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
        project.runpytest()
        text = file.read_text(encoding="utf-8")
        assert text.startswith("before\n")
        assert "test_reads_the_object" in text

    def test_annotations_stand_on_the_tests_line(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "::error" not in project.runpytest().stdout.str()
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path.parent))
        lines = [line for line in project.runpytest().outlines if line.startswith("::error")]
        assert len(lines) == 1
        line = TESTS.strip().splitlines().index('@pytest.mark.parametrize("name", ["cup-017"])') + 1
        assert f"file={project.path.name}/test_demo.py,line={line}," in lines[0]


def test_allure_gets_the_overlays(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for allure-pytest: its one function that we call, and its one option."""
    project.makepyfile(
        allure="""
        import pathlib

        class attachment_type:
            PNG = "image/png"

        def attach(body, name, attachment_type):
            with pathlib.Path("attached.txt").open("a") as file:
                file.write(f"{body[:4]} {name} {attachment_type}\\n")
        """
    )
    option = "def pytest_addoption(parser):\n    parser.addoption('--alluredir', dest='allure_report_dir')\n"
    project.makeconftest((project.path / "conftest.py").read_text() + "\nimport allure\n\n" + option)
    project.runpytest()
    assert not (project.path / "attached.txt").exists()
    project.runpytest("--alluredir=here")
    lines = (project.path / "attached.txt").read_text().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("b'\\x89PNG' ") and line.endswith("image/png") for line in lines)


class TestCannotLie:
    def test_verdicts_of_a_fixture_are_counted_once_however_often_its_test_runs(self, project: pytest.Pytester) -> None:
        pytest.importorskip("pytest_rerunfailures", reason="pytest-rerunfailures is not installed")
        project.makepyfile(
            test_demo="""
            import pytest
            from conftest import RED
            tries = []

            @pytest.fixture
            def seen(gradcam, model, image):
                gradcam.assert_attention_in_region(model, image, RED, 0)

            def test_reads(seen):
                tries.append(1)
                assert len(tries) > 2
            """
        )
        assert project.runpytest("--reruns", "3").parseoutcomes() == {"passed": 1, "rerun": 2}
        assert results(project.path)["counts"]["passed"] == 1

    def test_a_fixture_that_is_kept_beyond_its_test_is_refused(self, project: pytest.Pytester) -> None:
        """Its verdicts would be on no report."""
        project.makepyfile(
            test_demo="""
            from conftest import BLUE
            kept = []

            def test_one(gradcam):
                kept.append(gradcam)

            def test_two(model, image):
                kept[0].assert_attention_in_region(model, image, BLUE, 0)
            """
        )
        result = project.runpytest()
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*SettingsError: test_demo.py::test_one has ended*"])

    def test_a_folder_that_the_locale_cannot_name_fails_no_run(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.makepyfile(test_demo=PASSES)
        (project.path / "pytest.ini").write_text("[pytest]\ngradcam_output_dir = out-é\n", encoding="utf-8")
        monkeypatch.setenv("PYTHONUTF8", "0")
        monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
        monkeypatch.setenv("LC_ALL", "C")
        result = project.runpytest_subprocess()
        assert result.ret == pytest.ExitCode.OK
        assert result.parseoutcomes() == {"passed": 1}

    def test_a_report_that_cannot_be_written_is_told_where_all_passed(self, project: pytest.Pytester) -> None:
        project.makepyfile(test_demo=PASSES)
        (project.path / "gradcam-report").write_text("a file")
        result = project.runpytest()
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["attention: report not written: *"])
