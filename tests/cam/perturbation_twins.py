"""Score-CAM, Ablation-CAM, occlusion and RISE as their papers write them: one forward at a time, loops, float64.

Nothing here is fast, and nothing is shared with what it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Doubles = npt.NDArray[np.float64]
Score = Callable[[Any], Tensor]


def output_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What a layer gives for an image."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, i, output: kept.append(output.detach().clone()))
    with torch.no_grad():
        model(x.clone())
    handle.remove()
    return kept[0]


def score_of(model: nn.Module, x: Tensor, score: Score) -> float:
    with torch.no_grad():
        return float(score(model(x.clone())))


def enlarged(a: Doubles, height: int, width: int) -> Doubles:
    """Bilinear with pixel centres at half steps, edges repeated; pixel by pixel."""
    h, w = a.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0.0), h - 1.0)
            x = min(max((j + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            y0, x0 = math.floor(y), math.floor(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = a[y0, x0] * (1 - (x - x0)) + a[y0, x1] * (x - x0)
            bottom = a[y1, x0] * (1 - (x - x0)) + a[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def score_cam_of(model: nn.Module, x: Tensor, activations: Tensor, score: Score) -> Doubles:
    """Wang et al., 2020, eq. 4 to 8, with the black image's score taken off; constant channels, 0/0 there, left out."""
    height, width = x.shape[2:]
    black = score_of(model, torch.zeros_like(x), score)
    increases: dict[int, float] = {}
    for k, channel in enumerate(activations.double().numpy()):
        if channel.max() == channel.min():
            continue
        mask = enlarged(channel, height, width)
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        increases[k] = score_of(model, x * torch.from_numpy(mask).to(x.dtype), score) - black
    total = sum(math.exp(value) for value in increases.values())
    raw = np.zeros(activations.shape[1:])
    for k, value in increases.items():
        raw += math.exp(value) / total * activations[k].double().numpy()
    return raw


def ablation_cam_of(
    model: nn.Module, x: Tensor, layer: str, activations: Tensor, without: Callable[[Tensor, int], Tensor], score: Score
) -> Doubles:
    """Ramaswamy & Desai, 2020, eq. 3 and 5, without the division by the score.

    Args:
        model: the model.
        x: (1, C, H, W).
        layer: the target layer's name.
        activations: (C, h, w).
        without: (output of the layer, k) → the output without channel k.
        score: output → scalar.
    """
    whole = score_of(model, x, score)
    raw = np.zeros(activations.shape[1:])
    for k in range(len(activations)):

        def ablate(_module: Any, _inputs: Any, output: Tensor, k: int = k) -> Tensor:
            return without(output.clone(), k)

        handle = model.get_submodule(layer).register_forward_hook(ablate)
        raw += (whole - score_of(model, x, score)) * activations[k].double().numpy()
        handle.remove()
    return raw


def occlusion_of(model: Callable[[Tensor], Any], x: Tensor, score: Score, cell: int, window: int) -> Doubles:
    """Zeiler & Fergus, 2014, 4.2: for each cell of so many pixels, the mean fall over the windows that cover it."""
    height, width = x.shape[2] // cell, x.shape[3] // cell

    def value(image: Tensor) -> float:
        with torch.no_grad():
            return float(score(model(image)))

    whole = value(x.clone())
    fill = [float(np.mean(channel)) for channel in x[0].double().numpy()]
    falls: dict[tuple[int, int], float] = {}
    for top in range(height - window + 1):
        for left in range(width - window + 1):
            image = x.clone()
            for c, colour in enumerate(fill):
                for i in range(top * cell, (top + window) * cell):
                    for j in range(left * cell, (left + window) * cell):
                        image[0, c, i, j] = colour
            falls[top, left] = whole - value(image)
    raw = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            over = [fall for (y, z), fall in falls.items() if y <= i < y + window and z <= j < z + window]
            raw[i, j] = sum(over) / len(over)
    return raw


def rise_of(masks: Doubles, scores: list[float]) -> Doubles:
    """The slope of the score by each cell of masks (N, h, w): covariance over variance, cell by cell."""
    count, h, w = masks.shape
    middle = sum(scores) / count
    raw = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            mean = sum(mask[i, j] for mask in masks) / count
            covariance = sum((mask[i, j] - mean) * (s - middle) for mask, s in zip(masks, scores, strict=True))
            raw[i, j] = covariance / sum((mask[i, j] - mean) ** 2 for mask in masks)
    return raw
