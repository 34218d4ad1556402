"""One forward whose tail, from the target layer's output on, can be differentiated: the hooks engine, and the gradient.

The split engine, which reaches the same point by cutting the model, is in `split.py`; both return a `Tail`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.model import Forward, tensors_in
from pytest_gradcam.cam.outputs import copied, tensors_of, with_tensors
from pytest_gradcam.cam.recording import contiguous_gradient, frozen
from pytest_gradcam.errors import TargetLayerError

# Gradients of many classes are taken together, as many at a time as stay below this size: what fits a cache, and what
# the allocator hands out again without asking the system for fresh pages.
CLASS_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """Where a model is cut.

    Attributes:
        name: dotted name of the layer, for messages.
        layer: the layer.
        places: which of the tensors of its output are read, as `outputs.tensors_of` counts.
        norms: the batch norms behind it: see `sound_gradients`.
    """

    name: str
    layer: nn.Module
    places: tuple[int, ...] = (0,)
    norms: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """What a forward left. Nothing here holds what lies before the target layer: that part ran without autograd.

    Attributes:
        leaves: tensors of the target layers' outputs.
        output: the model's, made of them.
        sites: where the hooks engine cut; each of its places is a leaf.
        head: what the split engine ran after the cut: other tensors in the places of some leaves → output.
    """

    leaves: tuple[Tensor, ...]
    output: Any
    sites: tuple[Site, ...] = ()
    head: Callable[[Mapping[int, Tensor]], Any] | None = None


def cut_at(output: Any, places: Sequence[int], *, first: bool = True) -> tuple[tuple[Tensor, ...], Any] | None:
    """Leaves in the place of some of the tensors of a layer's output, and the output that goes on; None if it has none.

    What goes on are copies of the leaves: an in-place operation that follows changes nothing that was captured.

    Args:
        output: the layer's.
        places: which of its tensors.
        first: whether nothing was cut before. Behind another cut, tensors with a graph are kept in it: they are no
            leaves, but gradients by them can be had as well.
    """
    tensors = tensors_of(output)
    if not tensors or max(places) >= len(tensors):
        return None
    leaves = {
        place: tensors[place]
        if tensors[place].requires_grad and not first
        else tensors[place].detach().clone().requires_grad_()
        for place in places
    }
    with torch.enable_grad():
        return tuple(leaves.values()), with_tensors(output, {place: copied(leaf) for place, leaf in leaves.items()})


@contextmanager
def sound_gradients(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Gradients reach these batch norms in the layout that torch's CPU kernel takes them to be in.

    Of one image, the gradient of `norm(x).flatten(2).transpose(1, 2)`, as between a convolutional stem and tokens,
    comes with strides that pass for both layouts, and the kernel (torch 2.14) reads it in the wrong one: a wrong
    gradient, and no error.
    """

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            contiguous_gradient(output)

    handles = [norm.register_forward_hook(hook) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_hooked(forward: Forward, sites: Sequence[Site], inputs: Tensor) -> Tail:
    """Run the model with the outputs of target layers replaced by detached leaves.

    Args:
        forward: the model, in eval mode.
        sites: where it is cut; the leaves are in their order. Of layers one behind the other, the first is cut off
            from the image, and the others stay connected with it.
        inputs: (N, C, H, W).

    Raises:
        TargetLayerError: a layer is not called, is called more than once, or gives no floating tensor.
    """
    norms = list({id(norm): norm for site in sites for norm in site.norms}.values())
    with sound_gradients(norms):
        with torch.no_grad():
            tail = _run_hooked(forward, sites, inputs)
        if _has_graph(tail.output):
            return tail
        # A forward that runs its backbone inside its own `no_grad` left with gradients switched off again. Switched on
        # from the start, and with nothing before the leaf requiring gradients, it differentiates the same tail.
        with torch.enable_grad(), frozen(forward.module):
            return _run_hooked(forward, sites, inputs)


def _run_hooked(forward: Forward, sites: Sequence[Site], inputs: Tensor) -> Tail:
    leaves: dict[str, tuple[Tensor, ...]] = {}

    def cutting(site: Site) -> Callable[[nn.Module, Any, Any], Any]:
        def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if site.name in leaves:
                raise TargetLayerError(
                    f"layer {site.name!r} is called more than once in a forward: which of its outputs the map should "
                    "be read from is not determined; name a layer around it"
                )
            found = cut_at(output, site.places, first=not leaves)
            if found is None:
                seen = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
                raise TargetLayerError(f"layer {site.name!r} gives {seen}, not a floating tensor; name another layer")
            leaves[site.name] = found[0]
            torch.set_grad_enabled(True)  # for the rest of the forward; `untouched` puts the mode back
            return found[1]

        return cut

    before = torch.is_grad_enabled()
    handles = [site.layer.register_forward_hook(cutting(site)) for site in sites]
    try:
        output = forward(inputs)
    finally:
        for handle in handles:
            handle.remove()
        torch.set_grad_enabled(before)
    for site in sites:
        if site.name not in leaves:
            raise TargetLayerError(
                f"layer {site.name!r} is not called in the forward of {forward.name}; name another layer"
            )
    return Tail(tuple(leaf for site in sites for leaf in leaves[site.name]), output, tuple(sites))


@contextmanager
def keeping(sites: Sequence[Site]) -> Iterator[dict[str, tuple[Tensor, ...]]]:
    """Tensors of these layers' outputs, by name, of calls that lie behind a cut; they stay in the graph."""
    kept: dict[str, tuple[Tensor, ...]] = {}

    def keep(site: Site) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = cut_at(output, site.places, first=False)
            if found is None or not all(tensor.grad_fn for tensor in found[0]):
                return None
            kept[site.name] = found[0]
            return found[1]

        return hook

    handles = [site.layer.register_forward_hook(keep(site)) for site in sites]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _has_graph(output: Any) -> bool:
    return all(tensor.requires_grad for tensor in tensors_in(output) if tensor.is_floating_point())


def gradient(root: Tensor, tail: Tail, name: str, weights: Tensor | None = None) -> tuple[Tensor, ...]:
    """d(root)/d(leaf) for each leaf, of its shape; where `root` is no scalar, d(sum of weights · root)/d(leaf).

    Raises:
        TargetLayerError: the score does not depend on the layer.
    """
    if not root.requires_grad:
        raise _independent(name)
    found = torch.autograd.grad(root, tail.leaves, grad_outputs=weights, retain_graph=True, allow_unused=True)
    return _filled(found, tail.leaves, name)


def gradients_of_rows(
    logits: Tensor, rows: Tensor, tail: Tail, name: str, axes: Sequence[int]
) -> Iterator[tuple[Tensor, ...]]:
    """d(rows · logits)/d(leaf) for many scores of one image, in chunks that together hold all.

    Each is of the leaf's shape but for its batch, which has K scores in the place of the one image.

    Args:
        logits: (1, classes), a function of the leaves.
        rows: (scores, classes), what each score is of the logits; one-hot for the classes themselves.
        tail: the forward they come from.
        name: the layer's name, for messages.
        axes: for each leaf, which axis counts the images.

    Raises:
        TargetLayerError: the logits do not depend on the layer.
    """
    if not logits.requires_grad:
        raise _independent(name)
    size = max(1, CLASS_CHUNK_BYTES // sum(leaf.numel() * leaf.element_size() for leaf in tail.leaves))
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size, None].to(logits)  # (chunk, 1, classes)
        many = _batched(logits, tail.leaves, chunk, name)
        yield tuple(found.select(axis + 1, 0).movedim(0, axis) for found, axis in zip(many, axes, strict=True))


def _batched(logits: Tensor, leaves: tuple[Tensor, ...], rows: Tensor, name: str) -> tuple[Tensor, ...]:
    take: Callable[..., tuple[Tensor | None, ...]] = torch.autograd.grad
    many = tuple(leaf.expand(len(rows), *leaf.shape) for leaf in leaves)
    try:
        found = take(logits, leaves, grad_outputs=rows, retain_graph=True, is_grads_batched=True, allow_unused=True)
    except RuntimeError:
        # Some backward formulas cannot be vectorised over classes: then one class after the other.
        each = [
            _filled(take(logits, leaves, grad_outputs=row, retain_graph=True, allow_unused=True), leaves, name)
            for row in rows
        ]
        return tuple(torch.stack(found) for found in zip(*each, strict=True))
    return _filled(found, many, name)


def _filled(found: Sequence[Tensor | None], leaves: Sequence[Tensor], name: str) -> tuple[Tensor, ...]:
    """Zero where the score does not depend on one of the leaves.

    Raises:
        TargetLayerError: it depends on none.
    """
    if all(each is None for each in found):
        raise _independent(name)
    return tuple(torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves, strict=True))


def _independent(name: str) -> TargetLayerError:
    return TargetLayerError(f"the score does not depend on layer {name!r}; name a layer that lies before the score")
