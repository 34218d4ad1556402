"""Maps against each other: of two classes, of a picture and the turned picture, under noise, of two models."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, SupportsIndex, TypeAlias

import torch
from torch import Tensor

from pytest_gradcam.assertions.asked import Asked, CannotTell, same_classes
from pytest_gradcam.assertions.asking import Asking, class_name
from pytest_gradcam.assertions.comparing import comparison, number
from pytest_gradcam.assertions.same_layers import explain_as
from pytest_gradcam.assertions.together import Claim, Measured
from pytest_gradcam.assertions.turns import turn_of
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.model import unwrap
from pytest_gradcam.cam.running import ModelLike
from pytest_gradcam.errors import ClassError, GradcamError, ImageError, ModelError, ModelTypeError, SettingsError
from pytest_gradcam.images import prepare
from pytest_gradcam.verdicts import Fact, Sight, Verdict

Under: TypeAlias = Literal["hflip", "vflip", "rot90", "rot180", "rot270"]
# At this noise, maps of the demo's models keep a Pearson correlation of .999 or more: what falls below is no rounding.
NOISE: Final = 0.05
DRAWS: Final = 8
SEED: Final = 0
RANDOM: Final = "a map of the same values in random places"
# How far from itself a turned map must be, as a share of the way from a map and itself to chance: nearer, and nobody
# could see whether it moved. With strides, no model is exactly equivariant: the maps of the demo's honest model are off
# by up to a cell (Pearson .82 under hflip, .76 vflip, .64 rot180). Of the pictures whose map, had it stayed, would have
# .5 or less, all, 90% and 88% pass halfway; of all pictures 71%, 51% and 72%.
MOVES: Final = {"pearson": 0.5, "cosine": 0.5, "wasserstein": 0.75, "rmse": math.sqrt(0.5)}


def judge_classes_differ(
    asking: Asking,
    model: ModelLike,
    image: object,
    cls: object,
    other: object,
    *,
    similarity: str,
    threshold: float | None,
) -> Verdict:
    """Whether the map depends on the class: those of two classes are not alike.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        cls: as for `explain`; for a list of images one for each, or a single one for all.
            There must be evidence for it.
        other: likewise, another class.
        similarity: by which measure.
        threshold: what the maps may have in common at most (of a distance: how far apart they are at least); None for
            the value from which on two maps are alike.

    Raises:
        ClassError: both classes are one.
        ZeroEvidenceError: nothing speaks for `cls`.
        VacuousThresholdError: the threshold is passed by two equal maps, or by none.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    how = comparison(similarity, threshold)
    asked = Asked.of(asking, model, image, cls)
    others = asked.classes_each(other)
    if any(a is b and callable(a) for a, b in zip(asked.classes, others, strict=True)):
        raise ClassError("cls and other are the same callable: pass two, the maps of which are to differ")
    asked.refuse_copies(others)
    first = asked.explain(asking, model)
    second = asking.explain(model, asked.prepared, others)

    def measured(i: int) -> Measured:
        a, b = first[i], second[i]
        if a.cls is not None and a.cls == b.cls:
            raise ClassError(
                f"cls and other are both {class_name(a)}: pass two classes, the maps of which are to differ"
            )
        asking.with_evidence(a)
        wanted = how.at_most(a, "a map that is the same for all classes")
        sights = Sight(a, title=class_name(a)), Sight(b, title=class_name(b))
        return Measured(how.measure(a, b), wanted, how.rule.at_same, sights)

    def sentence(measured: Measured, passed: bool) -> str:
        names = " and ".join(class_name(sight.explanation) for sight in measured.sights)
        return f"the maps of {names} {'differ' if passed else 'are alike'}"

    claim = Claim(
        metric=how.name,
        title=how.rule.title,
        at_most=how.rule.higher_is_closer,
        sentence=sentence,
        of_many="the maps of the two classes differ",
        not_of_many="the maps of the two classes are alike",
    )
    return asked.judged(asking, claim, measured, first, worst=how.rule.at_same)


def judge_equivariant(
    asking: Asking,
    model: ModelLike,
    image: object,
    cls: object,
    *,
    under: Under,
    similarity: str,
    threshold: float | None,
) -> Verdict:
    """Whether the map moves with the picture: the map of the turned picture, turned back, is close to the map.

    Chance is what a map would have that stays where it is while the picture is turned. By default the map must come
    nearer to having moved than to having stayed: halfway between chance and a map and itself. Where the map has so much
    in common with itself turned that nobody could tell, one image is an error, and of several it is left out.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        cls: as for `explain`; for a list of images one for each, or a single one for all. None: the class that is
            predicted for the picture as it is.
        under: name of a flip or turn (`turns`); done to the model input.
        similarity: by which measure.
        threshold: least similarity (of a distance: largest); None for halfway.

    Raises:
        SettingsError: an unknown `under`.
        ZeroEvidenceError: nothing speaks for the class.
        VacuousThresholdError: a map that stays would pass the threshold, or is all but one that moves.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    how = comparison(similarity, threshold)
    turn = turn_of(under)
    asked = Asked.of(asking, model, image, cls)
    asked.refuse_copies()
    first = asked.explain(asking, model)
    second = asking.explain(model, [turn.of_image(each) for each in asked.prepared], same_classes(first, asked.classes))

    def measured(i: int) -> Measured | CannotTell:
        a, b = first[i], second[i]
        asking.with_evidence(a)
        stayed = how.measure_arrays(a.raw, turn.back(a.raw), (a, a))
        same = how.rule.at_same
        if abs(same - stayed) < MOVES[how.name] * abs(same - how.chance(a)):
            return CannotTell(
                f"the map of {class_name(a)} is too much like itself after {under} ({how.rule.title} {stayed:.2f}): "
                "nobody could tell whether it moved with the picture. Use another turn, or a picture whose object is "
                "not in the middle",
                f"whose map is too much like itself after {under}",
            )
        wanted = how.at_least(stayed, "a map that stays where it is", how.halfway(stayed))
        with _about(f"under {under}"):
            value = how.measure_arrays(a.raw, turn.back(b.raw), (a, b))
        facts: tuple[Fact, ...] = (("stays", f"{stayed:.2f} would be there if the map stayed where it is"),)
        return Measured(
            value,
            wanted,
            stayed,
            (Sight(a, title="as it is"), Sight(b, title=under)),
            facts + _predictions(a, b, f"under {under}"),
        )

    claim = Claim(
        metric=how.name,
        title=how.rule.title,
        at_most=not how.rule.higher_is_closer,
        sentence=lambda measured, passed: (
            f"the map of {class_name(measured.sights[0].explanation)} {'moves' if passed else 'does not move'} with "
            f"the picture under {under}"
        ),
        of_many=f"maps move with their pictures under {under}",
        not_of_many=f"maps do not move with their pictures under {under}",
    )
    return asked.judged(asking, claim, measured, first, worst=how.farthest(first[0]))


def judge_stable(
    asking: Asking,
    model: ModelLike,
    image: object,
    cls: object,
    *,
    noise: float,
    draws: int,
    similarity: str,
    threshold: float | None,
) -> Verdict:
    """Whether a little noise leaves the map as it is: the mean similarity of the maps under noise with the one without.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        cls: as for `explain`; for a list of images one for each, or a single one for all. None: the class that is
            predicted without noise.
        noise: standard deviation of the normal noise, in standard deviations of the model input.
        draws: how many times noise is added; always the same noise.
        similarity: by which measure.
        threshold: least mean similarity (of a distance: largest); None for the value from which on two maps are alike.

    Raises:
        SettingsError: no noise, or no draws.
        ImageError: the image is the same everywhere: a share of its deviation is no noise.
        ZeroEvidenceError: nothing speaks for the class.
        VacuousThresholdError: a map without information would pass the threshold, or none could.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    how = comparison(similarity, threshold)
    deviations = number("noise", noise)
    if not (math.isfinite(deviations) and deviations > 0):
        raise SettingsError(f"noise {noise!r} is no noise: give a number above 0, such as {NOISE}")
    if isinstance(draws, bool) or not isinstance(draws, SupportsIndex) or operator.index(draws) < 1:
        raise SettingsError(f"draws {draws!r} is no number of draws: give 1 or more, such as {DRAWS}")
    asked = Asked.of(asking, model, image, cls)
    asked.refuse_copies()
    first = asked.explain(asking, model)
    classes = same_classes(first, asked.classes)

    def measured(i: int) -> Measured:
        a = first[i]
        noisy = [prepare(each, model=model) for each in with_noise(asked.prepared[i].tensor, deviations, draws)]
        asking.with_evidence(a)
        chance = how.chance(a)
        wanted = how.at_least(chance, RANDOM, how.alike(chance))
        with _about("under noise"):
            under_noise = asking.explain(model, noisy, [classes[i]] * draws)
            values = [how.measure(a, b) for b in under_noise]
        farthest = min(range(draws), key=lambda k: values[k] if how.rule.higher_is_closer else -values[k])
        changed = sum(b.predicted != a.predicted for b in under_noise)
        facts: list[Fact] = [("farthest", f"{values[farthest]:.2f} of {draws} draws")]
        if a.predicted is not None:
            facts.append(("prediction", f"changed in {changed} of {draws} draws"))
        sights = Sight(a, title="without noise"), Sight(under_noise[farthest], title="under noise")
        return Measured(math.fsum(values) / draws, wanted, chance, sights, tuple(facts))

    claim = Claim(
        metric=how.name,
        title=f"mean {how.rule.title}" if not asked.several else how.rule.title,
        at_most=not how.rule.higher_is_closer,
        sentence=lambda measured, passed: (
            f"the map of {class_name(measured.sights[0].explanation)} {'stays' if passed else 'does not stay'} as it "
            f"is under noise of {deviations:g} standard deviations"
        ),
        of_many=f"maps stay as they are under noise of {deviations:g} standard deviations",
        not_of_many=f"maps do not stay as they are under noise of {deviations:g} standard deviations",
    )
    return asked.judged(asking, claim, measured, first, worst=how.farthest(first[0]))


def judge_same(
    asking: Asking,
    model_a: ModelLike,
    model_b: ModelLike,
    images: object,
    classes: object,
    *,
    similarity: str,
    threshold: float | None,
) -> Verdict:
    """Whether a model looks where the one that it came from looks: the similarity of their maps of one class.

    Each model has its own transform and device. Both are read at the layers that are found in the original, by the same
    method, where the other has layers of those names; maps on grids of two sizes are compared on the finer one.

    Args:
        asking: the settings that hold.
        model_a: the original, as for `explain`.
        model_b: what became of it.
        images: as for `explain`, or a list of them.
        classes: as for `explain`; for a list of images one for each, or a single one for all. None: what the original
            predicts.
        similarity: by which measure.
        threshold: least similarity (of a distance: largest); None for the value from which on two maps are alike.

    Raises:
        ModelError: both models are one.
        ZeroEvidenceError: nothing speaks for the class, in the original.
        VacuousThresholdError: a map without information would pass the threshold, or none could.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    how = comparison(similarity, threshold)
    if _is_one(model_a, model_b):
        raise ModelError(
            "model_a and model_b are the same object: it looks where it looks. Pass the original and another model; of "
            "one that is changed in place, a copy made before: copy.deepcopy(model)"
        )
    asked = Asked.of(asking, model_a, images, classes)
    asked.refuse_copies()
    with _about("model A"):
        first = asked.explain(asking, model_a)
    with _about("model B"):
        theirs = Asked.of(asking, model_b, images, classes).prepared
        second = explain_as(asking, model_a, model_b, theirs, same_classes(first, asked.classes), first)

    def measured(i: int) -> Measured:
        a, b = first[i], second[i].explanation
        asking.with_evidence(a)
        chance = how.chance(a)
        wanted = how.at_least(chance, RANDOM, how.alike(chance))
        with _about("model B"):
            value = how.measure(a, b)
        sights = Sight(a, title="model A"), Sight(b, title="model B")
        return Measured(value, wanted, chance, sights, differences(a, b) + second[i].facts(a))

    claim = Claim(
        metric=how.name,
        title=how.rule.title,
        at_most=not how.rule.higher_is_closer,
        sentence=lambda measured, passed: (
            f"model B {'looks' if passed else 'does not look'} where model A looks for "
            f"{class_name(measured.sights[0].explanation)}"
        ),
        of_many="model B looks where model A looks",
        not_of_many="model B does not look where model A looks",
        compared=True,
    )
    return asked.judged(asking, claim, measured, first, worst=how.farthest(first[0]))


def with_noise(tensor: Tensor, deviations: float, draws: int) -> list[Tensor]:
    """Model input with normal noise, the same at every call; the global random state is left alone.

    Args:
        tensor: (1, C, H, W).
        deviations: standard deviation of the noise, in standard deviations of the tensor.
        draws: how many.

    Raises:
        ImageError: the tensor has the same value everywhere.
        SettingsError: the noise is lost in the tensor's rounding.
    """
    values = tensor.detach().float()
    spread = float(values.std(correction=0))
    if spread == 0:
        raise ImageError(
            "the image has the same value everywhere: noise is given in its standard deviations, and those of this "
            "image are 0. Pass an image with something in it"
        )
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for _ in range(draws):
        drawn = torch.randn(values.shape, generator=generator).to(values.device)
        found.append((values + deviations * spread * drawn).to(tensor.dtype))
    if any(torch.equal(each, tensor) for each in found):
        raise SettingsError(
            f"noise {deviations:g} is lost in the rounding of {tensor.dtype}: use more, such as {NOISE}"
        )
    return found


def _is_one(model_a: ModelLike, model_b: ModelLike) -> bool:
    """Whether two models are one: the same object, also in wrappers that we take off."""
    if isinstance(model_a, tuple) and isinstance(model_b, tuple):
        return len(model_a) == len(model_b) and all(a is b for a, b in zip(model_a, model_b, strict=True))
    return _core(model_a) is _core(model_b)


def _core(model: object) -> object:
    try:
        return unwrap(model)
    except ModelTypeError:  # no module, or none that is served: whoever explains it says so
        return model


@contextmanager
def _about(which: str) -> Iterator[None]:
    """Errors of ours that are raised inside say which of the two maps they are about."""
    try:
        yield
    except GradcamError as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (f"{which}: {error.args[0]}", *error.args[1:])
        raise


def _predictions(a: Explanation, b: Explanation, where: str) -> tuple[Fact, ...]:
    """What is predicted for the second map's picture, or by its model, where that is something else."""
    if a.predicted is None or a.predicted == b.predicted:
        return ()
    names = [f"class {e.predicted}" + (f" ({e.predicted_label})" if e.predicted_label else "") for e in (b, a)]
    return (("prediction", f"{names[0]} {where}, else {names[1]}"),)


def differences(a: Explanation, b: Explanation) -> tuple[Fact, ...]:
    """Where two models' maps differ in more than where they look."""
    facts: list[Fact] = [*_predictions(a, b, "by model B")]
    if a.grid != b.grid:
        rows, columns = max(a.grid[0], b.grid[0]), max(a.grid[1], b.grid[1])
        grids = "{}×{} and {}×{}".format(*a.grid, *b.grid)
        facts.append(("grids", f"{grids}: compared on {rows}×{columns}, which costs some similarity"))
    if a.size != b.size:
        facts.append(("inputs", "{}×{} and {}×{} pixels, each by its own transform".format(*a.size, *b.size)))
    if a.label is not None and b.label is not None and a.label != b.label:
        facts.append(("labels", f"class {a.cls} is {a.label} to model A, {b.label} to model B"))
    return tuple(facts)
