"""Models that are only called: TorchScript and int8 modules, functions, sessions of another runtime. Left as they were.

No hook, no gradient and no other device is asked of them; what needs those is refused in `model.py` and `untouched.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytest_gradcam.cam.untouched import INT8, Inventory, untouched
from pytest_gradcam.errors import DeviceError, ModelTypeError


def is_opaque(model: object) -> bool:
    """Whether a model is no `nn.Module`, or holds parts that take no hooks or no gradients."""
    return not isinstance(model, nn.Module) or any(map(_is_opaque_part, model.modules()))


def _is_opaque_part(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) or type(module).__module__.startswith(INT8)


def check_callable(model: object, *, is_called_by_user: bool) -> None:
    """Refuse what cannot be called.

    Raises:
        ModelTypeError: it cannot, and no forward says how.
    """
    if isinstance(model, type):
        raise ModelTypeError(f"the model is the class {model.__name__}: pass an instance of it, {model.__name__}(…)")
    if not callable(model) and not is_called_by_user:
        kind = type(model).__name__
        raise ModelTypeError(
            f"the model is of type {kind}, which cannot be called: pass a callable, tensor (N, C, H, W) → scores, as "
            f"in lambda x: session.run(None, {{'input': x.numpy()}})[0], or forward=lambda model, x: …"
        )


@contextmanager
def left_alone(
    modules: Sequence[nn.Module], name: str, asked: str | torch.device
) -> Iterator[tuple[torch.device, torch.dtype | None]]:
    """Run the body with these modules in eval mode where they are; put back what it changed.

    Of plain modules everything is put back, as always; of those that take no hooks, the training flags and buffers.

    Args:
        modules: those that a model is or uses.
        name: the model's type, for messages.
        asked: the device that was asked for.

    Yields:
        Where the model is, and the floating type of its parameters, if it has any.

    Raises:
        DeviceError: another device was asked for than the one that the model is on.
        ModelError: a forward drew random numbers, or changed a parameter of a plain module.
    """
    closed = [module for module in modules if is_opaque(module)]
    kind: type[nn.ModuleList] = type(name, (nn.ModuleList,), {})  # by whose name errors go
    plain = Inventory.of(kind([module for module in modules if not is_opaque(module)]))
    tensors = [*plain.parameters, *plain.buffers]
    for module in closed:
        tensors += [*module.parameters(), *module.buffers()]
    device = _device(tensors, asked)
    dtype = next((t.dtype for t in tensors if isinstance(t, nn.Parameter) and t.is_floating_point()), None)
    parts = list({id(part): part for module in closed for part in module.modules()}.values())
    flags = [(part, part.training) for part in parts if hasattr(part, "training")]
    buffers = [(buffer, buffer.detach().clone()) for module in closed for buffer in module.buffers()]
    try:
        for part, was in flags:
            if was:
                part.training = False
        with untouched(plain, device):
            yield device, dtype
    finally:
        for part, was in flags:
            if part.training != was:
                part.training = was
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _device(tensors: Sequence[Tensor], asked: str | torch.device) -> torch.device:
    place = tensors[0].device if tensors else None
    if isinstance(asked, str) and asked == "auto":
        return place or torch.device("cpu")
    try:
        wanted = torch.device(asked)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f"unknown device {asked!r}: use 'auto', 'cpu', 'cuda', 'cuda:0', 'mps', …") from error
    if place is not None and (wanted.type != place.type or wanted.index not in (None, place.index)):
        raise DeviceError(
            f"device {str(asked)!r} was asked for, and a model that is only called stays where it is, on {place}: move "
            'it there yourself, or pass device="auto"'
        )
    return place or wanted


def as_tensors(output: Any) -> Any:
    """The output of another runtime with numpy arrays as tensors, in the containers that they are in."""
    if isinstance(output, np.ndarray | np.number) and output.dtype.kind in "fiub":
        return torch.from_numpy(np.array(output))
    if isinstance(output, list | tuple) and not hasattr(output, "_fields"):
        return type(output)(as_tensors(value) for value in output)
    if isinstance(output, Mapping) and any(isinstance(value, np.ndarray) for value in output.values()):
        return {key: as_tensors(value) for key, value in output.items()}
    return output
