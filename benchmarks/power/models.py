"""The benchmark's architectures, small enough to train hundreds of; all take (N, 3, 48, 48) and give 4 logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmarks.power.pictures import CLASSES, SIZE, Picture

Architecture = Literal["cnn", "vit", "flat"]
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
# Contrast of the object: so faint that every architecture finds the patch easier, and learns the object all the same.
CONTRAST: dict[Architecture, float] = {"cnn": 22.0, "vit": 55.0, "flat": 22.0}


class ConvNet(nn.Module):
    """Four stages of convolution, BatchNorm and ReLU onto a 6×6 grid; then global average pooling or a flat head.

    Args:
        is_flat: whether the head reads every cell for itself, as in networks before global average pooling.
    """

    def __init__(self, is_flat: bool = False) -> None:
        super().__init__()
        widths, strides = (16, 32, 48, 64), (2, 1, 2, 2)
        stages, channels = [], 3
        for width, stride in zip(widths, strides, strict=True):
            stages += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Identity() if is_flat else nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels * (36 if is_flat else 1), CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.stages(images)).flatten(1))
        return logits


def build(architecture: Architecture, seed: int) -> nn.Module:
    """An untrained model, its weights drawn from the seed."""
    torch.manual_seed(seed)
    if architecture == "vit":
        return VisionTransformer(
            img_size=SIZE,
            patch_size=4,
            embed_dim=32,
            depth=4,
            num_heads=2,
            mlp_ratio=2.0,
            qk_norm=True,  # learns in a third of the steps
            patch_drop_rate=0.5,  # in training only: halves its time, and no token is indispensable
            num_classes=CLASSES,
        )
    return ConvNet(is_flat=architecture == "flat")


def inputs(pictures: Sequence[Picture]) -> Tensor:
    """Model input, (N, 3, 48, 48), normalised."""
    batch = torch.from_numpy(np.stack([picture.image for picture in pictures])).permute(0, 3, 1, 2).float() / 255.0
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return (batch - mean) / std
