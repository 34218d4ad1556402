"""Stacks of blocks: whether a later grid of tokens has the tokens of an earlier one at their places.

In a trained transformer every token depends on all of the image, and no probe by the image tells where it belongs. But
a block adds to a token what it has seen, and the token stays: of the earlier grid, it depends most on itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pytest_gradcam.cam.views import View

# How many cells are asked; which share of them must depend most on themselves, or on one other alone: of blocks that
# permute their tokens, those do that stay by chance.
CELLS = 9
LEAST = 0.75


def keeps_places(later: Tensor, earlier: Tensor, view: View) -> bool:
    """Whether cells of a grid depend on the cell at their own place in an earlier grid more than on nearly any other.

    Args:
        later: a layer's output for one image, a node of the graph.
        earlier: that of a layer before it, of the same shape.
        view: how both are grids.
    """
    if not (later.requires_grad and earlier.requires_grad):
        return False
    cells = view(later)  # (1, C, h, w)
    weights = torch.randn(cells.shape[1], generator=torch.Generator().manual_seed(0)).to(cells)
    places = torch.linspace(0, view.cells - 1, min(CELLS, view.cells)).round().long().tolist()
    take: Callable[..., tuple[Tensor | None, ...]] = torch.autograd.grad
    at_home = 0
    for place in places:
        root = (cells.flatten(2)[0, :, place] * weights).sum()
        (found,) = take(root, earlier, retain_graph=True, allow_unused=True)
        if found is None:
            return False
        mass = view(found).abs().sum(dim=1).flatten()
        at_home += int((mass >= mass[place]).sum()) <= 2  # itself, and one other
    return at_home >= LEAST * len(places)
