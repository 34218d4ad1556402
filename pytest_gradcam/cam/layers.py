"""The target layer as a value, and the names of layers. Finding it is the business of `search.py`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from torch import nn

from pytest_gradcam.cam.capture import Site
from pytest_gradcam.cam.locality import Places
from pytest_gradcam.cam.views import View
from pytest_gradcam.errors import TargetLayerError


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One grid in a layer's output.

    Attributes:
        place: which of the tensors of the output it is, as `outputs.tensors_of` counts.
        view: how it is a grid.
        shape: of the tensor for one image, without the batch.
        proof: on which places of the image its cells depend; None where none of those asked depends on any.
        is_scale_free: whether what follows takes no notice of the scale of a cell, as a norm of each token does not:
            then the gradient is at right angles to the activations, and HiResCAM is zero but for rounding.
        is_uneven: whether what follows reads the same channel differently at different places, as a head on flattened
            cells does, and a mean over the grid does not.
    """

    place: int
    view: View
    shape: tuple[int, ...]
    proof: Places | None
    is_scale_free: bool = False
    is_uneven: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The layer that a map is read from.

    Attributes:
        name: dotted name.
        module: the layer.
        parts: the grids of its output on which the score depends: one, or those of several branches and scales.
        norms: the batch norms that are called after it.
    """

    name: str
    module: nn.Module
    parts: tuple[Part, ...]
    norms: tuple[nn.Module, ...]

    @property
    def site(self) -> Site:
        """Where the model is cut."""
        return Site(self.name, self.module, tuple(part.place for part in self.parts), self.norms)

    @property
    def view(self) -> str:
        """How its output is read, for a person."""
        return " and ".join(str(part.view) for part in self.parts)


def name_of(module: nn.Module, layer: str | nn.Module) -> str:
    """The dotted name of a layer that the user gives, by name or as the module.

    Raises:
        TargetLayerError: the model has no such layer.
    """
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
    hint = f"; did you mean {', '.join(map(repr, close))}?" if close else f"; its children are {children_of(module)}"
    raise TargetLayerError(f"{type(module).__name__} has no layer {layer!r}{hint}")


def children_of(module: nn.Module) -> str:
    """The names of a model's children, for messages."""
    return ", ".join(repr(name) for name, _ in module.named_children()) or "none"


def are_alike(name: str, other: str) -> bool:
    """Whether two dotted names differ in the number of one of their parts: `blocks.3.norm1` and `blocks.11.norm1`."""
    parts, others = name.split("."), other.split(".")
    if len(parts) != len(others):
        return False
    differ = [(a, b) for a, b in zip(parts, others, strict=True) if a != b]
    return len(differ) == 1 and re.sub(r"\d+", "#", differ[0][0]) == re.sub(r"\d+", "#", differ[0][1])
