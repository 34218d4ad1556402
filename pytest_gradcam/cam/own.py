"""A method of the user's own: any callable (model, inputs, target) → map, behind our images, checks and assertions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_gradcam.cam.captured import labels_for
from pytest_gradcam.cam.forwards import facts_of_image
from pytest_gradcam.cam.found import Found
from pytest_gradcam.cam.randomness import RandomStates
from pytest_gradcam.cam.raw import FLOAT32_MAX
from pytest_gradcam.cam.running import Run
from pytest_gradcam.cam.scores import ClassLike, classes_of
from pytest_gradcam.cam.views import MIN_CELLS
from pytest_gradcam.errors import ModelTypeError, NonFiniteError, SettingsError

OWN = "its own"
SEED = 0


def of_image(run: Run, classes: Sequence[ClassLike] | None) -> Found:
    """The maps that the user's method makes of one image, for these classes; of all classes for None.

    The method gets the model in eval mode, a copy of the input (1, C, H, W), and the class index, or the callable that
    was given for one. The global random generators are seeded for it and put back, so that two maps of one image are
    one.

    Raises:
        ModelTypeError: the model is a pair (features, head).
        NonFiniteError: the map is NaN or infinite.
        SettingsError: what the method gives is no map.
    """
    method = cast("Callable[..., Any]", run.options.method)
    if run.pair is not None:
        raise ModelTypeError("a pair (features, head) is for the methods of ours: pass the whole model to your own")
    with torch.no_grad():
        output = run.forward(run.inputs)
    labels = labels_for(run, output)
    asked = classes_of(output, classes, labels)
    name = name_of(method)
    size = (int(run.inputs.shape[2]), int(run.inputs.shape[3]))
    raws = []
    for target in asked:
        with _seeded(run.device), torch.enable_grad():
            raws.append(as_map(method(run.module, run.inputs.clone(), target), name, size))
    if len({raw.shape for raw in raws}) > 1:
        raise SettingsError(f"method {name} gives maps of different sizes for the classes of one image")
    return Found(np.stack(raws), facts_of_image(output, asked), OWN, name, labels, OWN)


def name_of(method: object) -> str:
    """The name of the user's method: its own, or that of its type."""
    return str(getattr(method, "__name__", type(method).__name__))


def as_map(value: object, name: str, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """What a method gave as a raw CAM (h, w) of its own memory.

    Raises:
        NonFiniteError: it is NaN or infinite.
        SettingsError: it is no map of an input of this size.
    """
    wanted = f"give a map (h, w) of numbers, no larger than the input, {size[0]}×{size[1]}"
    if not isinstance(value, Tensor | np.ndarray):
        raise SettingsError(f"method {name} gave a {type(value).__name__}: {wanted}, as a tensor or array")
    held = value.detach().cpu() if isinstance(value, Tensor) else value
    if isinstance(held, Tensor):
        held = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    if held.dtype.kind not in "fiub":
        raise SettingsError(f"method {name} gave {held.dtype}: {wanted}")
    shape = held.shape
    while held.ndim > 2 and held.shape[0] == 1:
        held = held[0]
    if held.ndim != 2 or held.shape[0] > size[0] or held.shape[1] > size[1] or held.size < MIN_CELLS:
        few = f" and at least {MIN_CELLS} cells" if held.ndim == 2 and held.size < MIN_CELLS else ""
        raise SettingsError(f"method {name} gave the shape {shape}: {wanted}{few}")
    raw = held.astype(np.float64)
    if not (np.abs(raw) <= FLOAT32_MAX).all():
        raise NonFiniteError(f"method {name} gave a map with NaN or infinity in it: no verdict can rest on it")
    return raw


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    states = RandomStates(device)
    try:
        torch.default_generator.manual_seed(SEED)
        if device.type == "cuda":
            torch.cuda.manual_seed(SEED)
        np.random.seed(SEED)
        random.seed(SEED)
        yield
    finally:
        states.restore()
