"""The methods of `cam.gradient_methods` as their papers write them: one image, one number at a time, float64.

Nothing here is fast, and nothing is shared with what it is compared with. One image is (C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Doubles = npt.NDArray[np.float64]
Head = Callable[[Tensor], Tensor]


def grad_cam_plus_plus_of(head: Head, activations: Tensor) -> Doubles:
    """Chattopadhay et al., 2018, eq. 7 and 10, for Y = exp(S), with derivatives by autograd and no closed form.

    Args:
        head: activations (1, C, h, w) → the score S, a scalar.
        activations: (C, h, w).

    Returns:
        The raw CAM (h, w), with the factor exp(S) that belongs to the derivative of Y.
    """
    channels, h, w = activations.shape
    a = activations.double().clone().requires_grad_()
    y = head(a[None]).exp()
    (first,) = torch.autograd.grad(y, a, create_graph=True)
    values, raw = a.tolist(), np.zeros((h, w))
    for k in range(channels):
        total = sum(values[k][i][j] for i in range(h) for j in range(w))
        weight = 0.0
        for i in range(h):
            for j in range(w):
                (row,) = torch.autograd.grad(first[k, i, j], a, create_graph=True)
                second = row[k, i, j]
                (row,) = torch.autograd.grad(second, a, retain_graph=True)
                third = row[k, i, j]
                below = 2 * second.item() + total * third.item()
                alpha = second.item() / below if second.item() != 0 else 0.0
                weight += alpha * max(first[k, i, j].item(), 0.0)
        for i in range(h):
            for j in range(w):
                raw[i, j] += weight * values[k][i][j]
    return raw


def grad_cam_plus_plus_closed(activations: Tensor, gradients: Tensor) -> Doubles:
    """Chattopadhay et al., 2018, eq. 7 and 19: squares and cubes, as printed."""
    a, g = activations.double().tolist(), gradients.double().tolist()
    channels, h, w = activations.shape
    raw = np.zeros((h, w))
    for k in range(channels):
        total = sum(a[k][i][j] for i in range(h) for j in range(w))
        weight = 0.0
        for i in range(h):
            for j in range(w):
                d = g[k][i][j]
                if d != 0:
                    weight += d**2 / (2 * d**2 + total * d**3) * max(d, 0.0)
        for i in range(h):
            for j in range(w):
                raw[i, j] += weight * a[k][i][j]
    return raw


def xgrad_cam_of(activations: Tensor, gradients: Tensor) -> Doubles:
    """Fu et al., 2020: α_k = Σ_xy F_k(x, y) / (Σ_xy F_k) · ∂S/∂F_k(x, y); 0 where the sum is."""
    f, g = activations.double().tolist(), gradients.double().tolist()
    channels, h, w = activations.shape
    raw = np.zeros((h, w))
    for k in range(channels):
        total = sum(f[k][x][y] for x in range(h) for y in range(w))
        alpha = 0.0 if total == 0 else sum(f[k][x][y] / total * g[k][x][y] for x in range(h) for y in range(w))
        for x in range(h):
            for y in range(w):
                raw[x, y] += alpha * f[k][x][y]
    return raw


def layer_cam_of(activations: Tensor, gradients: Tensor) -> Doubles:
    """Jiang et al., 2021: w = relu(g), Â = w · A, M = Σ_k Â_k, before the last ReLU."""
    a, g = activations.double().tolist(), gradients.double().tolist()
    channels, h, w = activations.shape
    raw = np.zeros((h, w))
    for k in range(channels):
        for i in range(h):
            for j in range(w):
                weight = g[k][i][j] if g[k][i][j] > 0 else 0.0
                raw[i, j] += weight * a[k][i][j]
    return raw


def eigen_cam_of(activations: Tensor) -> Doubles:
    """Muhammad & Yeasin, 2020: O = UΣVᵀ of the (hw, C) matrix, L = O V_1; the sign makes the sum of L positive."""
    matrix = matrix_of(activations)
    projected = matrix @ np.linalg.svd(matrix)[2][0]
    return grid_of(projected if projected.sum() >= 0 else -projected, activations)


def eigen_grad_cam_of(activations: Tensor, gradients: Tensor) -> Doubles:
    """The same of A·G; the sign makes the inner product with Σ_k A_k G_k positive."""
    matrix = matrix_of(activations.double() * gradients.double())
    projected = matrix @ np.linalg.svd(matrix)[2][0]
    return grid_of(projected if projected @ matrix.sum(axis=1) >= 0 else -projected, activations)


def matrix_of(values: Tensor) -> Doubles:
    """(C, h, w) → (hw, C), a row for each cell."""
    channels, h, w = values.shape
    matrix = np.zeros((h * w, channels))
    for k in range(channels):
        for i in range(h):
            for j in range(w):
                matrix[i * w + j, k] = float(values[k, i, j])
    return matrix


def grid_of(cells: Doubles, like: Tensor) -> Doubles:
    """(hw,) → (h, w)."""
    return cells.reshape(like.shape[1], like.shape[2])


def finer_score_of(logits: Sequence[float], c: int, alpha: float, references: int) -> float:
    """Zhang et al., CVPR 2025: 1/T Σ_d (y_c − α y_d) over the T classes with the nearest logits."""
    others = sorted((d for d in range(len(logits)) if d != c), key=lambda d: abs(logits[d] - logits[c]))
    chosen = others[:references]
    return sum(logits[c] - alpha * logits[d] for d in chosen) / len(chosen)
