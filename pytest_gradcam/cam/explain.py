"""From model input to Explanation: target layer → capture → raw CAM → CAM.

Takes tensors that already are model input; pictures, files and transforms belong to `pytest_gradcam.explanations`.
Which scalar a class stands for is in `scores.py`, what is captured in `captured.py`, the arithmetic in `raw.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_gradcam.cam import from_inputs, legrad, own, perturbed
from pytest_gradcam.cam.capture import gradient, gradients_of_rows
from pytest_gradcam.cam.captured import Captured, asked_again, capture, name_of_layers, namer, refuse_saturated, view_of
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.forwards import mixes_images
from pytest_gradcam.cam.found import Found
from pytest_gradcam.cam.methods import Kind, kind_of
from pytest_gradcam.cam.model import logits_of, name_of
from pytest_gradcam.cam.raw import Raw, grid_of, raw_cams
from pytest_gradcam.cam.running import ModelLike, Options, Run, ready
from pytest_gradcam.cam.scores import (
    ClassLike,
    Fact,
    call_score,
    checked_rows,
    classes_of,
    facts_of,
    is_certain,
    rows_of,
    scores_of_batch,
)
from pytest_gradcam.errors import ClassError

Look: TypeAlias = Callable[[], npt.NDArray[np.uint8]]


def explain_inputs(
    model: ModelLike,
    inputs: Tensor,
    classes: Sequence[ClassLike],
    looks: Sequence[Look],
    options: Options,
) -> list[Explanation]:
    """One map for each image of a batch, from one forward.

    Args:
        model: the model, or a (features, head) pair for the split engine.
        inputs: (N, C, H, W), model input, on any device.
        classes: for each image a class index, a label, a callable output → scalar tensor, or None.
        looks: for each image what makes the picture of what the model saw, uint8 (H, W, 3).
        options: how to compute.

    Raises:
        GradcamError: see the members of the family.
    """
    started = time.perf_counter()
    with ready(model, inputs, options) as run:
        if len(classes) != inputs.shape[0]:
            raise ClassError(f"{len(classes)} classes for {inputs.shape[0]} images: pass one for each image, or None")
        kind = kind_of(options.method)
        find = _WAYS[kind]
        if len(classes) > 1 and (kind in _OF_ONE_IMAGE or mixes_images(run.module)):
            explanations = []
            for i, (cls, look) in enumerate(zip(classes, looks, strict=True)):
                alone = replace(run, inputs=run.inputs[i : i + 1])
                explanations += _explanations(run, find(alone, [cls]), [look], time.perf_counter())
            return explanations
        return _explanations(run, find(run, classes), looks, started)


def explain_inputs_often(
    model: ModelLike,
    inputs: Tensor,
    rounds: Sequence[Sequence[ClassLike]],
    looks: Sequence[Look],
    options: Options,
) -> list[list[Explanation]]:
    """For each round one map for each image of a batch; where gradients make the maps, all from one forward.

    Args:
        model: as for `explain_inputs`.
        inputs: as for `explain_inputs`.
        rounds: classes as for `explain_inputs`, several times.
        looks: as for `explain_inputs`.
        options: how to compute.

    Raises:
        GradcamError: see the members of the family.
    """
    started = time.perf_counter()
    with ready(model, inputs, options) as run:
        several = len(rounds) > 1 and kind_of(options.method) == "gradients"
        if several and not (len(inputs) > 1 and mixes_images(run.module)):
            captured = capture(run, rounds[0], [cls for each in rounds[1:] for cls in each])
            made = []
            for number, classes in enumerate(rounds):
                asked = [asked_again(run, each, classes) for each in captured] if number else captured
                raws = raw_cams(run, asked, [each.gradients for each in asked])
                made.append(_explanations(run, _found(run, asked, raws, asked[0].facts), looks, started))
                started = time.perf_counter()
            return made
    return [explain_inputs(model, inputs, classes, looks, options) for classes in rounds]


def explain_input_classes(
    model: ModelLike,
    inputs: Tensor,
    classes: Sequence[ClassLike] | None,
    look: Look,
    options: Options,
) -> list[Explanation]:
    """One map for each class of one image, from one forward.

    Args:
        model: the model, or a (features, head) pair for the split engine.
        inputs: (1, C, H, W), model input, on any device.
        classes: class indices, labels or callables; None for all classes of the model.
        look: makes the picture of what the model saw, uint8 (H, W, 3).
        options: how to compute.

    Raises:
        GradcamError: see the members of the family.
    """
    if classes is not None and len(classes) == 0:
        raise ClassError("classes is empty: pass class indices, labels or callables, or None for all")
    started = time.perf_counter()
    with ready(model, inputs, options) as run:
        if (find := _OF_ONE_IMAGE.get(kind_of(options.method))) is not None:
            found = find(run, classes)
        else:
            captured = capture(run, [0] if classes is None else classes[:1], classes)
            found = _of_classes(run, captured, classes)
        return _explanations(run, found, [look] * len(found.facts), started)


def _of_images(run: Run, classes: Sequence[ClassLike]) -> Found:
    captured = capture(run, classes)
    return _found(run, captured, raw_cams(run, captured, [each.gradients for each in captured]), captured[0].facts)


def _of_classes(run: Run, captured: Sequence[Captured], classes: Sequence[ClassLike] | None) -> Found:
    first = captured[0].tail
    asked = classes_of(first.output, classes, captured[0].labels)
    indices = {place: cls for place, cls in enumerate(asked) if isinstance(cls, int)}
    raws = np.empty((len(asked), *grid_of(captured)))
    scores = np.empty(len(asked))
    rows = None
    if indices:
        wanted = list(indices.values())
        method = captured[0].method(run.options.method)
        chunks = []
        for each in captured:
            logits = logits_of(each.tail.output)
            weights = rows_of(logits.expand(len(wanted), -1), wanted, method.rows)
            chunks.append(gradients_of_rows(logits, weights, each.tail, each.names[0], each.batch_axes))
        together = zip(*chunks, strict=True)
        raws[list(indices)] = np.concatenate([raw_cams(run, captured, found) for found in together])
        logits = logits_of(first.output)
        rows = checked_rows(logits, 1)
        scores[list(indices)] = rows[0, wanted]
        for sure in {index for index in wanted if is_certain(rows[0], index, torch.finfo(logits.dtype).eps)}:
            steps = gradient(logits[0, sure], first, captured[0].names[0])
            refuse_saturated(first.leaves, steps, scores_of_batch(logits, [sure], None), captured[0].batch_axes)
    for place, cls in enumerate(asked):
        if not isinstance(cls, int):
            gradients = [gradient(call_score(cls, each.tail.output), each.tail, each.names[0]) for each in captured]
            scores[place] = float(call_score(cls, first.output).detach())
            raws[place] = raw_cams(run, captured, gradients)[0]
    facts = facts_of(scores.tolist(), [indices.get(place) for place in range(len(asked))], rows)
    return _found(run, captured, raws, facts)


def _found(run: Run, captured: Sequence[Captured], raws: Raw, facts: Sequence[Fact]) -> Found:
    names = tuple(dict.fromkeys(name for each in captured for name in each.names))
    method = captured[0].method(run.options.method).name
    return Found(raws, facts, name_of_layers(names), method, captured[0].labels, layers=names, view=view_of(captured))


def _explanations(run: Run, found: Found, looks: Sequence[Look], started: float) -> list[Explanation]:
    stored = found.raws.astype(np.float32)
    evidence = np.maximum(stored, 0.0).sum(axis=(1, 2), dtype=np.float64).tolist()
    name, model = namer(found.labels), name_of(run.module)
    seconds = (time.perf_counter() - started) / len(found.facts)
    return [
        Explanation(
            raw=stored[i],
            evidence=evidence[i],
            cls=fact.cls,
            label=name(fact.cls),
            score=fact.score,
            probability=fact.probability,
            predicted=fact.predicted,
            predicted_label=name(fact.predicted),
            predicted_probability=fact.predicted_probability,
            layer=found.layer,
            grid=(stored.shape[1], stored.shape[2]),
            method=found.method,
            engine=found.engine or run.options.engine,
            device=str(run.device),
            seconds=seconds,
            size=(int(run.inputs.shape[2]), int(run.inputs.shape[3])),
            look=looks[i],
            layers=found.layers,
            view=found.view,
            model=model,
        )
        for i, fact in enumerate(found.facts)
    ]


# Of these kinds, each image takes many forwards of its own: (run of one image, M classes, or None for all) → the maps.
_OF_ONE_IMAGE: dict[Kind, Callable[[Run, Sequence[ClassLike] | None], Found]] = {
    "perturbation": perturbed.of_image,
    "inputs": from_inputs.of_image,
    "own": own.of_image,
    "attention": legrad.of_image,
}
# One way for each kind of method: (run, one class for each image) → the maps.
_WAYS: dict[Kind, Callable[[Run, Sequence[ClassLike]], Found]] = {
    "gradients": _of_images,
    **_OF_ONE_IMAGE,
}
