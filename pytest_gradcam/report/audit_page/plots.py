"""Where things stand in the drawings of an audit's page. Numbers in, coordinates out; the template draws.

Standard library only. What lies beyond a drawing is put at its edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT: Final = 60
RIGHT: Final = 12
TOP: Final = 12
BOTTOM: Final = 56
_BEYOND: Final = 0.005  # share of the points, at each end, that may lie beyond the drawing
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Tick:
    """A number on an axis.

    Attributes:
        at: where it stands.
        text: the number.
    """

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Points, where they stand in a drawing of `WIDTH` by `HEIGHT`.

    Attributes:
        passed: (x, y) of those that pass.
        failed: (x, y) of the others.
        across: ticks of the horizontal axis.
        up: ticks of the vertical one.
        threshold: where the threshold stands.
        line: means of ranges, joined, as an SVG path; empty where there are too few.
        beyond: how many points are drawn at the edge, for they lie beyond it.
    """

    passed: list[tuple[float, float]]
    failed: list[tuple[float, float]]
    across: list[Tick]
    up: list[Tick]
    threshold: float
    line: str
    beyond: int


def plot_of(told: Mapping[str, Any], threshold: float) -> Plot | None:
    """The drawing of a metric against another number; None where there are no points."""
    points = told["points"]
    if not points:
        return None
    x_low, x_high = _range([point[0] for point in points])
    y_low, y_high = _range([*_middle([point[1] for point in points]), threshold])
    place_x = _placer(x_low, x_high, LEFT, WIDTH - RIGHT)
    place_y = _placer(y_low, y_high, HEIGHT - BOTTOM, TOP)
    placed = [(place_x(x), place_y(y), passed) for x, y, passed in points]
    means = [(place_x((each["low"] + each["high"]) / 2), place_y(each["mean"])) for each in told["bins"]]
    line = "M" + "L".join(f"{x} {y}" for x, y in means) if len(means) > 1 else ""
    return Plot(
        passed=[(x, y) for x, y, passed in placed if passed],
        failed=[(x, y) for x, y, passed in placed if not passed],
        across=[Tick(place_x(number), _text(number)) for number in _ticks(x_low, x_high)],
        up=[Tick(place_y(number), _text(number)) for number in _ticks(y_low, y_high)],
        threshold=place_y(threshold),
        line=line,
        beyond=sum(not y_low <= y <= y_high for _, y, _ in points),
    )


@dataclass(frozen=True, slots=True)
class Box:
    """How values lie, on a line from 0 to 100.

    Attributes:
        at: where the quantiles stand.
        threshold: where the threshold stands.
    """

    at: list[float]
    threshold: float


def boxes_of(told: Sequence[Mapping[str, Any]], threshold: float) -> tuple[list[Box], tuple[str, str]]:
    """The drawing of each class's quantiles, all on one scale; and what the ends of that stand for."""
    numbers = [number for each in told for number in each["quantiles"]]
    low, high = _range([*numbers, threshold])
    place = _placer(low, high, 0, 100)
    boxes = [Box([place(number) for number in each["quantiles"]], place(threshold)) for each in told]
    return boxes, (f"{low:.3g}", f"{high:.3g}")


def _middle(values: Sequence[float]) -> list[float]:
    """All but the few that lie farthest out, which would press the others together."""
    ordered = sorted(values)
    cut = int(len(ordered) * _BEYOND)
    return ordered[cut : len(ordered) - cut]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.04 * (high - low) or max(abs(low), 1.0) * 0.5
    return low - pad, high + pad


def _placer(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    def place(number: float) -> float:
        share = min(max((number - low) / (high - low), 0.0), 1.0)
        return round(start + share * (end - start), 1)

    return place


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in a range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in _STEPS if power * each >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]


def _text(number: float) -> str:
    return f"{round(number, 10):.6g}"
