"""Finding the target layer, and checking one that the user names.

From one recorded forward: the last layer whose output is a grid over the image and on which the score depends. Which
outputs are grids is `views.py`'s business.
"""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.capture import Tail, layer_tensor, run_hooked
from pytest_gradcam.cam.model import tensors_in
from pytest_gradcam.cam.views import View, views_of
from pytest_gradcam.errors import ModelError, TargetLayerError

# A candidate costs a forward; the score of a classifier depends on one of its last few layers.
MAX_TRIES = 4
# A model that answers one input differently twice is random. Kernels chosen at run time may round differently.
REPEAT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The layer that a map is read from: its dotted name, the module, and how its output is a grid."""

    name: str
    module: nn.Module
    view: View


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """One module of a recorded forward, in the order in which the modules finished.

    `passes_through`: its output is its input, or a pooled copy of a grid before it, which goes by the name before it.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...] | None
    calls: int
    passes_through: bool


# Findings by model object; a finding is for one size of input, one name, and one kind of score.
_found: weakref.WeakKeyDictionary[nn.Module, dict[Any, Target]] = weakref.WeakKeyDictionary()


def remembered(module: nn.Module, inputs: Tensor, layer: str | nn.Module | None, score: object) -> Target | None:
    """What `target_of` found before for this model, size, layer and score, if it is still in the model.

    The logits of all classes are one kind of score; every callable is one of its own.
    """
    target = _found.get(module, {}).get(_key(module, inputs, layer, score))
    return target if target is not None and _submodule(module, target.name) is target.module else None


def target_of(
    module: nn.Module,
    inputs: Tensor,
    layer: str | nn.Module | None,
    score: object,
    depends: Callable[[Tail, str], bool | None],
) -> Target:
    """The target layer of a model for inputs of this shape.

    Args:
        module: the model, unwrapped, in eval mode.
        inputs: (N, C, H, W); the first image is used.
        layer: dotted name, module, or None to find it.
        score: the class or callable that is asked for.
        depends: whether the score of a forward depends on the layer (its name is the second argument); None where only
            other scores of the model do.

    Raises:
        TargetLayerError: there is none, or the named one is unknown or gives no grid.
        ModelError: the model answers the same input differently twice.
    """
    name = None if layer is None else _name_of(module, layer)
    first = inputs[:1]
    records, output = _record(module, first)
    size = (int(inputs.shape[2]), int(inputs.shape[3]))
    if name is None:
        target = _find(module, records, output, first, size, depends)
    else:
        target = _check(module, name, records, size)
        _same_answer(module, output, run_hooked(module, name, target.module, first))
    held = {key: found for key, found in _found.get(module, {}).items() if not _is_gone(key[2])}
    _found[module] = {**held, _key(module, inputs, layer, score): target}
    return target


def _key(module: nn.Module, inputs: Tensor, layer: str | nn.Module | None, score: object) -> tuple[Any, Any, Any]:
    name = None if layer is None else _name_of(module, layer)
    asked: object = None
    if callable(score):
        try:
            asked = weakref.ref(score)
            hash(asked)
        except TypeError:
            asked = object()  # equal to nothing: looked for anew every time
    return name, tuple(inputs.shape[1:]), asked


def _is_gone(asked: object) -> bool:
    return type(asked) is object or (isinstance(asked, weakref.ref) and asked() is None)


def forget(module: nn.Module) -> None:
    """Drop what was found for this model, so that the next call searches again."""
    _found.pop(module, None)


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _name_of(module: nn.Module, layer: str | nn.Module) -> str:
    names = {name: m for name, m in module.named_modules() if name}
    if isinstance(layer, nn.Module):
        for name, m in names.items():
            if m is layer:
                return str(name)
        raise TargetLayerError(f"the layer given, a {type(layer).__name__}, is not part of {type(module).__name__}")
    if not isinstance(layer, str):
        raise TargetLayerError(f"layer is a {type(layer).__name__}: pass a dotted name or a module of the model")
    if layer in names:
        return layer
    close = difflib.get_close_matches(layer, names, n=3)
    hint = f"; did you mean {', '.join(map(repr, close))}?" if close else f"; its children are {_children(module)}"
    raise TargetLayerError(f"{type(module).__name__} has no layer {layer!r}{hint}")


def _children(module: nn.Module) -> str:
    return ", ".join(repr(name) for name, _ in module.named_children()) or "none"


def _record(module: nn.Module, inputs: Tensor) -> tuple[list[_Record], Any]:
    """Run one forward and note every module's output, in the order in which they finished; and the model's output."""
    finished: list[tuple[str, nn.Module, tuple[int, ...] | None, bool]] = []
    pooled: list[Tensor] = []
    versions: dict[str, int] = {}
    handles = []

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            versions[name] = args[0]._version if args and isinstance(args[0], Tensor) else 0

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(m: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            tensor = layer_tensor(output)
            # The same tensor, not written to: an identity, or dropout in eval mode. Written to: an in-place activation.
            same = tensor is not None and bool(args) and tensor is args[0] and tensor._version == versions.get(name)
            # A pooled grid is a coarser copy of the one before it, also as the output of a block that ends in a pool.
            if tensor is not None and "pool" in type(m).__name__.lower():
                pooled.append(tensor)
            same = same or any(tensor is other for other in pooled)
            finished.append((name, m, None if tensor is None else tuple(tensor.shape), same))

        return hook

    try:
        for name, m in module.named_modules():
            if name:
                handles.append(m.register_forward_pre_hook(before(name)))
                handles.append(m.register_forward_hook(after(name)))
        with torch.no_grad():
            output = module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    calls: dict[str, int] = {}
    for name, *_ in finished:
        calls[name] = calls.get(name, 0) + 1
    return [_Record(name, m, shape, calls[name], same) for name, m, shape, same in finished], output


def _find(
    module: nn.Module,
    records: list[_Record],
    output: Any,
    inputs: Tensor,
    size: tuple[int, int],
    depends: Callable[[Tail, str], bool | None],
) -> Target:
    nearest: list[tuple[str, str, str]] = []
    tries, other = 0, False
    silent: Target | None = None
    for record in reversed(records):
        views = _views(record, records, size)
        if not views or record.passes_through:
            continue
        view = views[0]
        if record.calls > 1:
            nearest.append((record.name, str(view), f"called {record.calls} times in a forward"))
        elif view.kind != "nchw":
            if record.name.count(".") > 1:
                continue  # inside a block: a person names the block
            # What lies before it may be a grid of channels, a patch embedding say, and would give a plausible picture
            # of nothing: so nothing before it is taken.
            nearest.append((record.name, str(view), "not a convolutional grid; pass its name to read it as this"))
            other = True
        elif other:
            continue
        elif tries == MAX_TRIES:
            break
        else:
            tries += 1
            tail = run_hooked(module, record.name, record.module, inputs)
            _same_answer(module, output, tail)
            found, target = depends(tail, record.name), Target(record.name, record.module, view)
            if found:
                return target
            if found is None and silent is None:
                silent = target
            nearest.append((record.name, str(view), "the score does not depend on it (zero gradient)"))
    if silent is not None:
        return silent
    lines = "".join(f"\n  {name}   {view}   {why}" for name, view, why in nearest[:5])
    what = f" Nearest:{lines}" if lines else " None of its layers gives a grid over the image."
    raise TargetLayerError(
        f"no layer of {type(module).__name__} was found that gives a map for this score.{what}\n"
        f'Name one with layer="…"; the children of the model are {_children(module)}'
    )


def _check(module: nn.Module, name: str, records: list[_Record], size: tuple[int, int]) -> Target:
    found = [record for record in records if record.name == name]
    if not found:
        raise TargetLayerError(
            f"layer {name!r} is not called in the forward of {type(module).__name__}; name a layer that is"
        )
    record = found[-1]
    if record.calls > 1:
        raise TargetLayerError(
            f"layer {name!r} is called {record.calls} times in a forward: which of its outputs the map should be read "
            "from is not determined; name a layer around it"
        )
    if record.shape is None:
        raise TargetLayerError(f"layer {name!r} gives no tensor; name another layer")
    views = _views(record, records, size)
    if not views:
        raise TargetLayerError(
            f"layer {name!r} has no spatial grid: its output has shape {record.shape} for an input of "
            f"{size[0]}×{size[1]} pixels; name a layer that lies before pooling"
        )
    return Target(name, record.module, views[0])


def _views(record: _Record, records: list[_Record], size: tuple[int, int]) -> list[View]:
    """How the layer's output may be read; as NCHW only, where a convolution in the layer has the same output shape."""
    if record.shape is None:
        return []
    convolved = any(
        isinstance(inner.module, nn.Conv2d | nn.BatchNorm2d)
        and inner.shape == record.shape
        and (inner is record or inner.name.startswith(f"{record.name}."))
        for inner in records
    )
    return views_of(record.shape, size, convolved=convolved)


def _same_answer(module: nn.Module, output: Any, tail: Tail) -> None:
    for a, b in zip(tensors_in(output), tensors_in(tail.output), strict=False):
        if not a.is_floating_point():
            continue
        # What is not finite is compared by itself, and refused where scores are read.
        scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 0.0
        if not torch.allclose(a, b.detach(), rtol=REPEAT_TOLERANCE, atol=REPEAT_TOLERANCE * scale, equal_nan=True):
            raise ModelError(
                f"{type(module).__name__} answers the same input differently twice in eval mode: no map of it can be "
                "trusted. Look for randomness or state that its forward carries from call to call"
            )
