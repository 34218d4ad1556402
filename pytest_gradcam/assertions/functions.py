"""The assertions as functions, for use outside of the fixture; each asks a `Gradcam` with the default settings."""

from __future__ import annotations

from typing import Unpack

from pytest_gradcam.assertions import maps, trust
from pytest_gradcam.assertions.gradcam import AskedClass, Gradcam
from pytest_gradcam.assertions.keywords import AssertKeywords, DatasetKeywords, SuiteKeywords
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.verdicts import Verdict


def assert_attention_in_region(
    model: ModelLike,
    image: object,
    bbox: object,
    cls: AskedClass = None,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """The evidence for the class lies in the region.

    Lists of images, regions and classes of one length are judged together, as one verdict: passed, failed, or
    inconclusive, by the interval of the mean or of the pass rate.

    Args:
        model: as for `explain`.
        image: as for `explain`; or a list of images, or a batch (N, C, H, W).
        bbox: where attention should be, in the frame of the image as given: a box (x0, y0, x1, y1), a list of boxes, a
            polygon, a boolean mask (H, W), torchvision `BoundingBoxes` or `Mask`, or a `Region`; for a list of images
            one of these for each, or a single box or `Region` for all.
        cls: as for `explain`; None judges the predicted class; for a list of images one for each, or one for all.
        metric: `calibrated_energy`, `energy`, `lift`, `pointing_game`, `rank_accuracy`, `iou` or `mass_outside`.
        threshold: passes when the value is at or above it (`mass_outside`: at or below); None for the metric's default
            (calibrated energy: 0.15).
        **keywords: `method`, `layer`, `engine`, `transform`, `device`, `labels`, `forward`, as for `explain`; of
            several images `judge_by` (`auto`, `mean`, `rate`), `pass_rate` (0.8), `confidence` (0.95), `inconclusive`
            (`error`, `fail`, `skip`, `warn`).

    Returns:
        The verdict, if it passed.

    Raises:
        AttentionError: the verdict failed; `.verdict` holds it.
        InconclusiveError: the images judged together cannot tell.
        ZeroEvidenceError: there is no map to judge.
        VacuousRegionError: chance alone would satisfy the region.
        VacuousThresholdError: a uniform map would pass the threshold.
        GradcamError: as for `explain`, and for unusable regions.
    """
    __tracebackhide__ = True
    asked: AssertKeywords = {"metric": metric, "threshold": threshold, **keywords}
    return Gradcam().assert_attention_in_region(model, image, bbox, cls, **asked)


def assert_attention_outside_region(
    model: ModelLike,
    image: object,
    bbox: object,
    cls: AskedClass = None,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """The evidence for the class does not lie in the region: a watermark, a tag, the background.

    Args:
        model: as for `explain`.
        image: as for `assert_attention_in_region`.
        bbox: where attention should not be; as for `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        metric: as for `assert_attention_in_region`.
        threshold: passes when the value is at or below it (`mass_outside`: at or above); None for the metric's default
            (calibrated energy: 0, no more than chance).
        **keywords: as for `assert_attention_in_region`.

    Returns:
        The verdict, if it passed.

    Raises:
        AttentionError: the verdict failed; `.verdict` holds it.
        InconclusiveError: the images judged together cannot tell.
        ZeroEvidenceError: there is no map to judge.
        VacuousRegionError: the region cannot be told from the whole picture.
        VacuousThresholdError: a map that fills the region evenly would pass the threshold.
        GradcamError: as for `explain`, and for unusable regions.
    """
    __tracebackhide__ = True
    asked: AssertKeywords = {"metric": metric, "threshold": threshold, **keywords}
    return Gradcam().assert_attention_outside_region(model, image, bbox, cls, **asked)


def assert_dataset_attention(
    model: ModelLike,
    dataset: object,
    *,
    metric: str = "calibrated_energy",
    threshold: float | None = None,
    pass_rate: float = 0.9,
    **keywords: Unpack[DatasetKeywords],
) -> Verdict:
    """Of the images of a data set, at least a share have the evidence for their classes in their regions.

    Passed, failed or inconclusive by exact binomial tails; a slice that is named and shown to be below fails it too,
    corrected for how many slices there are (Holm).

    Args:
        model: as for `explain`.
        dataset: as for `audit`: a data set of `(image, target)`, or the path of one.
        metric: as for `assert_attention_in_region`.
        threshold: as for `assert_attention_in_region`, of each image.
        pass_rate: least share of the images that must pass.
        **keywords: `method`, `layer`, `transform`, `device`, `labels`, `forward`, as for `explain`; `confidence` (0.95)
            and `inconclusive` as for `assert_attention_in_region`; `images`, `categories`, `slices`, `bad`,
            `batch_size`, `workers` as for `audit`; and `out`, the folder where the results are kept, to be gone on with
            and looked at: without it nothing is kept.

    Returns:
        The verdict, if it passed.

    Raises:
        AttentionError: the verdict failed.
        InconclusiveError: the images cannot tell.
        GradcamError: as for `audit`.
    """
    __tracebackhide__ = True
    return Gradcam().assert_dataset_attention(
        model, dataset, metric=metric, threshold=threshold, pass_rate=pass_rate, **keywords
    )


def assert_attention_on_every(
    model: ModelLike,
    image: object,
    regions: object,
    cls: AskedClass = None,
    *,
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """No required part is ignored: each of several regions has its part of the evidence.

    A map that fills all regions evenly gives each of them 1, and a region that is treated as the rest of the picture is
    has 0. The one that has least is judged.

    Args:
        model: as for `explain`.
        image: as for `assert_attention_in_region`.
        regions: two or more regions; for a list of images one such list for each.
        cls: as for `assert_attention_in_region`.
        threshold: what the least must have; None for 0.15.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        RegionError: fewer than two regions.
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    return Gradcam().assert_attention_on_every(model, image, regions, cls, threshold=threshold, **keywords)


def assert_classes_differ(
    model: ModelLike,
    image: object,
    cls: AskedClass,
    other: AskedClass,
    *,
    similarity: str = "pearson",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """The map depends on the class that is asked for: those of two classes are not the same.

    Args:
        model: as for `explain`.
        image: as for `assert_attention_in_region`.
        cls: a class.
        other: another one; for a list of images one for each, or one for all.
        similarity: `pearson`, `cosine`, `wasserstein` or `rmse`.
        threshold: what the maps may have in common at most (of a distance: how far apart they are at least); None for
            0.9 (of a distance: .32 of chance), above which two maps are alike.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        ClassError: both classes are one.
        VacuousThresholdError: a map that is the same for all classes would pass.
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    asked = Gradcam()
    return asked.assert_classes_differ(model, image, cls, other, similarity=similarity, threshold=threshold, **keywords)


def assert_attention_equivariant(
    model: ModelLike,
    image: object,
    cls: AskedClass = None,
    *,
    under: maps.Under = "hflip",
    similarity: str = "pearson",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """The map moves with the picture: that of the flipped or turned picture is the flipped or turned map.

    Few models are exactly equivariant, so the similarity is judged against the model's own baseline: how alike the two
    maps would be if the map stayed where it is while the picture moves.

    Args:
        model: as for `explain`.
        image: as for `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        under: `hflip`, `vflip`, `rot90`, `rot180` or `rot270`, against the clock; done to the model input. (`transform`
            is the way from picture to model input.)
        similarity: as for `assert_classes_differ`.
        threshold: least similarity (of a distance: largest); None for halfway from the baseline to a map and itself.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        VacuousThresholdError: the map is so much like itself turned that nobody could tell whether it moved; of several
            images, such are left out, and it is an error only if none is left.
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    asked = Gradcam()
    return asked.assert_attention_equivariant(
        model, image, cls, under=under, similarity=similarity, threshold=threshold, **keywords
    )


def assert_attention_stable(
    model: ModelLike,
    image: object,
    cls: AskedClass = None,
    *,
    noise: float = maps.NOISE,
    draws: int = maps.DRAWS,
    similarity: str = "pearson",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """A little noise in the image leaves the map where it is.

    Args:
        model: as for `explain`.
        image: as for `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        noise: standard deviation of the normal noise, as a share of the standard deviation of the model input.
        draws: how many times noise is added, from fixed seeds.
        similarity: as for `assert_classes_differ`.
        threshold: least mean similarity with the map without noise (of a distance: largest); None for 0.9 (of a
            distance: .32 of chance), from where on two maps are alike.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    asked = Gradcam()
    return asked.assert_attention_stable(
        model, image, cls, noise=noise, draws=draws, similarity=similarity, threshold=threshold, **keywords
    )


def assert_same_attention(
    model_a: ModelLike,
    model_b: ModelLike,
    images: object,
    classes: AskedClass = None,
    *,
    similarity: str = "pearson",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """A quantised, pruned, exported or fine-tuned model looks where the original looks.

    Args:
        model_a: the original, as for `explain`.
        model_b: the model that came of it.
        images: as for `assert_attention_in_region`.
        classes: as for `assert_attention_in_region`; None for the class that the original predicts.
        similarity: as for `assert_classes_differ`.
        threshold: least similarity (of a distance: largest); None for 0.9 (of a distance: .32 of chance), which a clean
            retraining keeps. The same weights, quantised or exported, keep a Pearson correlation of 0.999.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        ModelError: both models are one.
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    asked = Gradcam()
    return asked.assert_same_attention(
        model_a, model_b, images, classes, similarity=similarity, threshold=threshold, **keywords
    )


def assert_explanation_faithful(
    model: ModelLike,
    image: object,
    cls: AskedClass = None,
    *,
    steps: int = trust.STEPS,
    draws: int = trust.DRAWS,
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """Deleting what the map calls important hurts the class more than deleting the same shapes elsewhere.

    A permutation test: the map's cells are blurred, and those of the map moved, turned and mirrored at random. Of one
    image its p is judged, of several their mean, which is 0.5 by chance.

    Args:
        model: as for `explain`.
        image: as for `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        steps: in how many steps cells are deleted.
        draws: how many other places are deleted for comparison, from a fixed seed.
        threshold: largest p that passes, the share of other places that hurt as much; None for 0.05, or 0.2 for the
            mean of several images.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    asked = Gradcam()
    return asked.assert_explanation_faithful(
        model, image, cls, steps=steps, draws=draws, threshold=threshold, **keywords
    )


def assert_explanation_depends_on_weights(
    model: ModelLike,
    image: object,
    cls: AskedClass = None,
    *,
    draws: int = trust.RANDOMISATIONS,
    similarity: str = "pearson",
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """Drawing the head's weights anew, and then all weights, changes the map (Adebayo et al., 2018).

    Args:
        model: as for `explain`; it is left as it was.
        image: as for `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        draws: how many times weights are drawn, from fixed seeds.
        similarity: as for `assert_classes_differ`.
        threshold: what the maps may have in common at most, on the mean of the draws; None for the default (Pearson
            correlation: 0.8).
        **keywords: as for `assert_attention_in_region`.

    Raises:
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    asked = Gradcam()
    return asked.assert_explanation_depends_on_weights(
        model, image, cls, draws=draws, similarity=similarity, threshold=threshold, **keywords
    )


def assert_prediction_ignores(
    model: ModelLike,
    image: object,
    region: object,
    cls: AskedClass = None,
    *,
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """The prediction does not rely on the region: filled with something neutral, it stays.

    Args:
        model: as for `explain`; also any callable, tensor (N, C, H, W) → scores.
        image: as for `assert_attention_in_region`.
        region: as `bbox` of `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        threshold: the share of the class's margin over the runner-up that any of the fillings may change; None for
            0.25.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    return Gradcam().assert_prediction_ignores(model, image, region, cls, threshold=threshold, **keywords)


def assert_prediction_needs(
    model: ModelLike,
    image: object,
    region: object,
    cls: AskedClass = None,
    *,
    threshold: float | None = None,
    **keywords: Unpack[SuiteKeywords],
) -> Verdict:
    """The prediction relies on the region: filled with something neutral, it goes.

    Args:
        model: as for `assert_prediction_ignores`.
        image: as for `assert_attention_in_region`.
        region: as `bbox` of `assert_attention_in_region`.
        cls: as for `assert_attention_in_region`.
        threshold: the share of the class's margin over the runner-up that each of the fillings must take; None for 0.5.
        **keywords: as for `assert_attention_in_region`.

    Raises:
        GradcamError: as for `assert_attention_in_region`.
    """
    __tracebackhide__ = True
    return Gradcam().assert_prediction_needs(model, image, region, cls, threshold=threshold, **keywords)
