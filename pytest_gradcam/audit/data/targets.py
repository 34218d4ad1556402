"""What one image and its target say, in torchvision's convention: the picture, and what is asked of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image

from pytest_gradcam.audit.data.clipping import fitted_box
from pytest_gradcam.audit.data.gathering import Gathering
from pytest_gradcam.audit.data.pictures import about_of, frame_of, shown
from pytest_gradcam.audit.data.sample import NO_REGION, Asked, SampleError
from pytest_gradcam.errors import RegionError
from pytest_gradcam.shapes import Mask, Shape

Array: TypeAlias = npt.NDArray[Any]

_READ: Final = ("labels", "boxes", "masks", "iscrowd")
_EXIF: Final = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_CROWD: Final = "a crowd (iscrowd) is part of the region"
_IMAGES: Final = (
    "an image is a path, a PIL.Image, a uint8 tensor (3, H, W) or (1, H, W), a uint8 array (H, W, 3) or (H, W), or a "
    "float tensor (C, H, W) that already is model input"
)


def picture_of(image: object) -> tuple[object, tuple[int, int]]:
    """An image as samples have it, and its (height, width).

    Args:
        image: path, `PIL.Image`, uint8 tensor (1 or 3, H, W) or array (H, W, 3) or (H, W), or float tensor (C, H, W).

    Raises:
        SampleError: it is none of these, or the file cannot be opened.
    """
    if isinstance(image, torch.Tensor):
        return _picture_of_tensor(image.detach().as_subclass(torch.Tensor))
    if isinstance(image, Image.Image):
        return _as_it_is(image), (image.height, image.width)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise SampleError(f"the image is an array of shape {image.shape} and dtype {image.dtype}: {_IMAGES}")
        return image, (image.shape[0], image.shape[1])
    if isinstance(image, (str, os.PathLike)):
        path = Path(os.fsdecode(image))
        return path, frame_of(path).size
    raise SampleError(f"the image is {shown(image)} of type {type(image).__name__}: {_IMAGES}")


def _picture_of_tensor(image: torch.Tensor) -> tuple[object, tuple[int, int]]:
    seen = f"the image is a tensor of shape {tuple(image.shape)} and dtype {str(image.dtype).removeprefix('torch.')}"
    if image.ndim != 3 or 0 in image.shape:
        raise SampleError(f"{seen}: {_IMAGES}")
    if image.is_floating_point():
        return image, (image.shape[1], image.shape[2])
    if image.dtype != torch.uint8 or len(image) not in (1, 3):
        raise SampleError(f"{seen}: {_IMAGES}")
    array = np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0))
    return (array[..., 0] if len(image) == 1 else array), (image.shape[1], image.shape[2])


def _as_it_is(picture: Image.Image) -> Image.Image:
    """A picture that will not be turned by its EXIF orientation: torchvision's targets are for its pixels as they are.

    `Image.convert`, which torchvision's data sets call, keeps the orientation and does not turn.
    """
    if not any(name in picture.info for name in _EXIF):
        return picture
    try:
        if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return picture
        plain = picture.copy()
    except Exception as error:  # only PIL is at work here, and broken files make it raise a dozen kinds
        raise SampleError(f"the image cannot be decoded: {error}") from error
    for name in _EXIF:
        plain.info.pop(name, None)
    return plain


def target_of(target: object, frame: tuple[int, int]) -> tuple[tuple[Asked, ...], dict[str, str]]:
    """What a target asks for, and what slices can be made of.

    Args:
        target: a mapping with `labels`, `boxes`, `masks`, and `iscrowd`, of which any may be missing; or a mask; or
            `BoundingBoxes`; or a class index.
        frame: (height, width) of the image.

    Raises:
        SampleError: it is of another structure, its parts do not fit each other, or not the image.
    """
    if isinstance(target, Mapping):
        about = about_of((name, _plain(value)) for name, value in target.items() if name not in _READ)
        return _of_mapping(target, frame), about
    if _is_bounding_boxes(target):
        return _of_objects({"boxes": _boxes(target, frame)}, None, frame), {}
    if isinstance(target, (torch.Tensor, np.ndarray)) and target.ndim in (2, 3):
        return _of_objects({"masks": _masks(target, frame)}, None, frame), {}
    cls = _index(target)
    if cls is None and target is not None:
        raise SampleError(
            f"the target is {shown(target)} of type {type(target).__name__}: it must be a mapping with labels, boxes "
            "or masks; a mask; BoundingBoxes; or a class index"
        )
    return (Asked(cls, None, NO_REGION),), {}


def _of_mapping(target: Mapping[Any, Any], frame: tuple[int, int]) -> tuple[Asked, ...]:
    parts: dict[str, Any] = {}
    of_all = _index(target.get("labels"))
    if target.get("boxes") is not None:
        parts["boxes"] = _boxes(target["boxes"], frame)
    if target.get("masks") is not None:
        parts["masks"] = _masks(target["masks"], frame)
    if not parts and target.get("labels") is None:
        names = ", ".join(shown(name) for name in list(target)[:8]) or "nothing"
        return (Asked(None, None, f"{NO_REGION}: the target has neither boxes nor masks nor labels, but {names}"),)
    if target.get("labels") is not None and of_all is None:
        parts["labels"] = _indices(target["labels"], "labels")
    if target.get("iscrowd") is not None:
        parts["iscrowd"] = _indices(target["iscrowd"], "iscrowd")
    return _of_objects(parts, of_all, frame)


def _of_objects(parts: Mapping[str, Any], of_all: int | None, frame: tuple[int, int]) -> tuple[Asked, ...]:
    """What is asked for, of parts that have one row for each object; without labels all are of one class."""
    numbers = {name: len(part) for name, part in parts.items()}
    number = max(numbers.values(), default=0)
    if min(numbers.values(), default=0) != number:
        found = ", ".join(f"{numbers[name]} {name}" for name in _READ if name in numbers)
        raise SampleError(f"the target has {found}: it must have as many of each, one for each object")
    objects = Gathering()
    labels = parts.get("labels", [of_all] * number)
    if number == 0 and of_all is not None:
        objects.spoil(of_all, NO_REGION)
    for place, cls in enumerate(labels):
        try:
            if "masks" in parts:
                shape: Shape = Mask.of(_plane(parts["masks"][place]))
                note = ""
            elif "boxes" in parts:
                shape, note = fitted_box(parts["boxes"][place].tolist(), frame)
            else:
                raise RegionError(NO_REGION)
        except RegionError as error:
            objects.spoil(cls, f"object {place}: {error}" if "masks" in parts or "boxes" in parts else str(error))
        else:
            is_crowd = "iscrowd" in parts and parts["iscrowd"][place] != 0
            objects.add(cls, [shape], [note, _CROWD if is_crowd else ""])
    return objects.asked()


def _boxes(value: object, frame: tuple[int, int]) -> Array:
    """Boxes as (N, 4), x0, y0, x1, y1; what they are is looked at one by one."""
    array = _array(value, "boxes")
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iuf":
        raise SampleError(f"the boxes have shape {array.shape} and dtype {array.dtype}: they must be numbers (N, 4)")
    corners = array.astype(np.float64)
    if not _is_bounding_boxes(value):
        return corners
    described: Any = value
    height, width = (int(side) for side in described.canvas_size)
    if (height, width) != frame:
        raise SampleError(
            f"the boxes are drawn on a canvas {width} wide and {height} high (canvas_size), and the image is "
            f"{frame[1]} wide and {frame[0]} high"
        )
    style = str(getattr(described.format, "value", described.format))
    if style == "XYWH":
        corners[:, 2:] += corners[:, :2]
    elif style == "CXCYWH":
        corners[:, :2], corners[:, 2:] = corners[:, :2] - corners[:, 2:] / 2, corners[:, :2] + corners[:, 2:] / 2
    elif style != "XYXY":
        raise SampleError(f"the boxes are of format {style}: they must be XYXY, XYWH or CXCYWH; give others as masks")
    return corners


def _masks(value: object, frame: tuple[int, int]) -> Array:
    """Masks as (N, H, W); what is in them is looked at one by one."""
    array = _array(value, "masks")
    if array.size == 0 and (array.ndim != 3 or len(array) == 0):
        return np.zeros((0, *frame), dtype=bool)
    planes = array[None] if array.ndim == 2 else array
    if planes.ndim != 3 or planes.shape[1:] != frame:
        raise SampleError(f"the masks have shape {array.shape}: they must be (N, {frame[0]}, {frame[1]}), as the image")
    return planes


def _plane(mask: Array) -> Array:
    if mask.dtype.kind not in "biuf":
        raise RegionError(f"the mask has dtype {mask.dtype}: it must be boolean, or of 0 and 1")
    values = np.unique(mask).tolist()
    if not set(values) <= {0, 1} and not set(values) <= {0, 255}:
        few = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
        raise RegionError(f"the mask holds {few}: it must hold 0 and 1, or 0 and 255; give one mask for each object")
    flags: Array = mask != 0
    return flags


def _indices(value: object, name: str) -> list[int]:
    if isinstance(value, (list, tuple)):
        found = [_index(item) for item in value]
    else:
        array = _array(value, name)
        found = [_index(item) for item in array] if array.ndim == 1 else [None]
    indices = [index for index in found if index is not None]
    if len(indices) < len(found):
        raise SampleError(
            f"the {name} are {shown(value)}: they must be whole numbers (N,), one for each object; the labels are the "
            "model's class indices"
        )
    return indices


def _index(value: object) -> int | None:
    """A whole number, also as a tensor or array without dimensions; None for anything else."""
    plain = _plain(value)
    return plain if isinstance(plain, int) and not isinstance(plain, bool) else None


def _plain(value: object) -> object:
    """A scalar of torch's or numpy's as Python has it; all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.ndim == 0 else value
    return (
        value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim) else value
    )


def _array(value: object, name: str) -> Array:
    if isinstance(value, torch.Tensor):
        plain = value.detach().as_subclass(torch.Tensor).cpu()
        array: Array = (plain.double() if plain.is_floating_point() else plain).numpy()  # numpy has no bfloat16
        return array
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, and objects with an __array__ of their own
        raise SampleError(f"the {name} are {shown(value)}: they are no array ({error})") from error


def _is_bounding_boxes(value: object) -> bool:
    known = sys.modules.get("torchvision.tv_tensors")
    return known is not None and isinstance(value, known.BoundingBoxes)
