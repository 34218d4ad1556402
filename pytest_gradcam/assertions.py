"""The assertions: explain → measure → Verdict → return or raise; and `Gradcam`, the same bound to settings.

Knows no pytest. What a metric is belongs to `metrics`, what a failure looks like to `report`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pytest_gradcam import explanations
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import VacuousRegionError, VacuousThresholdError
from pytest_gradcam.explanations import ClassesLike, ExplainKeywords
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.metrics import METRICS, Metric, chance, distance_to, energy, filled, peak
from pytest_gradcam.regions import Region
from pytest_gradcam.report.terminal import failure_text
from pytest_gradcam.settings import Settings, check_keywords
from pytest_gradcam.verdicts import AttentionError, Verdict, ZeroEvidenceError

# A region whose own mask gains less than this on chance is all but the whole picture: any map would pass inside it.
BARELY_ABOVE_CHANCE = 1.1
# A threshold at the bound of what a map can reach is served, whichever way the bound is rounded.
ROUNDING = 1e-6

Record = Callable[[Verdict], "str | None"]


class AssertKeywords(ExplainKeywords, total=False):
    """The keywords of the assertions, for whoever hands them on."""

    metric: str
    threshold: float | None


def assert_attention_in_region(
    model: ModelLike,
    image: object,
    bbox: object,
    cls: ClassLike = None,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    **explain: Unpack[ExplainKeywords],
) -> Verdict:
    """The evidence for the class lies in the region.

    Args:
        model: as for `explain`.
        image: as for `explain`.
        bbox: where attention should be, in the frame of the image as given: a box (x0, y0, x1, y1), a list of boxes, a
            polygon, a boolean mask (H, W), torchvision `BoundingBoxes` or `Mask`, or a `Region`.
        cls: as for `explain`; None judges the predicted class.
        metric: `calibrated_energy`, `energy` or `pointing_game`.
        threshold: passes when the value is at or above it; None for the metric's default (calibrated energy: 0.15).
        **explain: `method`, `layer`, `engine`, `transform`, `device`, `labels`, `forward`, as for
            `explain`.

    Returns:
        The verdict, if it passed.

    Raises:
        AttentionError: the verdict failed; `.verdict` holds it.
        ZeroEvidenceError: there is no map to judge.
        VacuousRegionError: chance alone would satisfy the region.
        VacuousThresholdError: a uniform map would pass the threshold.
        GradcamError: as for `explain`, and for unusable regions.
    """
    __tracebackhide__ = True
    return Gradcam().assert_attention_in_region(model, image, bbox, cls, metric=metric, threshold=threshold, **explain)


def assert_attention_outside_region(
    model: ModelLike,
    image: object,
    bbox: object,
    cls: ClassLike = None,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    **explain: Unpack[ExplainKeywords],
) -> Verdict:
    """The evidence for the class does not lie in the region: a watermark, a tag, the background.

    Args:
        model: as for `explain`.
        image: as for `explain`.
        bbox: where attention should not be; as for `assert_attention_in_region`.
        cls: as for `explain`; None judges the predicted class.
        metric: `calibrated_energy`, `energy` or `pointing_game`.
        threshold: passes when the value is at or below it; None for the metric's default (calibrated energy: 0, no more
            than chance).
        **explain: as for `assert_attention_in_region`.

    Returns:
        The verdict, if it passed.

    Raises:
        AttentionError: the verdict failed; `.verdict` holds it.
        ZeroEvidenceError: there is no map to judge.
        VacuousRegionError: the region cannot be told from the whole picture.
        VacuousThresholdError: a map that fills the region evenly would pass the threshold.
        GradcamError: as for `explain`, and for unusable regions.
    """
    __tracebackhide__ = True
    keywords: AssertKeywords = {"metric": metric, "threshold": threshold, **explain}
    return Gradcam().assert_attention_outside_region(model, image, bbox, cls, **keywords)


class Gradcam:
    """`explain` and the assertions, bound to settings; what the `gradcam` fixture returns.

    Every keyword of the functions can be given to the methods too, and wins over the settings.
    """

    def __init__(self, settings: Settings | None = None, record: Record | None = None) -> None:
        """Bind.

        Args:
            settings: None for the defaults.
            record: called with every verdict, passed or failed, before anything is raised; the text that it returns is
                named in the failure's message as the overlay's path.
        """
        self.settings = Settings() if settings is None else settings
        self._record = record

    def __repr__(self) -> str:
        settings, plain = self.settings, Settings()
        names = [field.name for field in fields(Settings)]
        changed = [name for name in names if getattr(settings, name) != getattr(plain, name)]
        return f"Gradcam({', '.join(f'{name}={getattr(settings, name)!r}' for name in changed)})"

    def explain(
        self, model: ModelLike, image: object, cls: ClassLike = None, **keywords: Unpack[ExplainKeywords]
    ) -> Explanation:
        """As the function `explain`, with these settings."""
        return explanations.explain(model, image, cls, **self._explain_arguments("explain", keywords))

    def explain_batch(
        self,
        model: ModelLike,
        images: Tensor | Sequence[object],
        classes: ClassesLike | ClassLike = None,
        **keywords: Unpack[ExplainKeywords],
    ) -> list[Explanation]:
        """As the function `explain_batch`, with these settings."""
        arguments = self._explain_arguments("explain_batch", keywords)
        return explanations.explain_batch(model, images, classes, **arguments)

    def explain_classes(
        self,
        model: ModelLike,
        image: object,
        classes: ClassesLike | None = None,
        **keywords: Unpack[ExplainKeywords],
    ) -> list[Explanation]:
        """As the function `explain_classes`, with these settings."""
        arguments = self._explain_arguments("explain_classes", keywords)
        return explanations.explain_classes(model, image, classes, **arguments)

    def assert_attention_in_region(
        self,
        model: ModelLike,
        image: object,
        bbox: object,
        cls: ClassLike = None,
        **keywords: Unpack[AssertKeywords],
    ) -> Verdict:
        """As the function `assert_attention_in_region`, with these settings."""
        __tracebackhide__ = True
        return self._judge("assert_attention_in_region", True, model, image, bbox, cls, keywords)

    def assert_attention_outside_region(
        self,
        model: ModelLike,
        image: object,
        bbox: object,
        cls: ClassLike = None,
        **keywords: Unpack[AssertKeywords],
    ) -> Verdict:
        """As the function `assert_attention_outside_region`, with these settings."""
        __tracebackhide__ = True
        return self._judge("assert_attention_outside_region", False, model, image, bbox, cls, keywords)

    def _explain_arguments(self, operation: str, keywords: ExplainKeywords) -> ExplainKeywords:
        check_keywords(operation, keywords, ExplainKeywords.__annotations__)
        return _explain_arguments(self.settings.with_(**keywords))

    def _judge(
        self,
        assertion: str,
        inside: bool,
        model: ModelLike,
        image: object,
        bbox: object,
        cls: ClassLike,
        keywords: AssertKeywords,
    ) -> Verdict:
        __tracebackhide__ = True
        check_keywords(assertion, keywords, AssertKeywords.__annotations__)
        changed: dict[str, Any] = dict(keywords)
        threshold = changed.pop("threshold", None)
        if threshold is not None:  # None takes the settings, and then the metric's default
            changed["threshold" if inside else "outside_threshold"] = threshold
        settings = self.settings.with_(**changed)
        region = Region.of(bbox)
        prepared = prepare(image, model=model, transform=settings.transform)
        mask = carry_region(region, prepared)
        options = Options(
            method=settings.method,
            layer=settings.layer,
            engine=settings.engine,
            device=settings.device,
            labels=settings.labels,
            forward=settings.forward,
        )
        explanation = explanations.explain_prepared(model, prepared, cls, options)
        wanted = settings.threshold if inside else settings.outside_threshold
        verdict = judge_region(
            explanation, region, mask, assertion, settings.metric, wanted, inside=inside, frame=prepared.frame
        )
        overlay = None if self._record is None else self._record(verdict)
        if not verdict.passed:
            raise AttentionError(failure_text(verdict, overlay), verdict)
        return verdict


def judge_region(
    explanation: Explanation,
    region: Region,
    mask: npt.NDArray[np.float32],
    assertion: str,
    metric: str,
    threshold: float | None,
    *,
    inside: bool,
    frame: tuple[int, int],
) -> Verdict:
    """Measure one map against one region and judge it.

    Args:
        explanation: the map.
        region: as the user gave it.
        mask: float32 (H, W), the region in the input frame.
        assertion: name of the assertion that asks.
        metric: name of the metric.
        threshold: what is needed; None for the metric's default.
        inside: whether attention is wanted inside the region, or not.
        frame: (height, width) of the image frame.

    Raises:
        ZeroEvidenceError: the map is zero everywhere.
        VacuousRegionError: the region cannot be told from the whole picture, or not on this grid.
        VacuousThresholdError: the map that the threshold is meant to reject would pass it, or no map could.
    """
    __tracebackhide__ = True
    if explanation.evidence <= 0:
        raise ZeroEvidenceError(
            f"no evidence: nothing at {explanation.layer} ({explanation.method}) speaks for {_class(explanation)}, "
            f"its score is {explanation.score:.4g}: there is no map to judge. Judge another class, or see whether the "
            "layer's gradient vanishes"
        )
    by_chance, by_filling = chance(mask), filled(mask, explanation.grid)
    if by_filling < BARELY_ABOVE_CHANCE * by_chance:
        raise _vacuous_region(explanation, region, by_chance, by_filling, inside)
    rule = METRICS[metric]
    default = rule.inside if inside else rule.outside(by_chance, by_filling)
    wanted = default if threshold is None else float(threshold)
    _check_threshold(rule, wanted, by_chance, by_filling, inside)
    value = rule.measure(explanation.cam, mask, explanation.grid)
    passed = value >= wanted if inside else value <= wanted
    x, y = peak(explanation.cam)
    return Verdict(
        assertion=assertion,
        passed=passed,
        metric=metric,
        value=value,
        values=(value,),
        chance=by_chance,
        filled=by_filling,
        energy=energy(explanation.cam, mask),
        threshold=wanted,
        interval=None,
        peak=(x, y),
        peak_distance=distance_to(mask, (x, y)),
        region=region,
        mask=mask,
        frame=frame,
        explanation=explanation,
        message=_message(explanation, region, rule, value, wanted, passed, inside),
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


def _check_threshold(rule: Metric, wanted: float, by_chance: float, by_filling: float, inside: bool) -> None:
    """A threshold is worth having only if the map that it is meant to reject fails it."""
    if not math.isfinite(wanted):
        raise VacuousThresholdError(f"threshold {wanted} is not finite: give a number")
    if inside and wanted <= rule.at_chance(by_chance, by_filling):
        least = rule.at_chance(by_chance, by_filling)
        raise VacuousThresholdError(
            f"{rule.title} {wanted:g} inside would be passed by chance alone: a uniform map has {least:.2f} "
            "in this region. Use a higher threshold, a smaller region, or the metric calibrated_energy, which takes "
            "chance into account"
        )
    if not inside and wanted >= rule.at_filled(by_chance, by_filling):
        most = rule.at_filled(by_chance, by_filling)
        raise VacuousThresholdError(
            f"{rule.title} {wanted:g} outside would be passed by any map: one that fills this region "
            f"evenly has {most:.2f}. Use a lower threshold"
        )
    least, most = rule.least(by_chance, by_filling), rule.most(by_chance, by_filling)
    if inside and wanted > most + ROUNDING * abs(most):
        raise VacuousThresholdError(
            f"{rule.title} {wanted:g} inside is what no map could pass: the most that there can be in this region is "
            f"{most:.2f}. Use a lower threshold"
        )
    if not inside and wanted < least - ROUNDING * abs(least):
        raise VacuousThresholdError(
            f"{rule.title} {wanted:g} outside is what no map could pass: the least that there can be in this region is "
            f"{least:.2f}. Use a higher threshold"
        )


def _message(
    explanation: Explanation, region: Region, rule: Metric, value: float, wanted: float, passed: bool, inside: bool
) -> str:
    verb = "is" if passed == inside else "is not"
    shown, needed = _told_apart(value, wanted)
    needs = f"needs {needed}" if inside else f"allowed {needed}"
    return f"{_class(explanation)} {verb} explained by {region.noun}: {rule.title} {shown}, {needs}"


def _told_apart(value: float, threshold: float) -> tuple[str, str]:
    """Both with two decimals, or as many as it takes to tell the value from the threshold that it missed."""
    for digits in range(2, 7):
        texts = f"{value:.{digits}f}", f"{threshold:.{digits}f}"
        if value == threshold or texts[0] != texts[1]:
            return texts
    return repr(value), repr(threshold)


def _class(explanation: Explanation) -> str:
    if explanation.cls is None:
        return "the score"
    return f"class {explanation.cls}" + (f" ({explanation.label})" if explanation.label is not None else "")


def _explain_arguments(settings: Settings) -> ExplainKeywords:
    return {
        "method": settings.method,
        "layer": settings.layer,
        "engine": settings.engine,
        "transform": settings.transform,
        "device": settings.device,
        "labels": settings.labels,
        "forward": settings.forward,
    }
