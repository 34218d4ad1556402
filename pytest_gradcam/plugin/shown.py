"""What a person sees in the terminal: maps in colour where a test failed, and a section on verdicts at the end."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gradcam.plugin.spelling import draws

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter  # public only as the type of what pytest hands over


def records_of(report: pytest.TestReport) -> list[dict[str, Any]]:
    """The verdicts that a report carries, each with `failed`; none of a try that is run again."""
    if str(report.outcome) == "rerun":  # pytest-rerunfailures: what counts is the last try
        return []
    # A verdict that failed in a test that did not was expected: `pytest.raises`, or `xfail`.
    records: list[dict[str, Any]] = getattr(report, "gradcam", [])
    return [{**record, "failed": report.failed and not record["passed"]} for record in records]


class Shown:
    """What a person sees of the verdicts: maps in colour where a test failed, and a section at the end of the run."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []

    # Last, so that whoever writes a report file, JUnit XML among them, has had pytest's own text.
    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if str(report.outcome) == "rerun":  # what was told of this try does not count
            self._records = [record for record in self._records if record["nodeid"] != report.nodeid]
        records = records_of(report)
        self._records += records
        maps = [(drawn["plain"], drawn["colour"]) for record in records for drawn in record["maps"]]
        if maps and hasattr(report.longrepr, "toterminal"):
            report.longrepr = Coloured(report.longrepr, maps)  # type: ignore[assignment]  # delegates all

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if not self._records:
            return
        from pytest_gradcam.report.lines import in_ascii
        from pytest_gradcam.report.summary import summary

        reports = config.pluginmanager.get_plugin("gradcam-reports")
        title, lines = summary(self._records, None if reports is None else reports.where)
        spelt = str if draws(config.get_terminal_writer()) else in_ascii
        if lines:
            terminalreporter.write_sep("=", title, bold=True)
            for line in lines:
                terminalreporter.write_line(spelt(line))
        elif config.get_verbosity() > 0:
            terminalreporter.write_line(title)


class Coloured:
    """The text of a failure, that shows its maps in colour where the terminal has colours; all else is the original's.

    Whoever asks for the text, for the crash or for the traceback, gets what pytest made.
    """

    def __init__(self, original: Any, maps: Sequence[tuple[list[str], list[str]]]) -> None:
        self._original = original
        self._maps = maps

    def toterminal(self, tw: TerminalWriter) -> None:
        from pytest_gradcam.report.lines import in_ascii, recolour

        written = StringIO()
        writer = type(tw)(written)
        writer.hasmarkup, writer.code_highlight, writer.fullwidth = tw.hasmarkup, tw.code_highlight, tw.fullwidth
        self._original.toterminal(writer)
        text = written.getvalue()
        if not draws(tw):
            text = in_ascii(text)
        elif tw.hasmarkup:
            for plain, coloured in self._maps:
                text = recolour(text, plain, coloured)
        for line in text.removesuffix("\n").split("\n"):
            tw.line(line)

    def __str__(self) -> str:
        return str(self._original)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while a copy is being made, before there is an original
            raise AttributeError(name)
        return getattr(self._original, name)
