"""From measurements to an outcome: one image against a threshold, or several judged together through their interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.report.summary import told_apart
from pytest_gradcam.statistics import FEW, clopper_pearson, decide, skewed_interval
from pytest_gradcam.verdicts import Fact, Outcome, Sight, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was measured of one image.

    Attributes:
        value: in the metric's unit.
        threshold: what is needed of this image.
        chance: the value of what knows nothing.
        sights: the maps that were measured; the first is shown first.
        facts: (name, text) of further lines about this image.
        has_evidence: whether there was a map; without one, the value is the worst that there is.
        index: which of the images that were given it is, where some of them are left out.
    """

    value: float
    threshold: float
    chance: float
    sights: tuple[Sight, ...] = ()
    facts: tuple[Fact, ...] = ()
    has_evidence: bool = True
    index: int | None = None

    def passes(self, *, at_most: bool) -> bool:
        """Whether the image passes by itself."""
        return self.value <= self.threshold if at_most else self.value >= self.threshold


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What an assertion claims, in words and signs.

    Attributes:
        metric: registered name.
        title: the metric in a sentence.
        at_most: whether low values pass.
        is_rate: whether values are 0 or 1, and so judged by their rate.
        sentence: (measured, whether it passed) → the claim about one image, or its opposite.
        of_many: the claim about several images.
        not_of_many: its opposite.
        details: further lines about the image that is shown.
        lacking: what an image has that has nothing to measure.
        compared: whether the two maps of one image are to be shown beside each other, as `Verdict` has it.
    """

    metric: str
    title: str
    at_most: bool
    sentence: Callable[[Measured, bool], str]
    of_many: str
    not_of_many: str
    is_rate: bool = False
    details: tuple[Fact, ...] = ()
    lacking: str = "without any evidence"
    compared: bool = False


def verdict_of_one(asking: Asking, claim: Claim, measured: Measured) -> Verdict:
    """The verdict on one image: passed or failed."""
    passed = measured.passes(at_most=claim.at_most)
    shown, needed = told_apart(measured.value, measured.threshold)
    needs = f"allowed {needed}" if claim.at_most else f"needs {needed}"
    return Verdict(
        assertion=asking.assertion,
        outcome="passed" if passed else "failed",
        metric=claim.metric,
        value=measured.value,
        values=(measured.value,),
        chance=measured.chance,
        threshold=measured.threshold,
        at_most=claim.at_most,
        interval=None,
        confidence=None,
        sights=measured.sights,
        worst=0,
        message=f"{claim.sentence(measured, passed)}: {claim.title} {shown}, {needs}",
        facts=measured.facts + claim.details,
        compared=claim.compared,
    )


def verdict_of_many(asking: Asking, claim: Claim, measured: Sequence[Measured]) -> Verdict:
    """The verdict on several images together: passed, failed or inconclusive, by an interval of the mean or rate.

    The rate is the share of the images that pass by themselves; `judge_by` of the settings decides which is judged.
    """
    settings = asking.settings
    # Values that are all equal have no spread to make an interval of, and often stand at a bound of what there can be:
    # then what is known is how many images passed.
    by_rate = not is_mean(asking, claim.is_rate) or (len(measured) > 1 and len({each.value for each in measured}) == 1)
    n, confidence = len(measured), settings.confidence
    values = [each.value for each in measured]
    wanted = math.fsum(each.threshold for each in measured) / n
    passes = sum(each.passes(at_most=claim.at_most) and each.has_evidence for each in measured)
    if by_rate:
        value, threshold, at_most = passes / n, settings.pass_rate, False
        interval = clopper_pearson(passes, n, confidence)
        low, high = interval.low, interval.high
        outcome: Outcome = decide(interval, threshold)
        title = f"{claim.title} passes on"
        chance = sum(replace(each, value=each.chance).passes(at_most=claim.at_most) for each in measured) / n
    else:
        # Where thresholds differ between images, it is the distance from them that has a mean.
        interval = skewed_interval([each.value - each.threshold for each in measured], confidence)
        value, threshold, at_most = math.fsum(values) / n, wanted, claim.at_most
        outcome = decide(interval, 0.0, at_most=claim.at_most)
        low, high = interval.low + wanted, interval.high + wanted
        title, chance = f"mean {claim.title}", math.fsum(each.chance for each in measured) / n
    order = sorted(range(n), key=lambda i: _margin(measured[i], at_most=claim.at_most))
    sights = tuple(each.sights[0] for each in measured if each.sights)
    return Verdict(
        assertion=asking.assertion,
        outcome=outcome,
        metric="pass_rate" if by_rate else claim.metric,
        value=value,
        values=tuple(values),
        chance=chance,
        threshold=threshold,
        at_most=at_most,
        interval=(low, high),
        confidence=confidence,
        sights=sights,
        worst=order[0] if len(sights) == n else 0,
        message=message_of_many(
            claim,
            outcome,
            n,
            title,
            value,
            (low, high),
            threshold,
            at_most=at_most,
            by_rate=by_rate,
            confidence=confidence,
        ),
        facts=_facts(measured, order, passes, claim) + measured[order[0]].facts + claim.details,
    )


def is_mean(asking: Asking, is_rate: bool) -> bool:
    """Whether several images are judged by their mean, and not by the rate of those that pass alone.

    Args:
        asking: the settings that hold.
        is_rate: whether a value can only be 0 or 1.
    """
    judge_by = asking.settings.judge_by
    return judge_by == "mean" or (judge_by == "auto" and not is_rate)


def _margin(measured: Measured, *, at_most: bool) -> float:
    """How far the value is on the right side of its threshold."""
    margin = measured.value - measured.threshold
    return -margin if at_most else margin


def message_of_many(
    claim: Claim,
    outcome: Outcome,
    n: int,
    title: str,
    value: float,
    interval: tuple[float, float],
    threshold: float,
    *,
    at_most: bool,
    by_rate: bool,
    confidence: float,
) -> str:
    """The first line of a verdict on several images.

    Args:
        claim: what was claimed.
        outcome: what was decided.
        n: how many images.
        title: what was measured of them together.
        value: what it is.
        interval: its bounds.
        threshold: what is needed.
        at_most: whether low values pass.
        by_rate: whether it is a rate of images that pass.
        confidence: of each bound.
    """
    images = f"{n} image{'s' if n != 1 else ''}" + (f" (fewer than {FEW})" if n < FEW else "")
    low, high = interval
    if by_rate:
        spoken, needed = f"{value:.0%}", f"needs {threshold:.0%}"
        bounds = f"{low:.0%}", f"{high:.0%}"
    else:
        spoken, needed = f"{value:.2f}", f"{'allowed' if at_most else 'needs'} {threshold:.2f}"
        bounds = tuple(told_apart(bound, threshold)[0] for bound in interval)  # type: ignore[assignment]  # of two
    sure = f"with {confidence:.0%} confidence"
    if outcome == "inconclusive":
        return (
            f"{images} cannot tell whether {claim.of_many}: {title} {spoken}, between {bounds[0]} and {bounds[1]} "
            f"{sure} each way, {needed}"
        )
    holds = outcome == "passed"
    sentence = claim.of_many if holds else claim.not_of_many
    bound = f"at least {bounds[0]}" if holds != at_most else f"at most {bounds[1]}"
    return f"of {images}, {sentence}: {title} {spoken}, {bound} {sure}, {needed}"


def _facts(measured: Sequence[Measured], order: Sequence[int], passes: int, claim: Claim) -> tuple[Fact, ...]:
    n = len(measured)
    facts = [("alone", f"{passes} of {n} images are on the right side of the threshold by themselves")]
    if n < FEW:
        facts.append(("few", f"fewer than {FEW} images leave a wide interval; pass more of them"))
    names = [i if each.index is None else each.index for i, each in enumerate(measured)]
    without = [names[i] for i, each in enumerate(measured) if not each.has_evidence]
    if without:
        facts.append(("lacking", f"{len(without)} {claim.lacking}: {_listed(without)}; they count as failed"))
    worst = [f"image {names[i]} ({measured[i].value:.2f})" for i in order[: min(5, n)]]
    facts.append(("worst", ", ".join(worst)))
    facts.append(("shown", f"image {names[order[0]]}, the worst"))
    return tuple(facts)


def _listed(indices: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in indices[:8])
    return f"image{'s' if len(indices) > 1 else ''} {shown}" + (" …" if len(indices) > 8 else "")
