"""Where verdicts are told beside the terminal: the report page, JUnit XML, pytest-html, Allure, and GitHub's summary.

What each looks like lives in `pytest_gradcam.report`; here it is decided when each is written, and by whom.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

from pytest_gradcam.plugin.shown import records_of
from pytest_gradcam.plugin.spelling import spelt

if TYPE_CHECKING:
    from pytest_gradcam.verdicts import Verdict

Keep: TypeAlias = Literal["all", "failed", "none"]
# Verdicts of one process that passed, and whose pictures are kept: more, and the page shows a sample.
MOST_PICTURES = 500


class ReportHooks:
    """Gathers the verdicts of a run and writes what is told of them; of an xdist run, in the controller alone."""

    def __init__(self, config: pytest.Config, keep: Keep, folder: Path) -> None:
        self._config = config
        self._keep = keep
        self._folder = folder
        self._records: list[dict[str, Any]] = []
        self._started = time.time()
        self._page: Path | None = None
        self._problem = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if str(report.outcome) == "rerun":  # what was told of this try does not count
            self._records = [record for record in self._records if record["nodeid"] != report.nodeid]
        received = {event["id"]: event.get("received") for event in getattr(report, "gradcam_baselines", [])}
        for record in records_of(report):
            waiting = received.get(record["baseline"])
            self._records.append({**record, "received": None if waiting is None else self._spelt(Path(waiting))})

    # Before terminalreporter's summary, which is written around this.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if not self._records:
            return
        self._records.sort(key=lambda record: record["nodeid"])  # whatever the workers' order was; stable in a test
        # A full disk must not hide what the models did, nor one file that cannot be written the other.
        if self._keep != "none":
            try:
                self._write_page()
            except (OSError, ValueError) as error:  # ValueError: a name that the file system's encoding cannot say
                self._problem = f"not written: {getattr(error, 'strerror', None) or error}"
        with suppress(OSError, ValueError):
            self._write_step_summary()

    @property
    def where(self) -> str | None:
        """Where the page is, or why it is not, for a person; None where none was wanted."""
        return self._problem or (None if self._page is None else self._spelt(self._page))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._problem and not any(record["failed"] for record in self._records):  # else the section says it
            terminalreporter.write_line(f"attention: report {self._problem}")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from pytest_gradcam.report.github import annotations

            for line in annotations([{**record, "file": self._in_repository(record)} for record in self._records]):
                terminalreporter.write_line(line)

    def _write_page(self) -> None:
        from pytest_gradcam.report.page.page import write_page

        title = self._config.rootpath.name
        self._page = write_page(self._folder, self._records, title=title, about=self._about(), keep=self._keep)

    def _write_step_summary(self) -> None:
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if not path:
            return
        from pytest_gradcam.report.markdown import step_summary

        with open(path, "a", encoding="utf-8") as file:
            file.write(step_summary(self._records, title="Attention"))

    def _about(self) -> dict[str, Any]:
        import platform
        from importlib.metadata import PackageNotFoundError, version

        versions = {"python": platform.python_version(), "pytest": pytest.__version__}
        for package in ("pytest-gradcam", "torch", "timm"):
            with suppress(PackageNotFoundError):
                versions[package] = version(package)
        return {
            "versions": versions,
            "platform": platform.platform(terse=True),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "seconds": round(time.time() - self._started, 3),
        }

    def _in_repository(self, record: Mapping[str, Any]) -> str:
        """A test's file as GitHub names it: from the root of the checkout, which need not be pytest's rootdir."""
        file = self._config.rootpath / record["file"]
        root = os.environ.get("GITHUB_WORKSPACE")
        return spelt(file, Path(root)) if root else str(record["file"])

    def _spelt(self, path: Path) -> str:
        return spelt(path, self._config.invocation_params.dir)


def about_test(item: pytest.Item) -> dict[str, Any]:
    """What a verdict's record says of its test: where it stands, and its markers."""
    file, line, _ = item.location
    markers = dict.fromkeys(mark.name for mark in item.iter_markers() if mark.name not in ("parametrize", "gradcam"))
    return {"file": file.replace(os.sep, "/"), "line": None if line is None else line + 1, "markers": [*markers]}


def pictures_for(keep: Keep, verdict: Verdict, already: int) -> dict[str, str]:
    """The pictures of a verdict that the page shows; none where it is left out.

    Args:
        keep: which verdicts have pictures: `all`, `failed` or `none`.
        verdict: the verdict.
        already: how many verdicts of this process that passed have pictures.
    """
    if keep == "none" or (verdict.passed and (keep == "failed" or already >= MOST_PICTURES)):
        return {}
    from pytest_gradcam.report.page.pictures import pictures_of

    return pictures_of(verdict)


def tell_others(item: pytest.Item, records: list[dict[str, Any]]) -> None:
    """JUnit XML, through the test's properties: all reports of the test carry them."""
    from pytest_gradcam.report.junit import properties

    already = sum(name.startswith("gradcam_assertion") for name, _ in item.user_properties)
    for number, record in enumerate(records, start=already + 1):
        item.user_properties += properties(record, number)


def forget_earlier_tries(item: pytest.Item) -> None:
    """Remove what an earlier try of a test that runs again has told."""
    item.user_properties[:] = [each for each in item.user_properties if not each[0].startswith("gradcam_")]


def add_extras(config: pytest.Config, report: pytest.TestReport, records: list[dict[str, Any]]) -> None:
    """Overlays as extras of pytest-html, where it is installed and writes a report."""
    if not (config.pluginmanager.hasplugin("html") and config.getoption("htmlpath", None)):
        return
    extras: list[dict[str, Any]] = [*getattr(report, "extras", [])]
    for record in records:
        for name in ("overlay", "before", "now", "difference"):
            uri = record.get("pictures", {}).get(name)
            if uri:
                kind, _, data = uri.removeprefix("data:").partition(";base64,")
                extras.append(_extra(name, kind, data))
    report.extras = extras  # type: ignore[attr-defined]  # read by pytest-html


def _extra(name: str, kind: str, data: str) -> dict[str, Any]:
    """As `pytest_html.extras.image` makes it."""
    return {
        "name": name,
        "format_type": "image",
        "content": data,
        "mime_type": kind,
        "extension": kind.rpartition("/")[2],
    }


def attach_to_allure(config: pytest.Config, verdict: Verdict, record: Mapping[str, Any]) -> None:
    """The overlay of a verdict as an attachment of the running test, where Allure is installed and writes results."""
    allure = sys.modules.get("allure")
    if allure is None or not config.getoption("allure_report_dir", None) or verdict.sight is None:
        return
    from pytest_gradcam.report.overlay import png_of

    allure.attach(png_of(verdict), name=record["message"], attachment_type=allure.attachment_type.PNG)
