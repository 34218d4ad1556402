"""A failing test: what a person reads in every way that pytest shows a failure, and the overlay on the disk."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import pytest

FIRST_LINE = "class 0 is not explained by the box: calibrated energy -0.14, needs 0.15"
OVERLAY = "gradcam-report/test_demo.py/test_reads_the_object[cup-017].png"
RAMP = "@@@@@@@@"
STYLES = ["auto", "long", "short", "native", "line"]


def text(done: pytest.RunResult) -> str:
    return str(done.stdout.str())


class TestMessage:
    def test_it_tells_the_story_the_numbers_the_map_and_the_place(self, project: pytest.Pytester) -> None:
        done = project.runpytest()
        done.assert_outcomes(passed=1, failed=1)
        done.stdout.fnmatch_lines(
            [
                ">       gradcam.assert_attention_in_region(model, image, BLUE, 0)",
                f"E  *AttentionError: {FIRST_LINE}",
                "E*  energy     0.00 of the map's mass is in the box (40, 8, 72, 40)",
                "E*  chance     0.11 would be there if the model looked everywhere alike",
                "E*  filled     0.88 would be there if it filled the box evenly on this 12×12 grid",
                "E*  peak       at (*) of the 96×96 input, * px outside the box, bottom left",
                "E*  predicted  class *, p = 0.5*",
                "E*  │*┌─────────────┐*│",
                "E*  │*└─────────────┘*│",
                "E*  │@@@@@@@*│",
                "E*layer 2 · grad-cam · hooks · cpu · * ms",
                "E*overlay gradcam-report/test_demo.py/test_reads_the_object[[]cup-017].png",
            ],
        )

    def test_the_traceback_shows_the_users_test_and_none_of_our_frames(self, project: pytest.Pytester) -> None:
        shown = text(project.runpytest("--tb=long"))
        assert "test_demo.py:11: " in shown
        for ours in ("assertions.py", "plugin.py", "_judge", "pytest_gradcam/report"):
            assert ours not in shown.replace(OVERLAY, "")

    @pytest.mark.parametrize("style", STYLES)
    def test_without_colours_the_map_is_plain_in_every_style(self, project: pytest.Pytester, style: str) -> None:
        shown = text(project.runpytest(f"--tb={style}", "--color=no"))
        assert FIRST_LINE in shown
        assert "\x1b" not in shown
        assert "▀" not in shown
        # pytest 8 shows the crash line alone where `--tb=line` is asked for.
        assert (RAMP in shown) == (style != "line" or pytest.version_tuple >= (9, 0))

    def test_where_no_traceback_is_wanted_there_is_no_map(self, project: pytest.Pytester) -> None:
        shown = text(project.runpytest("--tb=no"))
        assert RAMP not in shown
        assert "attention: 2 judged, 1 failed" in shown

    @pytest.mark.parametrize("arguments", [("-x",), ("--show-capture=no",), ("-q",), ("-vv",), ("-rA",)], ids=str)
    def test_other_ways_to_show_it_keep_it_whole(self, project: pytest.Pytester, arguments: tuple[str, ...]) -> None:
        shown = text(project.runpytest(*arguments))
        assert shown.count("E         energy     0.00 of the map's mass") == 1
        assert f"overlay {OVERLAY}" in shown

    @pytest.mark.parametrize("arguments", [("--tb=no",), ("--tb=no", "-vv")], ids=str)
    def test_in_ci_the_short_summary_has_the_first_line_whole_and_no_other(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
    ) -> None:
        monkeypatch.setenv("CI", "true")
        lines = text(project.runpytest(*arguments)).splitlines()
        at = lines.index(f"FAILED test_demo.py::test_reads_the_object[cup-017] - AttentionError: {FIRST_LINE}")
        assert lines[at + 1].startswith("=")

    def test_an_error_of_the_users_is_no_verdict(self, project: pytest.Pytester) -> None:
        project.makepyfile(
            test_demo="""
            def test_it(gradcam, model, image):
                gradcam.assert_attention_in_region(model, image, (300, 300, 400, 400), 0)
            """
        )
        done = project.runpytest()
        done.assert_outcomes(failed=1)
        done.stdout.fnmatch_lines(["E*RegionError: the box (300, 300, 400, 400) *"])
        assert "attention:" not in text(done)
        assert not Path("gradcam-report").exists()


class TestColour:
    @pytest.mark.parametrize("style", STYLES)
    def test_the_map_is_in_half_blocks_instead_of_the_plain_one(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, style: str
    ) -> None:
        monkeypatch.setenv("COLORTERM", "truecolor")
        shown = text(project.runpytest(f"--tb={style}", "--color=yes"))
        if style == "line" and pytest.version_tuple < (9, 0):
            assert FIRST_LINE in shown
            return
        rows = [line for line in shown.splitlines() if "▀" in line]
        assert len(rows) == 22
        assert {re.sub(r"\x1b\[[0-9;]*m", "", row).count("▀") for row in rows} == {44}
        assert "38;2;255;255;255" in shown
        assert RAMP not in shown
        assert "energy     0.00 of the map's mass" in shown

    def test_256_colours_are_used_where_the_terminal_claims_no_more(self, project: pytest.Pytester) -> None:
        shown = text(project.runpytest("--color=yes"))
        assert "38;5;231" in shown
        assert "38;2;" not in shown

    def test_each_of_two_failures_shows_its_own_map(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLORTERM", "truecolor")
        project.makepyfile(
            test_demo="""
            from conftest import BLUE, RED

            def test_red(gradcam, model, image):
                gradcam.assert_attention_in_region(model, image, BLUE, 0)

            def test_blue(gradcam, model, image):
                gradcam.assert_attention_in_region(model, image, RED, 1)
            """
        )
        shown = text(project.runpytest("--color=yes"))
        rows = [line for line in shown.splitlines() if "▀" in line]
        assert len(rows) == 44
        assert rows[:22] != rows[22:]

    def test_whoever_asks_for_the_text_gets_the_plain_one(self, project: pytest.Pytester) -> None:
        """Report writers read `longrepr` and `longreprtext`, at any time; this one asks when the run is over."""
        project.makepyfile(
            asks="""
            def pytest_terminal_summary(terminalreporter):
                [report] = terminalreporter.stats["failed"]
                for text in (report.longreprtext, str(report.longrepr)):
                    assert "@@@@@@@@" in text and "▀" not in text and "\\x1b[38" not in text
                assert report.longrepr.reprcrash.path.endswith("test_demo.py")
                assert report.longrepr.reprtraceback.reprentries
                assert isinstance(report.gradcam, list)
                terminalreporter.write_line("ASKED")
            """
        )
        project.syspathinsert()
        done = project.runpytest("--color=yes", "-p", "asks")
        assert "ASKED" in text(done)


class TestElsewhere:
    def test_junit_xml_has_the_first_line_as_message_the_whole_as_text_and_no_colour(
        self, project: pytest.Pytester
    ) -> None:
        project.runpytest("--color=yes", "--junitxml=report.xml")
        written = Path("report.xml").read_text(encoding="utf-8")
        assert "\x1b" not in written
        assert "#x1B" not in written
        assert "▀" not in written
        [failure] = ElementTree.fromstring(written).iter("failure")
        assert failure.get("message") == f"AttentionError: {FIRST_LINE}"
        assert RAMP in (failure.text or "")
        assert f"overlay {OVERLAY}" in (failure.text or "")

    def test_with_xdist_it_is_the_same(self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLORTERM", "truecolor")
        done = project.runpytest_subprocess("-n2", "--color=yes", "--junitxml=report.xml")
        shown = text(done)
        assert sum("▀" in line for line in shown.splitlines()) == 22
        assert RAMP not in shown
        assert "attention: 2 judged, 1 failed" in shown
        assert "needs 0.15    test_demo.py::test_reads_the_object[cup-017]" in shown
        assert "report: gradcam-report/index.html" in shown
        assert Path(OVERLAY).exists()
        written = Path("report.xml").read_text(encoding="utf-8")
        assert RAMP in written
        assert "#x1B" not in written

    def test_a_stream_that_knows_only_ascii_is_written_ascii(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        monkeypatch.setenv("PYTHONUTF8", "0")
        shown = text(project.runpytest_subprocess("--color=yes"))
        assert shown.isascii()
        assert "\\u2502" not in shown
        assert "|                  +-------------+           |" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert "attention: 2 judged, 1 failed" in shown


class TestOverlays:
    def test_the_overlay_of_a_failed_verdict_is_where_the_message_says(self, project: pytest.Pytester) -> None:
        project.runpytest()
        assert [path.as_posix() for path in Path("gradcam-report").rglob("*.png")] == [OVERLAY]
        drawn = cv2.imread(OVERLAY)
        assert drawn is not None
        assert drawn.shape == (384 + 16 + 26, 2 * 384 + 24, 3)

    def test_the_folder_is_relative_to_rootdir_and_spelt_as_seen_from_where_pytest_was_called(
        self, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.makeini("[pytest]\ngradcam_output_dir = build/attention\n")
        (project.path / "sub").mkdir()
        monkeypatch.chdir(project.path / "sub")
        shown = text(project.runpytest(".."))
        assert "overlay ../build/attention/test_demo.py/test_reads_the_object[cup-017].png" in shown
        assert "report: ../build/attention/index.html" in shown
        assert (project.path / "build/attention/test_demo.py/test_reads_the_object[cup-017].png").exists()

    def test_what_an_earlier_run_drew_of_a_test_is_gone_when_it_passes(self, project: pytest.Pytester) -> None:
        project.runpytest()
        assert Path("gradcam-report/.gitignore").read_text() == "*\n"
        other = Path("gradcam-report/test_demo.py/mine.png")
        other.write_bytes(b"")
        project.makepyfile(
            test_demo="""
            import pytest
            from conftest import RED

            @pytest.mark.parametrize("name", ["cup-017"])
            def test_reads_the_object(gradcam, model, image, name):
                gradcam.assert_attention_in_region(model, image, RED, 0)
            """
        )
        project.runpytest().assert_outcomes(passed=1)
        assert list(Path("gradcam-report").rglob("*.png")) == [other]

    def test_a_picture_of_the_users_in_the_output_folder_survives(self, project: pytest.Pytester) -> None:
        """The test only asks for the fixture, and its id names a file that the user has."""
        mine = Path("pictures/test_demo.py/test_it.png")
        mine.parent.mkdir(parents=True)
        mine.write_bytes(b"the user's")
        project.makepyfile(test_demo="def test_it(gradcam): pass")
        project.runpytest("--gradcam-output-dir=pictures").assert_outcomes(passed=1)
        assert mine.read_bytes() == b"the user's"
        assert [path for path in Path("pictures").rglob("*") if path.is_file()] == [mine]

    def test_several_failed_verdicts_of_one_test_have_an_overlay_each(self, project: pytest.Pytester) -> None:
        project.makepyfile(
            test_demo="""
            import pytest
            from conftest import BLUE, RED
            from pytest_gradcam import AttentionError

            def test_them(gradcam, model, image):
                with pytest.raises(AttentionError):
                    gradcam.assert_attention_in_region(model, image, RED, 1)
                gradcam.assert_attention_in_region(model, image, BLUE, 0)
            """
        )
        shown = text(project.runpytest())
        assert "overlay gradcam-report/test_demo.py/test_them-2.png" in shown
        assert sorted(path.name for path in Path("gradcam-report").rglob("*.png")) == [
            "test_them-2.png",
            "test_them.png",
        ]

    def test_a_folder_that_cannot_be_written_does_not_hide_the_verdict(self, project: pytest.Pytester) -> None:
        Path("gradcam-report").write_text("a file where the folder should be")
        done = project.runpytest()
        done.assert_outcomes(passed=1, failed=1)
        done.stdout.fnmatch_lines([f"E  *AttentionError: {FIRST_LINE}", "E  *overlay not written: *"])
        assert "OSError" not in text(done)
        assert "overlays:" not in text(done)
