"""A map as colours, and as colours over a picture. Arrays in, arrays out; regions and pages are drawn in `report`."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pytest_gradcam.errors import SettingsError


def colourise(cam: npt.NDArray[np.float32], colormap: str = "jet") -> npt.NDArray[np.uint8]:
    """Colours of a map in [0, 1], (H, W) → uint8 RGB (H, W, 3).

    Raises:
        SettingsError: OpenCV has no colour map of that name.
    """
    code = getattr(cv2, f"COLORMAP_{colormap.upper()}", None) if isinstance(colormap, str) else None
    if code is None:
        known = sorted(name[len("COLORMAP_") :].lower() for name in dir(cv2) if name.startswith("COLORMAP_"))
        raise SettingsError(f"unknown colormap {colormap!r}: OpenCV has {', '.join(known)}")
    levels = np.rint(np.clip(cam, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, code)[..., ::-1])  # OpenCV's colours are BGR


def blend(
    image: npt.NDArray[np.uint8], cam: npt.NDArray[np.float32], *, alpha: float = 0.5, colormap: str = "jet"
) -> npt.NDArray[np.uint8]:
    """`alpha` of the map's colours and `1 - alpha` of the picture, uint8 (H, W, 3).

    Raises:
        SettingsError: unknown colour map, or alpha outside [0, 1].
    """
    try:
        within = bool(0.0 <= alpha <= 1.0)
    except (TypeError, ValueError):  # no number
        within = False
    if not within:
        raise SettingsError(f"alpha is {alpha!r}: it is the weight of the map's colours, from 0 to 1")
    colours = colourise(cam, colormap)
    mixed = alpha * colours.astype(np.float32) + (1.0 - alpha) * image.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def encode_png(rgb: npt.NDArray[np.uint8]) -> bytes:
    """PNG bytes of an RGB picture, uint8 (H, W, 3)."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    return data.tobytes()
