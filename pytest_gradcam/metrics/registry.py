"""The metrics that assertions may be asked for: what each has by chance, at best, at worst, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_gradcam.metrics.localisation import (
    calibrated_energy,
    check_region,
    energy,
    filling,
    iou,
    lift,
    mass_outside,
    pointing_game,
    rank_accuracy,
)
from pytest_gradcam.metrics.maps import Map


@dataclass(frozen=True, slots=True)
class Metric:
    """A measurement that assertions may be asked for.

    Bounds are functions of the region's chance and filled, which verdicts store, so that a threshold can be judged
    without the arrays; `of_uniform` and `of_filled` measure the same two maps themselves.

    Attributes:
        title: its name in a sentence.
        measure: (cam, mask, grid) → value.
        at_chance: (chance, filled) → the value of a uniform map.
        at_filled: (chance, filled) → the value of a map that fills the region evenly; where that depends on more than
            the two, the best value that there can be.
        least: (chance, filled) → a value that no map is below.
        most: (chance, filled) → a value that no map is above.
        inside: default threshold of assertions that ask for attention inside.
        outside: (chance, filled) → default threshold of assertions that ask for no attention inside.
        together: default thresholds, inside and outside, of the mean of several images; None for those of one.
        higher_is_inside: whether the value rises with the attention inside; if not, every comparison turns round.
        is_rate: whether an image has either 0 or 1, so that many images have a rate, and an interval to fit.
    """

    title: str
    measure: Callable[[Map, Map, tuple[int, int]], float]
    at_chance: Callable[[float, float], float]
    at_filled: Callable[[float, float], float]
    least: Callable[[float, float], float]
    most: Callable[[float, float], float]
    inside: float
    outside: Callable[[float, float], float]
    higher_is_inside: bool = True
    is_rate: bool = False
    together: tuple[float, float] | None = None

    def of_uniform(self, mask: Map, grid: tuple[int, int]) -> float:
        """The value of a uniform map, measured.

        Args:
            mask: float (H, W), the region in the input frame.
            grid: (h, w) of the target layer.

        Raises:
            ValueError: the metric is undefined for this region.
        """
        return self.measure(np.ones(mask.shape), mask, grid)

    def of_filled(self, mask: Map, grid: tuple[int, int]) -> float:
        """The value of the map that fills the region evenly on this grid, measured; arguments as for `of_uniform`.

        Raises:
            ValueError: the metric is undefined for this region.
        """
        return self.measure(filling(mask, grid), mask, grid)

    def passes(self, value: float, threshold: float, *, inside: bool) -> bool:
        """Whether a value is enough: at the threshold or on the side of it that is asked for.

        Args:
            value: what was measured.
            threshold: what is compared with.
            inside: whether attention is wanted inside the region, or not.
        """
        return value >= threshold if self.higher_is_inside == inside else value <= threshold


def _energy(cam: Map, mask: Map, grid: tuple[int, int]) -> float:
    check_region(mask)
    return energy(cam, mask)


def _mass_outside(cam: Map, mask: Map, grid: tuple[int, int]) -> float:
    check_region(mask)
    return mass_outside(cam, mask)


METRICS: dict[str, Metric] = {
    "calibrated_energy": Metric(
        "calibrated energy",
        calibrated_energy,
        at_chance=lambda chance, filled: 0.0,
        at_filled=lambda chance, filled: 1.0,
        least=lambda chance, filled: -chance / (filled - chance),
        most=lambda chance, filled: (1.0 - chance) / (filled - chance),
        inside=0.15,
        # A small forbidden patch never holds much of a coarse map: no more than chance is the bound that finds it.
        outside=lambda chance, filled: 0.0,
        # A mean and its bound need less room for noise than one map does: measured in docs/power.md.
        together=(0.1, 0.15),
    ),
    "energy": Metric(
        "energy",
        _energy,
        at_chance=lambda chance, filled: chance,
        at_filled=lambda chance, filled: filled,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0,
        inside=0.5,
        outside=lambda chance, filled: chance,
    ),
    "lift": Metric(
        "lift",
        lambda cam, mask, grid: lift(cam, mask),
        at_chance=lambda chance, filled: 1.0,
        at_filled=lambda chance, filled: filled / chance,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0 / chance,
        inside=1.5,
        outside=lambda chance, filled: 1.0,
    ),
    "pointing_game": Metric(
        "pointing game",
        lambda cam, mask, grid: pointing_game(cam, mask),
        # Every pixel of a uniform map is a tied maximum, and some lie outside; of a map that fills the region, none.
        at_chance=lambda chance, filled: 0.0,
        at_filled=lambda chance, filled: 1.0,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0,
        inside=1.0,
        outside=lambda chance, filled: 0.0,
        is_rate=True,
    ),
    "rank_accuracy": Metric(
        "rank accuracy",
        lambda cam, mask, grid: rank_accuracy(cam, mask),
        at_chance=lambda chance, filled: chance,
        at_filled=lambda chance, filled: 1.0,
        # The rest of the picture holds (1 - chance) / chance of the K pixels; the others must lie inside.
        least=lambda chance, filled: max(0.0, 2.0 - 1.0 / chance),
        most=lambda chance, filled: 1.0,
        inside=0.5,
        outside=lambda chance, filled: chance,
    ),
    "iou": Metric(
        "IoU",
        lambda cam, mask, grid: iou(cam, mask),
        at_chance=lambda chance, filled: chance,
        at_filled=lambda chance, filled: 1.0,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0,
        # The customary 0.5 judges boxes; half of the maximum is a tighter outline. On the demo's 200 pictures 0.5 is
        # missed by 24% of the honest model's maps, 0.3 by 0.5%; no map of its shortcut is above 0.03.
        inside=0.3,
        outside=lambda chance, filled: chance,
    ),
    "mass_outside": Metric(
        "mass outside",
        _mass_outside,
        at_chance=lambda chance, filled: 1.0 - chance,
        at_filled=lambda chance, filled: 1.0 - filled,
        least=lambda chance, filled: 0.0,
        most=lambda chance, filled: 1.0,
        inside=0.5,
        outside=lambda chance, filled: 1.0 - chance,
        higher_is_inside=False,
    ),
}
