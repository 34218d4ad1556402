"""The end of a run: how many verdicts were judged, and the ones that failed, worst first. Records in, lines out.

Standard library only: with xdist this runs in a process that has loaded neither torch nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_gradcam.report.lines import printable

Record = Mapping[str, Any]

ROWS: Final = 20
# Metrics that lie between 0 and 1, which the two ends of a bar stand for.
SHARES: Final = ("energy", "pointing_game", "rank_accuracy", "iou", "mass_outside", "pass_rate")
CORRELATIONS: Final = ("pearson", "cosine")
_OF_ONE: Final = ("calibrated_energy", *CORRELATIONS)  # 1 is at the end of a bar
# Of a check: what the maps were made from changed, or there is no baseline, and nothing was measured.
CHANGES: Final = "changes"
_SIDE: Final = 10  # cells of a bar on each side of a chance mark in the middle
_RIGHTWARD: Final = "░▏▎▍▌▋▊▉"
_LEFTWARD: Final = "░░▐▐▐▐▐█"  # Unicode has no more right-hand blocks than a half


def summary(records: Sequence[Record], report: str | None = None) -> tuple[str, list[str]]:
    """Title and lines of the section that ends a run.

    Args:
        records: the verdicts of the run, as `records.recorder` keeps them, each with `failed`: whether it counts as
            failed, for a verdict may fail in a test that expects it to.
        report: where the report page is; None where there is none.

    Returns:
        `attention: 41 judged, 2 failed`; a line with a bar for each of the worst 20, and where the report is, or
        the overlays are.
    """
    failed = [record for record in records if record["failed"]]
    unsure = sum(record["outcome"] == "inconclusive" for record in records)
    title = f"attention: {len(records)} judged, {sum(record['outcome'] == 'failed' for record in failed)} failed"
    if unsure:
        title += f", {unsure} inconclusive"
    worst = sorted(failed, key=lambda record: (-shortfall(record), record["nodeid"]))
    lines = [line(record) for record in worst[:ROWS]]
    if len(worst) > ROWS:
        lines.append(f"  … and {len(worst) - ROWS} more")
    if any("│" in each for each in lines):
        lines.append("  bars start at chance, │")
    if failed and report is not None:
        lines.append(f"  report: {report}")
    elif failed:
        folders = dict.fromkeys(record["folder"] for record in failed if record["overlay"])
        lines += [f"  overlays: {folder}" for folder in folders]
    return title, lines


def line(record: Record) -> str:
    """`-0.26 ░░░░░░░▐██│░░░░░░░░░░  needs 0.15  test_demo.py::test_reads_the_object[cup-017]`."""
    name = printable(record.get("baseline") or record["nodeid"])
    if record["metric"] == CHANGES:  # no number was compared
        return f"  {'–':>5} {'':{2 * _SIDE + 1}}  {'see above':<12}  {name}"
    value, threshold = told_apart(float(record["value"]), float(record["threshold"]))
    asks = "allowed" if record["at_most"] else "needs"
    return f"  {value:>5} {bar(record)}  {f'{asks} {threshold}':<12}  {name}"


def told_apart(value: float, threshold: float) -> tuple[str, str]:
    """Both with two decimals, or as many as it takes to tell them apart, and a threshold of .999 from 1."""
    for digits in range(2, 7):
        shown = f"{value:.{digits}f}", f"{threshold:.{digits}f}"
        is_rounded_away = float(shown[1]).is_integer() and not float(threshold).is_integer()
        if (value == threshold or shown[0] != shown[1]) and not is_rounded_away:
            return shown
    return repr(value), repr(threshold)


def shortfall(record: Record) -> float:
    """How far the value is on the wrong side of its threshold, in the metric's unit."""
    missing = float(record["threshold"]) - float(record["value"])
    return -missing if record["at_most"] else missing


def bar(record: Record) -> str:
    """21 cells: a mark where chance is, and from there a bar to the value, to the right where it is above chance."""
    chance, value = float(record["chance"]), float(record["value"])
    if not (math.isfinite(chance) and math.isfinite(value)):
        return "░" * (2 * _SIDE + 1)
    if record["metric"] in SHARES:
        chance, scale = min(max(chance, 0.0), 1.0), 2.0 * _SIDE
        left = round(chance * scale)
    else:  # chance in the middle, and what is needed where a bar shows well: of calibrated energy, 1 at the end
        far = 2.0 * abs(float(record["threshold"]) - chance)
        left, scale = _SIDE, float(_SIDE) / (1.0 if record["metric"] in _OF_ONE or far == 0.0 else far)
    right = 2 * _SIDE - left
    length = (value - chance) * scale
    return _grown(-length, left, _LEFTWARD)[::-1] + "│" + _grown(length, right, _RIGHTWARD)


def _grown(length: float, cells: int, tips: str) -> str:
    """A bar of `length` cells out of `cells`, from its left end; `tips` draw its last cell in eighths."""
    whole, rest = divmod(round(8 * min(max(length, 0.0), cells)), 8)
    return ("█" * whole + (tips[rest] if rest else "")).ljust(cells, "░")
