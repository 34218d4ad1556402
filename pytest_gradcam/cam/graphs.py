"""Cutting a model's `torch.fx` graph at a layer: tracing, and the two graphs on either side of the layer.

Only the modules around the layer are taken apart; all others are called as they are, whatever they do inside.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.fx.proxy import TraceError
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_gradcam.cam.untouched import Inventory, _Attributes

# What these say of a tensor, its shape says; what others say that is no tensor may depend on its values.
_OF_SHAPE: frozenset[object] = frozenset(
    {
        *("size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "element_size", "get_device"),
        *("is_floating_point", "is_complex", "__len__"),
        *(torch.is_floating_point, torch.is_complex, torch.numel, len),
    }
)


def cut_graph(
    module: nn.Module, layer: nn.Module, inputs: Tensor, *, sizes: bool
) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule, dict[nn.Module, nn.Module]]:
    """Features, inputs → (the layer's output, other values that the head needs), and head, those → output.

    And for modules around the layer, which a graph does not call, what it calls with their outputs in their place.

    Args:
        module: the model, left untouched.
        layer: where it is cut.
        inputs: (N, C, H, W).
        sizes: whether the forward may ask for sizes, and go one way or another by them. The graph is then one for
            inputs of this shape; else it is one for any, of a model that does not ask.

    Raises:
        Exception: of as many kinds as there are models that cannot be traced.
    """
    tracer = _Tracer(layer, inputs if sizes else None)
    attributes = _Attributes(Inventory.of(module))
    try:
        with torch.enable_grad():
            graph = tracer.trace(_Whole(module))
    finally:
        attributes.restore()  # a forward may keep what it computed, here nodes of a graph, for its next call
    nodes = [node for node in graph.nodes if node.op != "output"]
    called = [node for node in nodes if node.op == "call_module" and tracer.root.get_submodule(node.target) is layer]
    if len(called) != 1:
        raise TraceError(f"the layer is {len(called)} times in the graph")
    (target,) = called
    at = nodes.index(target) + 1
    before, after = nodes[:at], nodes[at:]
    (result,) = (node for node in graph.nodes if node.op == "output")
    later = {used for node in (*after, result) for used in node.all_input_nodes}
    live = [node for node in before if node in later and node is not target]

    features = torch.fx.Graph()
    first: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in before:
        first[node] = features.node_copy(node, first.__getitem__)
    features.output((first[target], tuple(first[node] for node in live)))

    head = torch.fx.Graph()
    second = {node: head.placeholder(f"value_{index}") for index, node in enumerate((target, *live))}
    for node in after:
        second[node] = head.node_copy(node, second.__getitem__)
    head.output(torch.fx.map_arg(result.args[0], second.__getitem__))
    return torch.fx.GraphModule(tracer.root, features), torch.fx.GraphModule(tracer.root, head), tracer.ends


class _Whole(nn.Module):
    """The model as it is called, with what its forward has by default; constants of the graph are kept here."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model.forward(x)  # the user's hooks of the whole may read values, and a graph has none


class _Tracer(torch.fx.Tracer):
    """Traces what is around the layer; given inputs, with the values that there are."""

    def __init__(self, layer: nn.Module, inputs: Tensor | None) -> None:
        super().__init__()
        self._layer = layer
        self._inputs = inputs
        self._is_computing = False
        self._is_behind = False
        self.ends: dict[nn.Module, nn.Module] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is self._layer or all(each is not self._layer for each in m.modules())

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._is_computing:
            return forward(*args, **kwargs)
        found = super().call_module(m, forward, args, kwargs)
        if m is self._layer:
            self._is_behind = True
            torch.set_grad_enabled(True)  # for the rest of the forward, as the hooks engine does
        elif self._is_behind and isinstance(found, torch.fx.Proxy) and any(each is self._layer for each in m.modules()):
            self.ends[m], name = nn.Identity(), f"end_{len(self.ends)}"
            self.root.add_module(name, self.ends[m])
            return self.create_proxy("call_module", name, (found,), {})
        return found

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._is_computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> torch.fx.Node:
        if self._is_behind and kind.startswith("call") and not torch.is_grad_enabled():
            raise TraceError("a part of the forward that follows runs without autograd, which no graph holds")
        return super().create_node(kind, *args, **kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if self._inputs is None:
            return proxy
        value = self._value(kind, target, args, kwargs)
        if value is None:
            return None
        if target in _OF_SHAPE and kind in ("call_method", "call_function"):
            return value
        found = _Known(proxy.node, self, value)
        if type(value) in (tuple, list):
            return type(value)(found[i] for i in range(len(value)))
        return {key: found[key] for key in value} if type(value) is dict else found

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        assert self._inputs is not None
        if kind == "placeholder":
            return self._inputs.clone()  # a forward may write to its input
        args, kwargs = map_aggregate(args, _value_of), map_aggregate(kwargs, _value_of)
        with self._computing(), torch.no_grad():
            if kind == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
            if kind == "get_attr":
                return operator.attrgetter(target)(self.root)
            with _FixedShapes():  # type: ignore[no-untyped-call]  # torch's own lack of types
                return (
                    target(*args, **kwargs)
                    if kind == "call_function"
                    else getattr(args[0], target)(*args[1:], **kwargs)
                )

    @contextmanager
    def _computing(self) -> Iterator[None]:
        self._is_computing = True
        try:
            yield
        finally:
            self._is_computing = False


class _Known(torch.fx.Proxy):
    """A value of the graph beside the one that it has for the inputs: what is asked of its structure is answered."""

    def __init__(self, node: torch.fx.Node, tracer: _Tracer, value: Any) -> None:
        super().__init__(node, tracer)
        self.value = value

    def __getattr__(self, name: str) -> Any:
        held = getattr(self.value, name)
        if isinstance(held, Tensor) or not (isinstance(self.value, Tensor) or held is None or callable(held)):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        if callable(held):
            return lambda *args, **kwargs: self.tracer.create_proxy("call_method", name, (self, *args), kwargs)
        return held  # what a tensor says of itself

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, key: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.getitem, (self, key), {})

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self.value))])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


def _value_of(argument: Any) -> Any:
    return argument.value if isinstance(argument, _Known) else argument


class _FixedShapes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own lack of types
    """Refuses what gives another shape for other values of the same shape: the graph would hold one of them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.dynamic_output_shape in func.tags:
            raise TraceError(f"{func} gives a shape that depends on the values")
        return func(*args, **(kwargs or {}))
