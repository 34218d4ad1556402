"""From model input to Explanation: target layer → capture → raw CAM → CAM.

Takes tensors that already are model input; pictures, files and transforms belong to `pytest_gradcam.explanations`.
Which scalar a class stands for is in `scores.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pytest_gradcam.cam import layers, methods, remembered
from pytest_gradcam.cam.capture import Tail, gradient, gradients_of_classes, run_hooked
from pytest_gradcam.cam.dependence import Question
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.location import prove_features
from pytest_gradcam.cam.methods import fuse
from pytest_gradcam.cam.model import labels_of, logits_of
from pytest_gradcam.cam.running import ModelLike, Options, Run, ready
from pytest_gradcam.cam.scores import (
    ClassLike,
    Fact,
    Scores,
    call_score,
    checked_rows,
    classes_of,
    count_of,
    facts_of,
    is_certain,
    scores_of_batch,
)
from pytest_gradcam.cam.search import target_of
from pytest_gradcam.cam.split import run_pair, run_split
from pytest_gradcam.cam.views import View
from pytest_gradcam.errors import (
    ClassError,
    ModelError,
    NonFiniteError,
    TargetLayerError,
)

Look: TypeAlias = Callable[[], npt.NDArray[np.uint8]]

# Evidence below this share of what was added up is rounding. Each float32 operation carries 6e-8; where terms cancel
# exactly, as tokens and their gradients before a layer norm do, up to 3e-6 was seen to be left; of evidence, 1e-3.
ROUNDING = 5e-6
# In half precision, each term was rounded before it was added: this many steps of its type are rounding.
STEPS = 1.0
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Rounding lies below this multiple of that share of the product of the norms of activations and gradients.
SUSPICIOUS = 10.0
# What a score of 1 changes by when the activations change by their own size, far below which it does not move.
SATURATED = 1e-2


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
        if len(classes) > 1 and _mixes_images(run.module):
            alone = [replace(run, inputs=run.inputs[i : i + 1]) for i in range(len(classes))]
            return [
                _explained(each, [cls], [look], time.perf_counter())[0]
                for each, cls, look in zip(alone, classes, looks, strict=True)
            ]
        return _explained(run, classes, looks, started)


def _mixes_images(module: nn.Module) -> bool:
    """Whether a batch changes what an image gives: normalisation by the batch's own statistics, in eval mode too."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return any(isinstance(m, kinds) and m.running_mean is None for m in module.modules())


def _explained(run: Run, classes: Sequence[ClassLike], looks: Sequence[Look], started: float) -> list[Explanation]:
    captured = _capture(run, classes)
    raws = _raw_cams(run, captured, captured.gradients)
    return _explanations(run, captured, raws, captured.facts, looks, started)


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
        captured = _capture(run, [0] if classes is None else classes[:1], classes)
        tail = captured.tail
        asked = classes_of(tail.output, classes, captured.labels)
        indices = {place: cls for place, cls in enumerate(asked) if isinstance(cls, int)}
        raws = np.empty((len(asked), *captured.grid))
        scores = np.empty(len(asked))
        rows = None
        if indices:
            logits = logits_of(tail.output)
            wanted = list(indices.values())
            chunks = gradients_of_classes(logits, wanted, tail, captured.name)
            raws[list(indices)] = np.concatenate([_raw_cams(run, captured, found) for found in chunks])
            rows = checked_rows(logits, 1)
            scores[list(indices)] = rows[0, wanted]
            for sure in {index for index in wanted if is_certain(rows[0], index, torch.finfo(logits.dtype).eps)}:
                found = gradient(logits[0, sure], tail, captured.name)
                _refuse_saturated(tail, found, scores_of_batch(logits, [sure], None))
        for place, cls in enumerate(asked):
            if not isinstance(cls, int):
                score = call_score(cls, tail.output)
                scores[place] = float(score.detach())
                raws[place] = _raw_cams(run, captured, gradient(score, tail, captured.name))[0]
        facts = facts_of(scores.tolist(), [indices.get(place) for place in range(len(asked))], rows)
        return _explanations(run, captured, raws, facts, [look] * len(asked), started)


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    """A forward, the layer that it was cut at, and the gradients of the score by the parts of its output."""

    tail: Tail
    name: str
    views: tuple[View, ...]
    scale_free: tuple[bool, ...]
    gradients: tuple[Tensor, ...]
    facts: list[Fact]
    labels: Sequence[str] | None

    def method(self, name: str) -> tuple[str, methods.Method]:
        """The registered name and the function that a name stands for here, the same for all parts."""
        return methods.choose(name, self.views[0], is_scale_free=all(self.scale_free))

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the map: that of the finest part."""
        return max(view.grid[0] for view in self.views), max(view.grid[1] for view in self.views)


def _capture(run: Run, classes: Sequence[ClassLike], others: Sequence[ClassLike] | None = None) -> _Captured:
    """A forward for these classes, cut at the layer that is theirs, and that of others that are asked for with them."""
    if run.pair is not None:
        tail = run_pair(*run.pair, run.inputs, run.module.modules())
        _check_rows(run, tail, "features")
        part = prove_features(run.pair[0], run.inputs, tuple(tail.leaves[0].shape[1:]))
        return _differentiated(run, tail, "features", (part,), classes)

    def at(target: layers.Target) -> _Captured:
        run_engine = run_hooked if run.options.engine == "hooks" else run_split
        tail = run_engine(run.forward, target.site, run.inputs)
        _check_rows(run, tail, target.name)
        for leaf, part in zip(tail.leaves, target.parts, strict=True):
            if leaf.shape[1:] != part.shape:  # found before the model was changed
                raise TargetLayerError(
                    f"layer {target.name!r} gave {tuple(leaf.shape[1:])} where it gave {part.shape} before"
                )
        return _differentiated(run, tail, target.name, target.parts, classes)

    targets = [_target(run, cls) for cls in _kinds([*classes, *(others or ())])]
    if any((each.name, each.site.places) != (targets[0].name, targets[0].site.places) for each in targets):
        raise TargetLayerError(
            f"the scores asked for together are read at different layers, {', '.join(each.name for each in targets)}: "
            "explain them one at a time, or name a layer"
        )
    return at(targets[0])


def _kinds(classes: Sequence[ClassLike]) -> list[ClassLike]:
    """One class for all that are read from logits, and every callable."""
    callables = list({id(cls): cls for cls in classes if callable(cls)}.values())
    return [*(cls for cls in classes if not callable(cls))][:1] + callables


def _target(run: Run, cls: ClassLike) -> layers.Target:
    layer = run.options.layer
    name = None if layer is None else layers.name_of(run.module, layer)
    target = remembered.recall(run.forward, run.inputs, name, cls)
    if target is None:
        target = target_of(run.forward, run.inputs, name, question_of(run, cls))
        remembered.keep(run.forward, run.inputs, name, cls, target)
    return target


def question_of(run: Run, cls: ClassLike) -> Question:
    """What the search for the target layer asks, for a class or callable."""
    certain: list[Fact] = []

    def asked(output: Any) -> Tensor:
        scores = scores_of_batch(output, [cls], _labels(run, output))
        certain[:] = [scores.facts[i] for i in scores.certain]
        return scores.root if scores.weights is None else (scores.root * scores.weights).sum()

    def whole(output: Any) -> Tensor:
        score = asked(output)  # also where it is not differentiated: a class that there is not is an error
        return score if callable(cls) else (logits_of(output) * _all_classes(logits_of(output))).sum()

    def explain_silence() -> None:
        if certain:
            raise _saturated(certain[0])

    return Question(asked, whole, explain_silence, callable(cls))


def _check_rows(run: Run, tail: Tail, name: str) -> None:
    rows, images = tail.leaves[0].shape[0], run.inputs.shape[0]
    if any(leaf.shape[0] != images for leaf in tail.leaves):  # also where found before, or in the user's own cut
        raise TargetLayerError(
            f"layer {name!r} gives {rows} rows for {images} images: crops, windows or frames are folded into its "
            "batch, and no row is a whole image; name another layer"
        )


def _differentiated(
    run: Run, tail: Tail, name: str, parts: Sequence[layers.Part], classes: Sequence[ClassLike]
) -> _Captured:
    views, scale_free = tuple(part.view for part in parts), tuple(part.is_scale_free for part in parts)
    labels = _labels(run, tail.output)
    scores = scores_of_batch(tail.output, classes, labels)
    found = gradient(scores.root, tail, name, scores.weights)
    cells = [bool(view(g).any()) for view, g in zip(views, found, strict=True)]
    if not any(cells) and any(bool(g.any()) for g in found):
        raise TargetLayerError(
            f"the score does not depend on the cells of layer {name!r} ({views[0]}): all of its gradient is "
            "in the prefix tokens, as after a class-token readout; name an earlier layer"
        )
    _refuse_saturated(tail, found, scores)
    return _Captured(tail, name, views, scale_free, found, scores.facts, labels)


def _all_classes(logits: Tensor) -> Tensor:
    """Weights under which no class is left out, drawn so that classes cancel each other for no reason of their own."""
    drawn = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(0)) + 0.5
    return drawn.to(logits).expand_as(logits)


def _labels(run: Run, output: Any) -> Sequence[str] | None:
    """The user's class names; else those that the model carries, where its head was not replaced since."""
    if run.options.labels is not None:
        return run.options.labels
    carried = labels_of(run.module)
    return carried if carried is not None and count_of(output) == len(carried) else None


def _refuse_saturated(tail: Tail, found: Sequence[Tensor], scores: Scores) -> None:
    """A certain probability behind a softmax has no gradient but rounding, which would make a map of noise."""
    for i in scores.certain:
        # Logits that happen to be one-hot are another matter: they move with the activations.
        moved = [
            float(leaf[i].detach().float().norm() * g[i].float().norm())
            for leaf, g in zip(tail.leaves, found, strict=True)
        ]
        if sum(moved) < SATURATED:
            raise _saturated(scores.facts[i])


def _saturated(fact: Fact) -> ModelError:
    return ModelError(
        f"the model's output are probabilities or their logarithms, and that of class {fact.cls} is {fact.score:.7g}: "
        "a saturated softmax has no gradient to explain. Pass the model without its softmax, or cls as a callable that "
        "reads logits"
    )


def _raw_cams(run: Run, captured: _Captured, gradients: Sequence[Tensor]) -> npt.NDArray[np.float64]:
    """Raw CAMs, (M, h, w), of all parts of the layer's output; what is only rounding is zero.

    `gradients` has for each part M rows of its leaf's shape; the leaf has M rows, or one that serves all.
    """
    parts = [
        _raw_cams_of_part(run, captured, i, leaf.detach(), found)
        for i, (leaf, found) in enumerate(zip(captured.tail.leaves, gradients, strict=True))
    ]
    return parts[0] if len(parts) == 1 else fuse(parts, captured.grid)


def _raw_cams_of_part(
    run: Run, captured: _Captured, part: int, activations: Tensor, gradients: Tensor
) -> npt.NDArray[np.float64]:
    view, is_scale_free = captured.views[part], captured.scale_free[part]
    name, method = captured.method(run.options.method)
    a, g = view(activations), view(gradients)
    if a.dtype.itemsize < 4:
        a, g = a.float(), g.float()
    with torch.autocast(a.device.type, enabled=False):  # a region of the user's casts no matrix product of ours
        raw = method(a, g)
    raws: npt.NDArray[np.float64] = raw.cpu().numpy().astype(np.float64)
    if not (np.abs(raws) <= FLOAT32_MAX).all():
        parts = {"activations": activations, "gradients": gradients}
        where = next((name for name, part in parts.items() if not bool(part.isfinite().all())), "products")
        raise NonFiniteError(
            f"the {where} of layer {captured.name!r} are NaN or infinite: no map can be made of them. "
            "In half precision, try the model in float32"
        )
    # Where positive and negative terms cancel, what is left is rounding, and dividing by its maximum would make a
    # full-strength map of it. The norms bound any sum of products; only what lies far below them is looked at closely.
    rounding = max(ROUNDING, STEPS * torch.finfo(_coarsest(run, activations)).eps)
    norms = (a.flatten(1).norm(dim=1) * g.flatten(1).norm(dim=1)).cpu().numpy()
    if is_scale_free and name == "hirescam":
        return np.zeros_like(raws)  # what there is is rounding
    for i in np.flatnonzero(raws.max(axis=(1, 2)) <= SUSPICIOUS * rounding * norms):
        terms = method((a[i : i + 1] if len(a) > 1 else a).abs(), g[i : i + 1].abs())
        if raws[i].max() <= rounding * float(terms.max()):
            raws[i] = np.minimum(raws[i], 0.0)
    return raws


def _coarsest(run: Run, activations: Tensor) -> torch.dtype:
    """The floating type in which the forward's tail was computed: the leaf's, or the user's autocast region's."""
    kind = run.device.type
    cast = [torch.get_autocast_dtype(kind)] if torch.is_autocast_enabled(kind) else []
    return max([activations.dtype, *cast], key=lambda dtype: torch.finfo(dtype).eps)


def _explanations(
    run: Run,
    captured: _Captured,
    raws: npt.NDArray[np.float64],
    facts: Sequence[Fact],
    looks: Sequence[Look],
    started: float,
) -> list[Explanation]:
    stored = raws.astype(np.float32)
    evidence = np.maximum(stored, 0.0).sum(axis=(1, 2), dtype=np.float64).tolist()
    method, _ = captured.method(run.options.method)
    name = _namer(captured.labels)
    seconds = (time.perf_counter() - started) / len(facts)
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
            layer=captured.name,
            grid=captured.grid,
            method=method,
            engine=run.options.engine,
            device=str(run.device),
            seconds=seconds,
            size=(int(run.inputs.shape[2]), int(run.inputs.shape[3])),
            look=looks[i],
        )
        for i, fact in enumerate(facts)
    ]


def _namer(labels: Sequence[str] | None) -> Callable[[int | None], str | None]:
    return lambda cls: None if labels is None or cls is None else labels[cls]
