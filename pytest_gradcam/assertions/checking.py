"""Whether a model goes on looking where its baseline looks: the map of today against the one that is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from pytest_gradcam.assertions.asking import Asking, class_name, is_list
from pytest_gradcam.assertions.comparing import number
from pytest_gradcam.baselines.baseline import Baseline, baseline_of
from pytest_gradcam.baselines.compare import Compared, Limits, chance_shift, compare, limits
from pytest_gradcam.baselines.shelf import Shelf, Slot
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import (
    BaselineError,
    ImageTypeError,
    MissingBaselineError,
    SettingsError,
    TargetLayerError,
    VacuousThresholdError,
)
from pytest_gradcam.images import Prepared
from pytest_gradcam.metrics import TIE
from pytest_gradcam.metrics.movement import movement
from pytest_gradcam.report.summary import told_apart
from pytest_gradcam.report.terminal import failure_text
from pytest_gradcam.verdicts import Fact, Sight, Verdict

ASSERTION: Final = "check"


def judge_check(
    asking: Asking,
    shelf: Shelf | None,
    model: ModelLike,
    image: object,
    cls: ClassLike,
    *,
    name: str | None,
    pearson: float | None,
    shift: float | None,
) -> Verdict:
    """Whether the map of a class is still that of the baseline.

    Args:
        asking: the settings that hold; `floor` says how close it must be.
        shelf: the baselines of the test.
        model: as for `explain`.
        image: as for `explain`.
        cls: as for `explain`.
        name: tells several checks of one test apart.
        pearson: least correlation of the raw CAMs; None for the floor's.
        shift: largest 1-Wasserstein distance of the CAMs, in cells of the grid; None for the floor's.

    Raises:
        MissingBaselineError: there is no baseline, and it may not be written.
        BaselineError: the baseline cannot be read or written, or two checks would share it.
        ZeroEvidenceError: nothing speaks for the class.
        TargetLayerError: the map has the same value everywhere.
        VacuousThresholdError: a map without information would pass the threshold, or none could.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    if shelf is None:
        raise BaselineError(
            "check stores its baseline beside the test that asks: ask with the `gradcam` fixture of a pytest test. "
            "Outside of tests, assert_same_attention compares two models, and `gradcam compare` two checkpoints"
        )
    if is_list(image):
        raise ImageTypeError(
            "check takes one image, and keeps a baseline for each: parametrize the test over the images, or check each "
            "with a name of its own, gradcam.check(model, image, cls, name='cat-3')"
        )
    wanted = _limits(asking.settings.floor, pearson, shift)
    slot = shelf.slot(name)
    before = slot.read()
    prepared = asking.prepare(model, image)
    current = _explain(asking, model, prepared, cls, before)
    now = baseline_of(slot.check, current, prepared)
    if before is None:
        return _verdict_of_new(asking, slot, now, current, wanted)
    if wanted.shift is not None and wanted.shift >= (even := chance_shift(before)):
        raise VacuousThresholdError(
            f"shift {wanted.shift:g} would be passed by a map that is the same everywhere, whose mass is {even:.2f} "
            "cells from that of the baseline. Allow less"
        )
    compared = compare(before, now, wanted)
    if compared.passed:
        slot.compared()
        return _verdict(asking, slot, before, now, current, compared, wanted)
    if slot.may_write(is_new=False):
        written = slot.write(now, Sight(current), is_new=False)
        return _verdict(asking, slot, written, now, current, compare(written, now, wanted), wanted)
    verdict = _verdict(asking, slot, before, now, current, compared, wanted)
    received = slot.receive(now, Sight(current), is_new=False)
    review = "gradcam review shows what changed and approves it; --gradcam-update=all takes all that did"
    return replace(verdict, facts=(*verdict.facts, ("received", received), ("approve", review)))


def _limits(floor: str, pearson: float | None, shift: float | None) -> Limits:
    """What the map must keep.

    Raises:
        SettingsError: a threshold that is no number.
        VacuousThresholdError: a map without information would pass it, or none could.
    """
    least = None if pearson is None else number("pearson", pearson)
    most = None if shift is None else number("shift", shift)
    if least is not None and not 0.0 < least <= 1.0:
        raise VacuousThresholdError(
            f"pearson {least:g} is not above 0, which maps that have nothing in common have, and at most 1, which a "
            "map has with itself: give a number such as 0.95"
        )
    if most is not None and not (0.0 <= most < np.inf):
        raise VacuousThresholdError(f"shift {most:g} is no distance: give the cells that mass may move, such as 0.5")
    return limits(floor, least, most)


def _explain(
    asking: Asking, model: ModelLike, prepared: Prepared, cls: ClassLike, before: Baseline | None
) -> Explanation:
    """The map of today; where the layer is not named, and another is found than the baseline's, read at the baseline's.

    The search looks at the weights, too: of a model that was trained on it may find another block.
    """
    made = asking.with_evidence(asking.explain(model, [prepared], [cls])[0])
    if before is not None and asking.settings.layer is None and before.layers and made.layers != before.layers:
        # By the method that was chosen: beside a layer that is named, `auto` chooses without having searched.
        options = replace(asking.options, layer=before.layers, method=made.method)
        try:
            made = asking.with_evidence(asking.explain(model, [prepared], [cls], options=options)[0])
        except (TargetLayerError, SettingsError):  # the model has no such layer: that is what changed, and is named
            pass
    raw = made.raw
    if np.ptp(raw) <= TIE * np.abs(raw).max():
        raise TargetLayerError(
            f"the map of {class_name(made)} at {made.layer} ({made.method}) has the same value everywhere, "
            f"{float(raw.flat[0]):.4g}: it shows no place, and would agree with any. Name another layer, with layer=…, "
            "or another method"
        )
    return made


def _verdict_of_new(asking: Asking, slot: Slot, now: Baseline, current: Explanation, wanted: Limits) -> Verdict:
    """The verdict on a map that has no baseline yet: it is compared with the one that it becomes.

    Raises:
        MissingBaselineError: it may not become one.
    """
    if slot.may_write(is_new=True):
        written = slot.write(now, Sight(current), is_new=True)
        return _verdict(asking, slot, written, now, current, compare(written, now, wanted), wanted)
    received = slot.receive(now, Sight(current), is_new=True)
    verdict = Verdict(
        assertion=asking.assertion,
        outcome="failed",
        metric="changes",
        value=1.0,
        values=(1.0,),
        chance=0.0,
        threshold=0.0,
        at_most=True,
        interval=None,
        confidence=None,
        sights=(Sight(current),),
        worst=0,
        message=f"there is no baseline for {slot.id}: write it with --gradcam-update=new",
        facts=(
            ("asked", f"nothing says yet where the model should look for {now.class_name}"),
            ("baseline", slot.shelf.shown(slot.path)),
            ("received", received),
            ("approve", "`gradcam review` shows it, and writes it as well"),
        ),
        baseline=slot.id,
    )
    overlay = None if asking.record is None else asking.record(verdict)
    raise MissingBaselineError(failure_text(verdict, overlay))


def _verdict(
    asking: Asking,
    slot: Slot,
    before: Baseline,
    now: Baseline,
    current: Explanation,
    compared: Compared,
    wanted: Limits,
) -> Verdict:
    if compared.changes:
        metric, value, chance, threshold, at_most = "changes", float(len(compared.changes)), 0.0, 0.0, True
        names = " and ".join(name for name, _ in compared.changes)
        verb = "has" if len(compared.changes) == 1 else "have"
        first = compared.changes[0]
        message = f"the baseline of {before.class_name} cannot be compared: the {names} {verb} changed"
        if len(compared.changes) == 1:
            message += f", {first[1]}" if first[1].startswith("was ") else f": {first[1]}"
    elif not compared.correlates or compared.stays:
        metric, value, chance, threshold, at_most = "pearson", compared.pearson, 0.0, compared.least, False
        shown, needed = told_apart(value, threshold)
        message = f"{_claim(now, compared)}: Pearson correlation {shown}, needs {needed}"
    else:
        metric, value, threshold, at_most = "wasserstein", compared.shift, compared.allowed, True
        chance = chance_shift(before)
        shown, needed = told_apart(value, threshold)
        message = f"{_claim(now, compared)}: earth mover's distance {shown} cells, allowed {needed}"
    return Verdict(
        assertion=asking.assertion,
        outcome="passed" if compared.passed else "failed",
        metric=metric,
        value=value,
        values=(value,),
        chance=chance,
        threshold=threshold,
        at_most=at_most,
        interval=None,
        confidence=None,
        sights=(Sight(before.explanation(current), title="baseline"), Sight(current, title="current")),
        worst=1,
        message=message,
        facts=_facts(before, now, compared, wanted),
        compared=True,
        baseline=slot.id,
    )


def _claim(now: Baseline, compared: Compared) -> str:
    return f"the model {'looks' if compared.passed else 'does not look'} where its baseline looks for {now.class_name}"


def _facts(before: Baseline, now: Baseline, compared: Compared, wanted: Limits) -> tuple[Fact, ...]:
    if compared.changes:
        return compared.changes
    facts: list[Fact] = []
    if not compared.correlates:
        verb = "moved" if not compared.stays else "moved no more than it may"
        facts.append(("distance", f"the mass {verb}: {compared.shift:.2f} cells, allowed {compared.allowed:.2f}"))
    elif not compared.stays:
        facts.append(("pearson", f"{compared.pearson:.4f}, needs {compared.least:g}"))
    moved = None if compared.passed else movement(before.raw, now.raw)
    if moved is not None:
        facts.append(("moved", f"{moved.moved:.0%} of the map's mass, {moved}"))
    facts.append(("floor", f"{wanted.name}: Pearson {wanted.pearson:g}"))
    if before.predicted != now.predicted and now.predicted is not None:
        facts.append(("formerly", f"class {before.predicted} was predicted"))
    versions = [
        f"{name} {before.versions[name]} → {now.versions.get(name, '?')}"
        for name in before.versions
        if before.versions[name] != now.versions.get(name)
    ]
    if versions and not compared.passed:
        facts.append(("versions", ", ".join(versions)))
    return tuple(facts)
