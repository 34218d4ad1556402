"""Images made into model input, with what the model saw of them.

The transform is chosen and called in `transforms`, and followed in `probes`; pictures are loaded in `pictures`. This
module knows tensors, and carries a region from the image frame into the input frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pytest_gradcam.errors import ImageError, ImageTypeError, NonFiniteError, RegionError, TransformError
from pytest_gradcam.geometry import carry_through, geometric_steps
from pytest_gradcam.pictures import load, shown
from pytest_gradcam.probes import Probe, carry, probe
from pytest_gradcam.regions import Region
from pytest_gradcam.transforms import Transform, call, declared_config, declared_transform, model_input, name

_LEAST_CARRIED = 0.5  # pixels of the input frame
_DECLARED_SLACK = 0.05  # how far un-normalised values may leave [0, 1], as resizing in floats overshoots


Look: TypeAlias = Callable[[], npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image made ready for a model.

    Attributes:
        tensor: (1, C, H, W), floating and finite: model input, where the transform left it or as the user gave it.
        look: makes `seen`, what the model saw; called when somebody looks.
        frame: (height, width) of the image frame.
        transform: from the image frame to the input frame; None where the image was a tensor and the frames are one.
        picture: uint8 (height, width, 3), upright RGB, in the image frame; None where the image was a tensor.
        probe: how the transform answers black and white pictures of this size; None where it could not be told.
    """

    tensor: torch.Tensor
    look: Look
    frame: tuple[int, int]
    transform: Transform | None
    picture: npt.NDArray[np.uint8] | None = None
    probe: Probe | None = None

    @property
    def seen(self) -> npt.NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB, what the model saw, in the input frame."""
        return self.look()


def prepare(image: object, *, model: object = None, transform: Transform | None = None) -> Prepared:
    """An image made into model input.

    Args:
        image: path, `PIL.Image` or uint8 array (H, W, 3) or (H, W), which the transform gets as an upright RGB
            `PIL.Image`; or a float tensor (C, H, W) or (1, C, H, W) that already is model input.
        model: asked for the transform it declares (timm's `pretrained_cfg`) where none is given.
        transform: callable from a `PIL.Image` to a tensor (C, H, W) or (1, C, H, W).

    Raises:
        ImageError: the image cannot be read, has transparency, or is of a kind that is not served.
        TransformError: the transform is missing, random, given for a tensor, or does not give model input.
        NonFiniteError: NaN or infinity in a tensor.
    """
    if transform is not None and not callable(transform):
        raise TransformError(
            f"the transform is {shown(transform)}: it must be a callable from a PIL image to a tensor, or None for "
            "the one that the model declares"
        )
    if isinstance(image, torch.Tensor):
        if transform is not None:
            raise TransformError(
                f"the image is a tensor of shape {tuple(image.shape)}, which is model input already, and the transform "
                f"{name(transform)} was given with it: pass the picture (path, PIL image or uint8 array) with the "
                "transform, or the tensor without"
            )
        tensor = _model_input(image)
        look = partial(_seen_of_tensor, tensor[0], declared_config(model))
        return Prepared(tensor, look, (tensor.shape[2], tensor.shape[3]), None)
    rgb = load(image)
    chosen = declared_transform(model) if transform is None else transform
    tensor = model_input(chosen, Image.fromarray(rgb))
    height, width = rgb.shape[:2]
    try:
        between = probe(chosen, height, width)
    except Exception:  # a map needs no probe; `carry_region`, which does, tries again and lets the error out
        return Prepared(tensor[None], partial(_seen_of_tensor, tensor, None), (height, width), chosen, rgb)
    look = partial(np.asarray, _seen_through(tensor, between))
    return Prepared(tensor[None], look, (height, width), chosen, rgb, between)


@dataclass(slots=True, eq=False)
class Held:
    """What the pictures of a batch are drawn from: the user's tensor while the model runs, then a copy of it.

    A copy from the start would lie in memory beside the one that the model runs on.

    Attributes:
        tensor: (N, C, H, W).
    """

    tensor: torch.Tensor

    def keep(self) -> None:
        """Copy, so that what the user does to the tensor afterwards changes no picture."""
        self.tensor = _own(self.tensor)


def prepare_batch(images: torch.Tensor, *, model: object = None) -> tuple[Held, list[Look]]:
    """A batch of tensors checked to be model input, and what makes the picture of each.

    Raises:
        ImageError: they are no model input.
        NonFiniteError: NaN or infinity in one of them.
    """
    if images.ndim != 4:
        raise ImageError(f"the batch has shape {tuple(images.shape)}: pass (N, C, H, W), or a list of images")
    if len(images) == 0:
        raise ImageError("there are no images: the batch is empty")
    _model_input(images[:1])  # what is wrong with the kind of all is said of the first
    held = Held(images.detach().as_subclass(torch.Tensor))
    for index, image in enumerate(held.tensor):
        _refuse_non_finite(image[None], f"image {index} of the batch, of shape {tuple(image.shape)},")
    config = declared_config(model)
    return held, [partial(_seen_of_held, held, index, config) for index in range(len(images))]


def prepare_trusting(rgb: npt.NDArray[np.uint8], transform: Transform) -> Prepared:
    """What `prepare` gives, for a transform whose steps are known: it is called once, and not seen to be random.

    Args:
        rgb: uint8 (H, W, 3), as `load` gives it.
        transform: one of which `geometric_steps` knows all steps.

    Raises:
        TransformError: the transform gives no finite float tensor.
    """
    tensor = call(transform, Image.fromarray(rgb))
    return Prepared(tensor[None], partial(_seen_of_tensor, tensor, None), (rgb.shape[0], rgb.shape[1]), transform, rgb)


def carry_region(region: Region, prepared: Prepared) -> npt.NDArray[np.float32]:
    """The region in the input frame, float32 (H, W) in [0, 1]: the share of each pixel that it covers.

    Args:
        region: in pixels of the image frame.
        prepared: what `prepare` made of the image.

    Raises:
        RegionError: the region does not fit the image, or the transform crops it away.
        TransformError: the transform is random, or where it puts a pixel depends on the rest of the picture.
    """
    height, width = prepared.frame
    coverage = region.rasterise(height, width)
    if prepared.transform is None:
        return coverage
    steps = geometric_steps(prepared.transform)
    if steps is not None:
        carried = carry_through(steps, coverage)
        _refuse_lost(region, carried, prepared)
        return carried
    assert prepared.picture is not None  # `prepare` keeps it beside a transform: without it nothing could be carried
    answer = prepared.tensor[0].cpu().double().numpy()
    carried = carry(prepared.transform, coverage, prepared.picture, answer, prepared.probe)
    _refuse_lost(region, carried, prepared)
    return carried


def _refuse_lost(region: Region, carried: npt.NDArray[np.float32], prepared: Prepared) -> None:
    """Refuse a region of which the model sees next to nothing."""
    left = float(carried.sum())
    if left < _LEAST_CARRIED:
        height, width = prepared.frame
        rows, columns = carried.shape
        raise RegionError(
            f"{region} is cropped away: the transform {name(prepared.transform)} leaves {left:.2g} pixels of it in the "
            f"{columns}×{rows} that the model sees of the {width}×{height} image. Use a region that the model sees, or "
            "a transform that does not crop it away or shrink it to nothing"
        )


def _model_input(image: torch.Tensor) -> torch.Tensor:
    """A user's tensor, (1, C, H, W), checked, and no longer sharing memory with the user's."""
    shape = tuple(image.shape)
    seen = f"a tensor of shape {shape} and dtype {str(image.dtype).removeprefix('torch.')}"
    wanted = "model input is a float tensor (C, H, W) or (1, C, H, W)"
    if not image.is_floating_point():
        raise ImageTypeError(
            f"{seen} is no model input: {wanted}; pass a picture of bytes as an array, image.permute(1, 2, 0).numpy(), "
            "and it goes through the transform"
        )
    if image.layout != torch.strided or image.is_meta:
        kind = "without data (meta)" if image.is_meta else f"of layout {str(image.layout).removeprefix('torch.')}"
        raise ImageTypeError(f"{seen} is {kind}: {wanted}, dense and with values; pass image.to_dense() or real data")
    if image.ndim == 2:
        raise ImageError(f"{seen} has no channels: {wanted}; pass image[None]")
    if image.ndim == 4 and image.shape[0] > 1:
        raise ImageError(f"{seen} holds {shape[0]} images: {wanted}; pass image[0], or all of them to explain_batch")
    if image.ndim not in (3, 4):
        raise ImageError(f"{seen} has {image.ndim} dimensions: {wanted}")
    if image.numel() == 0:
        raise ImageError(f"{seen} has no pixels: {wanted}, none of them 0")
    if shape[-1] == 3 and min(shape[-3:-1]) >= 16:
        raise ImageError(f"{seen} has its channels last: {wanted}; pass image.permute(2, 0, 1)")
    tensor = _own(image)
    tensor = tensor if tensor.ndim == 4 else tensor[None]
    _refuse_non_finite(tensor, seen)
    return tensor


def _own(image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(False):  # a clone made here can be differentiated through, wherever we were called
        return image.detach().as_subclass(torch.Tensor).clone()


def _refuse_non_finite(tensor: torch.Tensor, seen: str) -> None:
    # NaN and infinity survive a sum, which is cheaper than a mask; only a sum that overflowed needs the mask.
    if math.isfinite(float(tensor.sum(dtype=torch.float32))):
        return
    odd = ~torch.isfinite(tensor)
    if odd.any():
        _, channel, row, column = odd.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{seen} is not finite in {int(odd.sum())} of its {tensor.numel()} values, the first "
            f"{float(tensor[0, channel, row, column])} at channel {channel}, row {row}, column {column}: look for a "
            "division by zero or an overflow in what made it"
        )


def _seen_of_tensor(tensor: torch.Tensor, config: Mapping[str, Any] | None) -> npt.NDArray[np.uint8]:
    """What a model input (C, H, W) looks like, by the model's mean and std where it declares them and they fit."""
    values = tensor.cpu().double().numpy()
    if config is not None and len(config["mean"]) == len(config["std"]) == len(values):
        natural = values * np.array(config["std"])[:, None, None] + np.array(config["mean"])[:, None, None]
        if natural.min() >= -_DECLARED_SLACK and natural.max() <= 1.0 + _DECLARED_SLACK:
            return _rgb(natural)
    lowest, highest = values.min(), values.max()
    if lowest < 0.0 or highest > 1.0:
        values = (values - lowest) / (highest - lowest) if highest > lowest else np.full_like(values, 0.5)
    return _rgb(values)


def _seen_through(tensor: torch.Tensor, between: Probe) -> npt.NDArray[np.uint8]:
    """What a model input (C, H, W) shows of the picture, between what black and white became."""
    if between.black.shape != tensor.shape:
        return _seen_of_tensor(tensor, None)
    return _rgb(between.quotient(tensor.cpu().double().numpy()))


def _seen_of_held(held: Held, index: int, config: Mapping[str, Any] | None) -> npt.NDArray[np.uint8]:
    return _seen_of_tensor(held.tensor[index], config)


def _rgb(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Values (C, H, W) in [0, 1] as a picture (H, W, 3): three channels as they are, else their mean as grey."""
    planes = values if len(values) == 3 else np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
    return np.ascontiguousarray(np.rint(np.clip(planes, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(1, 2, 0))
