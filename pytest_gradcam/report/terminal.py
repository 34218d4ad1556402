"""What a person reads when a verdict fails: the numbers, the map and where it came from. Words only.

The end of a run is told by `summary`, the maps are drawn by `maps` and `beside`.
"""

from __future__ import annotations

import math

import numpy as np

from pytest_gradcam.metrics import METRICS, inside
from pytest_gradcam.report.beside import compared, plain_beside
from pytest_gradcam.report.lines import printable
from pytest_gradcam.report.maps import colour_map, mask_of, plain_map
from pytest_gradcam.verdicts import Verdict

__all__ = ["colour_map", "failure_text", "plain_map"]


def failure_text(verdict: Verdict, overlay: str | None) -> str:
    """The whole message of an error about a verdict: its first line tells the story, the rest is the evidence.

    Args:
        verdict: the verdict that failed, or could not tell.
        overlay: where the overlay was written, or why it was not; None: nothing is said about it.
    """
    lines = [verdict.message, ""]
    lines += [f"  {name:<9}  {text}" for name, text in _facts(verdict)]
    pair = compared(verdict)
    if pair is not None:
        lines += ["", *(f"  {line}" for line in plain_beside(*pair))]
    for sight in verdict.shown if pair is None else ():
        heading = [f"  {sight.title}"] if sight.title else []
        lines += ["", *heading, *(f"  {line}" for line in plain_map(sight.explanation.cam, mask_of(sight)))]
    if verdict.sight is not None:
        explanation = verdict.sight.explanation
        seconds = explanation.seconds
        took = f"{seconds * 1000.0:.0f} ms" if seconds < 1.0 else f"{seconds:.1f} s"
        read = (explanation.method, explanation.engine, explanation.device, took)
        lines += ["", " · ".join([f"layer {explanation.layer}", *read])]
    if overlay is not None:
        lines.append(f"overlay {overlay}")
    return "\n".join(map(printable, lines))  # labels and names are data: none may steer the terminal


def direction(verdict: Verdict) -> str:
    """Where the peak lies, seen from the nearest point of the region: `bottom left`; empty inside the region."""
    y, x = np.nonzero(inside(verdict.mask))
    peak_x, peak_y = verdict.peak
    nearest = int(np.argmin((x - peak_x) ** 2 + (y - peak_y) ** 2))
    right, down = peak_x - int(x[nearest]), peak_y - int(y[nearest])
    # A side is named unless the peak lies within 22.5° of the other axis.
    least = math.tan(math.pi / 8.0) * max(abs(right), abs(down))
    vertical = "" if abs(down) <= least else "bottom" if down > 0 else "top"
    horizontal = "" if abs(right) <= least else "right" if right > 0 else "left"
    return f"{vertical} {horizontal}".strip()


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    facts = list(verdict.facts)
    if verdict.interval is not None:
        low, high = verdict.interval
        facts.insert(0, ("interval", f"{low:.2f} to {high:.2f}, each bound with {verdict.confidence:.0%} confidence"))
    if verdict.sight is None:
        return facts
    if verdict.sight.place is not None:
        facts += _facts_of_place(verdict)
    predicted = _predicted(verdict)
    if predicted:
        facts.append(("predicted", predicted))
    if _is_outside_default(verdict):
        knobs = "threshold=… or gradcam_outside_threshold sets another"
        facts.append(("allowed", f"{verdict.threshold:.2f} is the metric's default outside; {knobs}"))
    return facts


def _facts_of_place(verdict: Verdict) -> list[tuple[str, str]]:
    """Where the map that is shown lies with regard to its region."""
    explanation, place = verdict.explanation, verdict.place
    if explanation.evidence <= 0:
        return []
    noun = place.region.noun
    height, width = explanation.cam.shape
    rows, columns = explanation.grid
    peak_x, peak_y = place.peak
    return [
        ("energy", f"{place.energy:.2f} of the map's mass is in {place.region}{_frame(verdict)}"),
        ("chance", f"{place.chance:.2f} would be there if the model looked everywhere alike"),
        ("filled", f"{place.filled:.2f} would be there if it filled {noun} evenly on this {rows}×{columns} grid"),
        ("peak", f"at ({peak_x}, {peak_y}) of the {width}×{height} input, {_distance(verdict, noun)}"),
    ]


def _frame(verdict: Verdict) -> str:
    """The picture that the region's numbers are of, where it has another size than the input."""
    height, width = verdict.frame
    return "" if verdict.frame == verdict.explanation.cam.shape else f" of the {width}×{height} picture"


def _is_outside_default(verdict: Verdict) -> bool:
    if verdict.assertion != "assert_attention_outside_region" or verdict.metric not in METRICS:
        return False
    return verdict.threshold == METRICS[verdict.metric].outside(verdict.place.chance, verdict.place.filled)


def _distance(verdict: Verdict, noun: str) -> str:
    if verdict.peak_distance <= 0.0:
        return f"inside {noun}"
    where = direction(verdict)
    return f"{verdict.peak_distance:.0f} px outside {noun}" + (f", {where}" if where else "")


def _predicted(verdict: Verdict) -> str:
    """What the model predicted, and whether that is what was asked; empty where a callable gave the score."""
    explanation = verdict.explanation
    if explanation.predicted is None:
        return ""
    text = _class(explanation.predicted, explanation.predicted_label)
    if explanation.predicted_probability is not None:
        text += f", p = {explanation.predicted_probability:.2f}"
    if explanation.cls is None:
        return text
    if explanation.cls == explanation.predicted:
        return f"{text} (the class asked for)"
    asked = _class(explanation.cls, explanation.label)
    if explanation.probability is not None:
        asked += f", p = {explanation.probability:.2f}"
    return f"{text}; asked for was {asked}"


def _class(index: int, label: str | None) -> str:
    return f"class {index}" if label is None else label
