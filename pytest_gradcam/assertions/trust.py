"""Whether an explanation can be trusted: whether the model relies on what it shows, and it on the model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from pytest_gradcam.assertions.asked import Asked, same_classes
from pytest_gradcam.assertions.asking import Asking, class_name
from pytest_gradcam.assertions.comparing import Comparison, comparison, number
from pytest_gradcam.assertions.deletion import deleted, elsewhere, gathered
from pytest_gradcam.assertions.margins import follow
from pytest_gradcam.assertions.redrawn import STAGES, Redrawn, Stage, layers_of
from pytest_gradcam.assertions.together import Claim, Measured
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike, Score
from pytest_gradcam.errors import (
    ModelError,
    NonFiniteError,
    SettingsError,
    TargetLayerError,
    VacuousThresholdError,
)
from pytest_gradcam.images import Prepared
from pytest_gradcam.metrics import TIE
from pytest_gradcam.statistics import permutation_p
from pytest_gradcam.verdicts import Sight, Verdict, ZeroEvidenceError

STEPS: Final = 4
DRAWS: Final = 39
# Largest p of one map, and largest mean p of several, which is 0.5 by chance. Measured on 20 pictures for each of the
# demo's models: of their own maps 100% and 90% had .05 or less (mean p .03 and .04), of smooth noise 3% and 10% (mean p
# .46 and .54; 60 maps each).
ALPHA: Final = 0.05
MEAN_P: Final = 0.2
CHANCE_P: Final = 0.5
# What pictures may take of memory while they wait to be scored.
_WAITING = 128 * 2**20

RANDOMISATIONS: Final = 8
# What maps of redrawn copies may have in common with the map, on the mean. Of 24 pictures for each of the demo's models
# it was a Pearson correlation of .34 at most; a method that ignores the weights has 1.
MOST: Final = 0.8
_WHAT: dict[Stage, str] = {"head": "the head's weights", "all": "all weights"}
# What is raised where a copy has no map: its score does not depend on the layer, or it computes nothing finite.
_NO_MAP = (TargetLayerError, NonFiniteError, ModelError)


def judge_faithful(
    asking: Asking, model: ModelLike, image: object, cls: object, *, steps: int, draws: int, threshold: float | None
) -> Verdict:
    """Whether taking away what the map shows hurts more than taking away the same shapes elsewhere.

    The cells that the map calls important are blurred, in steps of growing share, and the margin of the class is
    followed: its mean over the steps is low where the map is right (after Petsiuk et al., 2018, who take the area under
    the curve of single pixels). Chance is the map itself, moved, turned and mirrored, but for places that are much like
    its own: nearly a permutation test. Its p is the share of those that hurt as much; over maps that know nothing it is
    0.5 on the mean. Maps of several images are judged by their mean p, or by the rate of those that pass.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        cls: as for `explain`; for a list of images one for each, or a single one for all.
        steps: in how many steps cells are taken away.
        draws: how many other places, from a fixed seed.
        threshold: the largest p that passes; None for 0.05, or 0.2 for a mean.

    Raises:
        ZeroEvidenceError: a map is zero everywhere.
        TargetLayerError: a map has the same value everywhere, or its grid is too small to be moved.
        VacuousThresholdError: chance would pass, or nothing could with so few draws.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    steps, draws = _count("steps", steps), _count("draws", draws)
    asked = Asked.of(asking, model, image, cls)
    by_mean = asked.several and asking.settings.judge_by != "rate"
    wanted = (MEAN_P if by_mean else ALPHA) if threshold is None else number("threshold", threshold)
    _check_p(wanted, draws)
    asked.refuse_copies()
    maps = asked.explain(asking, model)

    def measured(i: int) -> Measured:
        explanation = asking.with_evidence(maps[i])
        score = asked.classes[i] if explanation.cls is None else explanation.cls
        return _p_of(asking, model, asked.prepared[i], explanation, score, steps, draws, wanted)  # type: ignore[arg-type]  # see `scores`

    claim = Claim(
        metric="p",
        title="p",
        at_most=True,
        sentence=lambda each, passed: (
            f"what the map of {class_name(each.sights[0].explanation)} shows matters "
            f"{'more' if passed else 'no more'} to the model than other places"
        ),
        of_many="what the maps show matters more to the model than other places",
        not_of_many="what the maps show matters no more to the model than other places",
    )
    return asked.judged(asking, claim, measured, maps, worst=1.0)


def judge_depends_on_weights(
    asking: Asking,
    model: ModelLike,
    image: object,
    cls: object,
    *,
    draws: int,
    similarity: str,
    threshold: float | None,
) -> Verdict:
    """Whether the map changes with the model's weights (Adebayo et al., 2018, "Sanity checks for saliency maps").

    Weights are drawn anew in copies of the model, those of the head, and then all of them. For each stage the
    similarity of the map with those of the copies is averaged over the draws that have a map, half of them at least;
    the closer of the two stages is judged.

    Args:
        asking: the settings that hold.
        model: as for `explain`.
        image: as for `explain`, or a list of them.
        cls: as for `explain`; for a list of images one for each, or a single one for all.
        draws: how often weights are drawn, from fixed seeds.
        similarity: by which measure.
        threshold: what the maps may have in common at most (of a distance: how far apart they are at least); None for
            Pearson 0.8, and else from where on two maps are alike.

    Raises:
        ZeroEvidenceError: a map is zero everywhere.
        ModelError: the model cannot be copied, has no weights to be drawn, or no copy of it has a map.
        VacuousThresholdError: the threshold is passed by a map that does not change, or by none.
        GradcamError: as for `explain`.
    """
    __tracebackhide__ = True
    draws = _count("draws", draws)
    how = comparison(similarity, threshold)
    if how.asked is None and how.name == "pearson":
        how = replace(how, asked=MOST)
    asked = Asked.of(asking, model, image, cls)
    asked.refuse_copies()
    maps = asked.explain(asking, model)
    alike = _likenesses(asking, model, asked, maps, how, draws)

    def measured(i: int) -> Measured:
        explanation = asking.with_evidence(maps[i])
        wanted = how.at_most(explanation, "a map that is the same whatever the weights")
        stages = [alike[stage][i] for stage in STAGES]
        for stage, found in zip(STAGES, stages, strict=True):
            why = [each for each in found if isinstance(each, str)]
            if 2 * len(why) > len(found):
                raise ModelError(
                    f"{len(why)} of {draws} copies with {_WHAT[stage]} drawn anew have no map of "
                    f"{class_name(explanation)}, so whether it depends on the weights cannot be seen. Of the last one: "
                    f"{why[-1]}"
                )
        means = [float(np.mean([each for each in found if not isinstance(each, str)])) for found in stages]
        value = max(means) if how.rule.higher_is_closer else min(means)
        facts = tuple(
            (stage, f"{mean:.2f} with {_WHAT[stage]} drawn anew, the mean of {draws}{_without(found)}")
            for stage, mean, found in zip(STAGES, means, stages, strict=True)
        )
        return Measured(value, wanted, how.rule.at_same, (Sight(explanation),), facts=facts)

    claim = Claim(
        metric=how.name,
        title=f"{how.rule.title} with maps of redrawn weights",
        at_most=how.rule.higher_is_closer,
        sentence=lambda each, passed: (
            f"the map of {class_name(each.sights[0].explanation)} "
            f"{'depends' if passed else 'does not depend'} on the model's weights"
        ),
        of_many="the maps depend on the model's weights",
        not_of_many="the maps do not depend on the model's weights",
    )
    return asked.judged(asking, claim, measured, maps, worst=how.rule.at_same)


def _p_of(
    asking: Asking,
    model: ModelLike,
    prepared: Prepared,
    explanation: Explanation,
    score: int | Score,
    steps: int,
    draws: int,
    wanted: float,
) -> Measured:
    """The share of other places where the same shapes matter as much to the model."""
    cells = gathered(explanation.raw)
    rows, columns = cells.shape
    where = f"the map of {class_name(explanation)} at {explanation.layer} ({explanation.method})"
    if np.ptp(cells) <= TIE * cells.max():
        raise TargetLayerError(f"{where} has the same value everywhere: it shows no place. Name another layer: layer=…")
    others, alike = elsewhere(cells, draws)
    if 1.0 / (1 + len(others)) > wanted:
        raise TargetLayerError(
            f"{where} is on a grid of {rows}×{columns} cells, where {len(others)} places differ from its own: too few "
            f"for a p of {wanted:g}. Name an earlier layer, with a finer grid: layer=…"
        )
    image = prepared.tensor[0].detach().cpu().float().numpy()
    orders = [cells, *others]
    at_once = max(1, _WAITING // (steps * image.nbytes))
    areas: list[float] = []
    whole = explanation.score
    for start in range(0, len(orders), at_once):
        chunk = deleted(image, orders[start : start + at_once], steps, first=start)
        inputs = torch.from_numpy(np.concatenate([image[None], chunk.reshape(-1, *image.shape)]))
        whole, *scores = follow(model, inputs.to(prepared.tensor.dtype), score, asking.options).tolist()
        areas += np.reshape(scores, (-1, steps)).mean(axis=1).tolist()
    own, rest = areas[0], areas[1:]
    p = permutation_p(-own, [-area for area in rest])
    facts = (
        ("whole", f"{whole:.2f} is the {'score' if explanation.cls is None else 'margin'} of the whole picture"),
        ("taken", f"{own:.2f} is its mean while what the map shows is taken away"),
        ("elsewhere", f"{np.mean(rest):.2f} while it is taken at {len(rest)} other places, {min(rest):.2f} at least"),
        ("left out", f"{alike:.0%} of all places, which are much like the map's own"),
    )
    return Measured(p, wanted, CHANCE_P, (Sight(explanation),), facts=facts)


def _check_p(wanted: float, draws: int) -> None:
    least = 1.0 / (1 + draws)
    if not wanted >= least:
        raise VacuousThresholdError(
            f"p at most {wanted:g} is what no map could have: the least with {draws} draws is {least:.3g}. Use more "
            "draws, or a higher threshold"
        )
    if wanted >= CHANCE_P:
        raise VacuousThresholdError(
            f"p at most {wanted:g} would be passed by chance alone: the mean p of maps that know nothing is 0.5. Use a "
            "lower threshold"
        )


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingsError(f"{name} {value!r} is no number of {name}: give a whole number, 1 or more")
    return int(value)


def _likenesses(
    asking: Asking, model: ModelLike, asked: Asked, maps: Sequence[Explanation], how: Comparison, draws: int
) -> dict[Stage, list[list[float | str]]]:
    """For each stage and image the similarity of its map with that of each draw; where there is none, why."""
    options = asking.options
    layers = layers_of(model, options, maps[0].layers)
    there = replace(options, layer=list(layers) if layers else options.layer)
    copied = Redrawn(model, asked.prepared[0].tensor, options, layers)
    classes = same_classes(maps, asked.classes)
    alike: dict[Stage, list[list[float | str]]] = {stage: [[] for _ in maps] for stage in STAGES}
    for draw in range(draws):
        for stage in STAGES:
            copied.draw(stage, seed=draw)
            for i, found in enumerate(_explained(asking, copied.model, asked.prepared, classes, there)):
                alike[stage][i].append(found if isinstance(found, str) else _alike(how, maps[i], found))
    return alike


def _explained(
    asking: Asking, model: ModelLike, prepared: Sequence[Prepared], classes: Sequence[ClassLike], options: Options
) -> list[Explanation | str]:
    """A map for each image; for those of which there is none, why."""
    try:
        return list(asking.explain(model, prepared, classes, options=options))
    except _NO_MAP as error:
        if len(prepared) == 1:
            return [str(error)]
    alone = zip(prepared, classes, strict=True)
    return [_explained(asking, model, [each], [cls], options)[0] for each, cls in alone]


def _alike(how: Comparison, a: Explanation, b: Explanation) -> float | str:
    try:
        return how.measure(a, b)
    except ZeroEvidenceError:  # there is a map, in which nothing speaks for the class any more
        return how.chance(a)
    except TargetLayerError as error:
        return str(error)


def _without(found: Sequence[float | str]) -> str:
    none = sum(isinstance(each, str) for each in found)
    return f"; {none} have no map" if none else ""
