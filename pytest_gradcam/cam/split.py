"""The split engine: the model cut at the target layer into features and head, which run one after the other.

Three cuts are tried: a chain of children, the model's own `forward_features` / `forward_head`, and a `torch.fx` graph
cut. A cut is accepted only if its features give what the layer gives and its head gives what the model gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pytest_gradcam.cam.capture import Site, Tail, cut_at, keeping, sound_gradients
from pytest_gradcam.cam.graphs import cut_graph
from pytest_gradcam.cam.model import Forward, tensors_in
from pytest_gradcam.cam.outputs import copied, tensors_of, with_tensors
from pytest_gradcam.errors import ModelError, TargetLayerError


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """`features`: inputs → (target layer's output, other values that the head needs); `head`: those → output.

    `ends`: modules that the head does not call → what it calls in their place, with their output.
    """

    how: str
    features: Callable[[Tensor], tuple[Any, tuple[Any, ...]]]
    head: Callable[..., Any]
    ends: Mapping[nn.Module, nn.Module] = field(default_factory=dict)


def run_split(forward: Forward, site: Site, inputs: Tensor, behind: Sequence[Site] = ()) -> Tail:
    """Cut the model at a layer, run the features without autograd and the head with it.

    Args:
        forward: the model, in eval mode.
        site: where it is cut.
        inputs: (N, C, H, W).
        behind: further layers, that the head calls; tensors of theirs follow the leaves.

    Raises:
        ModelError: no cut reproduces the model.
    """
    if forward.how is not None:
        raise ModelError(
            f"{forward.name} is called by a forward of yours, which cannot be cut into features and head: use "
            'engine="hooks", which gives the same map'
        )
    module, name, layer = forward.module, site.name, site.layer
    expected, at_layer = _reference(forward, site, inputs)
    refused: list[str] = []
    for how, make in (
        ("children", _cut_children),
        ("forward_features", _cut_forward_features),
        ("fx", _cut_graph),
        ("fx with sizes", _cut_sized_graph),
    ):
        # A cut may fail in as many ways as there are models, and the next may succeed: the reasons are collected.
        try:
            cut = make(module, name, layer, inputs)
            if cut is None:
                continue
            with torch.no_grad():
                features, rest = cut.features(inputs.clone())  # a forward may write to its input
            tail = _run_head(cut, features, rest, site, behind)
            if isinstance(expected, Mapping) and type(tail.output) is not type(expected):  # a graph makes a plain dict
                kind: Callable[[Any], Any] = type(expected)
                tail = replace(tail, output=kind(tail.output))
        except Exception as error:
            refused.append(f"{how}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        if not all(map(_agree, tail.leaves[: len(at_layer)], at_layer)):
            refused.append(f"{how}: its features are not what {name!r} gives")
        elif not _agree_nested(tail.output, expected):
            refused.append(f"{how}: its head does not give what the model gives")
        else:
            return tail
    reasons = "".join(f"\n  {reason}" for reason in refused)
    raise ModelError(
        f"{type(module).__name__} cannot be cut at {name!r} into features and head: pass the pair "
        f'(features, head) yourself, or use engine="hooks", which gives the same map{reasons}'
    )


def run_pair(
    features: Callable[[Tensor], Any], head: Callable[[Any], Any], inputs: Tensor, modules: Iterable[nn.Module]
) -> Tail:
    """Run a pair that the user cut, and that uses these modules.

    Raises:
        TargetLayerError: `features` does not return one floating tensor.
    """
    with torch.no_grad():
        found = features(inputs.clone())
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise TargetLayerError(
            f"the features of the pair (features, head) return a {type(found).__name__}: one floating tensor is needed"
        )
    norms = tuple(m for m in modules if isinstance(m, nn.modules.batchnorm._NormBase))
    return _run_head(Cut("pair", lambda x: (x, ()), head), found, (), Site("features", nn.Identity(), norms=norms))


def _run_head(cut: Cut, features: Any, rest: tuple[Any, ...], site: Site, behind: Sequence[Site] = ()) -> Tail:
    found = cut_at(features, site.places)
    if found is None:
        raise TypeError(f"its features are a {type(features).__name__}")

    def head(changed: Mapping[int, Tensor]) -> Any:
        others = {place: copied(tensor) for place, tensor in enumerate(tensors_of(features))}  # it may write to them
        output = with_tensors(features, others | {site.places[part]: tensor for part, tensor in changed.items()})
        return cut.head(output, *pytree.tree_map_only(Tensor, copied, rest))

    behind = [replace(each, layer=cut.ends.get(each.layer, each.layer)) for each in behind]
    norms = list({id(norm): norm for each in (site, *behind) for norm in each.norms}.values())
    with torch.enable_grad(), sound_gradients(norms), keeping(behind) as kept:
        output = cut.head(found[1], *pytree.tree_map_only(Tensor, copied, rest))
    missing = [each.name for each in behind if each.name not in kept]
    if missing:
        raise TypeError(f"its head does not call {missing[0]!r}")
    return Tail(found[0] + tuple(leaf for each in behind for leaf in kept[each.name]), output, head=head)


def _reference(forward: Forward, site: Site, inputs: Tensor) -> tuple[Any, list[Tensor]]:
    """The model's own output, and its layer's, from one plain forward."""
    seen: list[list[Tensor]] = []

    def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensors = tensors_of(output)
        if len(tensors) > max(site.places):
            seen.append([tensors[place].detach().clone() for place in site.places])

    handle = site.layer.register_forward_hook(read)
    try:
        with torch.no_grad():
            expected = forward(inputs)
    finally:
        handle.remove()
    if len(seen) != 1:
        times = "is not called" if not seen else f"is called {len(seen)} times"
        raise TargetLayerError(f"layer {site.name!r} {times} in a forward; name a layer that is called once")
    return expected, seen[0]


def _cut_children(module: nn.Module, name: str, layer: nn.Module, inputs: Tensor) -> Cut | None:
    children = dict(module.named_children())
    if name not in children:
        return None
    at = list(children).index(name) + 1
    before, after = list(children.values())[:at], list(children.values())[at:]

    def features(x: Tensor) -> tuple[Any, tuple[Any, ...]]:
        return _chain(before, x), ()

    return Cut("children", features, lambda x: _chain(after, x))


def _chain(children: list[nn.Module], x: Any) -> Any:
    for child in children:
        x = child(x)
    return x


def _cut_forward_features(module: nn.Module, name: str, layer: nn.Module, inputs: Tensor) -> Cut | None:
    features, head = getattr(module, "forward_features", None), getattr(module, "forward_head", None)
    if not (callable(features) and callable(head)):
        return None
    return Cut("forward_features", lambda x: (features(x), ()), head)


def _cut_graph(module: nn.Module, name: str, layer: nn.Module, inputs: Tensor) -> Cut:
    return Cut("fx", *cut_graph(module, layer, inputs, sizes=False))


def _cut_sized_graph(module: nn.Module, name: str, layer: nn.Module, inputs: Tensor) -> Cut:
    return Cut("fx with sizes", *cut_graph(module, layer, inputs, sizes=True))


def _agree(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of another order of the same operations."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    # What is not finite is compared by itself, and refused where scores are read.
    scale = float(b.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) if b.numel() else 0.0
    step = torch.finfo(b.dtype).eps if b.is_floating_point() else 0.0
    return bool(torch.allclose(a.detach(), b.detach(), rtol=16 * step, atol=16 * step * scale, equal_nan=True))


def _agree_nested(a: Any, b: Any) -> bool:
    left, right = list(tensors_in(a)), list(tensors_in(b))
    return len(left) == len(right) > 0 and all(_agree(x, y) for x, y in zip(left, right, strict=True))
