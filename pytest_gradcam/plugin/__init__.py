"""pytest only: options, ini, marker, fixture, hooks. Every decision lives elsewhere.

At import it loads nothing that pytest has not loaded, and a project that does not use the fixture pays for no more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_gradcam.plugin.baselines import BaselineHooks, folder_of, name_of, names_of
from pytest_gradcam.plugin.reports import (
    Keep,
    ReportHooks,
    about_test,
    add_extras,
    attach_to_allure,
    forget_earlier_tries,
    pictures_for,
    tell_others,
)
from pytest_gradcam.plugin.shown import Shown
from pytest_gradcam.plugin.spelling import spelt

if TYPE_CHECKING:
    from pytest_gradcam.assertions import Gradcam
    from pytest_gradcam.assertions.sharing import Shared
    from pytest_gradcam.baselines.shelf import Shelf
    from pytest_gradcam.settings import Settings
    from pytest_gradcam.verdicts import Verdict

_MARKER = (
    "gradcam(method, engine, device, layer, metric, threshold, outside_threshold, judge_by, pass_rate, confidence, "
    "inconclusive, floor, previews, output_dir, labels, transform, forward, cache): "
    "settings of the `gradcam` fixture for this test or class, by keyword only; the nearest mark wins, name by name."
)


@dataclass(frozen=True, slots=True)
class _Run:
    """What passes between the hooks of one run: what was configured, and what is on no report yet, by node id."""

    ini: Mapping[str, Any]
    options: Mapping[str, Any]
    update: str | None
    report: Keep  # which verdicts have pictures in the report page
    made: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # records of verdicts
    pictured: list[str] = field(default_factory=list)  # node ids of verdicts that passed and have pictures
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # what happened to baselines
    taken: dict[str, Any] = field(default_factory=dict)  # whose each baseline's file is, of all tests
    shared: list[Shared] = field(default_factory=list)  # the work that tests share: one, once a test asks for it


_RUN = pytest.StashKey[_Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    from pytest_gradcam.settings import (
        DEVICES,
        ENGINES,
        FLOORS,
        INCONCLUSIVE,
        METHODS,
        METRICS,
        ORPHANS,
        REPORTS,
        RULES,
        UPDATES,
    )

    # TOML's numbers are numbers; as text a wrong one reaches our own message. Older versions take text only.
    numbers = str | float if pytest.version_tuple >= (9, 2) else "string"
    group = parser.getgroup("gradcam", "attention assertions for image models (pytest-gradcam)")

    def add(name: str, metavar: str, text: str, ini_type: Any = "string") -> None:
        group.addoption(f"--gradcam-{name}", metavar=metavar, help=text)
        parser.addini(f"gradcam_{name.replace('-', '_')}", text, type=ini_type, default=None)

    add("method", "NAME", f"CAM method: {', '.join(METHODS)}.")
    add("engine", "NAME", f"How activations and gradients are obtained: {', '.join(ENGINES)}.")
    add("device", "NAME", f"Where maps are computed: {', '.join(DEVICES)}.")
    add("layer", "NAME", "Dotted name of the target layer. Default: found and checked.")
    add("metric", "NAME", f"What is measured and judged: {', '.join(METRICS)}.")
    add("threshold", "NUMBER", "Least value that attention inside a region needs. Default: the metric's own.", numbers)
    add("outside-threshold", "NUMBER", "Most that attention outside a region may have. Default: the metric's.", numbers)
    add("judge-by", "NAME", f"How several images are judged together: {', '.join(RULES)}.")
    add("pass-rate", "NUMBER", "Share of several images that must pass, where their rate is judged: 0.8.", numbers)
    add("confidence", "NUMBER", "Confidence of each bound of the interval of several images: 0.95.", numbers)
    add("inconclusive", "NAME", f"What becomes of several images that cannot tell: {', '.join(INCONCLUSIVE)}.")
    add("floor", "NAME", f"How close a map must be to its baseline: {', '.join(FLOORS)}.")
    add("previews", "BOOL", "Whether a picture lies beside each baseline: false.", "bool")
    add("cache", "BOOL", "Whether tests of a session share the work on one model and image: true.", "bool")
    add("output-dir", "DIR", "Folder of the overlays of failed verdicts, relative to rootdir: gradcam-report.")
    group.addoption(
        "--gradcam-update",
        metavar="WHICH",
        help=f"Baselines to write: {', '.join(UPDATES)}. `new` writes those that are missing, `all` also those that "
        "changed, `prune` removes those that no test uses.",
    )
    add("report", "WHICH", f"Verdicts whose pictures are in the report page: {', '.join(REPORTS)}.")
    parser.addini(
        "gradcam_orphans", f"What becomes of baselines that no test uses: {', '.join(ORPHANS)}.", default=None
    )
    parser.addini("gradcam_labels", "The model's class names, one a line, in class order.", "linelist", default=None)


def pytest_configure(config: pytest.Config) -> None:
    from pytest_gradcam.settings import CALLABLES, NAMES, ORPHANS, REPORTS, UPDATES

    config.addinivalue_line("markers", _MARKER)
    _refuse_unknown_keys(config)
    update = _choice("option", "update", config.getoption("gradcam_update", None), UPDATES)
    orphans = _choice("ini", "orphans", _ini_value(config, "orphans") or None, ORPHANS) or ORPHANS[0]
    asked = config.getoption("gradcam_report", None)
    source, value = ("ini", _ini_value(config, "report") or None) if asked is None else ("option", asked)
    keep = cast("Keep", _choice(source, "report", value, REPORTS) or REPORTS[0])
    ini = {name: _ini_value(config, name) for name in NAMES if name not in CALLABLES}
    options = {name: config.getoption(f"gradcam_{name}", None) for name in NAMES}
    config.stash[_RUN] = _Run(
        ini={name: value for name, value in ini.items() if value not in (None, "", [])},
        options={name: value for name, value in options.items() if value is not None},
        update=update,
        report=keep,
    )
    settings = _settings(config, {})  # a wrong value ends the run here, before anything is collected
    received = config.rootpath / settings.output_dir / "received"
    config.pluginmanager.register(BaselineHooks(config, update, orphans, received), "gradcam-baselines")
    if not hasattr(config, "workerinput"):  # xdist workers show nothing: their reports are shown by the controller
        config.pluginmanager.register(Shown(), "gradcam-shown")
        folder = config.rootpath / settings.output_dir
        config.pluginmanager.register(ReportHooks(config, keep, folder), "gradcam-reports")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gradcam") is None:
            continue
        try:
            _settings_of(item)
        except pytest.UsageError as error:
            if not hasattr(config, "workerinput"):
                raise
            # Raised in an xdist worker it would be lost, and the run end in an internal error: report it, run nothing.
            report = pytest.CollectReport(item.nodeid, "failed", longrepr=str(error), result=[])
            config.hook.pytest_collectreport(report=report)
            items.clear()
            return


@pytest.fixture
def gradcam(request: pytest.FixtureRequest) -> Generator[Gradcam]:
    """Where a model looks, judged: attention assertions with the settings of this test.

    `gradcam.assert_attention_in_region(model, image, bbox, cls)` fails unless the evidence for the class lies in the
    box, `gradcam.assert_attention_outside_region(…)` fails if it does; lists of images, boxes and classes are judged
    together. There is a method for each assertion, and `gradcam.explain(…)` returns the map alone.
    """
    from pytest_gradcam.assertions import Gradcam
    from pytest_gradcam.errors import SettingsError
    from pytest_gradcam.report.records import recorder

    config, nodeid = request.config, request.node.nodeid
    settings = _settings_of(request.node)
    run, about = config.stash[_RUN], about_test(request.node)

    over: list[bool] = []

    def keep(values: dict[str, Any], verdict: Verdict) -> None:
        if over:
            raise SettingsError(
                f"{nodeid} has ended, and its `gradcam` fixture is asked for a verdict, which no report would show: do "
                "not keep the fixture, ask for it in each test"
            )
        values |= {**about, "pictures": pictures_for(run.report, verdict, len(run.pictured))}
        if values["pictures"] and verdict.passed:
            run.pictured.append(nodeid)
        run.made.setdefault(nodeid, []).append(values)
        attach_to_allure(config, verdict, values)

    record = recorder(
        nodeid,
        config.rootpath / settings.output_dir,
        keep=keep,
        shown=lambda path: spelt(path, config.invocation_params.dir),
    )
    shelf = _shelf(request.node, settings, is_over=lambda: bool(over))
    yield Gradcam(settings, record=record, shelf=shelf, cache=_shared(run, settings))
    over.append(True)


@pytest.fixture(scope="module")
def gradcam_prefetch(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Maps computed ahead, in batches, for the tests of a module: `gradcam_prefetch(model, images, classes)`.

    For a fixture of module scope, with the settings of the module. Tests that then ask `gradcam` for one of these
    images, of the same model and class, find its map.
    """
    from pytest_gradcam.assertions import Gradcam

    settings = _settings_of(request.node)
    return Gradcam(settings, cache=_shared(request.config.stash[_RUN], settings)).prefetch


def _shared(run: _Run, settings: Settings) -> Shared | None:
    """What the tests of this run share, if this one does."""
    from pytest_gradcam.assertions.sharing import Shared

    if not settings.cache:
        return None
    if not run.shared:
        run.shared.append(Shared())
    return run.shared[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    _hide_our_frames(call)
    run = item.config.stash[_RUN]
    records, told = run.made.pop(item.nodeid, None), run.told.pop(item.nodeid, None)
    if call.when == "setup":
        forget_earlier_tries(item)
    if records:
        tell_others(item, records)  # before the report is made, which copies the test's properties
    report = yield
    if told:
        report.gradcam_baselines = told  # type: ignore[attr-defined]  # as below
    if call.when == "call" and (folder := folder_of(item)) is not None:
        report.gradcam_test = [folder, name_of(item)]  # type: ignore[attr-defined]  # as below
    if records:
        # Plain JSON values, so that xdist carries them as they are; reports may hold attributes that types do not name.
        report.gradcam = records  # type: ignore[attr-defined]
        add_extras(item.config, report, records)
        _shorten(report, call)
    return report


def _shelf(item: pytest.Item, settings: Settings, is_over: Callable[[], bool]) -> Shelf:
    """The baselines of one run of a test."""
    from pytest_gradcam.baselines.shelf import RECEIVED, Shelf

    config = item.config
    run, hooks = config.stash[_RUN], config.pluginmanager.get_plugin("gradcam-baselines")
    try:
        file = item.path.relative_to(config.rootpath).as_posix()
    except ValueError:
        file = item.path.as_posix()
    return Shelf(
        beside=item.path.parent,
        module=item.path.name,
        test=name_of(item),
        id="::".join([file, *names_of(item)]),
        root=config.rootpath,
        received=config.rootpath / settings.output_dir / RECEIVED,
        update=run.update,
        previews=settings.previews,
        shown=lambda path: spelt(path, config.invocation_params.dir),
        tell=lambda event: run.told.setdefault(item.nodeid, []).append(event),
        is_over=is_over,
        is_shared=hooks is not None and hooks.is_shared(item),
        taken=run.taken,
    )


def _settings_of(item: pytest.Item | pytest.Collector) -> Settings:
    """The settings of one test or module, its markers included.

    Raises:
        UsageError: a marker with a value or name that is not served, or with positional arguments.
    """
    from pytest_gradcam.settings import NAMES

    keywords: dict[str, Any] = {}
    for mark in item.iter_markers("gradcam"):  # the nearest first
        if mark.args:
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.gradcam takes keyword arguments only, and was given "
                f"{', '.join(map(repr, mark.args))}: known are {', '.join(NAMES)}"
            )
        keywords = {**mark.kwargs, **keywords}
    return _settings(item.config, keywords, f"{item.nodeid}: ")


def _settings(config: pytest.Config, marker: Mapping[str, Any], where: str = "") -> Settings:
    from pytest_gradcam.errors import SettingsError
    from pytest_gradcam.settings import resolve

    run = config.stash[_RUN]
    try:
        return resolve(run.ini, run.options, marker)
    except SettingsError as error:
        raise pytest.UsageError(f"{where}{error}") from None


def _choice(source: str, name: str, value: Any, known: tuple[str, ...]) -> str | None:
    from pytest_gradcam.errors import SettingsError
    from pytest_gradcam.settings import checked_choice

    try:
        return None if value is None else checked_choice(source, name, value, known)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


def _refuse_unknown_keys(config: pytest.Config) -> None:
    """A misspelt name in the ini file would leave its test with the defaults; pytest itself only warns, and later."""
    from pytest_gradcam.settings import CALLABLES, NAMES, choices

    # pytest lists the keys of the file nowhere in public since 9.1; where they are not found, nothing is refused.
    written = vars(config).get("_inicfg") or vars(config).get("inicfg") or {}
    overrides = [override.partition("=")[0] for override in config.getoption("override_ini", None) or ()]
    for key in [*written, *overrides]:
        if not key.startswith("gradcam_"):
            continue
        try:
            config.getini(key)  # knows the names that others may have added, too
        except (TypeError, ValueError):
            known = [f"gradcam_{name}" for name in (*NAMES, "orphans", "report") if name not in CALLABLES]
            if key not in known:
                raise pytest.UsageError(f"unknown key {key!r} in the ini file: {choices(key, known)}") from None


def _ini_value(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(f"gradcam_{name}")
    except (TypeError, ValueError) as error:  # pytest's own complaint about the type of a value
        raise pytest.UsageError(f"gradcam_{name} in the ini file: {error}") from None


def _hide_our_frames(call: pytest.CallInfo[None]) -> None:
    """Leave what the user wrote in the traceback of an error of ours; `--full-trace` shows every frame."""
    errors = sys.modules.get("pytest_gradcam.errors")  # not loaded: no error of ours
    if errors is None or call.excinfo is None or not isinstance(call.excinfo.value, errors.GradcamError):
        return

    def ours(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        return isinstance(excinfo.value, errors.GradcamError)

    for name, module in list(sys.modules.items()):
        # The demo's test file is a user's file that happens to lie here.
        if name.startswith("pytest_gradcam.") and not name.startswith("pytest_gradcam.demo"):
            vars(module)["__tracebackhide__"] = ours  # pytest looks for it in a frame's globals too


def _shorten(report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Leave the first line of a failed verdict where pytest wants one line: short summary, `--tb=line`, JUnit XML.

    Where pytest runs in CI it would print the whole message, map and all, a second time.
    """
    from pytest_gradcam.errors import MissingBaselineError
    from pytest_gradcam.verdicts import AttentionError, InconclusiveError

    crash = getattr(report.longrepr, "reprcrash", None)
    if (
        crash is not None
        and call.excinfo is not None
        and isinstance(call.excinfo.value, AttentionError | InconclusiveError | MissingBaselineError)
    ):
        crash.message = f"{call.excinfo.typename}: {call.excinfo.value}".partition("\n")[0]
