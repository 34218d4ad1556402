"""CAM methods whose weights come from what happens to the score when something is taken away: pure functions.

Score-CAM shows the model the image through each channel's activation; Ablation-CAM lets the model go on without each
channel. What the forwards are is in `perturbed.py`, the registry in `methods.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pytest_gradcam.cam.views import View

# A channel that varies by no more than this many steps of its type, as a share of its largest value, is constant.
STEPS = 8.0
# A score that moves by no more than this many steps of its type has not moved.
UNMOVED = 4.0


def masked_channels(activations: Tensor) -> Tensor:
    """The channels of activations (C, h, w) that make a mask: those that are not constant, as indices (K,)."""
    flat = activations.flatten(1)
    most, least = flat.amax(dim=1), flat.amin(dim=1)
    step = torch.finfo(activations.dtype).eps
    return torch.nonzero(most - least > STEPS * step * torch.maximum(most.abs(), least.abs()))[:, 0]


def masks(activations: Tensor, size: tuple[int, int]) -> Tensor:
    """Activations (K, h, w), none constant, resized to (K, H, W) and scaled to [0, 1] (Wang et al., 2020, eq. 4, 5)."""
    resized = functional.interpolate(activations[None], size, mode="bilinear", align_corners=False)[0]
    least, most = resized.amin(dim=(1, 2), keepdim=True), resized.amax(dim=(1, 2), keepdim=True)
    return (resized - least) / (most - least)


def masked_inputs(activations: Tensor, image: Tensor, size: int) -> Iterator[Tensor]:
    """The image (1, C, H, W) under the mask of each channel of activations (K, h, w), `size` at a time."""
    height, width = int(image.shape[2]), int(image.shape[3])
    for start in range(0, len(activations), size):
        yield image * masks(activations[start : start + size], (height, width))[:, None].to(image.dtype)


def score_cam(activations: Tensor, channels: Tensor, scores: npt.NDArray[np.float64]) -> Tensor:
    """Channels weighted by the softmax of their masked image's score (Wang et al., 2020, eq. 6 to 8).

    The score of the black image, which the paper takes off each, is the same for all channels, and cancels in the
    softmax. A constant channel makes no mask and has no weight, as in the authors' code; in the paper, it is 0/0.

    Args:
        activations: (C, h, w).
        channels: (K,) indices of those that make a mask.
        scores: (K, M), of the image under the mask of each, for M classes.

    Returns:
        Raw CAMs (M, h, w), float64.
    """
    a = activations[channels].double().cpu()
    if len(a) == 0:
        return torch.zeros(scores.shape[1], *activations.shape[1:], dtype=torch.float64)
    weights = torch.softmax(torch.from_numpy(scores), dim=0)  # (K, M)
    return torch.einsum("km,khw->mhw", weights, a)


def ablation_cam(
    activations: Tensor,
    channels: Tensor,
    whole: npt.NDArray[np.float64],
    without: npt.NDArray[np.float64],
    step: float = 0.0,
) -> Tensor:
    """Channels weighted by how far the score falls without them (Ramaswamy & Desai, 2020, eq. 3, 5).

    The fall is `y - y_k`, in units of the score. The paper divides it by `y`, which changes nothing in the CAM of a
    positive score, and turns the map of a negative one inside out: what speaks for the class would have weights below
    zero.

    Args:
        activations: (C, h, w).
        channels: (K,) indices of those that were taken away; without the others, all zero, nothing changes.
        whole: (M,) scores with all channels, of M classes.
        without: (K, M) scores without each.
        step: relative step of the type that they were computed in; of a score that moved by no more, nothing is said.

    Returns:
        Raw CAMs (M, h, w), float64.
    """
    falls = whole - without  # (K, M)
    size = np.maximum(np.abs(whole), np.abs(without))
    falls[np.abs(falls) <= UNMOVED * step * size] = 0.0
    return torch.einsum("km,khw->mhw", torch.from_numpy(falls), activations[channels].double().cpu())


def owners(view: View, output: Tensor) -> Tensor:
    """For each element of a layer's output (1, …), the channel that it belongs to under a view; -1 for no cell's."""
    places = view(torch.arange(output.numel()).view(output.shape))[0]  # (C, h, w)
    owner = torch.full((output.numel(),), -1)
    owner[places.flatten()] = torch.arange(len(places)).repeat_interleave(places[0].numel())
    return owner.view(output.shape).to(output.device)


def ablated(output: Tensor, owner: Tensor, channels: Tensor) -> Tensor:
    """Copies of a layer's output (1 or B, …), each with one channel set to zero in all cells; channel -2 is none.

    Args:
        output: of one image, or of B equal ones.
        owner: (1, …), see `owners`.
        channels: (B,).
    """
    which = channels.to(owner.device).view(-1, *[1] * (owner.ndim - 1))
    return torch.where(owner == which, torch.zeros((), dtype=output.dtype, device=output.device), output)
