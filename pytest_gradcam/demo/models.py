"""The demo's two classifiers: the same architecture, trained by `fixtures/train_demo.py`, shipped as safetensors.

`honest` was trained where the object names the class and the stamp is random, `shortcut` the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import load
from torch import nn

from pytest_gradcam.demo.pictures import LABELS, SIZE

Name = Literal["honest", "shortcut"]
NAMES: tuple[Name, ...] = ("honest", "shortcut")
WEIGHTS = files("pytest_gradcam.demo") / "weights"


def build() -> nn.Module:
    """The untrained architecture: timm's `test_resnet` on a 12×12 grid, for (N, 3, 96, 96) inputs and 4 classes."""
    model: nn.Module = timm.create_model(
        "test_resnet",
        num_classes=len(LABELS),
        output_stride=8,
        pretrained_cfg_overlay={"input_size": (3, SIZE, SIZE), "crop_pct": 1.0, "label_names": list(LABELS)},
    )
    return model


def load_model(name: Name) -> nn.Module:
    """The trained model `name`, in eval mode, float32 on the CPU.

    Raises:
        FileNotFoundError: the weights are not in the package.
    """
    stored = load((WEIGHTS / f"{name}.safetensors").read_bytes())
    model = build()
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in stored.items()})
    return model.eval()


def inputs(images: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
    """Model input (N, 3, 96, 96) in [-1, 1] from pictures, uint8 (96, 96, 3) each."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return batch.float() / 127.5 - 1.0


def predict(model: nn.Module, images: Sequence[npt.NDArray[np.uint8]]) -> list[int]:
    """The class of each picture, uint8 (96, 96, 3) each."""
    with torch.inference_mode():
        logits: torch.Tensor = model(inputs(images))
    return logits.argmax(dim=1).tolist()
