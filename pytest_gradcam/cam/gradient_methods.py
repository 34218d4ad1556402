"""CAM methods beyond Grad-CAM and HiResCAM that need no more than activations and gradients: pure functions.

Each takes `activations` and `gradients` as float (N, C, h, w) after the spatial view and returns the raw CAM,
(N, h, w), before ReLU and unnormalised. Activations of one image serve gradients of many classes: there they are
(1, C, h, w). The registry is in `methods.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A sum of n terms counts as zero below this many times √n steps of its type, as a share of what was added up. Sums that
# are zero but for rounding were seen to reach 1.2 of those (mirrored channels) and 7.5 (after an instance norm, of
# inputs whose mean is ten times their spread).
STEPS = 16.0


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by Σ α ReLU(G), α by the second and third derivatives (Chattopadhay et al., 2018, eq. 7, 19).

    For Y = exp(S) as in the paper, α = G² / (2 G² + ΣA G³), which is 1 / (2 + G ΣA); the factor exp(S), the same for
    all weights, is left out. There is no epsilon. Where the sum of A is negative, α has a pole, and near it the map
    says nothing; in the pole itself, the cell is left out. After a ReLU there is none.
    """
    return _weighted(_plus_plus_parts(activations, gradients).sum(dim=(2, 3)), activations)


def grad_cam_plus_plus_terms(activations: Tensor, gradients: Tensor) -> Tensor:
    """The magnitudes that Grad-CAM++ adds up at each cell, (N, h, w), of signed activations."""
    return _weighted(_plus_plus_parts(activations, gradients).abs().sum(dim=(2, 3)), activations.abs())


def xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by the mean of their gradient with the activations as its weights (Fu et al., 2020).

    A channel whose activations add up to zero, or to no more than the rounding of that sum, has no such mean and gets
    weight 0: after a ReLU, this is a channel that is zero everywhere.
    """
    return _weighted(_share(activations, gradients, (activations * gradients).sum(dim=(2, 3))), activations)


def xgrad_cam_terms(activations: Tensor, gradients: Tensor) -> Tensor:
    """The magnitudes that XGrad-CAM adds up at each cell, (N, h, w), of signed activations."""
    added = (activations * gradients).abs().sum(dim=(2, 3))
    return _weighted(_share(activations, gradients, added).abs(), activations.abs())


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Activations weighted by the positive part of their gradient cell by cell (Jiang et al., 2021, eq. 5 to 7)."""
    return (activations * gradients.relu()).sum(dim=1)


def eigen_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Projection of each cell on the first right singular vector of the (hw, C) activations (Muhammad & Yeasin, 2020).

    Not centred, as in the paper. The same for all classes: of `gradients`, only the number is read. The sign is the one
    with which the map's sum is positive, and after a ReLU the map is nowhere negative; where the sum is only rounding,
    nothing tells the sign, and the map is zero.
    """
    projected, _ = _first_component(activations)
    raw = (projected * _sign_of_sum(projected)).view(-1, *activations.shape[2:])
    return raw.expand(gradients.shape[0], *activations.shape[2:])


def eigen_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Projection of each cell on the first right singular vector of the (hw, C) products A·G.

    Known from the package grad-cam, without a paper; not centred, as Eigen-CAM is not. The sign is the one with which
    the map agrees with HiResCAM, so that a negated score negates it; where neither agrees by more than rounding, the
    map is zero.
    """
    projected, direction = _first_component(activations * gradients)
    # ⟨Mv, M1⟩ = vᵀMᵀM1 = σ² Σv: the sum of the direction has the sign of the inner product, at less rounding.
    return (projected * _sign_of_sum(direction)).view(-1, *activations.shape[2:])


def eigen_grad_cam_terms(activations: Tensor, gradients: Tensor) -> Tensor:
    """The norm of each cell's products, (N, h, w), which bounds their projection on any direction."""
    norms: Tensor = torch.linalg.vector_norm(activations * gradients, dim=1)
    return norms


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """Σ_k w_k A_k for weights (N, C) → (N, h, w)."""
    if activations.shape[0] == 1:  # one image: a single matrix product, also for many classes
        return (weights @ activations[0].flatten(1)).view(-1, *activations.shape[2:])
    return torch.einsum("nc,nchw->nhw", weights, activations)


def _plus_plus_parts(activations: Tensor, gradients: Tensor) -> Tensor:
    """α ReLU(G), (N, C, h, w): squares and cubes, which a small gradient does not survive in float32, are cancelled."""
    positive = gradients.relu()
    below = 2 + positive * activations.sum(dim=(2, 3), keepdim=True)
    return torch.where(below == 0, 0.0, positive / below)


def _share(activations: Tensor, gradients: Tensor, added: Tensor) -> Tensor:
    """What was added up over each channel, (N, C), divided by the sum of its activations; 0 where that is none."""
    total, size = activations.sum(dim=(2, 3)), activations.abs().sum(dim=(2, 3))
    return torch.where(_is_rounding(total, size, gradients[0, 0].numel()), 0.0, added / total)


def _first_component(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, C, h, w): the cells' projections (N, hw) on the first right singular vector (N, C), its sign arbitrary.

    NaN for an image with values that are not finite.
    """
    cells = values.flatten(2).mT  # (N, hw, C)
    size = cells.abs().amax(dim=(1, 2), keepdim=True)
    usable = size.isfinite() & (size > 0)
    # Divided by its maximum, no square of it is too large or too small.
    scaled = torch.where(usable, cells / torch.where(usable, size, 1.0), 0.0)
    count, channels = scaled.shape[1:]
    by_cells = count <= channels
    # The smaller of the two Gram matrices has all that is needed, and is the same, bit for bit, for the negated values.
    # The CPU in float64 has an eigensolver on every machine: https://github.com/pytorch/pytorch/issues/77764
    gram = (scaled @ scaled.mT if by_cells else scaled.mT @ scaled).cpu().double()
    first = torch.linalg.eigh(gram).eigenvectors[..., -1:].to(scaled.dtype).to(scaled.device)
    direction = scaled.mT @ first if by_cells else first
    direction = direction / torch.where(usable, direction.norm(dim=1, keepdim=True), 1.0)
    return (scaled @ direction * size).squeeze(2), direction.squeeze(2)


def _sign_of_sum(terms: Tensor) -> Tensor:
    """1, -1, or 0 where the sum of a row, (N, n) → (N, 1), is only rounding."""
    total, size = terms.sum(dim=1, keepdim=True), terms.abs().sum(dim=1, keepdim=True)
    return torch.where(_is_rounding(total, size, terms.shape[1]), 0.0, total.sign())


def _is_rounding(total: Tensor, size: Tensor, count: int) -> Tensor:
    """Whether a sum of this many terms is no more than the rounding of it; `size` is the sum of their magnitudes."""
    limits: Tensor = STEPS * math.sqrt(count) * torch.finfo(total.dtype).eps * size
    return total.abs() <= limits
