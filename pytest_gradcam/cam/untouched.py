"""Leaving a model untouched: its parts in one walk, eval mode and a device for a while, and everything put back.

This runs around every map, so it asks each question of each part once: torch's own iterators walk the tree anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from pytest_gradcam.cam.randomness import RandomStates
from pytest_gradcam.errors import ModelError, ModelTypeError

# Where torch keeps its quantised modules, dynamic and static.
INT8 = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.nn.quantized",
    "torch.nn.intrinsic.quantized",
)


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """A module's parts.

    Attributes:
        module: the model.
        modules: it and all modules in it, each once.
        parameters: all parameters, each once.
        tables: the buffer tables of the modules, also empty ones: a forward may register buffers.
        buffers: all buffers, each once.
        places: the devices of parameters and buffers.
    """

    module: nn.Module
    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    tables: list[dict[str, Tensor | None]]
    buffers: list[Tensor]
    places: list[torch.device]

    @classmethod
    def of(cls, module: nn.Module) -> Inventory:
        """Collect.

        Raises:
            ModelError: parameters that have no values.
        """
        modules: list[nn.Module] = []
        parameters: dict[int, nn.Parameter] = {}
        buffers: dict[int, Tensor] = {}
        tables: list[dict[str, Tensor | None]] = []
        seen: set[int] = set()
        ahead = [module]
        while ahead:
            m = ahead.pop()
            if m is None or id(m) in seen:
                continue
            seen.add(id(m))
            if isinstance(m, torch.jit.ScriptModule):
                raise ModelTypeError(
                    f"the model holds a TorchScript module ({type(m).__name__}), which takes no hooks: put the Python "
                    'module that it was made from in its place, or pass method="occlusion", which needs none'
                )
            if type(m).__module__.startswith(INT8):
                raise ModelTypeError(
                    f"the model holds an int8 module ({type(m).__name__}), through which nothing can be "
                    'differentiated: pass the float model that it was quantised from, or method="occlusion", which '
                    "needs forwards only"
                )
            modules.append(m)  # in the order of `modules()`: the first parameter is the one that meets the input
            for p in m._parameters.values():
                if p is not None:
                    if isinstance(p, UninitializedParameter):
                        raise ModelError(
                            f"{type(module).__name__} holds a lazy module ({type(m).__name__}) that was not run yet: "
                            "run the model once, so that its parameters are made"
                        )
                    parameters[id(p)] = p
            tables.append(m._buffers)
            for b in m._buffers.values():
                if b is not None:
                    buffers[id(b)] = b
            ahead.extend(reversed(m._modules.values()))  # type: ignore[arg-type]  # a child may be None: skipped above
        places = list(dict.fromkeys([t.device for t in (*parameters.values(), *buffers.values())]))
        if any(place.type == "meta" for place in places):
            raise ModelError("the model is on the meta device: its parameters have no values; load its weights first")
        return cls(module, modules, list(parameters.values()), tables, list(buffers.values()), places)

    @property
    def state(self) -> tuple[int, ...]:
        """Which modules there are, and how often each parameter was written to."""
        return (*map(id, self.modules), *(p._version for p in self.parameters))

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype that the model takes: that of a floating parameter, float32 where it has none."""
        return next((p.dtype for p in self.parameters if p.is_floating_point()), torch.float32)


@contextmanager
def untouched(inventory: Inventory, device: torch.device) -> Iterator[None]:
    """Run the body with the model in eval mode on `device`, without autograd; put back everything, also on an error.

    Put back are each module's `training`, buffers, parameters' storage, `requires_grad` and `.grad`, hooks, the RNG
    states, grad mode, inference mode and the autocast cache. Backward hooks do not fire in the body.

    Args:
        inventory: the model's parts.
        device: where to run.

    Raises:
        ModelError: the forward drew random numbers, or changed a parameter in place.
    """
    training = [m.training for m in inventory.modules]
    # nn.Module.compile() replaces the call, and hooks set after compiling would not be seen by it.
    compiled = [(m, m._compiled_call_impl) for m in inventory.modules if m._compiled_call_impl is not None]
    # The user's backward hooks belong to training steps; torch would warn of those that lie before the target layer.
    backward = [
        (m, m._backward_hooks, m._backward_pre_hooks)
        for m in inventory.modules
        if m._backward_hooks or m._backward_pre_hooks
    ]
    hooks = [
        (table, tuple(table.items())) for m in inventory.modules for table in (m._forward_hooks, m._forward_pre_hooks)
    ]
    grads = [(p, p.grad) for p in inventory.parameters]
    attributes = _Attributes(inventory)
    states = RandomStates(device)
    caching, caching_weights = torch.is_autocast_cache_enabled(), parametrize._cache_enabled
    written = None
    with torch.inference_mode(False), torch.no_grad():
        _refuse_inference(inventory)
        buffers = _Buffers(inventory)
        try:
            for m in inventory.modules:
                # `train()` may be overridden with side effects (merging adapters, say); the flag alone has none.
                m.__dict__["training"] = False
            for m, _ in compiled:
                m._compiled_call_impl = None
            for p, grad in grads:
                if grad is not None:
                    p.grad = None  # a score that runs `backward` would add to it in place
            for m, *_ in backward:
                m._backward_hooks, m._backward_pre_hooks = OrderedDict(), OrderedDict()
            # Weights cast under no_grad would stay in autocast's cache, and the user's next training step in the same
            # autocast region would find them there without a graph.
            torch.set_autocast_cache_enabled(False)
            # The same holds for the cache of parametrize.cached(): it would serve our weights to the user.
            parametrize._cache_enabled = 0
            with _moved(inventory, device):
                parameters = _Parameters(inventory)
                try:
                    yield
                finally:
                    written = parameters.restore()
        finally:
            torch.set_autocast_cache_enabled(caching)
            parametrize._cache_enabled = caching_weights
            for m, was in zip(inventory.modules, training, strict=True):
                m.__dict__["training"] = was
            for m, call in compiled:
                m._compiled_call_impl = call
            for m, own, own_pre in backward:
                m._backward_hooks, m._backward_pre_hooks = own, own_pre
            for table, held in hooks:
                if tuple(table.items()) != held:  # a forward that registers hooks
                    table.clear()
                    table.update(held)
            for p, grad in grads:
                if p.grad is not grad:
                    p.grad = grad
            buffers.restore()
            attributes.restore()
            drawn = states.restore()
    kind = type(inventory.module).__name__
    if written is not None:
        name = next((name for name, p in inventory.module.named_parameters() if p is written), "?")
        raise ModelError(
            f"the forward of {kind} changes its own parameter {name!r} in eval mode: what it computes depends on how "
            "often it was called, so no map of it can be trusted"
        )
    if drawn:
        raise ModelError(
            f"{kind} draws random numbers ({', '.join(drawn)}) in eval mode: two maps of one image would differ. Look "
            "for dropout or noise that does not ask for self.training"
        )


def _refuse_inference(inventory: Inventory) -> None:
    if any(p.is_inference() for p in inventory.parameters):
        raise ModelError(
            "the model's parameters were made inside torch.inference_mode, and nothing can be differentiated "
            "through them: build or load the model outside of it"
        )


# What torch itself keeps in a module: put back one by one.
_TORCHS_OWN = frozenset(vars(nn.Module()))


class _Attributes:
    """What else the modules hold: plain attributes, and what is in their dictionaries, lists and sets.

    A forward in eval mode may keep something that `train()` would drop, and that is stale after the next step: LeViT
    keeps its attention biases.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._tables = [(vars(m), vars(m).copy()) for m in inventory.modules]
        self._tables += [(table, table.copy()) for m in inventory.modules for table in (m._parameters, m._modules)]
        held = [
            value
            for table, _ in self._tables[: len(inventory.modules)]
            for name, value in table.items()
            if isinstance(value, dict | list | set | deque) and name not in _TORCHS_OWN
        ]
        self._tables += [(value, value.copy()) for value in held if isinstance(value, dict)]
        self._others: list[tuple[Any, Any]] = [(value, value.copy()) for value in held if not isinstance(value, dict)]

    def restore(self) -> None:
        for now, before in self._tables:
            if not _same(now, before):
                now.clear()
                now.update(before)
        for held, was in self._others:
            if len(held) != len(was) or any(a is not b for a, b in zip(held, was, strict=True)):
                held.clear()
                held.update(was) if isinstance(held, set) else held.extend(was)


def _same(now: Mapping[Any, Any], before: Mapping[Any, Any]) -> bool:
    """The same objects under the same keys: equal ones may be others, a loss with a graph for one without."""
    return len(now) == len(before) and all(key in now and now[key] is value for key, value in before.items())


class _Parameters:
    """The parameters' flags and storage, to be put back, and marks by which a write to them is seen."""

    def __init__(self, inventory: Inventory) -> None:
        self._before = [(p, p.requires_grad, p._version, p.data) for p in inventory.parameters]

    def restore(self) -> nn.Parameter | None:
        """Put back flags and storage; returns a parameter that was written to, if there is one."""
        written = None
        for p, requires_grad, version, data in self._before:
            if p.requires_grad != requires_grad:
                p.requires_grad_(requires_grad)
            if p._version != version or p.data_ptr() != data.data_ptr():
                written = p
            if p.data_ptr() != data.data_ptr():
                p.data = data
        return written


class _Buffers:
    """The buffers of all modules, to be put back: which tensors they were, and their values."""

    def __init__(self, inventory: Inventory) -> None:
        self._tables = [(table, tuple(table.items())) for table in inventory.tables]
        by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for buffer in inventory.buffers:
            if buffer.layout == torch.strided:  # sparse buffers have no values that a forward would write in place
                by_kind.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        # One flat copy for each kind: a model has hundreds of small buffers, and a copy of each would take longer.
        self._values = [(tensors, [t.shape for t in tensors], _flat(tensors)) for tensors in by_kind.values()]

    def restore(self) -> None:
        for table, before in self._tables:
            if len(table) != len(before) or any(table.get(name) is not tensor for name, tensor in before):
                table.clear()
                table.update(before)
        for tensors, shapes, flat in self._values:
            if torch.equal(_flat(tensors), flat):
                continue
            values = torch.split(flat, [shape.numel() for shape in shapes])
            for tensor, shape, value in zip(tensors, shapes, values, strict=True):
                # Only what changed is written: a write would invalidate graphs that the user holds through this buffer.
                if tensor.shape != shape:
                    tensor.data = value.view(shape).clone()
                elif not torch.equal(tensor.reshape(-1), value):
                    tensor.copy_(value.view(shape))


def _flat(tensors: list[Tensor]) -> Tensor:
    if len(tensors) == 1:  # of one tensor, torch's routine may return a view
        return tensors[0].flatten().clone()
    # torch's own routine for buckets of gradients: one call in place of one for each tensor. It has no types.
    flat: Tensor = _flatten_dense_tensors(tensors)  # type: ignore[no-untyped-call]
    return flat


@contextmanager
def _moved(inventory: Inventory, device: torch.device) -> Iterator[None]:
    """The model's tensors on `device`; afterwards each is the tensor that it was, storage and all."""
    if all(place == device for place in inventory.places) or len({p.device for p in inventory.parameters}) > 1:
        yield
        return
    data = [p.data for p in inventory.parameters]
    before = [dict(table) for table in inventory.tables]
    try:
        for p in inventory.parameters:
            p.data = p.data.to(device)
        moved = {id(b): b.to(device) for b in inventory.buffers}
        for table in inventory.tables:
            table.update({name: None if b is None else moved[id(b)] for name, b in table.items()})
        yield
    finally:
        for p, was in zip(inventory.parameters, data, strict=True):
            p.data = was
        for table, held in zip(inventory.tables, before, strict=True):
            table.update(held)
