"""Activations and gradients by plain torch hooks, and what a raw CAM has of a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.power.pictures import SIZE, Box
from pytest_gradcam.metrics import calibrated_energy

Raws: TypeAlias = npt.NDArray[np.float64]  # (N, h, w)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers that a map is read from: the last convolution's output; of a transformer, `norm1` of every block."""
    if hasattr(model, "blocks"):
        return [block.norm1 for block in model.blocks]  # type: ignore[union-attr]  # timm: modules as tensors
    return [model.stages]  # type: ignore[list-item]  # as above


def grids(model: nn.Module, images: Tensor, classes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Activations and gradients of each image's class logit, (N, C, h, w) each, for each layer."""
    kept: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda module, arguments, output: kept.append(output)) for layer in layers_of(model)
    ]
    try:
        logits = model(images.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    score = logits.gather(1, torch.tensor(list(classes))[:, None]).sum()
    gradients = torch.autograd.grad(score, kept)
    if not hasattr(model, "blocks"):
        return [(a.detach(), g) for a, g in zip(kept, gradients, strict=True)]
    side = int((kept[0].shape[1] - 1) ** 0.5)

    def grid(tokens: Tensor) -> Tensor:
        return tokens.detach()[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)

    return [(grid(a), grid(g)) for a, g in zip(kept, gradients, strict=True)]


def fused(model: nn.Module, images: Tensor, target: int, blocks: int | None = None) -> npt.NDArray[np.float64]:
    """A method for the package: HiResCAM, the mean over blocks of what speaks for the class there, (h, w)."""
    raws = [(a * g).sum(dim=1)[0].double().numpy() for a, g in grids(model, images, [target])][:blocks]
    mean: npt.NDArray[np.float64] = np.mean([np.maximum(raw, 0.0) for raw in raws], axis=0)
    return mean


def value(raw: npt.NDArray[np.float64], box: Box) -> float:
    """Calibrated energy of one raw CAM (h, w) in a box; NaN where there is no evidence."""
    positive = np.maximum(raw, 0.0)
    if not positive.max() > 0:
        return float("nan")
    cam = cv2.resize(positive / positive.max(), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    mask = np.zeros((SIZE, SIZE))
    mask[box[1] : box[3], box[0] : box[2]] = 1.0
    return calibrated_energy(cam, mask, (raw.shape[0], raw.shape[1]))
