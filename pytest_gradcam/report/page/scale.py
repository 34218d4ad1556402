"""Value, chance and threshold on one small line, and the side that passes: where each stands, in percent.

Standard library only; the template draws it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_gradcam.report.page.results import finite
from pytest_gradcam.report.summary import CHANGES, CORRELATIONS, SHARES, told_apart

_FAR = 3.0  # spans of the scale: a value beyond is drawn as an arrow at its end


@dataclass(frozen=True, slots=True)
class Scale:
    """A line from 0 to 100, left to right.

    Attributes:
        value: where the value stands.
        beyond: `left` or `right` where the value lies farther out than is drawn, else empty.
        threshold: where the threshold stands.
        chance: where chance stands; None where it is no number.
        passes: from where to where a value passes.
        interval: of several images, from where to where it goes.
        ends: what the two ends of the line stand for.
        text: the same in words.
    """

    value: float
    beyond: str
    threshold: float
    chance: float | None
    passes: tuple[float, float]
    interval: tuple[float, float] | None
    ends: tuple[str, str]
    text: str


def scale_of(record: Mapping[str, Any]) -> Scale | None:
    """The scale of a record; None where value or threshold are no finite numbers."""
    value, threshold = finite(record.get("value")), finite(record.get("threshold"))
    chance = finite(record.get("chance"))
    if value is None or threshold is None or record.get("metric") == CHANGES:
        return None
    low, high = _range(str(record.get("metric")), threshold, threshold if chance is None else chance)
    span = high - low
    if not 0.0 < span < math.inf:
        return None
    if low - _FAR * span <= value <= high + _FAR * span:
        pad = 0.06 * span
        low, high = min(low, value - pad), max(high, value + pad)

    def place(number: float) -> float:
        return round(min(max((number - low) / (high - low) * 100.0, 0.0), 100.0), 2)

    at_most = bool(record.get("at_most"))
    texts = told_apart(value, threshold)
    text = f"Value {texts[0]}, {'at most' if at_most else 'at least'} {texts[1]} passes"
    return Scale(
        value=place(value),
        beyond="left" if value < low else "right" if value > high else "",
        threshold=place(threshold),
        chance=None if chance is None else place(chance),
        passes=(0.0, place(threshold)) if at_most else (place(threshold), 100.0),
        interval=_interval(record, place),
        ends=(f"{low:.3g}", f"{high:.3g}"),
        text=text if chance is None else f"{text}; chance is {chance:.2f}",
    )


def _range(metric: str, threshold: float, chance: float) -> tuple[float, float]:
    """What a scale shows at least: all of a share; of other metrics as much around threshold and chance as apart."""
    if metric in SHARES:
        return min(0.0, threshold, chance), max(1.0, threshold, chance)
    if metric in CORRELATIONS:
        return -1.0, 1.0
    if metric == "calibrated_energy":
        return min(-0.5, threshold, chance), max(1.0, threshold, chance)
    span = abs(threshold - chance) or max(abs(threshold), 1.0)
    return min(threshold, chance) - span, max(threshold, chance) + span


def _interval(record: Mapping[str, Any], place: Callable[[float], float]) -> tuple[float, float] | None:
    bounds = record.get("interval")
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return None
    low, high = finite(bounds[0]), finite(bounds[1])
    # A bound that is missing is no bound: the line goes to its end.
    return 0.0 if low is None else place(low), 100.0 if high is None else place(high)
