"""Two baselines compared: what they were made from first, by name, and only then their maps, by numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.glance import is_same
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.metrics import TIE, area_average, pearson, wasserstein
from pytest_gradcam.metrics.bounds import wasserstein_at_least, wasserstein_at_most
from pytest_gradcam.metrics.similarity import EXACT
from pytest_gradcam.settings import choices
from pytest_gradcam.verdicts import Fact


@dataclass(frozen=True, slots=True)
class Floor:
    """How close a map must be to its baseline.

    Attributes:
        pearson: least correlation of the raw CAMs.
        shift: of the mass, as a share of the distance that the baseline has from a map that is the same everywhere.
    """

    pearson: float
    shift: float


def _floor(correlation: float) -> Floor:
    # Of two maps that are equally spread, √(1 - r) is how far they are apart by RMSE, as a share of what chance has.
    # The distance of mass was up to 1.95 times that where the same weights ran in bfloat16 (five architectures, trained
    # and not): incoherent noise weighs more against a map that has little structure.
    return Floor(correlation, 2.0 * math.sqrt(1.0 - correlation))


# Over six seeds of small models, the same weights (bfloat16, int8, input noise) keep a suite's Pearson at .999 or more;
# a clean retraining has a mean of .966 and a 5th percentile of .926.
FLOORS: Final = {"same_weights": _floor(0.999), "retrained": _floor(0.9)}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a comparison must keep, in the units of its numbers.

    Attributes:
        name: of the floor, or `thresholds`.
        pearson: least correlation of the raw CAMs.
        shift: largest 1-Wasserstein distance of the CAMs, in cells; None: the floor's share of the
            distance that the baseline has from a map that is the same everywhere.
        share: the floor's share.
    """

    name: str
    pearson: float
    shift: float | None
    share: float


def limits(floor: object, correlation: float | None = None, shift: float | None = None) -> Limits:
    """The floor of that name, with the thresholds that were given instead of its own.

    Raises:
        SettingsError: no floor of that name.
    """
    if not isinstance(floor, str) or floor not in FLOORS:
        raise SettingsError(f"unknown floor {floor!r}: {choices(floor, FLOORS)}")
    found = FLOORS[floor]
    name = floor if correlation is None and shift is None else "thresholds"
    return Limits(name, found.pearson if correlation is None else correlation, shift, found.shift)


def chance_shift(baseline: Baseline) -> float:
    """1-Wasserstein distance of the baseline's CAM from a map that is the same everywhere, in cells."""
    return wasserstein(baseline.cam, np.ones_like(baseline.cam))


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of a baseline.

    Attributes:
        changes: (name, what it was and is) of what the maps were made from; if there are any, no number was compared.
        pearson: of the raw CAMs; NaN where nothing was compared.
        shift: 1-Wasserstein distance of the CAMs, in cells; NaN where nothing was compared. Where it is well below what
            is allowed, an upper bound of it.
        allowed: the largest shift that passes; beside an upper bound, a lower bound of that.
        least: the least correlation that passes.
    """

    changes: tuple[Fact, ...]
    pearson: float
    shift: float
    allowed: float
    least: float

    @property
    def correlates(self) -> bool:
        """Whether the maps correlate as they must."""
        return self.pearson >= self.least

    @property
    def stays(self) -> bool:
        """Whether the mass stays where it must."""
        return self.shift <= self.allowed

    @property
    def passed(self) -> bool:
        """Whether nothing has changed by more than may."""
        return not self.changes and self.correlates and self.stays


def compare(before: Baseline, now: Baseline, wanted: Limits) -> Compared:
    """What became of a baseline, by the limits that it must keep."""
    changes = changes_of(before, now)
    if changes:
        return Compared(changes, math.nan, math.nan, math.nan, wanted.pearson)
    shift, allowed = _shift(before.cam, now.cam, wanted)
    return Compared((), _correlation(before.raw, now.raw), shift, allowed, wanted.pearson)


def changes_of(before: Baseline, now: Baseline) -> tuple[Fact, ...]:
    """What the map is made from that is not what the baseline was made from."""
    facts: list[Fact] = []

    def note(name: str, was: object, is_now: object) -> None:
        if was != is_now:
            facts.append((name, f"was {was}, is {is_now}"))

    kinds = [each.image.partition(":")[0] for each in (before, now)]
    is_other_input = before.size != now.size or not is_same(before.glance, now.glance)
    if kinds[0] != kinds[1]:
        note("image", f"a {kinds[0]}", f"a {kinds[1]}")
    elif kinds[0] == "picture":
        if before.image != now.image:
            facts.append(("image", "the picture is another: its pixels are not those of the baseline"))
        elif is_other_input:
            facts.append(("transform", _of_transform(before, now)))
    elif before.image != now.image and is_other_input:
        facts.append(("image", _of_tensor(before, now)))
    if before.cls != now.cls:
        note("class", before.class_name, now.class_name)
    note("method", before.method, now.method)
    if before.layers != now.layers or before.layer != now.layer:
        facts.append(("layer", _of_layers(before, now)))
    if before.layers == now.layers:
        note("view", before.view, now.view)
    if before.view == now.view or before.layers != now.layers:
        note("grid", "{}×{}".format(*before.grid), "{}×{}".format(*now.grid))
    return tuple(facts)


def _of_layers(before: Baseline, now: Baseline) -> str:
    """What the layers were and are; of many, only those that are not in both."""
    was, is_now = (
        [layer for layer in each.layers if layer not in other.layers] if len(each.layers) > 3 else [*each.layers]
        for each, other in ((before, now), (now, before))
    )
    shown = [", ".join(each[:3]) + (" …" if len(each) > 3 else "") for each in (was, is_now)]
    return f"was {shown[0] or before.layer}, is {shown[1] or now.layer}"


def _of_transform(before: Baseline, now: Baseline) -> str:
    if before.size != now.size:
        sizes = "was {1}×{0}, is {3}×{2}".format(*before.size, *now.size)
        return f"it makes another input of the same picture: {sizes} pixels"
    named = "" if before.transform == now.transform else f" (was {before.transform}, is {now.transform})"
    return f"it makes other values of the same picture{named}"


def _of_tensor(before: Baseline, now: Baseline) -> str:
    if before.size != now.size or len(before.glance) != len(now.glance):
        shapes = [f"{len(each.glance)}×{each.size[0]}×{each.size[1]}" for each in (before, now)]
        return f"the tensor was {shapes[0]}, is {shapes[1]}"
    return "the tensor has other values than that of the baseline"


def _correlation(before: npt.NDArray[np.float32], now: npt.NDArray[np.float32]) -> float:
    """Pearson's correlation; of a map that is the same everywhere, 1 with another such and 0 with any other."""
    even = [float(each.max()) - float(each.min()) <= TIE * float(np.abs(each).max()) for each in (before, now)]
    if any(even):
        return 1.0 if all(even) else 0.0
    return pearson(before, now)


def _shift(before: npt.NDArray[np.float32], now: npt.NDArray[np.float32], wanted: Limits) -> tuple[float, float]:
    """How far the mass moved and how far it may, in cells; bounds of both where they tell, which cost a hundredth."""
    even = np.ones_like(before)
    # Of large maps the distance is that of averaged ones, with ways in cells of their own; so are the bounds.
    grid = min(before.shape[0], EXACT), min(before.shape[1], EXACT)
    steps = before.shape[0] / grid[0], before.shape[1] / grid[1]
    first, second, flat = (area_average(each, grid) for each in (before, now, even))
    allowed = wanted.shift
    if allowed is None:
        allowed = wanted.share * min(steps) * wasserstein_at_least(first, flat)
    bound = max(steps) * wasserstein_at_most(first, second)
    if bound <= allowed:
        return bound, allowed
    if wanted.shift is None:
        allowed = wanted.share * wasserstein(before, even)
    return wasserstein(before, now), allowed
