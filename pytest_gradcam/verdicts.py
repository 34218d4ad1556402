"""Verdict, one judged measurement, and the errors of those that failed. Values: nothing here measures or draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_gradcam.errors import GradcamError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pytest_gradcam.cam import Explanation
    from pytest_gradcam.regions import Region


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """One judged measurement.

    Attributes:
        assertion: name of the assertion that judged, for example `assert_attention_in_region`.
        passed: the outcome.
        metric: name of the metric.
        value: the measured value, in the metric's unit.
        values: one value for each image judged.
        chance: energy of a uniform map: the share of the input frame that the region covers.
        filled: energy of a map that fills the region evenly on this grid.
        energy: share of the map's mass inside the region.
        threshold: the value that was needed (at least for `in`, at most for `outside`).
        interval: lower and upper confidence bound of `value`, where one was computed.
        peak: (x, y) of the map's maximum, in pixels of the input frame.
        peak_distance: pixels of the input frame from the peak to the region; 0 inside.
        region: the region as the user gave it, in the image frame.
        mask: float32 (H, W) in [0, 1]: the region in the input frame.
        frame: (height, width) of the image frame, in pixels.
        explanation: the map that was judged and what it was computed from.
        message: the first line of what a person reads.
    """

    assertion: str
    passed: bool
    metric: str
    value: float
    values: tuple[float, ...]
    chance: float
    filled: float
    energy: float
    threshold: float
    interval: tuple[float, float] | None
    peak: tuple[int, int]
    peak_distance: float
    region: Region
    mask: npt.NDArray[np.float32]
    frame: tuple[int, int]
    explanation: Explanation
    message: str

    def __repr__(self) -> str:
        return f"Verdict({'passed' if self.passed else 'failed'}, {self.message})"

    def to_json(self) -> dict[str, Any]:
        """Plain scalars, strings and lists: what may cross a process border or be written to a file."""
        explanation = self.explanation
        return {
            "assertion": self.assertion,
            "passed": self.passed,
            "metric": self.metric,
            "value": self.value,
            "values": list(self.values),
            "chance": self.chance,
            "filled": self.filled,
            "energy": self.energy,
            "threshold": self.threshold,
            "interval": None if self.interval is None else list(self.interval),
            "peak": list(self.peak),
            "peak_distance": self.peak_distance,
            "region": str(self.region),
            "frame": list(self.frame),
            "cls": explanation.cls,
            "label": explanation.label,
            "score": explanation.score,
            "probability": explanation.probability,
            "predicted": explanation.predicted,
            "predicted_label": explanation.predicted_label,
            "predicted_probability": explanation.predicted_probability,
            "evidence": explanation.evidence,
            "layer": explanation.layer,
            "grid": list(explanation.grid),
            "method": explanation.method,
            "engine": explanation.engine,
            "device": explanation.device,
            "seconds": explanation.seconds,
            "message": self.message,
        }


class AttentionError(GradcamError, AssertionError):
    """A verdict that failed. `verdict` holds the evidence; `None` only where there was no map to measure."""

    def __init__(self, message: str, verdict: Verdict | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict


class ZeroEvidenceError(AttentionError):
    """The map is zero everywhere: nothing in the image, as the target layer sees it, speaks for the score."""


for _public in (AttentionError, ZeroEvidenceError):  # as in `errors`: where a person imports them from
    _public.__module__ = "pytest_gradcam"
