"""A small vision transformer, and LeGrad of it as the paper has it: each block's score by hand, number by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import explain
from tests.models import Floats, seeded

SIZE, GRID, CELLS = (32, 48), (4, 6), 24
GAIN = 1.5
WIDTH, HEADS, DEPTH, CLASSES = 16, 2, 3, 5
EQUAL = 1e-5


def attend(x: Tensor, qkv: nn.Linear, out: nn.Linear, probabilities: Callable[[Tensor], Tensor]) -> Tensor:
    """Self-attention of tokens (N, T, C), written out; `probabilities` makes them of the scaled products."""
    q, k, v = qkv(x).view(len(x), -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
    a = probabilities(q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS))
    found: Tensor = out((a @ v).transpose(1, 2).reshape(x.shape))
    return found


class Block(nn.Module):
    """A pre-norm block; attention by `how`."""

    def __init__(self, how: str = "explicit") -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.how = how

    def attention(self, x: Tensor) -> Tensor:
        if self.how != "fused":
            return attend(x, self.qkv, self.out, lambda logits: logits.softmax(dim=-1))
        q, k, v = self.qkv(x).view(len(x), -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape))
        return found

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "in place":
            x *= GAIN
        x = x + self.attention(self.norm1(x))
        found: Tensor = x + self.mlp(self.norm2(x))
        return found


class ViT(nn.Module):
    """A vision transformer of three blocks, whose head reads a class token or the mean of all tokens."""

    def __init__(self, readout: str = "class token", how: str = "explicit", depth: int = DEPTH) -> None:
        super().__init__()
        self.readout = readout
        self.patch = nn.Conv2d(3, WIDTH, 8, 8)
        prefix = readout == "class token"
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.place = nn.Parameter(torch.zeros(1, CELLS + prefix, WIDTH))
        self.blocks = nn.ModuleList([Block(how) for _ in range(depth)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        seeded(self)

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        if self.readout == "class token":
            patches = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1)
        tokens: Tensor = patches + self.place
        return tokens

    def tail(self, z: Tensor) -> Tensor:
        z = self.norm(z)
        found: Tensor = self.head(z[:, 0] if self.readout == "class token" else z.mean(1))
        return found

    def forward(self, x: Tensor) -> Tensor:
        z = self.tokens(x)
        for block in self.blocks:
            z = block(z)
        return self.tail(z)


def legrad_of(model: ViT, x: Tensor, score: int | Callable[[Tensor], Tensor], blocks: range | None = None) -> Floats:
    """Bousselham et al., 2024, section 3, of one image (1, C, H, W) → (h, w), number by number."""
    z, layers = model.tokens(x), []
    for module in model.blocks:
        assert isinstance(module, Block)
        kept: list[Tensor] = []

        def keep(logits: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(logits.softmax(-1))  # A^l, (1, heads, T, T)
            return kept[0]

        z = z * GAIN if module.how == "in place" else z
        z = z + attend(module.norm1(z), module.qkv, module.out, keep)
        z = z + module.mlp(module.norm2(z))  # Z^l
        logits = model.tail(z)
        s = score(logits) if callable(score) else logits[0, score]  # s^l
        (gradient,) = torch.autograd.grad(s, kept[0], retain_graph=True)
        _, heads, queries, keys = gradient.shape
        e = np.zeros(keys)
        for head in range(heads):
            for i in range(queries):
                for j in range(keys):
                    e[j] += max(float(gradient[0, head, i, j]), 0.0) / (heads * queries)
        layers.append(e)
    chosen = range(len(layers)) if blocks is None else blocks
    mean = np.mean([layers[i] for i in chosen], axis=0)
    return np.asarray(mean[-CELLS:].reshape(GRID))


def raw_of(model: nn.Module, x: Tensor, cls: Any = None, **keywords: Any) -> Floats:
    return explain(model, x, cls, method="legrad", **keywords).raw
