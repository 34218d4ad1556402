"""The transform a model wants, and calling any transform safely.

A transform is any callable from an RGB `PIL.Image` to a tensor. It is called on copies, and the states of the global
random generators are as they were afterwards. Where the pixels go in it is the business of `probes`; nothing here opens
files or knows regions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import math
import re
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from pytest_gradcam.cam.randomness import RandomStates
from pytest_gradcam.errors import TransformError

Transform: TypeAlias = Callable[[Image.Image], object]

_FIRST_CALLS = 8  # a coin that falls the same way 8 times does so once in 128 pictures
_LATER_CALLS = 2
_STRONG_REFERENCES = 32


# The transform a model declares


def declared_config(model: object) -> Mapping[str, Any] | None:
    """What timm's `pretrained_cfg` says about the model's input; None where the model declares nothing.

    Wrapped models (compiled, `DataParallel`, DDP) are unwrapped; of a (features, head) pair, the features are asked.
    """
    declaring = _declaring(model)
    return None if declaring is None else declaring[1]


def _declaring(model: object) -> tuple[torch.nn.Module, Mapping[str, Any]] | None:
    """The module that carries the declaration, and the declaration."""
    core = model[0] if isinstance(model, (tuple, list)) and model else model
    while isinstance(core, torch.nn.Module):
        config = getattr(core, "pretrained_cfg", None)
        if is_dataclass(config) and not isinstance(config, type):
            config = asdict(config)
        if isinstance(config, Mapping) and all(config.get(key) for key in ("input_size", "mean", "std")):
            return core, config
        wrapped = getattr(core, "_orig_mod", None)
        core = getattr(core, "module", None) if wrapped is None else wrapped
    return None


def declared_transform(model: object) -> Transform:
    """The evaluation transform that the model declares.

    Raises:
        TransformError: the model declares none, or one for a number of channels that no picture has.
    """
    declaring = _declaring(model)
    if declaring is None:
        who = "no model was given" if model is None else f"{_class_name(model)} does not declare its transform"
        raise TransformError(
            f"{who}, so a picture cannot be made into its input: pass transform=…, a callable from a PIL image to a "
            "tensor (torchvision: transform=weights.transforms(); timm: transform=timm.data.create_transform("
            "**timm.data.resolve_model_data_config(model))), or pass a float tensor (C, H, W) that already is model "
            "input"
        )
    core, config = declaring
    channels, height, width = _input_size(core, config)
    if channels not in (1, 3):
        raise TransformError(
            f"{_class_name(model)} takes {channels} channels, and a picture has 3 (or 1 as grey): pass transform=…, "
            f"a callable from a PIL image to a tensor ({channels}, H, W), or pass a float tensor that already is model "
            "input"
        )
    return _timm_transform(
        (channels, height, width),
        _for_channels(config["mean"], channels),
        _for_channels(config["std"], channels),
        config.get("interpolation"),
        config.get("crop_pct"),
        config.get("crop_mode"),
    )


def _input_size(core: torch.nn.Module, config: Mapping[str, Any]) -> tuple[int, int, int]:
    """The declaration says what the weights were made for; `in_chans` and `img_size` may have built another model."""
    channels, height, width = config["input_size"]
    first = config.get("first_conv")
    if isinstance(first, str):
        with contextlib.suppress(AttributeError):  # a cut model may have lost its first layer
            built = getattr(core.get_submodule(first), "in_channels", channels)
            blocks = built / channels  # TResNet folds blocks of 4×4 pixels into channels before its first layer
            channels = channels if math.sqrt(blocks).is_integer() else built
    size = getattr(getattr(core, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple) and len(size) == 2:
        height, width = size
    return int(channels), int(height), int(width)


def _for_channels(values: Any, channels: int) -> tuple[float, ...]:
    """Their average where the model was built for another number of channels, as timm's loaders do."""
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Grey:
    """The transform of a model with one input channel: timm's steps keep the channels that they are given."""

    steps: Callable[[Image.Image], object]

    def __call__(self, picture: Image.Image) -> object:
        return self.steps(picture.convert("L"))


@functools.lru_cache(maxsize=32)  # one object for one declaration, so that it is examined for randomness only once
def _timm_transform(
    size: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    interpolation: str | None,
    crop_pct: float | None,
    crop_mode: str | None,
) -> Transform:
    timm_data: Any = importlib.import_module("timm.data")  # slow, and needed only here
    declared: dict[str, Any] = {"input_size": size, "mean": mean, "std": std}
    declared |= {"interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": crop_mode}
    settings = timm_data.resolve_data_config(pretrained_cfg=declared)  # fills what is not declared with timm's defaults
    steps: Transform = timm_data.create_transform(**settings, is_training=False)
    return _Grey(steps) if size[0] == 1 else steps


# Calling a transform


def model_input(transform: Transform, picture: Image.Image) -> torch.Tensor:
    """What the transform makes of a picture, (C, H, W), checked to be finite and always the same.

    The picture is pushed through twice. A transform seen for the first time is called 8 times before, on noise of the
    picture's size, in which a flip or another crop cannot hide as it can in an even picture; on the picture where it
    cannot serve noise. The answers are compared bit by bit.

    Raises:
        TransformError: it is random, or gives no finite float tensor (C, H, W) or (1, C, H, W).
    """
    if not _known.holds(transform):
        closely = _noise(picture.width, picture.height)
        try:
            first = call(transform, closely)
        except Exception:  # as a transform that looks for a face: what it raises for the picture itself counts
            closely = picture
            first = call(transform, closely)
        _compare(transform, closely, first, _FIRST_CALLS)
    first = call(transform, picture)
    _compare(transform, picture, first, _LATER_CALLS)
    _known.add(transform)
    return first


def _noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _compare(transform: Transform, picture: Image.Image, first: torch.Tensor, calls: int) -> None:
    for _ in range(1, calls):
        again = call(transform, picture)
        if (first.dtype, first.device) != (again.dtype, again.device) or not torch.equal(first, again):
            raise random_error(transform)


def random_error(transform: Transform) -> TransformError:
    """What is raised for a transform that answered the same picture differently."""
    return TransformError(
        f"the transform {name(transform)} is random: it answered the same picture differently when it was asked again. "
        "Pass the transform that the model is evaluated with, without augmentation"
    )


def call(transform: Transform, picture: Image.Image) -> torch.Tensor:
    """One call, on a copy of the picture, its output checked, (C, H, W); global random states are restored.

    Raises:
        TransformError: it draws from a global random generator, or gives no finite float tensor (C, H, W) or
            (1, C, H, W). What the transform itself raises passes through.
    """
    before = RandomStates()
    try:
        output = transform(picture.copy())
    finally:
        drawn = before.restore()
    if drawn:
        raise TransformError(
            f"the transform {name(transform)} is random: it draws random numbers from {' and '.join(drawn)}. Pass the "
            "transform that the model is evaluated with, without augmentation"
        )
    return _checked(output, transform)


def _checked(output: object, transform: Transform) -> torch.Tensor:
    wanted = "one picture must become a float tensor (C, H, W) or (1, C, H, W)"
    if not isinstance(output, torch.Tensor):
        gave = f"the transform {name(transform)} gave"
        hint = ""
        if isinstance(output, (Image.Image, np.ndarray)):
            hint = "; end it with torchvision's ToTensor(), or v2.ToImage() and v2.ToDtype(torch.float32, scale=True)"
        elif isinstance(output, Mapping):
            hint = f"; take the tensor from it, one of {', '.join(map(repr, output))}"
        raise TransformError(f"{gave} {_kind(output)}: {wanted}{hint}")
    if not output.is_floating_point():
        raise TransformError(
            f"{_gave(output, transform)}: {wanted}; v2.ToDtype(torch.float32, scale=True) makes bytes into floats"
        )
    if output.ndim not in (3, 4) or (output.ndim == 4 and output.shape[0] != 1) or output.numel() == 0:
        raise TransformError(f"{_gave(output, transform)}: {wanted}")
    with torch.inference_mode(False):  # a clone made here can be differentiated through, wherever we were called
        tensor = output.detach().as_subclass(torch.Tensor).clone()
    tensor = tensor[0] if tensor.ndim == 4 else tensor
    finite = torch.isfinite(tensor)
    if not finite.all():
        raise TransformError(
            f"{_gave(output, transform)}, of which {int((~finite).sum())} values are not finite: {wanted} without NaN "
            "or infinity; a division by the standard deviation of an even picture is the usual cause"
        )
    return tensor


def _gave(output: torch.Tensor, transform: Transform) -> str:
    dtype = str(output.dtype).removeprefix("torch.")
    return f"the transform {name(transform)} gave a tensor of shape {tuple(output.shape)} and dtype {dtype}"


def name(transform: object) -> str:
    """A transform in one line of a message."""
    text = getattr(transform, "__qualname__", None) or " ".join(repr(transform).split())
    return text if len(text) <= 120 else f"{text[:117]}…"


def describe(transform: object) -> str:
    """A transform's name, and a digest of how it shows itself, the same in every process; two may share it."""
    called = getattr(transform, "__qualname__", None) or type(transform).__name__
    shown = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(transform))
    return f"{called[:60]}~{hashlib.sha256(shown.encode('utf-8', 'replace')).hexdigest()[:12]}"


class _Known:
    """Transforms that have been examined, known by identity; it keeps alive only those that cannot be weakly held."""

    def __init__(self) -> None:
        self._weak: dict[int, weakref.ref[Any]] = {}
        self._strong: OrderedDict[int, object] = OrderedDict()

    def holds(self, transform: object) -> bool:
        reference = self._weak.get(id(transform))
        return (reference is not None and reference() is transform) or self._strong.get(id(transform)) is transform

    def add(self, transform: object) -> None:
        key = id(transform)
        try:
            self._weak[key] = weakref.ref(transform, functools.partial(self._forget, key))
        except TypeError:  # no weak references to it, as to objects with slots
            self._strong[key] = transform
            self._strong.move_to_end(key)
            while len(self._strong) > _STRONG_REFERENCES:
                self._strong.popitem(last=False)

    def _forget(self, key: int, reference: weakref.ref[Any]) -> None:
        if self._weak.get(key) is reference:
            del self._weak[key]


_known = _Known()


def _class_name(model: object) -> str:
    return f"({', '.join(map(_class_name, model))})" if isinstance(model, (tuple, list)) else type(model).__name__


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape} and dtype {value.dtype}"
    return "nothing (None)" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"
