"""Two maps compared: by which measure, on which grid, and what a threshold must be to mean something. No verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.assertions.asking import class_name
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.errors import SettingsError, TargetLayerError, VacuousThresholdError
from pytest_gradcam.metrics import SIMILARITIES, TIE, Similarity
from pytest_gradcam.settings import choices
from pytest_gradcam.verdicts import ZeroEvidenceError

Grid = npt.NDArray[np.floating]

# From this Pearson correlation or cosine on, two maps are alike. On 60 of the demo's pictures, two clean retrainings of
# the honest model have a correlation with it of .944 or more, the shortcut model of -.13 or less; over six seeds of
# small models, the 5th percentile of retrainings is .926. The same weights in bfloat16 or int8 keep .999.
ALIKE: Final = 0.9
# Distances have the scale of the maps: they are shares of what chance has. Of two maps that are equally spread, RMSE is
# √(1 - r) of it at a correlation r. The earth mover's distance is held to the same share: 95% of 60 maps of retrainings
# have .24 or less, those of the shortcut model 1.7 or more.
ALIKE_SHARE: Final = math.sqrt(1.0 - ALIKE)
# These measure where the evidence is; what speaks against the class is no part of it.
_OF_EVIDENCE: Final = ("wasserstein", "rmse")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the maps of one assertion are compared, and what was asked for.

    Attributes:
        name: registered name of the similarity.
        rule: what it is.
        asked: the threshold that was given; None for the default.
    """

    name: str
    rule: Similarity
    asked: float | None

    def alike(self, chance: float) -> float:
        """From where on two maps are alike, by default.

        Args:
            chance: see `chance`.
        """
        return ALIKE if self.rule.higher_is_closer else ALIKE_SHARE * chance

    def halfway(self, value: float) -> float:
        """Halfway from a value to that of a map and itself; RMSE is squared, as a correlation is."""
        return value * math.sqrt(0.5) if self.name == "rmse" else (value + self.rule.at_same) / 2.0

    def farthest(self, explanation: Explanation) -> float:
        """A value that no two maps on this grid are beyond; RMSE is that of maps in [0, 1]."""
        return 1.0 if self.name == "rmse" else self.rule.farthest(explanation.grid)

    def part(self, raw: Grid) -> Grid:
        """What is compared of a raw CAM: all of it, signed, or for measures of where evidence is its positive part."""
        return np.maximum(raw, 0.0) if self.name in _OF_EVIDENCE else raw

    def measure(self, a: Explanation, b: Explanation) -> float:
        """The similarity of two maps of one picture; a map on a coarser grid is resized to the finer one.

        Raises:
            ZeroEvidenceError: a map has no positive value, and the similarity needs one; or it is zero.
            TargetLayerError: a map has the same value everywhere.
        """
        return self.measure_arrays(a.raw, b.raw, (a, b))

    def measure_arrays(self, a: Grid, b: Grid, of: tuple[Explanation, Explanation]) -> float:
        """As `measure`, for maps that were moved; `of` says which they are."""
        a, b = together(a, b)
        for raw, explanation in zip((a, b), of, strict=True):
            self._check(self.part(raw), explanation)
        return self.rule.measure(self.part(a), self.part(b))

    def chance(self, explanation: Explanation) -> float:
        """How close the map is to one that has the same values in random places, and so knows nothing of the picture.

        The expectation over all orders of the cells, of RMSE the root of that of its square. That of the earth mover's
        distance has no formula: instead the distance from the uniform map, which is the mean of all orders.
        """
        part = self.part(explanation.raw).astype(np.float64)
        self._check(part, explanation)
        if self.name == "pearson":
            return 0.0
        if self.name == "cosine":
            return float(part.mean() ** 2 / (part**2).mean())
        if self.name == "rmse":
            return math.sqrt(2.0) * float(part.std() / part.max())
        return self.rule.measure(part, np.ones_like(part))

    def at_least(self, chance: float, what_chance_is: str, default: float) -> float:
        """The threshold of an assertion that asks for maps to be close.

        Args:
            chance: what a map has that the assertion is meant to reject.
            what_chance_is: that map, in words.
            default: where none was asked for.

        Raises:
            VacuousThresholdError: that map would pass it, or no map could.
        """
        wanted = default if self.asked is None else self.asked
        higher = self.rule.higher_is_closer
        if self.rule.passes(chance, wanted):
            raise VacuousThresholdError(
                f"{self.rule.title} {wanted:g} would be passed by {what_chance_is}, which has {chance:.2f}. Use a "
                f"{'higher' if higher else 'lower'} threshold"
                + (", or similarity='pearson', which is blind to a constant" if self.name == "cosine" else "")
            )
        if not self.rule.passes(self.rule.at_same, wanted):
            raise VacuousThresholdError(
                f"{self.rule.title} {wanted:g} is what no two maps could pass: a map and itself have "
                f"{self.rule.at_same:g}. Use a {'lower' if higher else 'higher'} threshold"
            )
        return wanted

    def at_most(self, explanation: Explanation, what_same_is: str) -> float:
        """The threshold of an assertion that asks for maps to differ.

        Args:
            explanation: one of the two.
            what_same_is: in words, what has the similarity of a map with itself.

        Raises:
            VacuousThresholdError: two maps that are the same would pass it, or none could.
        """
        wanted = self.alike(self.chance(explanation)) if self.asked is None else self.asked
        same, farthest = self.rule.at_same, self.farthest(explanation)
        higher = self.rule.higher_is_closer
        if wanted >= same if higher else wanted <= same:
            raise VacuousThresholdError(
                f"{self.rule.title} {wanted:g} would be passed by {what_same_is}, which has {same:g}. Use a "
                f"{'lower' if higher else 'higher'} threshold"
            )
        if wanted < farthest if higher else wanted > farthest:
            raise VacuousThresholdError(
                f"{self.rule.title} {wanted:g} is what no two maps could pass: on this grid the farthest apart have "
                f"{farthest:.2f}. Use a {'higher' if higher else 'lower'} threshold"
            )
        return wanted

    def _check(self, part: Grid, explanation: Explanation) -> None:
        """Refuse a map of which the similarity is undefined."""
        where = f"at {explanation.layer} ({explanation.method})"
        if self.name in _OF_EVIDENCE and part.max() <= 0:
            raise ZeroEvidenceError(
                f"no evidence: nothing {where} speaks for {class_name(explanation)}, so it has no "
                f"{self.rule.title} from anything. similarity='pearson' compares what speaks against it too"
            )
        if not part.any():
            raise ZeroEvidenceError(
                f"no evidence: the map of {class_name(explanation)} {where} is zero everywhere: there is nothing to "
                "compare. Judge another class"
            )
        if self.name == "pearson" and np.ptp(part) <= TIE * np.abs(part).max():
            raise TargetLayerError(
                f"the map of {class_name(explanation)} {where} has the same value everywhere, "
                f"{float(part.flat[0]):.4g}: it shows no place, and correlates with nothing. Name another layer, with "
                "layer=…, or another method"
            )


def comparison(similarity: object, threshold: object) -> Comparison:
    """The comparison that was asked for.

    Raises:
        SettingsError: no similarity of that name, or a threshold that is no number.
        VacuousThresholdError: a threshold that is not finite.
    """
    if not isinstance(similarity, str) or similarity not in SIMILARITIES:
        raise SettingsError(f"unknown similarity {similarity!r}: {choices(similarity, SIMILARITIES)}")
    asked = None if threshold is None else number("threshold", threshold)
    if asked is not None and not math.isfinite(asked):
        raise VacuousThresholdError(f"threshold {asked} is not finite: give a number")
    return Comparison(similarity, SIMILARITIES[similarity], asked)


def number(name: str, value: object) -> float:
    """A keyword's value as a number, which may be infinite or NaN.

    Raises:
        SettingsError: it is none.
    """
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise SettingsError(f"{name} {value!r} is not a number: give one such as 0.9") from None


def together(a: Grid, b: Grid) -> tuple[Grid, Grid]:
    """Two maps on one grid, that of as many rows and columns as the finer has; resized bilinearly where they differ."""
    rows, columns = max(a.shape[0], b.shape[0]), max(a.shape[1], b.shape[1])
    first, second = (_resized(raw, (rows, columns)) for raw in (a, b))
    return first, second


def _resized(raw: Grid, grid: tuple[int, int]) -> Grid:
    if raw.shape == grid:
        return raw
    return np.asarray(cv2.resize(np.ascontiguousarray(raw), grid[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
