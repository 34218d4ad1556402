"""Pictures as a user gives them, loaded: files, PIL images and arrays become upright RGB. Knows no tensors."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pytest_gradcam.errors import ImageError, ImageTypeError

_KINDS = (
    "an image is a path, a PIL.Image, a uint8 array (H, W, 3) or (H, W), or a float tensor (C, H, W) that already is "
    "model input"
)
_EIGHT_BITS = "scale it to 0..255 yourself and pass a uint8 array"
_UNSERVED_MODES = {
    "I": f"32-bit integers: {_EIGHT_BITS}",
    "F": f"floats: {_EIGHT_BITS}",
    "LAB": "L*a*b* colours: convert it to RGB with PIL.ImageCms",
}


def load(image: object) -> npt.NDArray[np.uint8]:
    """A picture as uint8 (H, W, 3) RGB, upright by its EXIF orientation.

    Args:
        image: path, `PIL.Image`, or uint8 array (H, W, 3) or (H, W). Of an animation, the current frame.

    Raises:
        ImageError: unreadable, empty, transparent, or of a mode, shape or dtype that is not served.
        ImageTypeError: of another type.
    """
    if isinstance(image, (str, os.PathLike)):
        return _from_file(os.fsdecode(image))
    if isinstance(image, Image.Image):
        return _from_pil(image, _called(image))
    if isinstance(image, np.ndarray):
        return _from_array(image)
    hint = ""
    if isinstance(image, (list, tuple)):
        hint = "; many images go to explain_batch"
    elif isinstance(image, (bytes, bytearray)):
        hint = "; the bytes of a file are opened with PIL.Image.open(io.BytesIO(data))"
    raise ImageTypeError(f"{shown(image)} is no image: {_KINDS}{hint}")


def refuse_bomb(picture: Image.Image) -> None:
    """Refuse a picture that is large in memory and perhaps small on the disk, before it is decoded.

    PIL itself only warns, and decodes it, up to twice its limit. What did not come from a file is in memory already.

    Raises:
        DecompressionBombError: a file's picture has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    pixels, most = picture.width * picture.height, Image.MAX_IMAGE_PIXELS
    if isinstance(picture, ImageFile.ImageFile) and most is not None and pixels > most:
        raise Image.DecompressionBombError(
            f"Image size ({pixels} pixels) exceeds limit of {most} pixels, could be decompression bomb DOS attack."
        )


def _from_file(path: str) -> npt.NDArray[np.uint8]:
    if os.path.isdir(path):
        raise ImageError(f"the image {path!r} is a directory: pass the path of one picture in it")
    if not os.path.exists(path):
        where = "" if os.path.isabs(path) else f" in {os.getcwd()}"
        raise ImageError(f"there is no file {path!r}{where}: pass the path of a picture, absolute or from there")
    try:
        picture = Image.open(path)
    except UnidentifiedImageError:
        raise ImageError(
            f"the image {path!r} is in no format that PIL can read: pass a PNG, JPEG or the like"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_bomb(f"the image {path!r}", error)) from None
    except Exception as error:  # only PIL is at work here, and broken files make it raise a dozen kinds
        raise ImageError(
            f"the image {path!r} cannot be opened: {error}. Is it a whole and readable picture?"
        ) from error
    with picture:
        return _from_pil(picture, f"the image {path!r}")


def _from_pil(picture: Image.Image, shown: str) -> npt.NDArray[np.uint8]:
    if 0 in picture.size:
        raise ImageError(f"{shown} is {picture.width} wide and {picture.height} high: pass one that has pixels")
    mode = picture.mode
    unserved = f"16-bit grey: {_EIGHT_BITS}" if mode.startswith("I;16") else _UNSERVED_MODES.get(mode)
    if unserved is not None:
        raise ImageError(f"{shown} has mode {mode}, {unserved}")
    try:
        refuse_bomb(picture)
        upright = ImageOps.exif_transpose(picture)
        if upright.has_transparency_data:
            if upright.mode == "La":  # the one such mode that PIL does not turn into RGBA in one step
                upright = upright.convert("LA")
            upright = upright.convert("RGBA")
            faintest = upright.getchannel("A").getextrema()[0]
        else:
            faintest = 255
        rgb = np.array(upright.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_bomb(shown, error)) from None
    except Exception as error:  # only PIL is at work here, and broken files make it raise a dozen kinds
        raise ImageError(f"{shown} cannot be decoded: {error}. Is it whole, and still open?") from error
    if faintest != 255:
        raise ImageError(
            f"{shown} has transparency (mode {mode}, alpha down to {faintest} of 255), and a model sees none: flatten "
            "it onto a background, for example with Image.alpha_composite, and pass the RGB picture"
        )
    return rgb


def _from_array(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    seen = f"an array of shape {array.shape} and dtype {array.dtype}"
    if array.size == 0:
        raise ImageError(f"{seen} has no pixels: {_KINDS}")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(f"{seen} is no image: arrays are uint8 (H, W, 3) or (H, W); {_shape_mend(array)}")
    if array.dtype != np.uint8:
        raise ImageTypeError(f"{seen} is no image: arrays are uint8 (H, W, 3) or (H, W); {_dtype_mend(array)}")
    plane = np.asarray(array, dtype=np.uint8)
    return np.repeat(plane[..., None], 3, axis=2) if plane.ndim == 2 else np.array(plane, order="C")


def _shape_mend(array: npt.NDArray[np.generic]) -> str:
    if array.ndim == 3 and array.shape[2] == 1:
        return "pass image[..., 0]"
    if array.ndim == 3 and array.shape[2] == 4:
        return "flatten its alpha channel onto a background, or pass image[..., :3] if that is opaque"
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return "pass image.transpose(1, 2, 0)" if array.shape[0] == 3 else "pass image[0]"
    return "pass one picture, image[0]; many go to explain_batch" if array.ndim == 4 else "pass one picture"


def _dtype_mend(array: npt.NDArray[np.generic]) -> str:
    if array.dtype.kind == "f":
        return (
            "pass (image * 255).round().astype(np.uint8) if it is in 0..1, or torch.from_numpy of a (C, H, W) array if "
            "it is model input"
        )
    if array.dtype == bool:
        return "pass image.astype(np.uint8) * 255"
    if array.dtype == np.uint16:
        return "pass (image // 257).astype(np.uint8) if it uses all 16 bits"
    return "pass image.astype(np.uint8) if it is in 0..255"


def _bomb(shown: str, error: Exception) -> str:
    reason = str(error).rstrip(".")
    return f"{shown} is too large to be opened safely: {reason}. If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"


def _called(picture: Image.Image) -> str:
    file = getattr(picture, "filename", "")
    return f"the PIL image {file!r}" if file else f"the PIL image of {picture.width}×{picture.height} pixels"


def shown(value: object) -> str:
    """Any value in a message: what it looks like, cut, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else f'{text[:57]}…'} of type {type(value).__name__}"
