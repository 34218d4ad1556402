"""One forward of one image, recorded with its graph: what every layer gave, and what the output depends on.

All questions that finding a layer asks are gradients on this graph: none of them takes another forward. Which layer is
taken is decided in `search.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.model import Forward, tensors_in
from pytest_gradcam.cam.outputs import copied, tensors_of, with_tensors
from pytest_gradcam.errors import ModelError

# A model that answers one input differently twice is random. Kernels chosen at run time may round differently.
REPEAT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One call of one module, in the order in which the calls finished.

    Attributes:
        name: dotted name of the module.
        module: it.
        tensors: what it gave, each a node of the graph; what follows was computed of copies.
        calls: how often the module was called in the forward.
        passes_through: its output is its input, or a pooled copy of a grid before it, which goes by the name before it.
    """

    name: str
    module: nn.Module
    tensors: tuple[Tensor, ...]
    calls: int
    passes_through: bool


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recorded forward.

    Attributes:
        inputs: the image, (1, C, H, W), a leaf of the graph.
        output: the model's.
        records: the calls of modules.
        starts: outputs of modules at which the graph had to begin anew, since the forward had cut it off before.
    """

    inputs: Tensor
    output: Any
    records: list[Record]
    starts: list[Tensor]

    @classmethod
    def of(cls, forward: Forward, inputs: Tensor, *, anew: Collection[str] = ()) -> Recording:
        """Run one forward.

        Args:
            forward: the model, in eval mode.
            inputs: (1, C, H, W); more images where nothing is differentiated.
            anew: names of layers at whose outputs the graph begins anew where they do not belong to it: for a model
                that detaches what lies before.
        """
        leaf = inputs.detach().clone().requires_grad_()
        finished: list[tuple[str, nn.Module, tuple[Tensor, ...], bool]] = []
        pooled: list[tuple[Tensor, int]] = []  # and the versions that they had
        handed: list[Tensor] = []  # the image, and what a layer gave, as those after it are given it
        versions: dict[str, int] = {}
        starts: list[Tensor] = []

        def before(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
                torch.set_grad_enabled(True)  # also in a part that the forward runs under no_grad
                versions[name] = _version(args[0]) if args and isinstance(args[0], Tensor) else 0

            return hook

        def after(name: str) -> Callable[..., Any]:
            def hook(m: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
                torch.set_grad_enabled(True)
                # Nothing can be differentiated through what is made under inference mode: it is passed on as it is.
                tensors = tensors_of(output) if not torch.is_inference_mode_enabled() else ()
                tensors = () if any(tensor.is_inference() for tensor in tensors) else tensors
                first = tensors[0] if tensors else None
                # The same tensor, not written to: an identity, or dropout in eval mode. Written to: an in-place
                # activation. What no layer gave before, a sum say, has no other name.
                same = (
                    (len(tensors) == 1 and bool(args) and first is args[0])
                    and _version(tensors[0]) == versions.get(name)
                    and any(first is other for other in handed)
                )
                # A pooled grid is a coarser copy of the one before it, also as the output of a block that ends in a
                # pool.
                coarser = any(first is other and _version(other) == seen for other, seen in pooled)
                coarser = coarser or (_is_pool(m) and bool(args) and any(args[0] is other for other in handed))
                if name in anew:
                    tensors = tuple(t if t.requires_grad else _started(t, starts) for t in tensors)
                # A node of its own: what the module itself made of the tensor, for another of its outputs, say, is not
                # made of its output. What follows gets a copy, so that an in-place operation changes nothing here.
                tensors = tuple(map(copied, tensors))
                for tensor in tensors:
                    if tensor.requires_grad:
                        contiguous_gradient(tensor)
                copies = dict(enumerate(map(copied, tensors)))
                handed.extend(copies.values())
                if first is not None and coarser:
                    pooled.append((copies[0], _version(copies[0])))
                finished.append((name, m, tensors, same or coarser))
                return with_tensors(output, copies) if copies else output

            return hook

        def given(_module: nn.Module, args: tuple[Any, ...]) -> None:
            handed.extend(tensors_of(args))

        handles = [forward.module.register_forward_pre_hook(given)]
        try:
            for name, m in forward.module.named_modules():
                if name:
                    handles.append(m.register_forward_pre_hook(before(name)))
                    handles.append(m.register_forward_hook(after(name)))
            with torch.enable_grad(), frozen(forward.module):
                output = forward(leaf)
        finally:
            for handle in handles:
                handle.remove()
        calls: dict[str, int] = {}
        for name, *_ in finished:
            calls[name] = calls.get(name, 0) + 1
        records = [Record(name, m, tensors, calls[name], same) for name, m, tensors, same in finished]
        return cls(leaf, output, records, starts)

    def gradients(self, root: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """d(root)/d(tensor), None where there is no path; `root` is a scalar."""
        known = [tensor for tensor in tensors if tensor.requires_grad]
        if not root.requires_grad or not known:
            return [None] * len(tensors)
        found = iter(torch.autograd.grad(root, known, retain_graph=True, allow_unused=True))
        return [next(found) if tensor.requires_grad else None for tensor in tensors]

    def sources(self) -> list[Tensor]:
        """Where the graph begins: the image, and what took its place where the forward cut it off."""
        return [self.inputs, *self.starts]

    def gradients_around(self, root: Tensor, tensors: Sequence[Tensor], layer: Sequence[Tensor]) -> list[Tensor | None]:
        """The same with nothing let through the tensors of a layer: what reaches `root` by other ways."""
        # torch's own lack of types
        # The silenced check is torch's own lack of types.
        handles = [tensor.register_hook(torch.zeros_like) for tensor in layer if tensor.requires_grad]  # type: ignore[no-untyped-call]
        try:
            return self.gradients(root, tensors)
        finally:
            for handle in handles:
                handle.remove()


def is_connected(root: Tensor, sources: Sequence[Tensor], layer: Sequence[Tensor]) -> bool:
    """Whether the graph has any path from the root to a source that does not go through the tensors of a layer.

    A path says nothing of whether anything comes through it.
    """
    walls = {_node(tensor) for tensor in layer if tensor.requires_grad}
    goals = {_node(source) for source in sources if source.requires_grad} - walls - {None}
    ahead, seen = [_node(root)] if root.requires_grad else [], set(walls)
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if node in goals:
            return True
        seen.add(node)
        ahead.extend(following for following, _ in node.next_functions)
    return False


def contiguous_gradient(tensor: Tensor) -> None:
    """Let only contiguous gradients through: see `capture.sound_gradients`."""
    tensor.register_hook(lambda gradient: gradient.contiguous())  # type: ignore[no-untyped-call]  # torch's own lack


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter requires gradients in the body: then only what depends on the input has a graph."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def _started(tensor: Tensor, starts: list[Tensor]) -> Tensor:
    start = tensor.detach().clone().requires_grad_()
    starts.append(start)
    return start


def _is_pool(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower() and next(module.parameters(), None) is None


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _node(tensor: Tensor) -> Any:
    """The node of the graph that gives the tensor; of a leaf, the one that gathers its gradient."""
    return torch.autograd.graph.get_gradient_edge(tensor).node


def are_equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors hold the same values."""
    return len(some) == len(others) and all(
        a.shape == b.shape and a.device == b.device and torch.equal(a, b) for a, b in zip(some, others, strict=True)
    )


def check_same(forward: Forward, first: Any, second: Any) -> None:
    """Raises ModelError where two answers to one input are not equal up to rounding."""
    before, after = list(tensors_in(first)), list(tensors_in(second))
    if [a.shape for a in before] != [b.shape for b in after]:
        raise ModelError(
            f"{forward.name} answers the same input with other shapes when it is asked again: no map of it can be "
            "trusted"
        )
    for a, b in zip(before, after, strict=True):
        if not a.is_floating_point():
            continue
        a, b = a.detach(), b.detach()
        # What is not finite is compared by itself, and refused where scores are read.
        scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 0.0
        if not torch.allclose(a, b, rtol=REPEAT_TOLERANCE, atol=REPEAT_TOLERANCE * scale, equal_nan=True):
            raise ModelError(
                f"{forward.name} answers the same input differently twice in eval mode: no map of it can be trusted. "
                "Look for randomness or state that its forward carries from call to call"
            )
