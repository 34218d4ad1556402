"""What a model is: unwrapping it, choosing its device, and reading logits and class names from it.

Leaving it untouched is in `untouched.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from pytest_gradcam.errors import ClassError, DeviceError, ModelTypeError


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """A model and how it is called.

    Attributes:
        module: the model, unwrapped.
        how: the user's own call, (model, inputs) → output; None for `model(inputs)`.
        state: what tells one state of the model from another, at little cost: which modules, and how often each
            parameter was written to.
    """

    module: nn.Module
    how: Callable[[nn.Module, Tensor], Any] | None = None
    state: tuple[int, ...] = ()

    def __call__(self, inputs: Tensor) -> Any:
        """The output for inputs (N, C, H, W), which stay as they are: a forward may write to what it is given."""
        copy = inputs.clone()
        return self.module(copy) if self.how is None else self.how(self.module, copy)

    @property
    def name(self) -> str:
        """The name of the model's type, for messages."""
        return type(self.module).__name__


def unwrap(model: object) -> nn.Module:
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel` wrappers.

    Raises:
        ModelTypeError: not an `nn.Module`, or one without Python modules inside (TorchScript).
    """
    if not isinstance(model, nn.Module):
        if isinstance(model, type) and issubclass(model, nn.Module):
            raise ModelTypeError(
                f"the model is the class {model.__name__}: pass an instance of it, {model.__name__}(…)"
            )
        kind, what = type(model).__name__, "a torch.nn.Module"
        if isinstance(model, FunctionType):
            what = f"a torch.nn.Module, what {model.__name__}() gives perhaps"
        elif type(model).__module__ != "builtins":
            what = "the torch.nn.Module that it was made from"
        raise ModelTypeError(
            f'the model is of type {kind}: pass {what} (or, with engine="split", a pair (features, head)); what can '
            'only be called is explained by method="occlusion" or "rise"'
        )
    module: nn.Module = model
    while True:
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelTypeError(
                f"the model is a TorchScript module ({type(module).__name__}), which takes no hooks that change an "
                'output: pass the Python module that it was made from, or method="occlusion", which needs none'
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := module._modules.get("_orig_mod"), nn.Module):  # torch.compile's OptimizedModule
            module = inner
        else:
            return module


def resolve_device(device: str | torch.device, places: Sequence[torch.device]) -> torch.device:
    """The device to compute on.

    `auto` is where the model is, if that is an accelerator; else an accelerator if there is one; else the CPU. A model
    that is spread over several devices stays where it is.

    Args:
        device: `auto` or a torch device.
        places: the devices that the model's tensors are on.

    Raises:
        DeviceError: the name is unknown, or the device is not present.
    """
    if isinstance(device, str) and device == "auto":
        place = places[0] if places else torch.device("cpu")
        if place.type != "cpu" or len(places) > 1:
            return place
        return _accelerator() or place
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


@cache
def _accelerator() -> torch.device | None:
    """The accelerator of this machine; asked once, since it does not change while a process runs."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps") if torch.backends.mps.is_available() else None


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
    if not found.is_floating_point():
        raise ClassError(
            f"the model's output is of {found.dtype}, in which nothing can be differentiated: pass cls as a callable, "
            "output -> floating scalar tensor, or the model without what rounds its logits"
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


def tensors_in(output: Any, depth: int = 8) -> Iterator[Tensor]:
    """The tensors in a model's output, in order: in it, its items, its attributes; to a depth, as it may be cyclic."""
    if isinstance(output, Tensor):
        yield output
        return
    if depth == 0:
        return
    values: Iterable[Any] = ()
    if isinstance(output, Mapping):
        values = output.values()
    elif isinstance(output, list | tuple):
        values = output
    elif hasattr(output, "__dict__"):
        values = [value for value in vars(output).values() if isinstance(value, Tensor | Mapping | list | tuple)]
    for value in values:
        yield from tensors_in(value, depth - 1)


def name_of(module: nn.Module) -> str:
    """What a person calls the model: timm's architecture, else the class; empty for a callable that is no module."""
    declared = getattr(module, "pretrained_cfg", None)
    architecture = declared.get("architecture") if isinstance(declared, Mapping) else None
    if isinstance(architecture, str) and architecture:
        return architecture
    return "" if type(module) is nn.ModuleList else type(module).__name__


def labels_of(module: nn.Module) -> tuple[str, ...] | None:
    """The class names that the model itself carries: timm's `label_names`, transformers' `id2label`."""
    declared = getattr(module, "pretrained_cfg", None)
    names = declared.get("label_names") if isinstance(declared, Mapping) else None
    # A classifier that was replaced keeps the configuration of the old one.
    if names and len(names) == getattr(module, "num_classes", len(names)):
        return tuple(str(name) for name in names)
    by_index = getattr(getattr(module, "config", None), "id2label", None)
    if isinstance(by_index, Mapping) and by_index:
        try:
            by_number = {int(index): str(name) for index, name in by_index.items()}  # JSON makes text of the keys
        except (TypeError, ValueError):
            return None
        if sorted(by_number) != list(range(len(by_number))):
            return None
        names = tuple(by_number[index] for index in range(len(by_number)))
        # transformers numbers the names of a model that has none: LABEL_0, LABEL_1, … say nothing to a person.
        return None if names[0] == "LABEL_0" else names
    return None
