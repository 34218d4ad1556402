"""A model made ready to be run: options checked, unwrapped, on its device, in eval mode, with its inputs beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pytest_gradcam.cam import methods, remembered
from pytest_gradcam.cam.model import Forward, resolve_device, unwrap
from pytest_gradcam.cam.opaque import as_tensors, check_callable, is_opaque, left_alone
from pytest_gradcam.cam.untouched import Inventory, untouched
from pytest_gradcam.errors import ModelError, ModelTypeError, SettingsError, TargetLayerError

Pair: TypeAlias = tuple[Callable[[Tensor], Any], Callable[[Any], Any]]
# For occlusion and RISE also anything that can be called: inputs (N, C, H, W) → scores, as tensor or array.
ModelLike: TypeAlias = nn.Module | Pair | Callable[[Tensor], Any]
LayerLike: TypeAlias = str | nn.Module | Sequence[str | nn.Module] | None
# (model in eval mode, inputs (1, C, H, W), class index or callable) → map (h, w), higher where it matters more.
CustomMethod: TypeAlias = Callable[[nn.Module, Tensor, Any], Any]
MethodLike: TypeAlias = str | CustomMethod

ENGINES = ("hooks", "split")

_WITHOUT_LAYER: dict[str, str] = {
    "inputs": "covers parts of the input and looks at no layer",
    "own": "reads what it chooses itself",
}

# How far a callable is searched for modules that it uses: links from it, and objects.
MAX_DEPTH = 6
MAX_SEEN = 5000

# Two threads in one model would put back each other's eval mode.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """How to compute: the arguments that all ways to explain share.

    Attributes:
        method: registered name, `auto`, or a callable (model, inputs, target) → map.
        layer: dotted name, module, several of them, or None to find it.
        engine: `hooks` or `split`.
        device: `auto` or a torch device.
        labels: class names, by index.
        forward: how the model is called, (model, inputs) → output; None for `model(inputs)`.
    """

    method: MethodLike = "auto"
    layer: LayerLike = None
    engine: str = "hooks"
    device: str | torch.device = "auto"
    labels: Sequence[str] | None = None
    forward: Callable[[nn.Module, Tensor], Any] | None = None

    def __post_init__(self) -> None:
        if not callable(self.method):
            methods.check(self.method)
        if self.layer is not None and methods.kind_of(self.method) in _WITHOUT_LAYER:
            name = self.method if isinstance(self.method, str) else getattr(self.method, "__name__", "the method given")
            raise SettingsError(
                f"method {name!r} {_WITHOUT_LAYER[methods.kind_of(self.method)]}, so layer cannot be given with it: "
                "leave it out, or pass layer=None where settings name one"
            )
        if isinstance(self.layer, list | tuple) and not self.layer:
            raise SettingsError("layer is an empty list: name layers, or pass None to have one found")
        if self.engine not in ENGINES:
            raise SettingsError(f"unknown engine {self.engine!r}: the engines are {', '.join(ENGINES)}")
        if self.forward is not None and not callable(self.forward):
            raise SettingsError(
                f"forward is a {type(self.forward).__name__}: pass a callable (model, inputs) → output, or None"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One model on its device, in eval mode, and the inputs beside it."""

    forward: Forward
    pair: Pair | None
    inputs: Tensor
    options: Options
    device: torch.device

    @property
    def module(self) -> nn.Module:
        """The model, unwrapped."""
        return self.forward.module

    def call(self, inputs: Tensor) -> Any:
        """The output for inputs (N, C, H, W), which the model may write to."""
        if self.pair is not None:
            features, head = self.pair
            return head(features(inputs))
        return self.module(inputs) if self.forward.how is None else self.forward.how(self.module, inputs)


@contextmanager
def ready(model: ModelLike, inputs: Tensor, options: Options) -> Iterator[Run]:
    """The model in eval mode on its device, and the inputs beside it."""
    _check_inputs(inputs)
    is_only_called = methods.kind_of(options.method) == "inputs"
    if is_only_called and not isinstance(model, tuple) and is_opaque(model):
        with _ONE_AT_A_TIME, _only_called(model, inputs, options) as called:
            yield called
        return
    pair = model if isinstance(model, tuple) else None
    if pair is None:
        module = unwrap(model)
    else:
        module = _container(pair, options)
    inventory = Inventory.of(module)
    device = resolve_device(options.device, inventory.places)
    try:
        with _ONE_AT_A_TIME, untouched(inventory, device), torch.enable_grad():
            forward = Forward(module, options.forward, inventory.state)
            x = inputs.detach().to(device=device, dtype=inventory.dtype)
            if x.is_inference():
                x = x.clone()
            yield Run(forward, pair, x, options, device)
    except BaseException:
        remembered.forget(module)  # and look closely again the next time
        raise


def _check_inputs(inputs: Tensor) -> None:
    if inputs.shape[0] == 0:
        raise ModelError("there are no images: the batch is empty")


def _container(pair: Pair, options: Options) -> nn.Module:
    if len(pair) != 2 or not all(callable(part) for part in pair):
        raise ModelTypeError("the model is a tuple, but not of two callables (features, head)")
    if options.engine != "split" and methods.kind_of(options.method) != "inputs":
        raise ModelTypeError('a pair (features, head) is for the split engine: pass engine="split", or the whole model')
    if options.forward is not None:
        raise SettingsError("a pair (features, head) is called as it is: forward cannot be given too")
    if options.layer is not None:
        raise TargetLayerError("a pair (features, head) is cut already: layer cannot be named too")
    # What a function uses besides modules has no state of a model's: eval mode and the rest are theirs alone.
    return nn.ModuleList([module for part in pair for module in _modules_of(part)])


@contextmanager
def _only_called(model: Any, inputs: Tensor, options: Options) -> Iterator[Run]:
    """What is no Python module: it stays where it is, and the inputs go there."""
    check_callable(model, is_called_by_user=options.forward is not None)
    call = model if options.forward is None else partial(options.forward, model)
    modules = _modules_of(model)
    with left_alone(modules, type(model).__name__, options.device) as (device, dtype), torch.enable_grad():
        owner = model if isinstance(model, nn.Module) else nn.ModuleList()
        forward = Forward(owner, lambda _module, x: as_tensors(call(x)))
        x = inputs.detach().to(device=device, dtype=dtype)
        yield Run(forward, None, x.clone() if x.is_inference() else x, options, device)


def _modules_of(part: object) -> list[nn.Module]:
    """The modules that a callable uses: itself, its owner's, what a function closes over, names or has as default.

    Followed through objects, containers, functions that functions name, and slots, to a depth.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    left: list[tuple[object, int]] = [(part, 0)]
    while left and len(seen) < MAX_SEEN:
        held, depth = left.pop(0)
        if id(held) in seen:
            continue
        seen.add(id(held))
        if isinstance(held, nn.Module):
            found[id(held)] = held
        elif depth < MAX_DEPTH:
            left += [(each, depth + 1) for each in _held_by(held)]
    return list(found.values())


def _held_by(part: object) -> list[object]:
    if isinstance(part, partial):
        return [part.func, *part.args, *part.keywords.values()]
    if isinstance(part, FunctionType):
        held = [cell.cell_contents for cell in part.__closure__ or () if _is_filled(cell)]
        held += [part.__globals__[name] for name in part.__code__.co_names if name in part.__globals__]
        return [*held, *(part.__defaults__ or ()), *(part.__kwdefaults__ or {}).values()]
    if isinstance(part, Mapping):
        return list(part.values())
    if isinstance(part, list | tuple | set | frozenset):
        return list(part)
    if isinstance(part, type | ModuleType | str | bytes | int | float | Tensor) or part is None:
        return []
    owner = getattr(part, "__self__", None)
    slots = [name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ()) if isinstance(name, str)]
    return [owner, *getattr(part, "__dict__", {}).values(), *(getattr(part, name, None) for name in slots)]


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # raises where it is not assigned yet
    except ValueError:
        return False
    return True
