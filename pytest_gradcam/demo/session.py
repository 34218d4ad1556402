"""`gradcam demo`: a real pytest session over `test_demo.py`, told as a story, and the exit code that it earned.

The session is the user's own pytest, but nothing of the user's configuration reaches it: its own ini file and
rootdir, no cache, no `PYTEST_ADDOPTS`, no other plugins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pytest_gradcam.report.names import artifact_name
from pytest_gradcam.verdicts import AttentionError

FOLDER = Path(__file__).parent
TEST_FILE = FOLDER / "test_demo.py"
MODELS = ("honest", "shortcut")
USERS_OWN = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")

INTRODUCTION = """\
Two models, the same architecture, four classes: astronaut, cat, cup, shuttle.

  honest    was trained where the object names the class
  shortcut  was trained where a stamp in the corner gave the class away

Two tests for each: the accuracy test that everybody has, and an attention test.
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one test of the demo ended.

    Attributes:
        nodeid: pytest's name of the test.
        test: name of the test function.
        model: name of the model that it was run for.
        outcome: `passed`, `caught` (an AttentionError with a verdict), or `broken` (anything else).
        detail: what broke it, in one line.
        accuracy: what the accuracy test measured.
        overlay: whether this run wrote the overlay of the test.
    """

    nodeid: str
    test: str
    model: str
    outcome: Literal["passed", "caught", "broken"]
    detail: str = ""
    accuracy: float | None = None
    overlay: bool = False


def run(output_dir: Path) -> int:
    """Run the demo and tell its story; 0 exactly when everything happened that the story claims.

    Args:
        output_dir: folder of the overlays, relative to the current one; where it cannot be written, a temporary one.
    """
    print(INTRODUCTION, flush=True)
    folder = writable(output_dir)
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="gradcam-report-"))
        print(f"{output_dir} cannot be written: the overlays go to {folder}\n", flush=True)
    watcher = Watcher(folder)
    arguments = [
        f"--rootdir={FOLDER}",
        f"-c{FOLDER / 'pytest.ini'}",
        f"--confcutdir={FOLDER}",
        f"--gradcam-output-dir={folder}",
        "--import-mode=importlib",
        "-pno:cacheprovider",
        "-ppytest_gradcam.plugin",
        "--no-header",
        "--tb=short",
        "-v",
        "-rN",
        str(TEST_FILE),
    ]
    with own_environment():
        status = pytest.main(arguments, plugins=[watcher])
    endings = watcher.endings()
    unexpected = differences(endings, status)
    print("\n" + "\n".join(story(endings, unexpected, folder)), flush=True)
    return 1 if unexpected else 0


def differences(endings: Sequence[Ending], status: int) -> list[str]:
    """What happened otherwise than the demo claims, one line each; empty where all of it happened.

    Args:
        endings: how the tests ended.
        status: exit status of the pytest session.
    """
    found = []
    if status != pytest.ExitCode.TESTS_FAILED:
        found.append(f"pytest ended with exit status {int(status)}, and not with 1 (tests ran, and some failed)")
    for model in MODELS:
        for test in ("test_accuracy", "test_reads_the_object"):
            wanted = "caught" if (test, model) == ("test_reads_the_object", "shortcut") else "passed"
            of_these = [ending for ending in endings if (ending.test, ending.model) == (test, model)]
            if not of_these:
                found.append(f"{test} did not run for the model {model}")
            for ending in of_these:
                if ending.outcome != wanted:
                    found.append(f"{ending.nodeid} was to be {wanted}: {ending.detail or ending.outcome}")
                elif wanted == "caught" and not ending.overlay:
                    found.append(f"{ending.nodeid} was caught, but there is no overlay of it")
    return found


def story(endings: Sequence[Ending], unexpected: Sequence[str], folder: Path) -> list[str]:
    """The last lines of the demo: what was seen, where to look, what to do next."""
    lines = ["             accuracy   attention in the object's box"]
    for model in MODELS:
        accuracy = [ending.accuracy for ending in endings if ending.model == model and ending.accuracy is not None]
        judged = [ending for ending in endings if (ending.test, ending.model) == ("test_reads_the_object", model)]
        passed = sum(ending.outcome == "passed" for ending in judged)
        share = f"{accuracy[0]:8.1%}" if accuracy else "     n/a"
        lines.append(f"  {model:8}   {share}   {passed} of {len(judged)} pictures pass")
    if unexpected:
        return [*lines, "", "This is not what the demo should show:", *(f"  - {line}" for line in unexpected)]
    overlays = folder / TEST_FILE.name
    return [
        *lines,
        "",
        "Accuracy cannot tell the two apart. The attention test can: shortcut reads the stamp, not the object.",
        "",
        f"  look   {overlays}{os.sep}  ({sum(ending.overlay for ending in endings)} overlays)",
        f"  copy   {TEST_FILE}",
        "  next   in a test of your own: gradcam.assert_attention_in_region(model, picture, box, cls)",
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Watcher:
    """A pytest plugin that notes how every test ended, and shows one caught failure in full where all are alike.

    Attributes:
        folder: where the overlays are written.
        reports: by node id, the report of each phase with the error that ended it.
        models: by node id, the name of the model.
        before: by node id, when the overlay was written that an earlier run may have left.
    """

    folder: Path
    reports: dict[str, list[tuple[pytest.TestReport, BaseException | None]]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    before: dict[str, int | None] = field(default_factory=dict)

    def pytest_configure(self, config: pytest.Config) -> None:
        # pytest would print the way from the user's folder to site-packages before the name of each test.
        config.cwd_relative_nodeid = lambda nodeid: nodeid  # type: ignore[method-assign]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "setup":
            self.models[item.nodeid] = str(item.callspec.params["model"])
            self.before[item.nodeid] = written_at(self._overlay(item.nodeid))
        error = None if call.excinfo is None else call.excinfo.value
        self.reports.setdefault(item.nodeid, []).append((report, error))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not differences(self.endings(), exitstatus):
            session.config.option.tbstyle = "no"  # pytest would print every failure in full, and they are all alike

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if config.option.tbstyle != "no":
            return
        failures = [report for phases in self.reports.values() for report, _ in phases if report.failed]
        terminalreporter.write_sep("=", f"one of the {len(failures)} failures in full")
        terminalreporter.write_sep("_", failures[0].head_line or failures[0].nodeid, red=True, bold=True)
        failures[0].toterminal(config.get_terminal_writer())

    def endings(self) -> list[Ending]:
        """How every test ended that has run so far, in the order in which they ran."""
        return [self._ending(nodeid) for nodeid in self.reports]

    def _ending(self, nodeid: str) -> Ending:
        reports = self.reports[nodeid]
        unfinished = [(report, error) for report, error in reports if not report.passed]
        outcome: Literal["passed", "caught", "broken"] = "passed"
        detail = ""
        if unfinished:
            report, error = unfinished[0]
            judged = isinstance(error, AttentionError) and error.verdict is not None
            outcome = "caught" if judged and len(unfinished) == 1 and report.when == "call" else "broken"
            message = str(error).strip() or "no message"
            detail = f"{report.outcome} in its {report.when} phase, {type(error).__name__}: {message.splitlines()[0]}"
        accuracy = dict(reports[-1][0].user_properties).get("accuracy")
        written = written_at(self._overlay(nodeid))
        return Ending(
            nodeid=nodeid,
            test=nodeid.partition("::")[2].partition("[")[0],
            model=self.models[nodeid],
            outcome=outcome,
            detail=detail,
            accuracy=accuracy if isinstance(accuracy, float) else None,
            overlay=written is not None and written != self.before[nodeid],
        )

    def _overlay(self, nodeid: str) -> Path:
        return self.folder / f"{artifact_name(nodeid)}.png"


def written_at(path: Path) -> int | None:
    """When the file was last written, in nanoseconds; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def writable(folder: Path) -> Path | None:
    """The folder as an absolute path, made where it was missing; None where no file can be written in it."""
    try:
        absolute = folder.resolve()
        absolute.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=absolute):
            return absolute
    except OSError:
        return None


@contextmanager
def own_environment() -> Iterator[None]:
    """The process's environment without what the user has set up for pytest; put back afterwards.

    One thread for torch, unless the user has said otherwise: for models this small, threads only wait for each other.
    """
    before = dict(os.environ)
    for name in USERS_OWN:
        os.environ.pop(name, None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
