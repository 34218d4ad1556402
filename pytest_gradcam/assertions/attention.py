"""Attention against regions: inside one, outside one, on every one of several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pytest_gradcam.assertions.asking import (
    Asking,
    class_name,
    is_list,
    listed,
    naming,
    one_class_each,
    refuse_copies,
)
from pytest_gradcam.assertions.comparing import number
from pytest_gradcam.assertions.together import Claim, Measured, is_mean, verdict_of_many, verdict_of_one
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.errors import RegionError, TargetLayerError, VacuousRegionError, VacuousThresholdError
from pytest_gradcam.images import Prepared
from pytest_gradcam.metrics import METRICS, TIE, Metric, chance, distance_to, energy, filled, filling, peak
from pytest_gradcam.regions import Region
from pytest_gradcam.verdicts import Place, Sight, Verdict

# A region whose own mask gains less than this on chance is all but the whole picture: any map would pass inside it.
BARELY_ABOVE_CHANCE = 1.1
# A threshold at the bound of what a map can reach is served, whichever way the bound is rounded.
ROUNDING = 1e-6

# Parts that share more than this of the smaller one are one part.
MOST_SHARED = 0.5

Mask = npt.NDArray[np.float32]


def judge_region(
    asking: Asking, model: ModelLike, image: object, bbox: object, cls: object, *, inside: bool
) -> Verdict:
    """Whether the evidence for a class lies in a region, or outside of it: of one image, or of several together.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        bbox: anything `Region.of` takes; for a list of images one for each, or a single one for all.
        cls: as for `explain`; for a list of images one for each, or a single one for all.
        inside: whether attention is wanted inside the region, or not.

    Raises:
        ZeroEvidenceError: a map is zero everywhere.
        VacuousRegionError: a region cannot be told from the whole picture, or not on this grid.
        VacuousThresholdError: the map that the threshold is meant to reject would pass it, or no map could.
        GradcamError: as for `explain`, and for unusable regions.
    """
    __tracebackhide__ = True
    metric = METRICS[asking.settings.metric]
    if not is_list(image):
        region = Region.of(bbox)
        prepared = asking.prepare(model, image)
        mask = asking.carry(region, prepared)
        (explanation,) = asking.explain(model, [prepared], [cls])  # type: ignore[list-item]  # checked by `scores`
        asking.with_evidence(explanation)
        return judge_map(asking, explanation, region, mask, prepared.frame, inside=inside)
    images = listed(image)
    regions = regions_each(bbox, len(images))
    classes = one_class_each(cls, len(images))
    prepared_all, masks = prepared_with_masks(asking, model, images, regions)
    maps = asking.explain(model, prepared_all, classes)
    asked = [cls if each.cls is None else each.cls for cls, each in zip(classes, maps, strict=True)]
    refuse_copies(prepared_all, [(mask.tobytes(), str(cls)) for mask, cls in zip(masks, asked, strict=True)])
    together = is_mean(asking, metric.is_rate)
    found = []
    for i, explanation in enumerate(maps):
        with naming(i):
            if together:
                asking.with_evidence(explanation)
            frame = prepared_all[i].frame
            found.append(
                _measured(asking, metric, explanation, regions[i], masks[i], frame, inside=inside, together=together)
            )
    return verdict_of_many(asking, _claim(asking, metric, inside=inside), found)


def judge_map(
    asking: Asking, explanation: Explanation, region: Region, mask: Mask, frame: tuple[int, int], *, inside: bool
) -> Verdict:
    """The verdict on one map with evidence, held against one region.

    Args:
        asking: the settings that hold.
        explanation: the map.
        region: as the user gave it.
        mask: float32 (H, W), the region in the input frame.
        frame: (height, width) of the image frame.
        inside: whether attention is wanted inside the region, or not.
    """
    metric = METRICS[asking.settings.metric]
    measured = _measured(asking, metric, explanation, region, mask, frame, inside=inside)
    return verdict_of_one(asking, _claim(asking, metric, inside=inside), measured)


def judge_every(
    asking: Asking, model: ModelLike, image: object, regions: object, cls: object, *, threshold: float | None
) -> Verdict:
    """Whether each of several regions has its part of the evidence: of one image, or of several together.

    A map that fills all of the regions evenly gives each of them 1, one that treats a region as it treats the rest of
    the picture gives it 0. The least of them is judged.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        regions: several regions, each anything that `Region.of` takes; for a list of images one such list for each.
        cls: as for `explain`; for a list of images one for each, or a single one for all.
        threshold: what the least must have; None for that of calibrated energy.

    Raises:
        RegionError: there are fewer than two regions.
        VacuousRegionError: one of them cannot be told from the rest on this grid.
        GradcamError: as for `judge_region`.
    """
    __tracebackhide__ = True
    several = is_list(image)
    images = listed(image) if several else [image]
    lists = _part_lists(regions, len(images), several=several)
    classes = one_class_each(cls, len(images)) if several else [cls]
    parts, prepared, found = [], [], []
    for i, (each, asked) in enumerate(zip(images, lists, strict=True)):
        with naming(i if several else None):
            parts.append(_parts(asked))
            prepared.append(asking.prepare(model, each))
    if several:
        refuse_copies(prepared, [(list(map(repr, each)), str(cls)) for each, cls in zip(parts, classes, strict=True)])
    maps = asking.explain(model, prepared, classes)  # type: ignore[arg-type]  # checked by `scores`
    for i, explanation in enumerate(maps):
        with naming(i if several else None):
            if not several or is_mean(asking, False):
                asking.with_evidence(explanation)
            found.append(_least(asking, explanation, parts[i], prepared[i], threshold))
    claim = Claim(
        metric="calibrated_energy",
        title="calibrated energy of the part that has least",
        at_most=False,
        sentence=lambda measured, passed: (
            f"{class_name(measured.sights[0].explanation)} is {'' if passed else 'not '}explained by every region"
        ),
        of_many="the classes are explained by every region",
        not_of_many="the classes are not explained by every region",
    )
    return verdict_of_many(asking, claim, found) if several else verdict_of_one(asking, claim, found[0])


def place_of(explanation: Explanation, region: Region, mask: Mask, frame: tuple[int, int]) -> Place:
    """Where a map lies with regard to a region."""
    by_chance, by_filling = chance(mask), filled(mask, explanation.grid)
    if explanation.evidence <= 0:
        return Place(region, mask, frame, by_chance, by_filling, 0.0, (0, 0), 0.0)
    x, y = peak(explanation.cam)
    inside = energy(explanation.cam, mask)
    return Place(region, mask, frame, by_chance, by_filling, inside, (x, y), distance_to(mask, (x, y)))


def regions_each(bbox: object, count: int) -> list[Region]:
    """A region for each of several images; a single one is that of all.

    Raises:
        RegionError: there is another number of them.
    """
    if isinstance(bbox, list | tuple) and not _is_one(bbox):
        if len(bbox) != count:
            raise RegionError(f"{len(bbox)} regions for {count} images: pass one for each image, or one for all")
        return [Region.of(each) for each in bbox]
    shape = getattr(bbox, "shape", None)
    if shape is not None and len(shape) in (2, 3) and not (len(shape) == 2 and shape[1] != 4):
        if len(shape) == 3 or shape[0] != 1:  # boxes (N, 4) or masks (N, H, W), of which each image has one
            if shape[0] != count:
                raise RegionError(
                    f"{shape[0]} regions, in an array of shape {tuple(shape)}, for {count} images: pass one for each "
                    "image, or a Region for all"
                )
            return [Region.of(each) for each in bbox]  # type: ignore[attr-defined]  # an array or tensor
    return [Region.of(bbox)] * count


def prepared_with_masks(
    asking: Asking, model: object, images: Sequence[object], regions: Sequence[Region]
) -> tuple[list[Prepared], list[Mask]]:
    """The images made ready, and their regions carried into the input frame."""
    prepared, masks = [], []
    for i, (image, region) in enumerate(zip(images, regions, strict=True)):
        with naming(i):
            prepared.append(asking.prepare(model, image))
            masks.append(asking.carry(region, prepared[-1]))
    return prepared, masks


def _is_one(bbox: Sequence[object]) -> bool:
    """Whether a list is one box, (x0, y0, x1, y1), or one polygon, [(x, y), …], and no list of regions."""

    def are_numbers(values: object, count: int) -> bool:
        return (
            isinstance(values, list | tuple)
            and len(values) == count
            and all(isinstance(each, int | float | np.number) for each in values)
        )

    return are_numbers(bbox, 4) or (len(bbox) >= 3 and all(are_numbers(point, 2) for point in bbox))


def _part_lists(regions: object, count: int, *, several: bool) -> list[object]:
    if not several:
        return [regions]
    if not isinstance(regions, list | tuple) or len(regions) != count:
        raise RegionError(f"regions must be {count} lists of regions, one for each image")
    return list(regions)


def _parts(regions: object) -> list[Region]:
    if not isinstance(regions, list | tuple) or _is_one(regions) or len(regions) < 2:
        raise RegionError(
            "regions must be a list of two or more, each a box (x0, y0, x1, y1), a polygon, a mask or a Region; for a "
            "single one there is assert_attention_in_region"
        )
    return [Region.of(each) for each in regions]


def _measured(
    asking: Asking,
    metric: Metric,
    explanation: Explanation,
    region: Region,
    mask: Mask,
    frame: tuple[int, int],
    *,
    inside: bool,
    together: bool = False,
) -> Measured:
    """Measure one map against one region, after seeing to it that the measurement can fail."""
    place = place_of(explanation, region, mask, frame)
    if place.filled < BARELY_ABOVE_CHANCE * place.chance:
        raise _vacuous_region(explanation, region, place.chance, place.filled, inside)
    asked = asking.settings.threshold if inside else asking.settings.outside_threshold
    default = metric.inside if inside else metric.outside(place.chance, place.filled)
    if together and metric.together is not None:
        default = metric.together[0 if inside else 1]
    wanted = default if asked is None else float(asked)
    _check_threshold(metric, wanted, mask, explanation.grid, place, inside)
    sight = Sight(explanation, place)
    at_chance = metric.at_chance(place.chance, place.filled)
    if explanation.evidence <= 0:
        low, high = metric.least(place.chance, place.filled), metric.most(place.chance, place.filled)
        worst = low if inside == metric.higher_is_inside else high
        return Measured(worst, wanted, at_chance, (sight,), has_evidence=False)
    if not inside and np.ptp(explanation.cam) <= TIE:
        raise TargetLayerError(
            f"the map of {class_name(explanation)} at {explanation.layer} ({explanation.method}) has the same value "
            "everywhere: it shows no place that it could be outside of. Name another layer: layer=…"
        )
    value = metric.measure(explanation.cam, mask, explanation.grid)
    return Measured(value, wanted, at_chance, (sight,))


def _claim(asking: Asking, metric: Metric, *, inside: bool) -> Claim:
    def sentence(measured: Measured, passed: bool) -> str:
        sight = measured.sights[0]
        assert sight.place is not None  # `_measured` puts it there
        verb = "is" if passed == inside else "is not"
        return f"{class_name(sight.explanation)} {verb} explained by {sight.place.region.noun}"

    said = "the classes are explained by their regions", "the classes are not explained by their regions"
    of_many, not_of_many = said if inside else said[::-1]
    return Claim(
        metric=asking.settings.metric,
        title=metric.title,
        at_most=inside != metric.higher_is_inside,
        sentence=sentence,
        of_many=of_many,
        not_of_many=not_of_many,
        is_rate=metric.is_rate,
    )


def _least(
    asking: Asking,
    explanation: Explanation,
    regions: Sequence[Region],
    prepared: Prepared,
    threshold: float | None,
) -> Measured:
    """Measure one map against each of its regions: the one that has least of its part."""
    masks = [asking.carry(region, prepared) for region in regions]
    _refuse_overlap(regions, masks)
    together = np.clip(np.sum(masks, axis=0), 0.0, 1.0).astype(np.float32)
    values = []
    for region, mask in zip(regions, masks, strict=True):
        by_chance, by_filling = chance(mask), energy(filling(together, explanation.grid), mask)
        if by_filling < BARELY_ABOVE_CHANCE * by_chance:
            raise VacuousRegionError(
                f"{region} cannot be told from the rest: a map that fills all of the regions evenly has energy "
                f"{by_filling:.2g} there, a uniform one {by_chance:.2g}. Use smaller regions, or name an earlier layer "
                "with a finer grid: layer=…"
            )
        inside = energy(explanation.cam, mask) if explanation.evidence > 0 else 0.0
        values.append((inside - by_chance) / (by_filling - by_chance))
    wanted = METRICS["calibrated_energy"].inside if threshold is None else number("threshold", threshold)
    if not 0.0 < wanted <= 1.0:
        raise VacuousThresholdError(
            f"threshold {wanted:g} is not above 0, where a region has no more than the rest of the picture, and at "
            "most 1, where each has its part"
        )
    least = int(np.argmin(values))
    place = place_of(explanation, regions[least], masks[least], prepared.frame)
    shares = ", ".join(f"{region} {value:.2f}" for region, value in zip(regions, values, strict=True))
    facts = (("each", shares),)
    sight = Sight(explanation, place)
    return Measured(values[least], wanted, 0.0, (sight,), facts=facts, has_evidence=explanation.evidence > 0)


def _refuse_overlap(regions: Sequence[Region], masks: Sequence[Mask]) -> None:
    """A part that is there twice asks nothing new."""
    for i, mask in enumerate(masks):
        for j, other in enumerate(masks[:i]):
            shared = float(np.minimum(mask, other).sum()) / min(float(mask.sum()), float(other.sum()))
            if shared > MOST_SHARED:
                raise RegionError(
                    f"{regions[j]} and {regions[i]} share {shared:.0%} of the smaller one: they are no two parts. Give "
                    "regions that lie apart"
                )


def _vacuous_region(
    explanation: Explanation, region: Region, by_chance: float, by_filling: float, inside: bool
) -> VacuousRegionError:
    if by_chance < 0.5:  # a small region is not the whole picture: it is the grid that cannot show it
        rows, columns = explanation.grid
        return VacuousRegionError(
            f"{region} cannot be told from the rest on the {rows}×{columns} grid of {explanation.layer}: a map that "
            f"fills it has energy {by_filling:.2g}, a uniform one {by_chance:.2g}. Use a larger region, or name an "
            "earlier layer with a finer grid: layer=…"
        )
    covers = f"{region} covers {by_chance:.0%} of what the model sees"
    if inside:
        return VacuousRegionError(
            f"{covers}: any map would pass. Use a smaller region, or assert_attention_outside_region on the rest."
        )
    return VacuousRegionError(
        f"{covers}: no map could stay outside of it. Use a smaller region, or assert_attention_in_region on the rest."
    )


def _check_threshold(
    metric: Metric, wanted: float, mask: Mask, grid: tuple[int, int], place: Place, inside: bool
) -> None:
    """A threshold is worth having only if the map that it is meant to reject fails it."""
    if not math.isfinite(wanted):
        raise VacuousThresholdError(f"threshold {wanted} is not finite: give a number")
    at_least = inside == metric.higher_is_inside
    side = "inside" if inside else "outside"
    by_chance, by_filling = place.chance, place.filled
    chance_value, filled_value = metric.at_chance(by_chance, by_filling), metric.of_filled(mask, grid)
    if inside and (wanted <= chance_value if at_least else wanted >= chance_value):
        raise VacuousThresholdError(
            f"{metric.title} {wanted:g} inside would be passed by chance alone: a uniform map has {chance_value:.2f} "
            f"in this region. Use a {'higher' if at_least else 'lower'} threshold, a smaller region, or the metric "
            "calibrated_energy, which takes chance into account"
        )
    if not inside and (wanted <= filled_value if at_least else wanted >= filled_value):
        raise VacuousThresholdError(
            f"{metric.title} {wanted:g} outside would be passed by any map: one that fills this region "
            f"evenly has {filled_value:.2f}. Use a {'higher' if at_least else 'lower'} threshold"
        )
    least, most = metric.least(by_chance, by_filling), metric.most(by_chance, by_filling)
    if at_least and wanted > most + ROUNDING * abs(most):
        raise VacuousThresholdError(
            f"{metric.title} {wanted:g} {side} is what no map could pass: the most that there can be in this region is "
            f"{most:.2f}. Use a lower threshold"
        )
    if not at_least and wanted < least - ROUNDING * abs(least):
        raise VacuousThresholdError(
            f"{metric.title} {wanted:g} {side} is what no map could pass: the least that there can be in this region "
            f"is {least:.2f}. Use a higher threshold"
        )
