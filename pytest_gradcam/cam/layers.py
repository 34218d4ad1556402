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

from pytest_gradcam.cam.capture import Tail, layer_tensor, run_around, run_hooked
from pytest_gradcam.cam.model import tensors_in
from pytest_gradcam.cam.views import View, views_of
from pytest_gradcam.errors import ModelError, TargetLayerError

# A candidate costs a forward; the score of a classifier depends on one of its last few layers.
MAX_TRIES = 12
# Layers that are tried only to name them in an error.
MAX_LISTED_TRIES = 24
# A model that answers one input differently twice is random. Kernels chosen at run time may round differently.
REPEAT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The layer that a map is read from.

    Attributes:
        name: dotted name.
        module: the layer.
        view: how its output is a grid.
        shape: of its output for one image, without the batch.
    """

    name: str
    module: nn.Module
    view: View
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Questions to the score that is asked for.

    Attributes:
        depends: whether it depends on the cells of the layer with this name and view that a forward was cut at; None
            where only other scores of the model do.
        reaches: whether it, or any other class's logit, depends on this input by this output.
    """

    depends: Callable[[Tail, str, View], bool | None]
    reaches: Callable[[Tensor, Any], bool]


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


CAN_BE_NAMED = "not a convolutional grid, so not taken unasked; it can be named"

CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.PixelShuffle,
    nn.Upsample,
)
# Exact types: timm derives channels-first normalisations from LayerNorm.
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)

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
    probe: Probe,
) -> Target:
    """The target layer of a model for inputs of this shape.

    Args:
        module: the model, unwrapped, in eval mode.
        inputs: (N, C, H, W); the first image is used.
        layer: dotted name, module, or None to find it.
        score: the class or callable that is asked for.
        probe: asks the score what it depends on.

    Raises:
        TargetLayerError: there is none, or the named one is unknown or gives no grid.
        ModelError: the model answers the same input differently twice.
    """
    name = None if layer is None else _name_of(module, layer)
    first = inputs[:1]
    records, output = _record(module, first)
    size = (int(inputs.shape[2]), int(inputs.shape[3]))
    if name is None:
        target = _find(module, records, output, first, size, probe)
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
            versions[name] = _version(args[0]) if args and isinstance(args[0], Tensor) else 0

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(m: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            tensor = layer_tensor(output)
            # The same tensor, not written to: an identity, or dropout in eval mode. Written to: an in-place activation.
            same = tensor is not None and bool(args) and tensor is args[0] and _version(tensor) == versions.get(name)
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
            output = module(inputs.clone())  # a forward may write to its input
    finally:
        for handle in handles:
            handle.remove()
    calls: dict[str, int] = {}
    for name, *_ in finished:
        calls[name] = calls.get(name, 0) + 1
    return [_Record(name, m, shape, calls[name], same) for name, m, shape, same in finished], output


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _find(
    module: nn.Module,
    records: list[_Record],
    output: Any,
    inputs: Tensor,
    size: tuple[int, int],
    probe: Probe,
) -> Target:
    nearest: list[tuple[str, str, str]] = []
    others: list[Target] = []
    silent: Target | None = None
    tries = 0
    for record in reversed(records):
        views = _views(record, records, size)
        if not views or record.passes_through or record.shape is None:
            continue
        target = Target(record.name, record.module, views[0], record.shape[1:])
        if record.calls > 1:
            nearest.append((record.name, str(target.view), f"called {record.calls} times in a forward"))
        elif target.view.kind != "nchw":
            others.append(target)
        elif others or tries == MAX_TRIES:
            # What lies before a token or channels-last grid may be a grid of channels, a patch embedding say, and would
            # give a plausible picture of nothing: so nothing before it is taken.
            break
        else:
            tries += 1
            tail = run_hooked(module, record.name, record.module, inputs)
            _same_answer(module, output, tail)
            found = probe.depends(tail, record.name, target.view)
            if found is False:
                why = "the score does not depend on it (zero gradient)"
            elif _bypassed(module, target, inputs, probe):
                why = "the score reaches the image around it too, through another branch"
            elif found:
                return target
            else:
                silent, why = silent or target, "the score does not depend on it (zero gradient)"
            nearest.append((record.name, str(target.view), why))
    if silent is not None:
        return silent
    nearest = [*_worth_naming(module, others, inputs, probe), *nearest]
    if not nearest:
        raise TargetLayerError(
            f"no layer of {type(module).__name__} gives a grid over the image, so there is no map of where it looks: "
            f"its children are {_children(module)}"
        )
    lines = "".join(f"\n  {name}   {view}   {why}" for name, view, why in nearest[:5])
    name = nearest[0][0] if nearest[0][2] == CAN_BE_NAMED else "…"
    raise TargetLayerError(
        f"no layer of {type(module).__name__} was found that gives a map for this score. Nearest:{lines}\n"
        f'Name one with layer="{name}"; the children of the model are {_children(module)}'
    )


def _bypassed(module: nn.Module, target: Target, inputs: Tensor, probe: Probe) -> bool:
    """Whether the image reaches the score around the layer: then its map shows a part of the evidence, of any size."""
    try:
        leaf, output = run_around(module, target.module, inputs)
        return probe.reaches(leaf, output)
    except RuntimeError:
        return False  # what lies before the layer cannot run with gradients: nothing can be said of it


def _worth_naming(module: nn.Module, others: list[Target], inputs: Tensor, probe: Probe) -> list[tuple[str, str, str]]:
    """Layers of other kinds of grid on whose cells the score depends: those that a person would name first."""
    found: list[tuple[str, str, str]] = []
    for target in others[:MAX_LISTED_TRIES]:
        if any(target.name.startswith(f"{name}.") for name, *_ in found):
            continue  # inside a layer that is listed
        try:
            tail = run_hooked(module, target.name, target.module, inputs)
            if probe.depends(tail, target.name, target.view):
                found.append((target.name, str(target.view), CAN_BE_NAMED))
        except TargetLayerError:
            continue
    return sorted(found, key=lambda line: line[0].count("."))[:3]


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
    return Target(name, record.module, views[0], record.shape[1:])


def _views(record: _Record, records: list[_Record], size: tuple[int, int]) -> list[View]:
    """How the layer's output may be read.

    Shapes alone can be read either way, (1, 8, 8, 8) for one: what settles it is the last module before, or in, the
    layer that gives this shape and knows where its channels are.
    """
    if record.shape is None or record.shape[0] != 1:  # one image was recorded: more rows are crops, windows or frames
        return []
    at = next(i for i, other in enumerate(records) if other is record)
    for other in reversed(records[: at + 1]):
        if other.shape == record.shape and isinstance(other.module, CHANNELS_FIRST):
            return views_of(record.shape, size, channels="first")
        if other.shape == record.shape and type(other.module) in CHANNELS_LAST:
            return views_of(record.shape, size, channels="last")
    views = views_of(record.shape, size)
    return [] if {"nchw", "nhwc"} <= {view.kind for view in views} else views


def _same_answer(module: nn.Module, output: Any, tail: Tail) -> None:
    before, after = list(tensors_in(output)), list(tensors_in(tail.output))
    if [a.shape for a in before] != [b.shape for b in after]:
        raise ModelError(
            f"{type(module).__name__} answers the same input with other shapes when it is asked again: no map of it "
            "can be trusted"
        )
    for a, b in zip(before, after, strict=True):
        if not a.is_floating_point():
            continue
        # What is not finite is compared by itself, and refused where scores are read.
        scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 0.0
        if not torch.allclose(a, b.detach(), rtol=REPEAT_TOLERANCE, atol=REPEAT_TOLERANCE * scale, equal_nan=True):
            raise ModelError(
                f"{type(module).__name__} answers the same input differently twice in eval mode: no map of it can be "
                "trusted. Look for randomness or state that its forward carries from call to call"
            )
