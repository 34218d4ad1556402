"""SmallModel: a tiny convolutional net as a value, built from a seed, and the `SmallNet` that it builds.

What property tests explain. Drawing them at random is the business of `strategies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_gradcam.errors import SettingsError

HEADS = ("gap-linear", "gap-mlp", "flatten-linear", "flatten-mlp", "conv")
ACTIVATIONS = ("module", "module in-place", "functional", "functional in-place")
PaddingMode: TypeAlias = Literal["zeros", "circular"]
PADDING_MODES: tuple[PaddingMode, ...] = ("zeros", "circular")
# Hidden units of the heads that are MLPs.
HIDDEN = 6


@dataclass(frozen=True, slots=True)
class SmallModel:
    """A small net, as its traits and the seed of its weights: what is printed of it is enough to build it again.

    Attributes:
        seed: of weights, biases and BatchNorm statistics.
        size: (H, W) of the model input, in pixels.
        in_channels: of the model input.
        classes: number of classes.
        channels: of each stage; as many stages as there are numbers.
        kernel: side of the kernels, in pixels.
        stride: of every stage.
        padding: of every stage, on each side, in pixels.
        padding_mode: one of `PADDING_MODES`.
        symmetric: whether every kernel is its own left-right mirror image.
        bias: whether the convolutions have one.
        norm: whether BatchNorm follows each convolution, with statistics of its own.
        activation: how ReLU is called, one of `ACTIVATIONS`.
        head: one of `HEADS`; GAP is global average pooling, `conv` a 1×1 convolution followed by GAP.
        head_bias: whether the head's layers have one.

    Raises:
        SettingsError: an unknown head, activation or padding mode, a trait below 1 (padding: 0), or a grid that
            has fewer than 2×2 cells or more cells than the input has pixels.
    """

    seed: int = 0
    size: tuple[int, int] = (8, 8)
    in_channels: int = 3
    classes: int = 3
    channels: tuple[int, ...] = (4,)
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    padding_mode: PaddingMode = "zeros"
    symmetric: bool = False
    bias: bool = True
    norm: bool = False
    activation: str = "module"
    head: str = "gap-linear"
    head_bias: bool = True

    def __post_init__(self) -> None:
        named = ("head", self.head, HEADS), ("activation", self.activation, ACTIVATIONS)
        for trait, value, known in (*named, ("padding_mode", self.padding_mode, PADDING_MODES)):
            if value not in known:
                raise SettingsError(f"unknown {trait} {value!r} of a small model: known are {', '.join(known)}")
        least = {"in_channels": 1, "classes": 1, "kernel": 1, "stride": 1, "padding": 0}
        low = [f"{trait} is {getattr(self, trait)}" for trait, value in least.items() if getattr(self, trait) < value]
        if low or not self.channels or min(self.channels) < 1:
            seen = ", ".join(low) or f"channels is {self.channels}"
            raise SettingsError(f"{seen}: a small model needs 1 or more of each, and 0 or more of padding")
        if not self.fits(self.size, self.channels, self.kernel, self.stride, self.padding):
            h, w = self.grid
            raise SettingsError(
                f"{self} has a grid of {h}×{w}: at least 2×2 cells, and no more than the input has pixels, make a map. "
                "Mind size, kernel, stride, padding and the number of stages"
            )

    @staticmethod
    def fits(size: tuple[int, int], channels: Sequence[int], kernel: int, stride: int, padding: int) -> bool:
        """Whether every stage has at least 2×2 cells, and no more in height or width than the input has pixels."""
        sizes = _sizes(size, len(channels), kernel, stride, padding)
        return all(2 <= h <= size[0] and 2 <= w <= size[1] for h, w in sizes)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the last stage, in cells."""
        return self.sizes[-1]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the input and of each stage's output."""
        return _sizes(self.size, len(self.channels), self.kernel, self.stride, self.padding)

    @property
    def total_stride(self) -> int:
        """Pixels of the input from one cell to the next."""
        return int(self.stride ** len(self.channels))

    def build(self) -> SmallNet:
        """The net, new, float32 on the CPU, in eval mode; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):  # torch's layers draw weights, which are replaced
            net = SmallNet(self)
        _fill(net, self)
        return net.eval()


class SmallNet(nn.Module):
    """`stages` (convolution, BatchNorm, ReLU) and `head` (grid → logits), which is all that its forward calls.

    The target layer is `stages`, after the last ReLU; `stages.0.conv` and the like lie before one.
    """

    def __init__(self, spec: SmallModel) -> None:
        super().__init__()
        widths = (spec.in_channels, *spec.channels)
        self.stages = nn.Sequential(*[_Stage(spec, widths[i], widths[i + 1]) for i in range(len(spec.channels))])
        self.head = _head(spec)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        logits: Tensor = self.head(self.stages(x))
        return logits


class _Stage(nn.Module):
    def __init__(self, spec: SmallModel, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            before, after, spec.kernel, spec.stride, spec.padding, bias=spec.bias, padding_mode=spec.padding_mode
        )
        self.norm = nn.BatchNorm2d(after) if spec.norm else None
        self.in_place = spec.activation.endswith("in-place")
        self.relu = nn.ReLU(inplace=self.in_place) if spec.activation.startswith("module") else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.relu is not None:
            rectified: Tensor = self.relu(x)
            return rectified
        return x.relu_() if self.in_place else F.relu(x)


def _head(spec: SmallModel) -> nn.Sequential:
    channels, (h, w) = spec.channels[-1], spec.grid
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if spec.head == "conv":
        return nn.Sequential(nn.Conv2d(channels, spec.classes, 1, bias=spec.head_bias), *pool)
    pooling, readout = spec.head.split("-")
    start, width = (pool, channels) if pooling == "gap" else ([nn.Flatten()], channels * h * w)
    if readout == "linear":
        return nn.Sequential(*start, nn.Linear(width, spec.classes, bias=spec.head_bias))
    return nn.Sequential(
        *start,
        nn.Linear(width, HIDDEN, bias=spec.head_bias),
        nn.ReLU(),
        nn.Linear(HIDDEN, spec.classes, bias=spec.head_bias),
    )


def _sizes(size: tuple[int, int], stages: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int]]:
    found = [size]
    for _ in range(stages):
        h, w = ((side + 2 * padding - kernel) // stride + 1 for side in found[-1])
        found.append((h, w))
    return found


def _fill(net: SmallNet, spec: SmallModel) -> None:
    generator = torch.Generator().manual_seed(spec.seed)

    def normal(tensor: Tensor, deviation: float, mean: float = 0.0) -> None:
        tensor.normal_(mean, deviation, generator=generator)

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                normal(module.weight, (2.0 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    normal(module.bias, 0.1)
            elif isinstance(module, nn.BatchNorm2d):
                normal(module.weight, 0.2, mean=1.0)
                normal(module.bias, 0.2)
                if module.running_mean is not None and module.running_var is not None:
                    normal(module.running_mean, 0.2)
                    module.running_var.uniform_(0.5, 1.5, generator=generator)
        if spec.symmetric:
            for stage in net.stages.modules():
                if isinstance(stage, nn.Conv2d):
                    stage.weight.copy_((stage.weight + stage.weight.flip(3)) / 2)
