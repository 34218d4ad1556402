"""Verdict, one judged measurement, and the errors of those that failed. Values: nothing here measures or draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pytest_gradcam.errors import GradcamError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pytest_gradcam.cam import Explanation
    from pytest_gradcam.regions import Region

Outcome: TypeAlias = Literal["passed", "failed", "inconclusive"]
Fact: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A region, and where a map lies with regard to it.

    Attributes:
        region: as the user gave it, in the image frame.
        mask: float32 (H, W) in [0, 1]: the region in the input frame.
        frame: (height, width) of the image frame, in pixels.
        chance: energy of a uniform map: the share of the input frame that the region covers.
        filled: energy of a map that fills the region evenly on this grid.
        energy: share of the map's mass inside the region.
        peak: (x, y) of the map's maximum, in pixels of the input frame.
        peak_distance: pixels of the input frame from the peak to the region; 0 inside.
    """

    region: Region
    mask: npt.NDArray[np.float32]
    frame: tuple[int, int]
    chance: float
    filled: float
    energy: float
    peak: tuple[int, int]
    peak_distance: float


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One map that was looked at, and the region that it was held against, if it was.

    Attributes:
        explanation: the map and what it was computed from.
        place: None where no region was asked for.
        title: what it is of several that are shown together, for example `flipped`; empty where there is one.
    """

    explanation: Explanation
    place: Place | None = None
    title: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """One judged measurement, of one image or of several together.

    Attributes:
        assertion: name of the assertion that judged, for example `assert_attention_in_region`.
        outcome: `passed`, `failed` or `inconclusive`; the last only where several images are judged together.
        metric: name of the metric.
        value: the measured value, in the metric's unit: of one image, the mean of several, or the share that passed.
        values: one value for each image judged.
        chance: the value of what the assertion must tell from what it claims, in the unit of `value`: of a map that
            knows nothing, of one that is the same for all classes or weights, or of the same shape elsewhere; of a
            rate, the share of the images on which that would pass.
        threshold: the value that was needed.
        at_most: whether values up to the threshold pass, and not those from it on.
        interval: of several images, lower and upper bound of `value`, each at `confidence`.
        confidence: of each bound of the interval; None where there is none.
        sights: the maps that were judged; of several images, in their order.
        worst: which of the sights a person is shown first.
        message: the first line of what a person reads.
        facts: (name, text) of further lines.
        compared: whether the two sights of one image are of the same picture, what was before and what is now, so that
            a person is shown them beside each other, with their difference.
        baseline: id of the baseline that was compared with: the test's node id, and the check's name after `@`.
    """

    assertion: str
    outcome: Outcome
    metric: str
    value: float
    values: tuple[float, ...]
    chance: float
    threshold: float
    at_most: bool
    interval: tuple[float, float] | None
    confidence: float | None
    sights: tuple[Sight, ...]
    worst: int
    message: str
    facts: tuple[Fact, ...] = ()
    compared: bool = False
    baseline: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the outcome is `passed`."""
        return self.outcome == "passed"

    @property
    def sight(self) -> Sight | None:
        """The map that a person is shown first: of several, the one that speaks most against the assertion."""
        return self.sights[self.worst] if self.sights else None

    @property
    def shown(self) -> tuple[Sight, ...]:
        """The maps that a person is shown: of one image both that were compared, of several images the worst."""
        if len(self.values) == 1:
            return self.sights[:2]
        return () if self.sight is None else (self.sight,)

    @property
    def explanation(self) -> Explanation:
        """The explanation of `sight`.

        Raises:
            AttributeError: no map was judged, but predictions alone.
        """
        if self.sight is None:
            raise AttributeError(f"{self.assertion} judges predictions: there is no explanation")
        return self.sight.explanation

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """All maps that were judged."""
        return tuple(sight.explanation for sight in self.sights)

    @property
    def place(self) -> Place:
        """The region of `sight`, and where its map lies.

        Raises:
            AttributeError: no region was judged.
        """
        if self.sight is None or self.sight.place is None:
            raise AttributeError(f"{self.assertion} judged no map against a region")
        return self.sight.place

    @property
    def region(self) -> Region:
        """The region, in the image frame."""
        return self.place.region

    @property
    def mask(self) -> npt.NDArray[np.float32]:
        """The region in the input frame, float32 (H, W) in [0, 1]."""
        return self.place.mask

    @property
    def frame(self) -> tuple[int, int]:
        """(height, width) of the image frame, in pixels."""
        return self.place.frame

    @property
    def filled(self) -> float:
        """Energy of a map that fills the region evenly on this grid."""
        return self.place.filled

    @property
    def energy(self) -> float:
        """Share of the map's mass inside the region."""
        return self.place.energy

    @property
    def peak(self) -> tuple[int, int]:
        """(x, y) of the map's maximum, in pixels of the input frame."""
        return self.place.peak

    @property
    def peak_distance(self) -> float:
        """Pixels of the input frame from the peak to the region; 0 inside."""
        return self.place.peak_distance

    def __repr__(self) -> str:
        return f"Verdict({self.outcome}, {self.message})"

    def _repr_html_(self) -> str:
        # By its name: what draws lies above what is drawn, and knows it; and numpy is loaded when somebody looks.
        shown: str = import_module("pytest_gradcam.report.notebook").verdict_html(self)
        return shown

    def to_json(self) -> dict[str, Any]:
        """Plain scalars, strings and lists: what may cross a process border or be written to a file."""
        values: dict[str, Any] = {
            "assertion": self.assertion,
            "outcome": self.outcome,
            "passed": self.passed,
            "metric": self.metric,
            "value": self.value,
            "values": list(self.values),
            "chance": self.chance,
            "threshold": self.threshold,
            "at_most": self.at_most,
            "interval": None if self.interval is None else [b if math.isfinite(b) else None for b in self.interval],
            "confidence": self.confidence,
            "facts": [list(fact) for fact in self.facts],
            "baseline": self.baseline,
            "message": self.message,
        }
        sight = self.sight
        if sight is None:
            return values
        explanation = sight.explanation
        values |= {
            "cls": explanation.cls,
            "label": explanation.label,
            "score": explanation.score,
            "probability": explanation.probability,
            "predicted": explanation.predicted,
            "predicted_label": explanation.predicted_label,
            "predicted_probability": explanation.predicted_probability,
            "evidence": explanation.evidence,
            "model": explanation.model,
            "layer": explanation.layer,
            "grid": list(explanation.grid),
            "method": explanation.method,
            "engine": explanation.engine,
            "device": explanation.device,
            "seconds": explanation.seconds,
        }
        if sight.place is not None:
            place = sight.place
            values |= {
                "region": str(place.region),
                "frame": list(place.frame),
                "region_share": place.chance,
                "filled": place.filled,
                "energy": place.energy,
                "peak": list(place.peak),
                "peak_distance": place.peak_distance,
            }
        return values


class AttentionError(GradcamError, AssertionError):
    """A verdict that failed. `verdict` holds the evidence; `None` only where there was no map to measure."""

    def __init__(self, message: str, verdict: Verdict | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict


class ZeroEvidenceError(AttentionError):
    """The map is zero everywhere: nothing in the image, as the target layer sees it, speaks for the score."""


class InconclusiveError(GradcamError):
    """The images that were judged together cannot tell. No `AssertionError`: it says nothing against the model."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message)
        self.verdict = verdict


class InconclusiveWarning(UserWarning):
    """A verdict that could not tell, where `gradcam_inconclusive = warn` lets it pass."""


for _public in (AttentionError, ZeroEvidenceError, InconclusiveError, InconclusiveWarning):  # as in `errors`
    _public.__module__ = "pytest_gradcam"
