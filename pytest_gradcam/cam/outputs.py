"""The tensors in what a layer returns: read in order, and put back changed.

Containers are those that torch itself knows how to take apart (`torch.utils._pytree`, which `torch.export` and
`torch.func` rest on, and in which transformers registers its outputs). What it does not know holds no tensors for us.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def tensors_of(output: Any) -> tuple[Tensor, ...]:
    """The floating tensors in a layer's output, in order."""
    if isinstance(output, Tensor):
        return (output,) if output.is_floating_point() else ()
    return tuple(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point())


def with_tensors(output: Any, changed: Mapping[int, Tensor]) -> Any:
    """The same output with other tensors in some of the places that `tensors_of` counts, from 0."""
    if isinstance(output, Tensor):
        return changed.get(0, output)
    leaves, spec = pytree.tree_flatten(output)
    place = 0
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            leaves[i] = changed.get(place, leaf)
            place += 1
    return pytree.tree_unflatten(leaves, spec)


def copied(tensor: Tensor) -> Tensor:
    """A copy that holds its own memory in the same layout, a function of the original where autograd is on."""
    return tensor.clone(memory_format=torch.preserve_format)
