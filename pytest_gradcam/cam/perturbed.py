"""Score-CAM and Ablation-CAM of one image: their forwards and their raw CAMs. The formulas are in `perturbation.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_gradcam.cam.capture import Site, Tail
from pytest_gradcam.cam.captured import Captured, capture, name_of_layers, view_of
from pytest_gradcam.cam.forwards import Doubles, Scorer, agree, chunks_of, facts_of_image, mixes_images, read_scores
from pytest_gradcam.cam.found import Found
from pytest_gradcam.cam.methods import fuse, fuse_layers
from pytest_gradcam.cam.outputs import tensors_of, with_tensors
from pytest_gradcam.cam.perturbation import ablated, ablation_cam, masked_channels, masked_inputs, owners, score_cam
from pytest_gradcam.cam.progress import progress
from pytest_gradcam.cam.raw import Raw, checked, coarsest, grid_of
from pytest_gradcam.cam.running import Run
from pytest_gradcam.cam.scores import ClassLike, Score, classes_of
from pytest_gradcam.errors import ModelError

# Copies of a layer's output go on together as far as they stay below this size: those of a ResNet's 512 channels do.
COPIES_BYTES = 64 * 2**20
LEAST_COPIES = 16

_NONE = -2  # the channel of the copy from which nothing is taken


def of_image(run: Run, classes: Sequence[ClassLike] | None) -> Found:
    """The raw CAMs of one image, for these classes, which share the forwards; all classes for None."""
    captured = capture(run, [0] if classes is None else classes[:1], classes)
    first = captured[0]
    method = first.method(run.options.method)
    asked = classes_of(first.tail.output, classes, first.labels)
    by_layer: dict[str, list[Raw]] = {}
    for each in captured:
        for part, name in enumerate(each.names):
            leaf = each.tail.leaves[part].detach()
            raw = _WAYS[method.name](run, each, part, asked)
            by_layer.setdefault(name, []).append(checked(raw, {"activations": leaf}, f"layer {name!r}"))
    grid = grid_of(captured)
    raws = [parts[0] if len(parts) == 1 else fuse(parts, grid) for parts in by_layer.values()]
    whole = raws[0] if len(raws) == 1 else fuse_layers(raws, grid)
    facts = facts_of_image(first.tail.output, asked)
    names = tuple(by_layer)
    return Found(whole, facts, name_of_layers(names), method.name, first.labels, layers=names, view=view_of(captured))


def _activations(captured: Captured, part: int) -> Tensor:
    """(C, h, w), float32 at least."""
    a = captured.views[part](captured.tail.leaves[part].detach())[0]
    return a.float() if a.dtype.itemsize < 4 else a


def _score_cam(run: Run, captured: Captured, part: int, asked: Sequence[int | Score]) -> Tensor:
    a = _activations(captured, part)
    score = Scorer(run, asked)
    channels = masked_channels(a)
    if len(channels) == 0:
        return score_cam(a, channels, np.empty((0, len(asked))))
    chunks = masked_inputs(a[channels], run.inputs, score.size)
    return score_cam(a, channels, score.all(progress(chunks, -(-len(channels) // score.size), "score-cam")))


def _ablation_cam(run: Run, captured: Captured, part: int, asked: Sequence[int | Score]) -> Tensor:
    a = _activations(captured, part)
    channels = torch.nonzero(a.flatten(1).any(dim=1))[:, 0]
    leaf = captured.tail.leaves[part].detach()
    step = torch.finfo(coarsest(run, leaf)).eps
    whole, without = _without(run, captured, part, channels.cpu(), asked, step)
    return ablation_cam(a, channels, whole, without, step)


def _without(
    run: Run, captured: Captured, part: int, channels: Tensor, asked: Sequence[int | Score], step: float
) -> tuple[Doubles, Doubles]:
    """Scores with all channels, (M,), and without each of them, (K, M).

    What follows the layer runs on a batch of copies of its output, what lies before it on one image. Whether it can is
    seen in a copy from which nothing is taken, whose score must be the model's, and in the channel that moves the score
    most, which must move it as far alone. Where they are not, or the tail does not run, copies of the image go through
    all of the model; and if these too disturb each other, one goes at a time.
    """
    leaf = captured.tail.leaves[part].detach()
    owner = owners(captured.views[part], leaf)
    expected = read_scores(captured.tail.output, 1, asked)[0]
    copies = max(LEAST_COPIES, COPIES_BYTES // (leaf.numel() * leaf.element_size()))
    go_on = _continued(run, captured.tail, part, owner)
    attempts = [(copies, False), (Scorer(run, asked).size, True)]
    for size, repeats in [] if mixes_images(run.module) else attempts:
        if size == 1 or (repeats and captured.tail.head is not None):
            continue
        try:
            chunks = progress(_chunks(channels, size - 1), -(-len(channels) // (size - 1)), "ablation-cam")
            found = [_scores(go_on, [_NONE, *chunk], asked, repeats) for chunk in chunks]
        except Exception:  # a tail made for one image fails in as many ways as there are models
            continue
        if not all(agree(rows[0], expected, step) for rows in found):
            continue
        # Each fall is taken within its own batch, where rounding is the same.
        whole, without = found[0][0], np.concatenate([rows[1:] - rows[0] for rows in found]) + found[0][0]
        if len(channels) == 0:
            return whole, without
        most = int(np.abs(without - whole).max(axis=1).argmax())
        if agree(_scores(go_on, [int(channels[most])], asked, False)[0], without[most], step):
            return whole, without
    one_by_one = progress([_NONE, *channels.tolist()], len(channels) + 1, "ablation-cam")
    rows = np.concatenate([_scores(go_on, [channel], asked, False) for channel in one_by_one])
    if not agree(rows[0], expected, step):
        raise ModelError(
            f"what follows layer {captured.names[part]!r} gives another score when it runs again on the same "
            "activations: what a channel adds to it cannot be told"
        )
    return rows[0], rows[1:]


def _chunks(channels: Tensor, size: int) -> Iterator[Sequence[int]]:
    return chunks_of(channels.tolist(), size) if len(channels) else iter([[]])


def _scores(
    go_on: Callable[[Tensor, bool], Any], channels: Sequence[int], asked: Sequence[int | Score], repeats: bool
) -> Doubles:
    with torch.no_grad():
        return read_scores(go_on(torch.tensor(channels), repeats), len(channels), asked)


def _continued(run: Run, tail: Tail, part: int, owner: Tensor) -> Callable[[Tensor, bool], Any]:
    """(channels (B,), whether the image is repeated) → the model's output for copies without one of them each."""
    if tail.head is not None:
        head, leaf = tail.head, tail.leaves[part].detach()
        return lambda channels, _repeats: head({part: ablated(leaf, owner, channels)})
    site, place = _site(tail.sites, part)

    def go_on(channels: Tensor, repeats: bool) -> Any:
        def replace(_module: Any, _inputs: Any, output: Any) -> Any:
            tensors = tensors_of(output)
            changed = {i: _expanded(tensor, len(channels)) for i, tensor in enumerate(tensors)}
            return with_tensors(output, changed | {place: ablated(tensors[place], owner, channels)})

        inputs = run.inputs.expand(len(channels), -1, -1, -1) if repeats else run.inputs
        handle = site.layer.register_forward_hook(replace)
        try:
            return run.forward(inputs)
        finally:
            handle.remove()

    return go_on


def _expanded(tensor: Tensor, rows: int) -> Tensor:
    return tensor.expand(rows, *tensor.shape[1:]).clone() if tensor.ndim and tensor.shape[0] == 1 else tensor


def _site(sites: Sequence[Site], part: int) -> tuple[Site, int]:
    """The layer that a leaf was cut at, and which of its tensors it is."""
    return [(site, place) for site in sites for place in site.places][part]


_WAYS: dict[str, Callable[[Run, Captured, int, Sequence[int | Score]], Tensor]] = {
    "score-cam": _score_cam,
    "ablation-cam": _ablation_cam,
}
