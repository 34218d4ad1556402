"""Forwards cut at the target layer, and the gradients of the scores there: what a map is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pytest_gradcam.cam import layers, remembered
from pytest_gradcam.cam.capture import Tail, gradient, run_hooked
from pytest_gradcam.cam.dependence import Question
from pytest_gradcam.cam.location import folded, prove_features
from pytest_gradcam.cam.methods import Method, choose
from pytest_gradcam.cam.model import labels_of, logits_of
from pytest_gradcam.cam.reading import is_uneven
from pytest_gradcam.cam.running import Run
from pytest_gradcam.cam.scores import ClassLike, Fact, Scores, count_of, scores_of_batch
from pytest_gradcam.cam.search import targets_of
from pytest_gradcam.cam.split import run_pair, run_split
from pytest_gradcam.cam.views import View
from pytest_gradcam.errors import ModelError, TargetLayerError

# What a score of 1 changes by when the activations change by their own size, far below which it does not move.
SATURATED = 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A forward, the layers that it was cut at, and the gradients of the score by the grids in their outputs.

    Attributes:
        tail: the forward; one leaf for each grid.
        names: for each grid, the dotted name of its layer.
        views: for each grid, how it is read.
        scale_free: for each grid, whether what follows takes no notice of the scale of a cell.
        uneven: for each grid, whether what follows reads different places differently.
        gradients: for each grid, d(score)/d(leaf) of every image's own score, of the leaf's shape.
        scores: the scores of the images.
        labels: class names, by index, where they are known.
    """

    tail: Tail
    names: tuple[str, ...]
    views: tuple[View, ...]
    scale_free: tuple[bool, ...]
    uneven: tuple[bool, ...]
    gradients: tuple[Tensor, ...]
    scores: Scores
    labels: Sequence[str] | None

    @property
    def facts(self) -> list[Fact]:
        """What is known of each image's score."""
        return self.scores.facts

    @property
    def name(self) -> str:
        """The layers, for a person."""
        return name_of_layers(tuple(dict.fromkeys(self.names)))

    @property
    def batch_axes(self) -> list[int]:
        """For each grid, which axis of its leaf counts the images."""
        return [view.batch_axis for view in self.views]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the map: that of the finest grid."""
        return max(view.grid[0] for view in self.views), max(view.grid[1] for view in self.views)

    def method(self, name: object) -> Method:
        """The method that a name stands for here, the same for all grids."""
        return choose(name, self.views[0], is_scale_free=all(self.scale_free), is_uneven=any(self.uneven))


def view_of(captured: Sequence[Captured]) -> str:
    """How the layers' outputs were read, for a person; once what is read alike."""
    return " and ".join(dict.fromkeys(str(view) for each in captured for view in each.views))


def name_of_layers(names: Sequence[str]) -> str:
    """Names of layers on one line: all of them, or the first and the last of many."""
    return " + ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} layers)"


def capture(run: Run, classes: Sequence[ClassLike], others: Sequence[ClassLike] | None = None) -> tuple[Captured, ...]:
    """Forwards for these classes, cut at the layers that are theirs, and those of others that are asked for with them.

    One forward for all layers with the hooks engine; with the split engine too, where one cut serves them all.

    Raises:
        TargetLayerError: there is no such layer, or it gives no map for these scores.
        ModelError: see `split`, and for a saturated softmax.
    """
    if run.pair is not None:
        tail = run_pair(*run.pair, run.inputs, run.module.modules())
        part = prove_features(run.pair[0], run.inputs)
        _check_rows(run, tail, ["features"], [part])
        return (_differentiated(run, tail, ["features"], (part,), classes),)
    found = [_targets(run, cls) for cls in _kinds([*classes, *(others or ())])]
    if any([(t.name, t.site.places) for t in each] != [(t.name, t.site.places) for t in found[0]] for each in found):
        named = ", ".join(name_of_layers([target.name for target in each]) for each in found)
        raise TargetLayerError(
            f"the scores asked for together are read at different layers, {named}: explain them one at a time, or name "
            "a layer"
        )
    targets = found[0]
    sites = [target.site for target in targets]
    if run.options.engine == "hooks":
        return (_captured(run, run_hooked(run.forward, sites, run.inputs), targets, classes),)
    if len(sites) > 1:
        try:  # one cut, at the first of them, serves all where the head calls the others
            return (_captured(run, run_split(run.forward, sites[0], run.inputs, sites[1:]), targets, classes),)
        except ModelError:
            pass
    return tuple(
        _captured(run, run_split(run.forward, target.site, run.inputs), [target], classes) for target in targets
    )


def _captured(run: Run, tail: Tail, targets: Sequence[layers.Target], classes: Sequence[ClassLike]) -> Captured:
    names = [target.name for target in targets for _ in target.parts]
    parts = [part for target in targets for part in target.parts]
    _check_rows(run, tail, names, parts)
    for leaf, part, name in zip(tail.leaves, parts, names, strict=True):
        shape = part.view.of_one(leaf)
        if shape != part.shape:  # found before the model was changed
            raise TargetLayerError(f"layer {name!r} gave {shape} where it gave {part.shape} before")
    return _differentiated(run, tail, names, parts, classes)


def _kinds(classes: Sequence[ClassLike]) -> list[ClassLike]:
    """One class for all that are read from logits, and every callable."""
    callables = list({id(cls): cls for cls in classes if callable(cls)}.values())
    return [*(cls for cls in classes if not callable(cls))][:1] + callables


def _targets(run: Run, cls: ClassLike) -> list[layers.Target]:
    asked = run.options.layer
    if asked is None:
        # A token grid is read in all blocks by `auto`: measured on small vision transformers (docs/power.md), single
        # pictures of models that read a patch were told from honest ones with AUROC .94; by the last block alone, .84.
        return list(_found(run, None, cls, with_blocks=run.options.method == "auto"))
    return [_found(run, name, cls)[0] for name in named_layers(run, asked)]


def named_layers(run: Run, asked: object) -> list[str]:
    """The names of the layers that the user gives, one or several, each by name or as the module.

    Raises:
        TargetLayerError: the model has no such layer, or one is given twice.
    """
    if isinstance(asked, str) and "," in asked:  # no name of a module has one
        asked = [name.strip() for name in asked.split(",")]
    several: Sequence[Any] = asked if isinstance(asked, list | tuple) else [asked]
    names = [layers.name_of(run.module, layer) for layer in several]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TargetLayerError(f"layer {twice[0]!r} is named twice: each layer has one say in the map")
    return names


def _found(run: Run, name: str | None, cls: ClassLike, *, with_blocks: bool = False) -> tuple[layers.Target, ...]:
    asked = f"{name or ''}{' and blocks' if with_blocks else ''}"
    found = remembered.recall(run.forward, run.inputs, asked, cls)
    if found is None:
        found = targets_of(run.forward, run.inputs, name, question_of(run, cls), with_blocks=with_blocks)
        remembered.keep(run.forward, run.inputs, asked, cls, found)
        if with_blocks:  # what it ends with is what a method that reads one layer asks for
            remembered.keep(run.forward, run.inputs, name or "", cls, found[-1:])
    return found


def question_of(run: Run, cls: ClassLike) -> Question:
    """What the search for the target layer asks, for a class or callable."""
    certain: list[Fact] = []

    def asked(output: Any) -> Tensor:
        scores = scores_of_batch(output, [cls], labels_for(run, output))
        certain[:] = [scores.facts[i] for i in scores.certain]
        return scores.root if scores.weights is None else (scores.root * scores.weights).sum()

    def whole(output: Any) -> Tensor:
        score = asked(output)  # also where it is not differentiated: a class that there is not is an error
        return score if callable(cls) else (logits_of(output) * _all_classes(logits_of(output))).sum()

    def explain_silence() -> None:
        if certain:
            raise _saturated(certain[0])

    return Question(asked, whole, explain_silence, callable(cls))


def _check_rows(run: Run, tail: Tail, names: Sequence[str], parts: Sequence[layers.Part]) -> None:
    images = run.inputs.shape[0]
    for leaf, name, part in zip(tail.leaves, names, parts, strict=False):
        rows = leaf.shape[part.view.batch_axis]
        if rows != images:  # also where found before, or in the user's own cut
            raise folded(name, rows, images)


def _differentiated(
    run: Run, tail: Tail, names: Sequence[str], parts: Sequence[layers.Part], classes: Sequence[ClassLike]
) -> Captured:
    views, scale_free = tuple(part.view for part in parts), tuple(part.is_scale_free for part in parts)
    uneven = tuple(part.is_uneven for part in parts)
    labels = labels_for(run, tail.output)
    method = choose(run.options.method, views[0], is_scale_free=all(scale_free), is_uneven=any(uneven))
    scores, found = _gradients(tail, names[0], views, method, labels, classes)
    if run.pair is not None:  # there was no search, which looks at it
        uneven = tuple(is_uneven(g, view) for view, g in zip(views, found, strict=True))
    return Captured(tail, tuple(names), views, scale_free, uneven, found, scores, labels)


def asked_again(run: Run, captured: Captured, classes: Sequence[ClassLike]) -> Captured:
    """The same forward, and the gradients of other scores of its images.

    Raises:
        TargetLayerError: the scores do not depend on the cells of the layer.
        ModelError: for a saturated softmax.
    """
    method = captured.method(run.options.method)
    names, views, labels = captured.names, captured.views, captured.labels
    scores, found = _gradients(captured.tail, names[0], views, method, labels, classes)
    return replace(captured, gradients=found, scores=scores)


def _gradients(
    tail: Tail,
    name: str,
    views: Sequence[View],
    method: Method,
    labels: Sequence[str] | None,
    classes: Sequence[ClassLike],
) -> tuple[Scores, tuple[Tensor, ...]]:
    scores = scores_of_batch(tail.output, classes, labels, rows=method.rows)
    found = gradient(scores.root, tail, name, scores.weights)
    cells = [bool(view(g).any()) for view, g in zip(views, found, strict=True)]
    if not any(cells) and any(bool(g.any()) for g in found):
        raise TargetLayerError(
            f"the score does not depend on the cells of layer {name!r} ({views[0]}): all of its gradient is "
            "in the prefix tokens, as after a class-token readout; name an earlier layer"
        )
    refuse_saturated(tail.leaves, found, scores, [view.batch_axis for view in views])
    return scores, found


def _all_classes(logits: Tensor) -> Tensor:
    """Weights under which no class is left out, drawn so that classes cancel each other for no reason of their own."""
    drawn = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(0)) + 0.5
    return drawn.to(logits).expand_as(logits)


def labels_for(run: Run, output: Any) -> Sequence[str] | None:
    """The user's class names; else those that the model carries, where its head was not replaced since."""
    if run.options.labels is not None:
        return run.options.labels
    carried = labels_of(run.module)
    return carried if carried is not None and count_of(output) == len(carried) else None


def namer(labels: Sequence[str] | None) -> Callable[[int | None], str | None]:
    """The name of a class, where it is known."""
    return lambda cls: None if labels is None or cls is None else labels[cls]


def refuse_saturated(leaves: Sequence[Tensor], found: Sequence[Tensor], scores: Scores, axes: Sequence[int]) -> None:
    """A certain probability behind a softmax has no gradient but rounding, which would make a map of noise.

    Args:
        leaves: what the scores were computed of.
        found: the gradients of the scores by them.
        scores: the scores.
        axes: for each leaf, which axis counts the images.

    Raises:
        ModelError: that is so for one of the scores.
    """
    for i in scores.certain:
        # Logits that happen to be one-hot are another matter: they move with the activations.
        moved = [
            float(leaf.select(axis, i).detach().float().norm() * g.select(axis, i).float().norm())
            for leaf, g, axis in zip(leaves, found, axes, strict=True)
        ]
        if sum(moved) < SATURATED:
            raise _saturated(scores.facts[i])


def _saturated(fact: Fact) -> ModelError:
    return ModelError(
        f"the model's output are probabilities or their logarithms, and that of class {fact.cls} is {fact.score:.7g}: "
        "a saturated softmax has no gradient to explain. Pass the model without its softmax, or cls as a callable that "
        "reads logits"
    )
