"""Small worlds for the tests of audits: models that read a colour, pictures with coloured squares, data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors

from pytest_gradcam.audit.report import AuditReport
from pytest_gradcam.audit.run import audit

SIDE = 64
BOX = 24


def reader(first: int = 0) -> nn.Sequential:
    """Class 0 reads one colour, class 1 another, on a grid of 8×8; the third channel belongs to nobody.

    Args:
        first: channel that class 0 reads; class 1 reads the next.
    """
    reads = nn.Conv2d(3, 2, 1, bias=False)
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        reads.weight.zero_()
        reads.weight[0, first] = reads.weight[1, (first + 1) % 3] = 1.0
        head.weight.copy_(torch.eye(2))
    return nn.Sequential(nn.AvgPool2d(8), reads, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


@dataclass(frozen=True)
class Scene:
    """Squares of two colours: each class's object is its own.

    Attributes:
        boxes: for each class that is asked for, (x0, y0) of its box, of 24×24 pixels.
        hidden: whether the colours lie elsewhere than the boxes say.
    """

    boxes: dict[int, tuple[int, int]]
    hidden: bool = False

    def image(self) -> Tensor:
        """Float (3, 64, 64)."""
        x = torch.zeros(3, SIDE, SIDE)
        for cls, (left, top) in self.boxes.items():
            if self.hidden:
                left, top = (left + 20) % (SIDE - BOX + 1), (top + 20) % (SIDE - BOX + 1)
            x[cls, top : top + BOX, left : left + BOX] = 1.0
        return x


class Scenes(Dataset[Any]):
    """Scenes in torchvision's v2 convention; `about` is added to every target."""

    def __init__(self, scenes: Sequence[Scene], about: Callable[[int], dict[str, Any]] | None = None) -> None:
        self.scenes = list(scenes)
        self.about = about

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        scene = self.scenes[index]
        boxes = [[left, top, left + BOX, top + BOX] for left, top in scene.boxes.values()]
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(boxes).reshape(-1, 4), format="XYXY", canvas_size=(SIDE, SIDE)
            ),
            "labels": torch.tensor([*scene.boxes], dtype=torch.int64),
        }
        return scene.image(), target | ({} if self.about is None else self.about(index))


def scenes(count: int, hidden: float = 0.0, seed: int = 0) -> list[Scene]:
    """One object each, of both classes in turn, all different; of some the colour lies elsewhere.

    Args:
        count: how many; of more than 1,600 some would be the same.
        hidden: which share is hidden.
        seed: of the places.
    """
    places = np.random.default_rng(seed).permutation(40 * 40)[:count]
    return [
        Scene({i % 2: (int(place) // 40, int(place) % 40)}, hidden=i < round(hidden * count))
        for i, place in enumerate(places)
    ]


def audited(dataset: Any, out: Any, **keywords: Any) -> AuditReport:
    """An audit of the reader of red and green."""
    return audit(keywords.pop("model", None) or reader(), dataset, out=out, progress=False, **keywords)
