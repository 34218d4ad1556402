"""What a figure is about, computed: the likeliest classes, the layers there are, a map for each method and layer.

Nothing is drawn or printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from pytest_gradcam.cam.captured import labels_for
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.forwards import facts_of_image
from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.cam.running import Options, ready
from pytest_gradcam.cam.scores import classes_of
from pytest_gradcam.cam.survey import survey
from pytest_gradcam.errors import GradcamError, said_by
from pytest_gradcam.explanations import explain_prepared
from pytest_gradcam.images import Prepared

ALL: Final = "all"
# A sheet of more tiles shows none of them well, and takes long.
MOST: Final = 60
MOST_LAYERS: Final = 24


@dataclass(frozen=True, slots=True)
class Guess:
    """A class and what the model holds of it.

    Attributes:
        cls: its index.
        label: its name, where known.
        probability: softmax of the logits; sigmoid where there is one.
        rank: 1 for the likeliest.
    """

    cls: int
    label: str | None
    probability: float
    rank: int

    @property
    def name(self) -> str:
        """The label, or `class 3`."""
        return f"class {self.cls}" if self.label is None else self.label


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One way to explain the picture: the map, or why there is none.

    Attributes:
        method: its name, or `auto`.
        layer: dotted name, or None where it was to be found.
        explanation: the map; None where something was raised.
        reason: why there is no map, or none with evidence; empty where there is one.
    """

    method: str
    layer: str | None
    explanation: Explanation | None = None
    reason: str = ""

    @property
    def has_map(self) -> bool:
        """Whether there is a map, with evidence."""
        return self.explanation is not None and not self.reason


def imagenet_labels(model: nn.Module) -> tuple[str, ...] | None:
    """The names of ImageNet's classes, for timm's own weights that were trained on it; None of other models."""
    subset = infer_imagenet_subset(model) if getattr(model, "pretrained_cfg", None) else None
    if subset is None:
        return None
    return tuple(ImageNetInfo(subset).label_descriptions())


def guesses(
    model: nn.Module, prepared: Prepared, cls: int | str | None, options: Options, top: int
) -> tuple[Guess, list[Guess]]:
    """The class that is asked for, and the likeliest ones.

    Args:
        model: the model.
        prepared: the picture, made ready for it.
        cls: class index or label; None: the predicted class.
        options: how to compute.
        top: how many of the likeliest.

    Raises:
        GradcamError: the model has no logits, or no such class.
    """
    with ready(model, prepared.tensor, replace(options, method="auto", layer=None)) as run, torch.no_grad():
        output = run.forward(run.inputs)
        labels = labels_for(run, output)
        (index,) = classes_of(output, [cls], labels)
        facts = facts_of_image(output, classes_of(output, None, labels))
    scores = [fact.score for fact in facts]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    found = [
        Guess(i, None if labels is None else labels[i], facts[i].probability or 0.0, rank)
        for rank, i in enumerate(order, start=1)
    ]
    return next(guess for guess in found if guess.cls == index), found[:top]


def methods_of(asked: str) -> list[str]:
    """The names in a list, or all of them; a name that is none is an error when it is used."""
    return [*METHODS] if asked == ALL else _listed(asked)


def layers_of(asked: str, model: nn.Module, prepared: Prepared, cls: int, options: Options) -> tuple[list[str], int]:
    """The layers in a list; or all that a map can be read from, the last first, and how many more there are.

    Raises:
        GradcamError: of a model of which no layer gives a map.
    """
    if asked != ALL:
        return _listed(asked), 0
    seen = survey(model, prepared.tensor, cls, replace(options, method="auto", layer=None))
    if seen.chosen is None:
        raise GradcamError(seen.why_none)
    names = [each.name for each in seen.judgements if each.target is not None]
    return names[:MOST_LAYERS], max(0, len(names) - MOST_LAYERS)


def _listed(asked: str) -> list[str]:
    return [*dict.fromkeys(name.strip() for name in asked.split(",") if name.strip())]


def tiles(
    model: nn.Module,
    prepared: Prepared,
    cls: int,
    methods: Sequence[str],
    layers: Sequence[str | None],
    options: Options,
) -> Iterator[Tile]:
    """A tile for each layer and, of each, each method; whatever one raises is its tile's reason."""
    for layer in layers:
        for method in methods:
            yield _tile(model, prepared, cls, method, layer, options)


def _tile(model: nn.Module, prepared: Prepared, cls: int, method: str, layer: str | None, options: Options) -> Tile:
    try:
        asked = replace(options, method=method, layer=layer)
        (explanation,) = explain_prepared(model, [prepared], [cls], asked)
    except Exception as error:  # of ours, of the model's, or for want of memory: the other tiles may do
        return Tile(method, layer, reason=said_by(error))
    if explanation.evidence <= 0:
        return Tile(method, layer, explanation, "no evidence: nothing there speaks for the class")
    return Tile(method, layer, explanation)
