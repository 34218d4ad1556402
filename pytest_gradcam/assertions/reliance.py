"""What a prediction relies on: whether it changes when a region is filled with something neutral.

No map is made and no layer is looked at: the model is only called. What is measured is the margin over the runner-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pytest_gradcam.assertions.asking import Asking, is_list, listed, naming, one_class_each, refuse_copies
from pytest_gradcam.assertions.attention import prepared_with_masks, regions_each
from pytest_gradcam.assertions.comparing import number
from pytest_gradcam.assertions.fillings import FILLINGS, covered, filled
from pytest_gradcam.assertions.margins import called_only, follow
from pytest_gradcam.assertions.together import Claim, Measured, is_mean, verdict_of_many, verdict_of_one
from pytest_gradcam.cam.forwards import score_inputs
from pytest_gradcam.cam.model import labels_of
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.cam.scores import Fact
from pytest_gradcam.errors import ClassError, ModelError, VacuousRegionError, VacuousThresholdError
from pytest_gradcam.images import Prepared, carry_region
from pytest_gradcam.regions import Region
from pytest_gradcam.verdicts import Verdict

# Measured on the demo's models, 60 pictures each: filling the stamp changed .06 of the honest model's margin at most,
# and .94 or more of the shortcut model's; filling the object took .64 or more of the honest model's, and .01 at most
# of the other's.
IGNORES: Final = 0.25
# Of the mean of several: one picture that is barely predicted changes by all of its margin, whatever is filled, and
# takes the bound with it (docs/power.md).
IGNORES_TOGETHER: Final = 0.5
NEEDS: Final = 0.5
# A region that leaves less than a tenth of the picture leaves nothing to be filled from, and nothing to predict from.
MOST = 0.9
# Other places that are filled for comparison, the best of so many that are drawn.
PLACES: Final = 4
_DRAWN: Final = 64
# Places that share more than this of the region tell what the region does, not what chance does.
_APART = 0.25
# A change of the picture below this share of its range is none.
_NO_CHANGE = 1e-3
# Changes of the margin below this share of it are rounding: a prediction that nothing changes more depends on nothing.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What fillings took of one prediction, as shares of its margin: 0 is nothing, 1 is all of it: the class flips.

    Attributes:
        fact: of the image as it is.
        margin: of the image as it is, above 0; of a callable, the size of its score.
        own: (F,), for each filling of the region.
        elsewhere: (P, F), of the region's shape at other places.
        overlap: the largest share of the region that one of these places has in common with it.
    """

    fact: Fact
    margin: float
    own: npt.NDArray[np.float64]
    elsewhere: npt.NDArray[np.float64]
    overlap: float


def judge_ignores(
    asking: Asking, model: ModelLike, image: object, region: object, cls: object, *, threshold: float | None
) -> Verdict:
    """Whether the prediction stays, whatever the region is filled with: of one image, or of several together.

    The value is the largest share of the margin that a filling changes, up or down, 1 at most: that is ignored which no
    filling shows to matter. Chance is the same of the region's shape at other places.

    Args:
        asking: the settings that hold.
        model: as for `explain`, or any callable, inputs (N, C, H, W) → scores.
        image: as for `explain`, or a list of them.
        region: anything `Region.of` takes; for a list of images one for each, or a single one for all.
        cls: as for `explain`; for a list of images one for each, or a single one for all.
        threshold: the largest change that passes, in [0, 1); None for 0.25, or 0.5 for a mean.

    Raises:
        ClassError: the class is not the predicted one, so that there is no prediction that could ignore anything.
        VacuousRegionError: the region is nearly all of the picture, or there is nothing in it that could be taken away.
        VacuousThresholdError: any prediction would pass, or none could.
        GradcamError: as for `explain`, and for unusable regions.
    """
    __tracebackhide__ = True
    default = IGNORES_TOGETHER if is_list(image) and is_mean(asking, False) else IGNORES
    allowed = default if threshold is None else number("threshold", threshold)
    if not 0.0 <= allowed < 1.0:
        raise VacuousThresholdError(
            f"threshold {allowed:g} is not in [0, 1): a change of 1 flips the prediction, and none is below 0"
        )
    claim = _claim("margin_change", "largest change of the margin", ("relies on", "ignores"), at_most=True)
    return _judge(asking, claim, model, image, region, cls, lambda losses: _ignored(losses, allowed), 1.0, allowed)


def judge_needs(
    asking: Asking, model: ModelLike, image: object, region: object, cls: object, *, threshold: float | None
) -> Verdict:
    """Whether the prediction goes, whatever the region is filled with: of one image, or of several together.

    The value is the smallest share of the margin that a filling takes, from -1 to 1, so that no single filling that
    means something to the model decides. Chance is the same of the region's shape at other places; where these are
    apart from the region, it must take more than they do.

    Args:
        asking: as for `judge_ignores`, and so on.
        model: as for `judge_ignores`.
        image: as for `judge_ignores`.
        region: as for `judge_ignores`.
        cls: as for `judge_ignores`.
        threshold: the smallest loss that passes, in (0, 1]; None for 0.5.

    Raises:
        GradcamError: as for `judge_ignores`.
    """
    __tracebackhide__ = True
    needed = NEEDS if threshold is None else number("threshold", threshold)
    if not 0.0 < needed <= 1.0:
        raise VacuousThresholdError(
            f"threshold {needed:g} is not in (0, 1]: a prediction that nothing happens to loses 0, one that flips 1"
        )
    claim = _claim("margin_loss", "smallest loss of margin", ("does not need", "needs"), at_most=False)
    return _judge(asking, claim, model, image, region, cls, lambda losses: _needed(losses, needed), 0.0, needed)


def _judge(
    asking: Asking,
    claim: Claim,
    model: ModelLike,
    image: object,
    region: object,
    cls: object,
    measure: Callable[[Losses], Measured],
    worst: float,
    threshold: float,
) -> Verdict:
    __tracebackhide__ = True
    if not is_list(image):
        one = Region.of(region)
        prepared = asking.prepare(model, image)
        mask = carry_region(one, prepared)
        losses = _losses(asking, model, prepared, one, mask, cls)
        return verdict_of_one(asking, _said(asking, claim, model, losses.fact, one), measure(losses))
    images = listed(image)
    regions, classes = regions_each(region, len(images)), one_class_each(cls, len(images))
    prepared_all, masks = prepared_with_masks(asking, model, images, regions)
    refuse_copies(prepared_all, [(mask.tobytes(), str(cls)) for mask, cls in zip(masks, classes, strict=True)])
    found = []
    for i, (each, mask) in enumerate(zip(prepared_all, masks, strict=True)):
        with naming(i):
            try:
                losses = _losses(asking, model, each, regions[i], mask, classes[i])
                found.append(replace(measure(losses), index=i))
            except NotPredictedError:
                if asking.settings.judge_by != "rate":
                    raise
                facts = (("prediction", "another class is predicted than the one asked for"),)
                found.append(Measured(worst, threshold, 0.0, facts=facts, has_evidence=False, index=i))
    return verdict_of_many(asking, claim, found)


class NotPredictedError(ClassError):
    """The class that is asked for is not the predicted one."""


NotPredictedError.__name__ = ClassError.__name__  # what a person reads; only `_judge` tells them apart
NotPredictedError.__module__ = ClassError.__module__


def _losses(
    asking: Asking, model: ModelLike, prepared: Prepared, region: Region, mask: npt.NDArray[np.float32], cls: object
) -> Losses:
    """Fill the region, and its shape at other places, and ask the model about all of these pictures at once."""
    _check_region(region, mask)
    image = prepared.tensor[0].detach().cpu().float().numpy()
    places, overlap = _elsewhere(mask)
    pictures = [filled(image, each) for each in (mask, *places)]
    if np.abs(pictures[0] - image).max() <= _NO_CHANGE * np.ptp(image):
        raise VacuousRegionError(
            f"there is nothing in {region} that could be taken away: filled with its surroundings, the picture stays "
            "as it is. Use a region that shows something"
        )
    options = called_only(asking.options)
    together = torch.from_numpy(np.concatenate([image[None], *pictures])).to(prepared.tensor.dtype)
    fact = score_inputs(model, prepared.tensor, cls, options)[0]  # type: ignore[arg-type]  # checked by `scores`
    values = follow(model, together, cls if fact.cls is None else fact.cls, options)  # type: ignore[arg-type]  # as above
    whole = float(values[0])
    if fact.cls is not None and whole <= 0.0:
        name = _class_name(asking, model, fact)
        raise NotPredictedError(
            f"{name} is not what the model predicts: {_class_name(asking, model, _predicted(fact))} is, so there is no "
            "prediction that could rely on anything. Judge the predicted class, cls=None, or an image that is "
            "predicted right"
        )
    if whole == 0.0:
        raise ClassError("the score is 0: what a filling takes of it has no size. Judge a score that is not 0")
    losses = ((whole - values[1:]) / abs(whole)).reshape(1 + len(places), len(FILLINGS))
    if np.abs(losses).max() <= _NOTHING:  # perhaps these places do not matter; something must
        mean, noise = image.mean(axis=(1, 2), keepdims=True), np.random.default_rng(0).standard_normal(image.shape)
        others = [
            np.broadcast_to(mean, image.shape),
            mean + image.std() * noise,
            np.roll(image, image.shape[2] // 3, 2),
        ]
        rest = torch.from_numpy(np.stack(others).astype(np.float32)).to(prepared.tensor.dtype)
        left = follow(model, rest, cls if fact.cls is None else fact.cls, options)  # type: ignore[arg-type]  # as above
        if np.abs(whole - left).max() <= _NOTHING * abs(whole):
            raise ModelError(
                f"the prediction of {_class_name(asking, model, fact)} is the same for a picture of noise alone: "
                "it depends on no picture, and so on no region"
            )
    return Losses(fact, abs(whole), losses[0], losses[1:], overlap)


def _check_region(region: Region, mask: npt.NDArray[np.float32]) -> None:
    share = float(mask.mean(dtype=np.float64))
    if share > MOST or covered(mask).all():
        raise VacuousRegionError(
            f"{region} covers {share:.0%} of what the model sees: filled, nothing is left to predict from. Use a "
            "smaller region"
        )


def _elsewhere(mask: npt.NDArray[np.float32]) -> tuple[list[npt.NDArray[np.float32]], float]:
    """The same shape at other places, those that have least in common with the region; and how much they have.

    It is moved within the picture, or where it spans it, around its edge.
    """
    random, ranges = np.random.default_rng(0), []
    for axis, size in enumerate(mask.shape):
        held = np.flatnonzero(covered(mask).any(axis=1 - axis))
        first, last = int(held[0]), int(held[-1])
        ranges.append((-first, size - last) if last - first + 1 < size else (0, size))
    moved = []
    for _ in range(_DRAWN):
        offset = tuple(int(random.integers(*each)) for each in ranges)
        there = np.roll(mask, offset, axis=(0, 1))
        moved.append((float(np.minimum(there, mask).sum() / mask.sum()), there))
    moved.sort(key=lambda each: each[0])
    chosen = moved[:PLACES]
    return [there for _, there in chosen], chosen[-1][0]


def _ignored(losses: Losses, allowed: float) -> Measured:
    value = min(1.0, float(np.abs(losses.own).max()))
    chance = min(1.0, float(np.median(np.abs(losses.elsewhere).max(axis=1))))
    return Measured(value, allowed, chance, facts=_facts(losses, chance))


def _needed(losses: Losses, needed: float) -> Measured:
    own, chance = float(losses.own.min()), float(np.median(losses.elsewhere.min(axis=1)))
    value, shown = max(-1.0, min(1.0, own)), max(-1.0, min(1.0, chance))
    facts = _facts(losses, chance)
    if losses.overlap <= _APART and chance > needed:
        facts += (("needed", "more than is lost where the same shape is filled at other places"),)
        needed = shown
    if losses.overlap <= _APART and own <= chance:  # also where both are beyond what is shown, 1
        value = min(value, float(np.nextafter(needed, -1.0)))
    return Measured(value, needed, shown, facts=facts)


def _facts(losses: Losses, chance: float) -> tuple[tuple[str, str], ...]:
    what = "score" if losses.fact.cls is None else "margin"
    each = ", ".join(f"{name} {loss:.2f}" for name, loss in zip(FILLINGS, losses.own, strict=True))
    shared = f", which share {losses.overlap:.0%} of it" if losses.overlap > _APART else ""
    facts = [
        ("fillings", f"share of the {what} that each takes: {each}"),
        ("elsewhere", f"{chance:.2f} where the same shape is filled at {PLACES} other places{shared}"),
    ]
    if losses.fact.probability is None:
        return (*facts, ("score", f"{losses.fact.score:.4g}"))
    return (*facts, ("margin", f"{losses.margin:.4g} before the runner-up, p = {losses.fact.probability:.2f}"))


def _claim(metric: str, title: str, verbs: tuple[str, str], *, at_most: bool) -> Claim:
    failed, passed = verbs
    plural = {"relies on": "rely on", "ignores": "ignore", "does not need": "do not need", "needs": "need"}
    return Claim(
        metric=metric,
        title=title,
        at_most=at_most,
        sentence=lambda _measured, holds: passed if holds else failed,  # `_said` completes it
        of_many=f"the predictions {plural[passed]} their regions",
        not_of_many=f"the predictions {plural[failed]} their regions",
        lacking="of which the class is not predicted",
    )


def _said(asking: Asking, claim: Claim, model: object, fact: Fact, region: Region) -> Claim:
    """The claim with the names of one image's class and region."""
    name, verb = "the score", claim.sentence
    if fact.cls is not None:
        name = f"the prediction of {_class_name(asking, model, fact)}"
    title = claim.title if fact.cls is not None else claim.title.replace("margin", "score")
    return replace(claim, title=title, sentence=lambda each, holds: f"{name} {verb(each, holds)} {region.noun}")


def _predicted(fact: Fact) -> Fact:
    return replace(fact, cls=fact.predicted)


def _class_name(asking: Asking, model: object, fact: Fact) -> str:
    labels: Sequence[str] | None = asking.settings.labels
    if labels is None and isinstance(model, nn.Module):
        labels = labels_of(model)
    index = fact.cls
    return f"class {index}" + (f" ({labels[index]})" if labels and index is not None and index < len(labels) else "")
