"""What a model is: unwrapping it, choosing its device, reading logits from its output, and leaving it untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_gradcam.errors import ClassError, DeviceError, ModelError, ModelTypeError


def unwrap(model: object) -> nn.Module:
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel` wrappers.

    Raises:
        ModelTypeError: not an `nn.Module`, or one without Python modules inside (TorchScript).
    """
    if not isinstance(model, nn.Module):
        raise ModelTypeError(
            f"the model is of type {type(model).__name__}: pass a torch.nn.Module"
            ' (or, with engine="split", a pair (features, head))'
        )
    module: nn.Module = model
    while True:
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelTypeError(
                f"the model is a TorchScript module ({type(module).__name__}), which takes no hooks that change an "
                "output: pass the Python module that it was made from"
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):  # torch.compile's OptimizedModule
            module = inner
        else:
            return module


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """A module's parts, collected in one walk: torch's own iterators walk the tree anew for each question.

    Attributes:
        module: the model.
        modules: it and all modules in it, each once.
        parameters: all parameters, each once.
        tables: the buffer tables of the modules that have buffers.
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
            ModelError: parameters that nothing can be differentiated through, or that have no values.
        """
        modules: dict[nn.Module, None] = {}
        ahead = [module]
        while ahead:
            m = ahead.pop()
            if m not in modules:
                modules[m] = None
                ahead.extend(child for child in m._modules.values() if child is not None)
        # Tensors hash by identity: a parameter that two modules share is listed once.
        found = list(dict.fromkeys(p for m in modules for p in m._parameters.values() if p is not None))
        if any(p.is_inference() for p in found):
            raise ModelError(
                "the model's parameters were made inside torch.inference_mode, and nothing can be differentiated "
                "through them: build or load the model outside of it"
            )
        if any(p.is_meta for p in found):
            raise ModelError("the model is on the meta device: its parameters have no values; load its weights first")
        tables = [m._buffers for m in modules if m._buffers]
        buffers = list(dict.fromkeys(b for table in tables for b in table.values() if b is not None))
        places = list(dict.fromkeys([t.device for t in (*found, *buffers)]))
        return cls(module, list(modules), found, tables, buffers, places)


def resolve_device(device: str | torch.device, inventory: Inventory) -> torch.device:
    """The device to compute on.

    `auto` is where the model is, if that is an accelerator; else an accelerator if there is one; else the CPU. A model
    that is spread over several devices stays where it is.

    Raises:
        DeviceError: the name is unknown, or the device is not present.
    """
    places = inventory.places
    if isinstance(device, str) and device == "auto":
        place = places[0] if places else torch.device("cpu")
        if place.type != "cpu" or len(places) > 1:
            return place
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return place
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f"unknown device {device!r}: use 'auto', 'cpu', 'cuda', 'cuda:0', 'mps', …") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise DeviceError(
                f"device {str(chosen)!r} is not present: torch sees {count} CUDA devices; use 'auto' or 'cpu'"
            )
        return torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device {str(chosen)!r} is not present on this machine; use 'auto' or 'cpu'") from error
    if chosen.type == "meta":
        raise DeviceError("device 'meta' computes no values; use 'auto' or 'cpu'")
    return chosen


def input_dtype(inventory: Inventory) -> torch.dtype:
    """The floating dtype that the model takes: that of its first floating parameter, float32 where it has none."""
    return next((p.dtype for p in inventory.parameters if p.is_floating_point()), torch.float32)


def logits_of(output: Any) -> Tensor:
    """The class logits in a model's output, (N, K).

    A tensor is taken as it is; of an object, its `.logits`; of a dict, `logits`, else its first tensor; of a tuple or
    list, its first tensor.

    Raises:
        ClassError: there are none of that shape.
    """
    found = _logits(output)
    if found is None:
        raise ClassError(
            f"the model's output is a {type(output).__name__} without a tensor of logits: "
            "pass cls as a callable, output -> scalar tensor"
        )
    if found.ndim != 2 or found.shape[1] == 0:
        raise ClassError(
            f"the model's output has shape {tuple(found.shape)}, not (N, classes): "
            "pass cls as a callable, output -> scalar tensor"
        )
    return found


def _logits(output: Any) -> Tensor | None:
    if isinstance(logits := getattr(output, "logits", None), Tensor):
        return logits
    if isinstance(output, Mapping) and isinstance(logits := output.get("logits"), Tensor):
        return logits
    return next(tensors_in(output), None)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The tensors in a model's output, in order: in it, in its items, in its attributes."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_in(value)
    elif hasattr(output, "__dict__"):
        for value in vars(output).values():
            if isinstance(value, Tensor | Mapping | list | tuple):
                yield from tensors_in(value)


def labels_of(module: nn.Module) -> tuple[str, ...] | None:
    """The class names that the model itself carries: timm's `label_names`, transformers' `id2label`."""
    declared = getattr(module, "pretrained_cfg", None)
    names = declared.get("label_names") if isinstance(declared, Mapping) else None
    # A classifier that was replaced keeps the configuration of the old one.
    if names and len(names) == getattr(module, "num_classes", len(names)):
        return tuple(str(name) for name in names)
    by_index = getattr(getattr(module, "config", None), "id2label", None)
    if isinstance(by_index, Mapping) and by_index:
        # transformers numbers the names of a model that has none: LABEL_0, LABEL_1, … say nothing to a person.
        names = tuple(str(by_index[index]) for index in sorted(by_index))
        return None if names[0] == "LABEL_0" else names
    return None


@contextmanager
def untouched(inventory: Inventory, device: torch.device) -> Iterator[None]:
    """Run the body with the model in eval mode on `device`, without autograd; put back everything, also on an error.

    Put back are each module's `training`, buffers, parameters' storage, `requires_grad` and `.grad`, the RNG states,
    grad mode, inference mode and the autocast cache.

    Raises:
        ModelError: the forward drew random numbers, or changed a parameter in place.
    """
    parameters = inventory.parameters
    training = [m.training for m in inventory.modules]
    # nn.Module.compile() replaces the call, and hooks set after compiling would not be seen by it.
    compiled = [(m, m._compiled_call_impl) for m in inventory.modules if m._compiled_call_impl is not None]
    requires_grad = [p.requires_grad for p in parameters]
    grads = [p.grad for p in parameters]
    states = _RandomStates(device)
    caching = torch.is_autocast_cache_enabled()
    with torch.inference_mode(False), torch.no_grad():
        buffers = _Buffers(inventory)
        try:
            for m in inventory.modules:
                # `train()` may be overridden with side effects (merging adapters, say); the flag alone has none.
                m.__dict__["training"] = False
            for m, _ in compiled:
                m._compiled_call_impl = None
            # Weights cast under no_grad would stay in autocast's cache, and the user's next training step in the same
            # autocast region would find them there without a graph.
            torch.set_autocast_cache_enabled(False)
            with _moved(inventory, device):
                marks = [_mark(p) for p in parameters]
                yield
                changed = [p for p, mark in zip(parameters, marks, strict=True) if _mark(p) != mark]
        finally:
            torch.set_autocast_cache_enabled(caching)
            for m, was in zip(inventory.modules, training, strict=True):
                m.__dict__["training"] = was
            for m, call in compiled:
                m._compiled_call_impl = call
            for p, required, grad in zip(parameters, requires_grad, grads, strict=True):
                if p.requires_grad != required:
                    p.requires_grad_(required)
                if p.grad is not grad:
                    p.grad = grad
            buffers.restore()
            drew = states.restore()
    kind = type(inventory.module).__name__
    if changed:
        name = next(name for name, p in inventory.module.named_parameters() if p is changed[0])
        raise ModelError(
            f"the forward of {kind} changes its own parameter {name!r} in eval mode: what it computes depends on how "
            "often it was called, so no map of it can be trusted"
        )
    if drew:
        raise ModelError(
            f"{kind} draws random numbers ({drew}) in eval mode: two maps of one image would differ. Look for dropout "
            "or noise that does not ask for self.training"
        )


def _mark(parameter: Tensor) -> tuple[int, int]:
    """Changes when the parameter is written in place or given other storage."""
    return (parameter._version, parameter.data_ptr())


class _Buffers:
    """The buffers of all modules, to be put back: which tensors they were, and their values."""

    def __init__(self, inventory: Inventory) -> None:
        self._tables = [(table, dict(table)) for table in inventory.tables]
        by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for buffer in inventory.buffers:
            by_kind.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        # One flat copy for each kind: a model has hundreds of small buffers, and a copy of each would take longer.
        self._values = [(tensors, _flat(tensors)) for tensors in by_kind.values()]

    def restore(self) -> None:
        for table, before in self._tables:
            if any(table.get(name) is not tensor for name, tensor in before.items()) or len(table) != len(before):
                table.clear()
                table.update(before)
        for tensors, flat in self._values:
            if torch.equal(_flat(tensors), flat):
                continue
            for tensor, value in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
                # Only what changed is written: a write would invalidate graphs that the user holds through this buffer.
                if not torch.equal(tensor.reshape(-1), value):
                    tensor.copy_(value.view(tensor.shape))


def _flat(tensors: list[Tensor]) -> Tensor:
    # `cat` of one tensor may be that tensor.
    return torch.cat([t.reshape(-1) for t in tensors]) if len(tensors) > 1 else tensors[0].flatten().clone()


class _RandomStates:
    """The global random generators of torch, numpy and Python, to be compared and put back."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._before = self._read()

    def _read(self) -> dict[str, Any]:
        states: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(legacy=True),
            "random": random.getstate(),
        }
        if self._device is not None:
            states["torch.cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def restore(self) -> str:
        """Put back the generators that were drawn from; returns their names, joined by commas."""
        drawn = [name for name, now in self._read().items() if not _state_equal(self._before[name], now)]
        for name in drawn:
            before = self._before[name]
            if name == "torch":
                torch.set_rng_state(before)
            elif name == "numpy":
                np.random.set_state(before)
            elif name == "random":
                random.setstate(before)
            else:
                torch.cuda.set_rng_state(before, self._device or "cuda")
        return ", ".join(drawn)


def _state_equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, tuple) and len(a) == 5:  # numpy: (name, keys, position, has_gauss, cached_gaussian)
        return bool(a[2:] == b[2:] and np.array_equal(a[1], b[1]))
    return bool(a == b)


@contextmanager
def _moved(inventory: Inventory, device: torch.device) -> Iterator[None]:
    """The model's tensors on `device`; afterwards each is the tensor that it was, storage and all."""
    if inventory.places == [device] or len({p.device for p in inventory.parameters}) > 1:
        yield
        return
    data = [p.data for p in inventory.parameters]
    before = [dict(table) for table in inventory.tables]
    moved = {id(b): b.to(device) for b in inventory.buffers}
    try:
        for p in inventory.parameters:
            p.data = p.data.to(device)
        for table in inventory.tables:
            table.update({name: None if b is None else moved[id(b)] for name, b in table.items()})
        yield
    finally:
        for p, was in zip(inventory.parameters, data, strict=True):
            p.data = was
        for table, held in zip(inventory.tables, before, strict=True):
            table.update(held)
