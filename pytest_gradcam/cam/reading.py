"""How what follows a grid reads it, told from the activations and the gradient of the score there.

Which method `auto` takes rests on it.
"""

from __future__ import annotations

from torch import Tensor

from pytest_gradcam.cam.views import View

# Share that is left of products of activations and gradients when they are added up over channels: of rounding up to
# 1e-5 was seen, of anything else no less than 1e-3.
SCALE_FREE = 1e-4
# Above this ratio of a gradient's spread over the grid to its mean, the grid is read unevenly: behind a mean over the
# grid it is 0, behind flat heads 2 to 6 was seen, behind attention pools up to .04.
UNEVEN = 0.5


def is_scale_free(activations: Tensor, gradient: Tensor, view: View) -> bool:
    """Whether what follows takes no notice of the scale of a cell: then gradient and activations are at right angles.

    Args:
        activations: a layer's output for one image.
        gradient: of a score by it, of the same shape.
        view: how it is a grid.
    """
    if view.kind == "nchw":  # where channels may cancel each other for reasons of their own
        return False
    terms = view(activations.detach().float()) * view(gradient.float())  # (1, C, h, w)
    return float(terms.sum(dim=1).abs().sum()) < SCALE_FREE * float(terms.abs().sum())


def is_uneven(gradient: Tensor, view: View) -> bool:
    """Whether what follows reads a channel differently at different places, as a head on flattened cells does.

    Args:
        gradient: of a score by a layer's output for one image.
        view: how it is a grid.
    """
    g = view(gradient.float()).flatten(2)  # (1, C, cells)
    open_ = (
        g != 0
    ).float()  # a ReLU or a maximum that follows shuts cells off, and says nothing of what reads the rest
    count = open_.sum(dim=2, keepdim=True).clamp(min=1)
    mean = g.sum(dim=2, keepdim=True) / count
    spread = ((g - mean).square() * open_).sum(dim=2, keepdim=True) / count
    return bool(spread.sum().sqrt() > UNEVEN * mean.norm())
