"""The page of an audit: `index.html`, one file that asks nobody for anything, and `report.json` beside it.

Everything that is told is data: names of classes, keys of images and reasons are made printable here and escaped by the
template; the policy in the page's head lets nothing run but our own scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_gradcam.files import write_whole
from pytest_gradcam.report.audit_page.plots import Box, Plot, boxes_of, plot_of
from pytest_gradcam.report.page.cards import picture, shown
from pytest_gradcam.report.page.page import told
from pytest_gradcam.report.page.parts import PAGE, environment, frame, refuse_others, source
from pytest_gradcam.report.summary import told_apart

REPORT: Final = "report.json"
SCHEMA: Final = 1
MOST_ROWS: Final = 1000  # of a table
MOST_BYTES: Final = 19_500_000

_PACKAGE: Final = "pytest_gradcam.report.audit_page"
_CHANGES: Final = ("worse", "no difference shown", "better")
_DRAWN: Final = ("picture", "picture_before", "points")
_LONGEST: Final = 120  # characters of a name in a table

Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A group as a line of a table.

    Attributes:
        name: of the group.
        told: its numbers.
        outcome: what is decided.
        p: of that decision.
        bar: its rate and the interval, in percent.
    """

    name: str
    told: Told
    outcome: str
    p: float
    bar: tuple[float, float, float] | None


def write_audit_page(folder: Path, report: Told) -> Path:
    """Write the page of an audit and its machine-readable twin, each whole or not at all. Returns the page's path.

    Args:
        folder: of the audit.
        report: all that is shown, as `audit.writing.told_of` makes it.

    Raises:
        OSError: a file cannot be written, or what stands in its place is none of ours.
    """
    page = audit_page_of(report)
    for name in (PAGE, REPORT):
        refuse_others(folder / name)
    write_whole(folder / REPORT, report_json(report))
    write_whole(folder / PAGE, page)
    return folder / PAGE


def report_json(report: Told) -> bytes:
    """`report.json`: strict JSON, in ASCII, without pictures and drawn points."""
    # What tells this file from anybody else's stands first.
    whole = {"schema": SCHEMA, "made_by": "pytest-gradcam", **_without_drawn(report)}
    return json.dumps(whole, indent=1, allow_nan=False).encode("ascii") + b"\n"


def audit_page_of(report: Told) -> bytes:
    """The page, UTF-8; argument as for `write_audit_page`."""
    html = _rendered(report, with_pictures=True)
    if len(html) > MOST_BYTES:
        html = _rendered(report, with_pictures=False)
    return html


def _rendered(report: Told, *, with_pictures: bool) -> bytes:
    rule = report["rule"]
    threshold = float(rule["threshold"])
    style = source("page.css") + source("audit.css", _PACKAGE)
    script = f"{source('theme.js')}\n{source('audit.js', _PACKAGE)}"
    boxes, ends = _boxes(report, threshold)
    html = (
        environment(_PACKAGE)
        .get_template("audit.html.j2")
        .render(
            **frame(style, script, source("early.js")),
            report=report,
            rule=rule,
            needs=_needs(rule),
            needed=f"{100 * rule['pass_rate']:g}%",
            overall=_line(report["overall"]),
            tables=list(_tables(report)),
            comparison=report["comparison"],
            changes=_changes(report["comparison"]),
            clusters=sorted(report["clusters"], key=lambda each: not each["found"]),
            boxes=boxes,
            ends=ends,
            plots=_plots(report, threshold),
            about=list(_about(report)),
            with_pictures=with_pictures,
            most_rows=MOST_ROWS,
            show=_short,
            whole=shown,
            picture=picture,
            number=_number,
            values=_values,
            share=_share,
            p=_p,
            failing=[each for each in (*report["slices"], *report["classes"]) if each["outcome"] == "failed"],
        )
    )
    return html.encode("utf-8", "backslashreplace")


def _tables(report: Told) -> Iterator[tuple[str, str, list[Line]]]:
    """Id, head and lines of the tables of groups, the worst first."""
    for name, head in (("slices", "Slices"), ("classes", "Classes")):
        lines = [_line(group) for group in sorted(report[name], key=lambda group: int(group["rank"]))]
        if lines:
            yield name, head, lines


def _line(group: Told) -> Line:
    outcome = str(group["outcome"])
    bar = None
    if group["rate"] is not None and group["interval"] is not None:
        low, high = group["interval"]
        bar = (round(100 * low, 2), round(100 * group["rate"], 2), round(100 * high, 2))
    p = group["p_above"] if outcome == "passed" else group["p_below"]
    return Line(str(group["name"]), group, outcome, float(p), bar)


def _changes(comparison: Told | None) -> list[Told]:
    """The groups that are compared: all images first, then the worst."""
    if comparison is None:
        return []
    groups = [*comparison["slices"], *comparison["classes"]]
    groups.sort(key=lambda each: (_CHANGES.index(each["outcome"]), each["p"], each["difference"] or 0.0))
    return [comparison["overall"], *groups]


def _boxes(report: Told, threshold: float) -> tuple[list[tuple[Told, Box]], tuple[str, str]]:
    classes = report["distribution"]["shown"]
    boxes, ends = boxes_of(classes, threshold)
    return list(zip(classes, boxes, strict=True)), ends


def _plots(report: Told, threshold: float) -> list[tuple[str, str, Told, Plot]]:
    heads = {
        "confidence": ("Against confidence", "probability of the class that was asked for"),
        "size": ("Against the object's size", "share of the picture that the region covers"),
    }
    found = []
    for name, (head, axis) in heads.items():
        plot = plot_of(report["against"][name], threshold)
        if plot is not None:
            found.append((head, axis, report["against"][name], plot))
    return found


def _about(report: Told) -> Iterator[tuple[str, str]]:
    about = report["about"]
    rule = {name: value for name, value in report["rule"].items() if name not in ("title", "at_most")}
    yield from told({"rule": rule, "asked": _flat(about.get("asked") or {})})
    yield from told({"versions": about.get("versions") or {}, "device": about.get("device")})
    yield "rows", "results.parquet: one for each class in each image"


def _flat(asked: Told) -> dict[str, Any]:
    found = {}
    for name, value in asked.items():
        if isinstance(value, list) and value:
            more = f" … and {len(value) - 10} more" if len(value) > 10 else ""
            found[name] = ", ".join(map(str, value[:10])) + more
        elif value not in (None, []):
            found[name] = value
    return found


def _needs(rule: Told) -> str:
    side = "at most" if rule["at_most"] else "at least"
    return f"an image passes with a {rule['title']} of {side} {_number(rule['threshold'])}"


def _short(value: Any) -> str:
    """A name that a person may be shown, cut where it would fill a page."""
    text = shown(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _number(value: float | None) -> str:
    """A value of a metric, as tables have it."""
    return "–" if value is None else f"{value:.3g}" if abs(value) >= 100 else f"{value:.2f}".replace("-", "−")


def _values(value: float | None, threshold: float) -> str:
    """A value so exact that it can be told from the threshold."""
    return "–" if value is None else told_apart(value, threshold)[0].replace("-", "−")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _without_drawn(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_drawn(each) for name, each in value.items() if name not in _DRAWN}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_drawn(each) for each in value]
    return value
