"""The baselines of a run, told by pytest's hooks: which tests there are, which ran, which baselines they used.

A run asks little of a project without baselines: where no `__gradcam__` folder lies beside a test's file, nothing but
that is looked up. What is done with all this lives in `pytest_gradcam.baselines`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_gradcam.plugin.spelling import draws, spelt

if TYPE_CHECKING:
    from pytest_gradcam.baselines.orphans import Orphan

FOLDER = "__gradcam__"
_OUTPUT = "gradcam_baselines"  # of an xdist worker: which modules it has collected whole
_EMPTY = re.compile(r"[\[-]NOTSET\d*[\]-]")  # pytest's name of the one test of an empty parameter set


class BaselineHooks:
    """What one process sees of the baselines; with xdist the controller gathers what the workers have seen."""

    def __init__(self, config: pytest.Config, update: str | None, orphans: str, received: Path) -> None:
        self._config = config
        self._update = update
        self._orphans = orphans
        self._received = received
        self._events: list[dict[str, Any]] = []
        self._collected: list[pytest.Item] = []
        self._shared: set[tuple[str, str]] = set()  # file and name of tests that are there twice
        self._whole: dict[str, set[str]] = {}  # folder of a module that was collected whole → its tests
        self._partial: set[str] = set()
        self._is_unknown = False  # whether it cannot be told which modules were collected whole
        self._ran: set[tuple[str, str]] = set()
        self._unused: list[Orphan] = []

    def is_shared(self, item: pytest.Item) -> bool:
        """Whether another test of the same file has the same name: parameters may spell alike, and are not."""
        return (str(item.path), name_of(item)) in self._shared

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self._collected.append(item)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:  # its tests are not known, nor always where they stand
            self._is_unknown = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What was taken away since it was collected, by -k, -m, --deselect or a shard, was not collected whole."""
        left = set(session.items)
        for item in self._collected:
            folder = folder_of(item)
            if folder is None:
                continue
            # A parameter set that is empty here, such as the pictures of a data set, may not be elsewhere.
            if item not in left or _EMPTY.search(item.name):
                self._partial.add(folder)
            self._whole.setdefault(folder, set()).add(name_of(item))
        self._collected.clear()
        seen: set[tuple[str, str]] = set()
        for item in left:
            if "gradcam" in getattr(item, "fixturenames", ()):
                place = str(item.path), name_of(item)
                (self._shared if place in seen else seen).add(place)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._events += getattr(report, "gradcam_baselines", [])
        ran = getattr(report, "gradcam_test", None)
        if ran is not None and report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self._ran.add((ran[0], ran[1]))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """An xdist worker has ended; one that crashed tells nothing, and the others have collected the same."""
        told = getattr(node, "workeroutput", {}).get(_OUTPUT, {})
        for folder, tests in told.get("whole", {}).items():
            self._whole.setdefault(folder, set()).update(tests)
        self._partial |= set(told.get("partial", []))
        self._is_unknown |= bool(told.get("unknown"))

    # Last, so that xdist has heard of all its workers; before the summary, which terminalreporter writes around this.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._leave_out_what_was_asked_for_alone()
        if hasattr(self._config, "workeroutput"):
            told = {"whole": {folder: sorted(tests) for folder, tests in self._whole.items()}}
            self._config.workeroutput[_OUTPUT] = {
                **told,
                "partial": sorted(self._partial),
                "unknown": self._is_unknown,
            }
            return
        if self._config.getoption("collectonly", False):
            return
        whole = {} if self._is_unknown else self._whole
        folders = {folder: tests for folder, tests in whole.items() if folder not in self._partial}
        written = {str(Path(event["path"]).parent) for event in self._events}
        if not (folders or written):
            return
        from pytest_gradcam.baselines.orphans import find, tidy

        tidy({*folders, *written, *self._partial})
        used = {event["path"] for event in self._events}
        self._unused = find(folders, self._ran, used)
        if self._update == "prune":
            from pytest_gradcam.baselines.orphans import prune

            self._unused = prune(self._unused)
        left = any(not orphan.removed for orphan in self._unused)
        if self._orphans == "fail" and left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if hasattr(self._config, "workerinput") or not (self._events or self._unused):
            return
        from pytest_gradcam.baselines.summary import summary
        from pytest_gradcam.report.lines import in_ascii

        title, lines = summary(
            self._events,
            [(_shown(Path(orphan.path), self._config), orphan.why, orphan.removed) for orphan in self._unused],
            update=self._update,
            orphans=self._orphans,
            in_ci=bool(os.environ.get("CI")),
            received=spelt(self._received, self._config.invocation_params.dir),
            review=self._review(),
        )
        if lines:
            terminalreporter.write_sep("=", title, bold=True)
            written = str if draws(terminalreporter.config.get_terminal_writer()) else in_ascii
            for line in lines:
                terminalreporter.write_line(written(line))
        elif self._config.get_verbosity() > 0:
            terminalreporter.write_line(title)

    def _review(self) -> str:
        """The command that shows what waits, from the folder in which pytest was started."""
        start, report = self._config.invocation_params.dir, self._received.parent
        words = ["gradcam review"]
        if report != start / "gradcam-report":
            words += ["--report", spelt(report, start)]
        if self._config.rootpath != start:
            words += ["--rootdir", spelt(self._config.rootpath, start)]
        return " ".join(words)

    def _leave_out_what_was_asked_for_alone(self) -> None:
        """Modules of which only some tests were asked for: by node id, because they failed, by rules of this run."""
        config = self._config
        overridden = [str(each) for each in config.getoption("override_ini", None) or ()]
        if any(config.getoption(name, False) for name in ("lf", "stepwise")) or any(
            each.startswith("python_") for each in overridden
        ):
            self._is_unknown = True
        for argument in config.args:
            path, separator, _ = str(argument).partition("::")
            if not separator:
                continue
            folder = _folder(Path(os.path.abspath(config.invocation_params.dir / path)))
            self._partial.add(folder)
            # Named otherwise than it is called, as by --pyargs or through a link: then any module may be meant.
            self._is_unknown |= folder not in self._whole


def folder_of(item: pytest.Item) -> str | None:
    """The folder of the baselines of a test's module; None where its file has no `__gradcam__` beside it."""
    path = item.path
    return _folder(path) if os.path.isdir(path.parent / FOLDER) else None


def _folder(path: Path) -> str:
    from pytest_gradcam.baselines.names import folder_of as named

    return str(path.parent / FOLDER / named(path.name))


def names_of(item: pytest.Item) -> list[str]:
    """Classes, function and parameters of a test: what stands below its file."""
    chain = item.listchain()
    files = [place for place, node in enumerate(chain) if isinstance(node, pytest.File)]
    return [node.name for node in chain[files[-1] + 1 if files else -1 :]]


def name_of(item: pytest.Item) -> str:
    """The same after dots, as files of baselines are named."""
    return ".".join(names_of(item))


def _shown(path: Path, config: pytest.Config) -> str:
    try:
        return path.relative_to(config.rootpath).as_posix()
    except ValueError:
        return path.as_posix()
