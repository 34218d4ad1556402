"""LeGrad: where a vision transformer's attention would have to go up for the score to go up, layer by layer.

Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity", ICCV
2025 (arXiv 2404.03214), section 3. For each block, what it gives is put in the place of what the last block gives, and
the rest of the model makes a score of it; the gradient of that score with respect to the block's own attention is
clipped at zero and averaged over heads and queries. Two things are ours: any readout of the last block's output is
taken, and the map is divided by its maximum without its minimum being subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_gradcam.cam.attention import Attentions, legrad, watched
from pytest_gradcam.cam.blocks import Blocks, blocks_of
from pytest_gradcam.cam.capture import Tail, gradient, gradients_of_rows, sound_gradients
from pytest_gradcam.cam.captured import labels_for, named_layers, question_of, refuse_saturated
from pytest_gradcam.cam.forwards import facts_of_image
from pytest_gradcam.cam.found import Found
from pytest_gradcam.cam.model import logits_of
from pytest_gradcam.cam.outputs import copied, tensors_of, with_tensors
from pytest_gradcam.cam.raw import Raw, checked
from pytest_gradcam.cam.recording import check_same, frozen
from pytest_gradcam.cam.running import Run
from pytest_gradcam.cam.scores import (
    ClassLike,
    Score,
    call_score,
    checked_rows,
    classes_of,
    is_certain,
    rows_of,
    scores_of_batch,
)
from pytest_gradcam.cam.views import View
from pytest_gradcam.errors import ModelError, SettingsError, TargetLayerError

NAME = "legrad"


def of_image(run: Run, classes: Sequence[ClassLike] | None) -> Found:
    """The maps of one image for these classes; of all classes for None.

    One image at a time: attention computed step by step takes memory by the square of the tokens, and of one image no
    doubt is possible which of its axes are heads. It takes a forward for each block, and three more.

    Raises:
        TargetLayerError: the model has no blocks of attention over all of its tokens, or `layer` names none of them.
        SettingsError: another engine is asked for.
        ModelError: the model answers differently when it is asked again, or its softmax is saturated.
    """
    if run.pair is not None or run.options.engine != "hooks":
        raise SettingsError(
            "LeGrad reads attention in the whole model, which is not cut into features and head: pass the whole model, "
            'and engine="hooks"'
        )
    blocks = blocks_of(run.forward, run.inputs)
    chosen = _chosen(run, blocks)
    attention, states, seen = _run_attended(run, blocks)
    output = _run_tail(run, blocks, states[-1])
    check_same(run.forward, seen, output)
    labels = labels_for(run, output)
    asked = classes_of(output, classes, labels)
    kinds = [cls for cls in asked if callable(cls)] + [cls for cls in asked if isinstance(cls, int)][:1]
    blocks.check_all_comes_through([question_of(run, cls).whole(blocks.recording.output) for cls in kinds])
    _refuse_saturated(output, attention[-1], asked, blocks.names[-1])
    raws = np.zeros((len(asked), *blocks.view.grid))
    for i in chosen:
        tail = Tail((attention[i],), output if i == len(states) - 1 else _run_tail(run, blocks, states[i]))
        for place, g in _gradients(tail, asked, blocks.names[i]):
            raws[place] += _maps(g, blocks.view, blocks.names[i]) / len(chosen)
    names = tuple(blocks.names[i] for i in chosen)
    facts = facts_of_image(output, asked)
    return Found(raws, facts, _name_of(names), NAME, labels, layers=names, view=str(blocks.view))


def _maps(gradients: Tensor, view: View, name: str) -> Raw:
    g = gradients.float() if gradients.dtype.itemsize < 4 else gradients
    with torch.autocast(g.device.type, enabled=False):
        tokens = legrad(g)
    cells = tokens[:, view.prefix : view.prefix + view.cells].reshape(-1, *view.grid)
    return checked(cells, {"gradients": gradients}, f"the attention of {name!r}")


def _chosen(run: Run, blocks: Blocks) -> list[int]:
    """Which blocks the map is the mean of: all, or those that `layer` names.

    Raises:
        TargetLayerError: it names another layer, or one twice.
    """
    if run.options.layer is None:
        return list(range(len(blocks.names)))
    named = named_layers(run, run.options.layer)
    for name in named:
        if name not in blocks.names:
            raise TargetLayerError(
                f"layer {name!r} is not one of the blocks whose attention LeGrad reads: they are "
                f"{', '.join(map(repr, blocks.names))}"
            )
    return [blocks.names.index(name) for name in named]


def _name_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} attentions)"


def _run_attended(run: Run, blocks: Blocks) -> tuple[list[Tensor], list[Tensor], Any]:
    """Each block's attention, (1, heads, T, T), a leaf; what it gives, a function of that alone; and the output.

    Raises:
        ModelError: the forward takes another way than it took before.
    """
    seen, states = Attentions(cut=True), dict[str, Tensor]()

    def keeping(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            torch.set_grad_enabled(True)
            states[name] = tensors_of(output)[0]
            # A copy goes on: an in-place operation that follows changes nothing here.
            return with_tensors(output, {0: copied(states[name].detach())})

        return keep

    with watched(run.module, seen), _differentiable(run):
        handles = [m.register_forward_hook(keeping(name)) for name, m in zip(blocks.names, blocks.modules, strict=True)]
        try:
            output = run.forward(run.inputs)
        finally:
            for handle in handles:
                handle.remove()
    leaves = {
        name: call.leaf
        for name in blocks.names
        for call in seen.calls
        if name in call.inside and call.leaf is not None and call.shape[-1] == blocks.tokens
    }
    if list(leaves) != list(blocks.names) or any(tuple(z.shape) != blocks.shape for z in states.values()):
        raise ModelError(f"{run.forward.name} takes another way through its blocks when it is asked again")
    return list(leaves.values()), [states[name] for name in blocks.names], output


@contextmanager
def _differentiable(run: Run) -> Iterator[None]:
    """Gradients on, through what depends on attention alone."""
    norms = [m for m in run.module.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    with torch.enable_grad(), frozen(run.module), sound_gradients(norms):
        yield


def _run_tail(run: Run, blocks: Blocks, state: Tensor) -> Any:
    """The output with this in the place of what the last block gives: the score of a block's own features, s^l."""

    def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        torch.set_grad_enabled(True)
        return with_tensors(output, {0: copied(state)})

    handle = blocks.modules[-1].register_forward_hook(replace)
    before = torch.is_grad_enabled()
    try:
        with _differentiable(run):
            return run.forward(run.inputs)
    finally:
        handle.remove()
        torch.set_grad_enabled(before)


def _gradients(tail: Tail, asked: Sequence[int | Score], name: str) -> Iterator[tuple[list[int], Tensor]]:
    """d(score)/d(attention), (K, heads, T, T), with the places of the K scores; a chunk of classes at a time."""
    indices = {place: cls for place, cls in enumerate(asked) if isinstance(cls, int)}
    if indices:
        logits, places = logits_of(tail.output), list(indices)
        rows = rows_of(logits.expand(len(indices), -1), list(indices.values()), None)
        for (chunk,) in gradients_of_rows(logits, rows, tail, name, [0]):
            yield places[: len(chunk)], chunk
            places = places[len(chunk) :]
    for place, cls in enumerate(asked):
        if not isinstance(cls, int):
            yield [place], gradient(call_score(cls, tail.output), tail, name)[0]


def _refuse_saturated(output: Any, attention: Tensor, asked: Sequence[int | Score], name: str) -> None:
    """Behind a saturated softmax, gradients are rounding: see `captured.refuse_saturated`."""
    indices = {cls for cls in asked if isinstance(cls, int)}
    if not indices:
        return
    logits = logits_of(output)
    rows, step = checked_rows(logits, 1), torch.finfo(logits.dtype).eps
    for sure in {index for index in indices if is_certain(rows[0], index, step)}:
        found = gradient(logits[0, sure], Tail((attention,), output), name)
        refuse_saturated([attention], found, scores_of_batch(logits, [sure], None), [0])
