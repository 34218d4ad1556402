"""The assertions: explain → measure → Verdict → return or raise; and `Gradcam`, the same bound to settings.

Knows no pytest. What a metric is belongs to `metrics`, what a failure looks like to `report`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pytest_gradcam import explanations
from pytest_gradcam.cam.explain import ModelLike, Options
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import (
    AttentionError,
    SettingsError,
    VacuousRegionError,
    VacuousThresholdError,
    ZeroEvidenceError,
)
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.metrics import METRICS, Metric, chance, distance_to, energy, filled, peak
from pytest_gradcam.regions import Region
from pytest_gradcam.report.terminal import failure_text
from pytest_gradcam.settings import Settings
from pytest_gradcam.verdicts import Verdict

# A region whose own mask gains less than this on chance is all but the whole picture: any map would pass inside it.
BARELY_ABOVE_CHANCE = 1.1

Record = Callable[[Verdict], "str | None"]


def assert_attention_in_region(
    model: ModelLike,
    image: object,
    bbox: object,
    cls: ClassLike = None,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    **explain: Any,
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
        **explain: `method`, `layer`, `engine`, `transform`, `device`, `labels`, as for `explain`.

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
    gradcam = Gradcam(Settings().with_(metric=metric, threshold=threshold, **explain))
    return gradcam.assert_attention_in_region(model, image, bbox, cls)


def assert_attention_outside_region(
    model: ModelLike,
    image: object,
    bbox: object,
    cls: ClassLike = None,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    **explain: Any,
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
    gradcam = Gradcam(Settings().with_(metric=metric, outside_threshold=threshold, **explain))
    return gradcam.assert_attention_outside_region(model, image, bbox, cls)


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

    def explain(self, model: ModelLike, image: object, cls: ClassLike = None, **keywords: Any) -> Explanation:
        """As the function `explain`, with these settings."""
        return explanations.explain(model, image, cls, **_explain_arguments(self.settings.with_(**keywords)))

    def explain_batch(
        self,
        model: ModelLike,
        images: Tensor | Sequence[object],
        classes: Sequence[ClassLike] | ClassLike = None,
        **keywords: Any,
    ) -> list[Explanation]:
        """As the function `explain_batch`, with these settings."""
        return explanations.explain_batch(model, images, classes, **_explain_arguments(self.settings.with_(**keywords)))

    def explain_classes(
        self, model: ModelLike, image: object, classes: Sequence[ClassLike] | None = None, **keywords: Any
    ) -> list[Explanation]:
        """As the function `explain_classes`, with these settings."""
        arguments = _explain_arguments(self.settings.with_(**keywords))
        return explanations.explain_classes(model, image, classes, **arguments)

    def assert_attention_in_region(
        self, model: ModelLike, image: object, bbox: object, cls: ClassLike = None, **keywords: Any
    ) -> Verdict:
        """As the function `assert_attention_in_region`, with these settings."""
        __tracebackhide__ = True
        settings = self.settings.with_(**keywords)
        return self._judge("assert_attention_in_region", True, settings.threshold, settings, model, image, bbox, cls)

    def assert_attention_outside_region(
        self, model: ModelLike, image: object, bbox: object, cls: ClassLike = None, **keywords: Any
    ) -> Verdict:
        """As the function `assert_attention_outside_region`, with these settings."""
        __tracebackhide__ = True
        if "threshold" in keywords:
            keywords["outside_threshold"] = keywords.pop("threshold")
        settings = self.settings.with_(**keywords)
        threshold = settings.outside_threshold
        return self._judge("assert_attention_outside_region", False, threshold, settings, model, image, bbox, cls)

    def _judge(
        self,
        assertion: str,
        inside: bool,
        threshold: float | None,
        settings: Settings,
        model: ModelLike,
        image: object,
        bbox: object,
        cls: ClassLike,
    ) -> Verdict:
        __tracebackhide__ = True
        if settings.metric not in METRICS:
            raise SettingsError(f"unknown metric {settings.metric!r}: the metrics are {', '.join(METRICS)}")
        region = Region.of(bbox)
        arguments = _explain_arguments(settings)
        prepared = prepare(image, model=model, transform=arguments.pop("transform"))
        mask = carry_region(region, prepared)
        explanation = explanations.explain_prepared(model, prepared, cls, Options(**arguments))
        verdict = judge_region(explanation, region, mask, assertion, settings.metric, threshold, inside=inside)
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

    Raises:
        ZeroEvidenceError: the map is zero everywhere.
        VacuousRegionError: the region cannot be told from the whole picture.
        VacuousThresholdError: the map that the threshold is meant to reject would pass it.
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
        raise _whole_picture(region, by_chance, inside)
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
        explanation=explanation,
        message=_message(explanation, region, rule, value, wanted, passed, inside),
    )


def _whole_picture(region: Region, by_chance: float, inside: bool) -> VacuousRegionError:
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


def _message(
    explanation: Explanation, region: Region, rule: Metric, value: float, wanted: float, passed: bool, inside: bool
) -> str:
    verb = "is" if passed == inside else "is not"
    shown, needed = _told_apart(value, wanted)
    needs = f"needs {needed}" if inside else f"allowed {needed}"
    return f"{_class(explanation)} {verb} explained by {_brief(region)}: {rule.title} {shown}, {needs}"


def _told_apart(value: float, threshold: float) -> tuple[str, str]:
    """Both with two decimals, or as many as it takes to tell the value from the threshold that it missed."""
    for digits in range(2, 7):
        texts = f"{value:.{digits}f}", f"{threshold:.{digits}f}"
        if value == threshold or texts[0] != texts[1]:
            return texts
    return repr(value), repr(threshold)


def _brief(region: Region) -> str:
    """The region without its numbers: they stand further down."""
    return str(region).split(" (")[0]


def _class(explanation: Explanation) -> str:
    if explanation.cls is None:
        return "the score"
    return f"class {explanation.cls}" + (f" ({explanation.label})" if explanation.label is not None else "")


def _explain_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "method": settings.method,
        "layer": settings.layer,
        "engine": settings.engine,
        "transform": settings.transform,
        "device": settings.device,
        "labels": settings.labels,
    }
