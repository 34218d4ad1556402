"""Small models whose maps are known, and the maps themselves written out as the papers have them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Floats = npt.NDArray[np.floating]


def picture(height: int = 64, width: int = 64, channels: int = 3, count: int = 1, seed: int = 1) -> Tensor:
    """Model input with something in it: smooth noise in [0, 1], (count, channels, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 6, 6, generator=generator)
    fine = torch.rand(count, channels, height, width, generator=generator)
    return 0.7 * functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine


def small(
    *, classes: int = 4, channels: int = 3, inplace: bool = False, functional_end: bool = False, seed: int = 0
) -> nn.Sequential:
    """Two strided convolutions, batch norm with statistics of its own, global average pooling, a linear head.

    Layers: conv1, bn, relu1, conv2, relu2 (where `functional_end` is false), pool, flat, fc; the grid is a quarter.
    """
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(channels, 8, 3, stride=2, padding=1)),
        ("bn", nn.BatchNorm2d(8)),
        ("relu1", nn.ReLU(inplace)),
        ("conv2", nn.Conv2d(8, 12, 3, stride=2, padding=1)),
        ("relu2", nn.ReLU(inplace)),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()),
        ("fc", nn.Linear(12, classes)),
    ]
    model = nn.Sequential(OrderedDict(layer for layer in layers if not (functional_end and layer[0] == "relu2")))
    seeded(model, seed)
    return model


def seeded(model: Any, seed: int = 0) -> Any:
    """The same model with weights and batch statistics drawn from a generator of its own, in eval mode.

    Batch norm with fresh statistics would shrink a deep model's activations to nothing: they are drawn too.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim > 1:
                    spread = (2.0 / parameter[0].numel()) ** 0.5
                    parameter.normal_(0.0, spread, generator=generator)
                elif "norm" in type(module).__name__.lower() and name == "weight":
                    parameter.uniform_(0.7, 1.3, generator=generator)
                else:
                    parameter.normal_(0.0, 0.1, generator=generator)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.1, generator=generator)
                module.running_var.uniform_(0.7, 1.3, generator=generator)
    return model.eval()


def calibrated(model: Any, inputs: Tensor) -> Any:
    """The same model with the batch norm statistics of these inputs, in eval mode: activations keep their size."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the plain mean of the batches
    model.train()
    with torch.random.fork_rng(), torch.no_grad():
        model(inputs)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def reads_colours(*, factor: float = 1.0, side: int = 8, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Class 0 reads what is red, class 1 what is blue, class 2 nothing; one cell for each `side` × `side` pixels.

    The activations are the mean red and blue of each cell, so the Grad-CAM of class 0 is proportional to the mean red.
    """
    reads = nn.Conv2d(3, 2, 1, bias=False, dtype=dtype)
    head = nn.Linear(2, 3, bias=False, dtype=dtype)
    with torch.no_grad():
        reads.weight.zero_()
        reads.weight[0, 0] = reads.weight[1, 2] = 1.0
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=dtype) * factor)
    layers = OrderedDict(
        shrink=nn.AvgPool2d(side), reads=reads, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=head
    )
    return nn.Sequential(layers).eval()


def coloured(*squares: tuple[int, tuple[int, int, int, int]], height: int = 64, width: int = 64) -> Tensor:
    """A black picture with boxes (channel, (x0, y0, x1, y1)) at full value, (1, 3, height, width)."""
    x = torch.zeros(1, 3, height, width)
    for channel, (x0, y0, x1, y1) in squares:
        x[0, channel, y0:y1, x0:x1] = 1.0
    return x


class TwoHeads(nn.Module):
    """Two branches with a convolution each behind one trunk; the output is (logits of a, logits of b)."""

    def __init__(self, *, joined: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.branch_a = nn.Conv2d(8, 6, 3, padding=1)
        self.branch_b = nn.Conv2d(8, 6, 3, padding=1)
        self.head_a = nn.Linear(6, 3)
        self.head_b = nn.Linear(6, 3)
        self.joined = joined
        seeded(self)

    def forward(self, x: Tensor) -> Any:
        trunk = self.trunk(x).relu()
        a = self.head_a(self.branch_a(trunk).relu().mean((2, 3)))
        b = self.head_b(self.branch_b(trunk).relu().mean((2, 3)))
        return torch.cat([a, b], dim=1) if self.joined else (a, b)


def reference(
    model: nn.Module, inputs: Tensor, layer: str, score: int | Callable[[Any], Tensor]
) -> tuple[Tensor, Tensor]:
    """Output of a layer and d(score)/d(output), from one plain forward and backward of a copy of the model.

    What follows the layer gets a copy of its output, so that in-place operations leave the activations as they are.
    """
    model = copy.deepcopy(model).eval()
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = output if isinstance(output, Tensor) else output[0]
        tensor.retain_grad()
        kept.append(tensor)
        return tensor.clone() if isinstance(output, Tensor) else type(output)([tensor.clone(), *output[1:]])

    model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        output = model(inputs.detach().clone().requires_grad_().clone())
        value = score(output) if callable(score) else output[0, score]
        value.backward()
    (activations,) = kept
    assert activations.grad is not None
    return activations.detach(), activations.grad


def grad_cam_of(activations: Tensor, gradients: Tensor) -> Floats:
    """Selvaraju et al., 2017, eq. 1 and 2 without the ReLU, of one image, (1, C, h, w) → (h, w): channel by channel."""
    _, channels, h, w = activations.shape
    raw = np.zeros((h, w))
    for k in range(channels):
        alpha = gradients[0, k].double().sum().item() / (h * w)
        raw += alpha * activations[0, k].double().numpy()
    return raw


def hirescam_of(activations: Tensor, gradients: Tensor) -> Floats:
    """Draelos & Carin, 2020, eq. 8, of one image, (1, C, h, w) → (h, w)."""
    _, channels, h, w = activations.shape
    raw = np.zeros((h, w))
    for k in range(channels):
        raw += gradients[0, k].double().numpy() * activations[0, k].double().numpy()
    return raw


def cam_of(raw: Floats, height: int, width: int) -> Floats:
    """ReLU, division by the maximum, bilinear resizing, as torch does it, (h, w) → (height, width)."""
    positive = torch.from_numpy(np.asarray(raw, np.float64)).clamp(min=0)[None, None]
    resized = functional.interpolate(
        positive / positive.max(), (height, width), mode="bilinear", align_corners=False, antialias=False
    )
    return resized[0, 0].numpy()


def apart(a: Floats, b: Floats) -> float:
    """Largest difference, as a share of the largest magnitude in `b`."""
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())
