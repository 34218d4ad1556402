"""Verdict: one judged measurement. A value: it neither measures nor draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    explanation: Explanation
    message: str

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
            "cls": explanation.cls,
            "label": explanation.label,
            "score": explanation.score,
            "probability": explanation.probability,
            "predicted": explanation.predicted,
            "evidence": explanation.evidence,
            "layer": explanation.layer,
            "grid": list(explanation.grid),
            "method": explanation.method,
            "engine": explanation.engine,
            "device": explanation.device,
            "seconds": explanation.seconds,
            "message": self.message,
        }
