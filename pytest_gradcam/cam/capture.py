"""One forward whose tail, from the target layer's output on, can be differentiated: the hooks engine, and the gradient.

The split engine, which reaches the same point by cutting the model, is in `split.py`; both return a `Tail`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.model import tensors_in
from pytest_gradcam.errors import TargetLayerError

# Gradients of many classes are taken together, as many at a time as stay below this size: what fits a cache, and what
# the allocator hands out again without asking the system for fresh pages.
CLASS_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """What a forward left: `leaf`, the target layer's output, and `output`, the model's, as a function of `leaf`.

    Neither holds what lies before the target layer: that part ran without autograd.
    """

    leaf: Tensor
    output: Any


def layer_tensor(output: Any) -> Tensor | None:
    """The tensor that a layer's output is read from: itself, or the first of a tuple or list."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def with_tensor(output: Any, tensor: Tensor) -> Any:
    """The same output with `tensor` in the place that `layer_tensor` reads."""
    if isinstance(output, Tensor):
        return tensor
    if hasattr(output, "_fields"):  # a named tuple takes its fields one by one
        return type(output)(tensor, *output[1:])
    return type(output)([tensor, *output[1:]])


def run_hooked(module: nn.Module, name: str, layer: nn.Module, inputs: Tensor) -> Tail:
    """Run the model with the target layer's output replaced by a detached leaf.

    Args:
        module: the model, in eval mode.
        name: the layer's name, for messages.
        layer: the target layer.
        inputs: (N, C, H, W).

    Raises:
        TargetLayerError: the layer is not called, is called more than once, or gives no floating tensor.
    """
    with torch.no_grad():
        tail = _run_hooked(module, name, layer, inputs)
    if _has_graph(tail.output):
        return tail
    # A forward that runs its backbone inside its own `no_grad` left with gradients switched off again. Switched on from
    # the start, and with nothing before the leaf requiring gradients, it differentiates the same tail.
    with torch.enable_grad(), _frozen(module):
        return _run_hooked(module, name, layer, inputs)


def _run_hooked(module: nn.Module, name: str, layer: nn.Module, inputs: Tensor) -> Tail:
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if leaves:
            raise TargetLayerError(
                f"layer {name!r} is called more than once in a forward: which of its outputs the map should be read "
                "from is not determined; name a layer around it"
            )
        tensor = layer_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            seen = type(output).__name__ if tensor is None else f"a tensor of {tensor.dtype}"
            raise TargetLayerError(f"layer {name!r} gives {seen}, not a floating tensor; name another layer")
        leaves.append(tensor.detach().clone().requires_grad_())
        torch.set_grad_enabled(True)  # for the rest of the forward; `untouched` puts the mode back
        # Not the leaf itself: an in-place operation that follows must change neither it nor what was captured.
        return with_tensor(output, leaves[0].clone())

    before = torch.is_grad_enabled()
    handle = layer.register_forward_hook(cut)
    try:
        output = module(inputs.clone())  # a forward may write to its input
    finally:
        handle.remove()
        torch.set_grad_enabled(before)
    if not leaves:
        raise TargetLayerError(
            f"layer {name!r} is not called in the forward of {type(module).__name__}; name another layer"
        )
    return Tail(leaves[0], output)


def run_around(module: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Any]:
    """Run the model with the target layer's output cut off from what it was computed of.

    Returns:
        the input as a leaf, (N, C, H, W), and the model's output: a function of the leaf only as far as the image
        reaches it around the layer.
    """

    def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = layer_tensor(output)
        return output if tensor is None else with_tensor(output, tensor.detach())

    leaf = inputs.detach().clone().requires_grad_()
    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad(), _frozen(module):
            return leaf, module(leaf.clone())  # a copy: a forward may write to its input
    finally:
        handle.remove()


def _has_graph(output: Any) -> bool:
    return all(tensor.requires_grad for tensor in tensors_in(output) if tensor.is_floating_point())


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    trainable = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def gradient(root: Tensor, tail: Tail, name: str, weights: Tensor | None = None) -> Tensor:
    """d(root)/d(leaf), of the leaf's shape; where `root` is no scalar, d(sum of weights · root)/d(leaf).

    Raises:
        TargetLayerError: the score does not depend on the layer.
    """
    if not root.requires_grad:
        raise _independent(name)
    (found,) = torch.autograd.grad(root, tail.leaf, grad_outputs=weights, retain_graph=True, allow_unused=True)
    if found is None:
        raise _independent(name)
    return found


def gradients_of_classes(logits: Tensor, classes: Sequence[int], tail: Tail, name: str) -> Iterator[Tensor]:
    """d(logits[0, c])/d(leaf) for many classes of one image, in chunks of (K, *leaf.shape[1:]) that together hold all.

    Args:
        logits: (1, classes), a function of the leaf.
        classes: class indices.
        tail: the forward they come from.
        name: the layer's name, for messages.

    Raises:
        TargetLayerError: the logits do not depend on the layer.
    """
    if not logits.requires_grad:
        raise _independent(name)
    size = max(1, CLASS_CHUNK_BYTES // (tail.leaf.numel() * tail.leaf.element_size()))
    for start in range(0, len(classes), size):
        chunk = list(classes[start : start + size])
        one_hot = torch.zeros(len(chunk), *logits.shape, dtype=logits.dtype, device=logits.device)
        one_hot[range(len(chunk)), 0, chunk] = 1
        yield _batched(logits, tail.leaf, one_hot, name)[:, 0]


def _batched(logits: Tensor, leaf: Tensor, one_hot: Tensor, name: str) -> Tensor:
    take: Callable[..., tuple[Tensor | None, ...]] = torch.autograd.grad
    try:
        (found,) = take(logits, leaf, grad_outputs=one_hot, retain_graph=True, is_grads_batched=True, allow_unused=True)
    except RuntimeError:
        # Some backward formulas cannot be vectorised over classes: then one class after the other.
        rows = [take(logits, leaf, grad_outputs=row, retain_graph=True, allow_unused=True)[0] for row in one_hot]
        found = None if rows[0] is None else torch.stack([row for row in rows if row is not None])
    if found is None:
        raise _independent(name)
    return found


def _independent(name: str) -> TargetLayerError:
    return TargetLayerError(f"the score does not depend on layer {name!r}; name a layer that lies before the score")
