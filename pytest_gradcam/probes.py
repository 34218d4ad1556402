"""Where a transform puts pixels: found by pushing black, white and a mask through it, whatever its steps are.

`(T(mask) - T(black)) / (T(white) - T(black))` is the mask in the input frame, and the same quotient of the picture is
what the model saw of it. Arrays in, arrays out; knows no files and no regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_gradcam.errors import TransformError
from pytest_gradcam.transforms import Transform, call, name

_LEAST_SPAN = 1 / 32  # of the largest: what is fainter between black and white drowns in 8-bit rounding
_LOWEST, _HIGHEST = -0.35, 1.35  # bicubic and Lanczos overshoot by less
_LEAST_SHARING = 0.05  # mean distance from 1 of a region plus its complement


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What a transform makes of a black and of a white picture of one size.

    Attributes:
        black: float64 (C, H, W).
        span: float64 (C, H, W), white minus black.
        reacts: bool (C, H, W), where the span is wide enough to divide by.
    """

    black: npt.NDArray[np.float64]
    span: npt.NDArray[np.float64]
    reacts: npt.NDArray[np.bool_]

    def quotient(self, output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Place between black (0) and white (1), (C, H, W); 0 where black and white agree."""
        return np.where(self.reacts, (output - self.black) / np.where(self.reacts, self.span, 1.0), 0.0)

    def brightness(self, output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The quotient averaged over the channels that react, (H, W)."""
        return np.asarray(self.quotient(output).sum(axis=0) / np.maximum(self.reacts.sum(axis=0), 1))


def probe(transform: Transform, height: int, width: int) -> Probe:
    """Black and white pictures (height, width), pushed through the transform.

    Raises:
        TransformError: it answers black and white alike, or with different shapes; or as `call` raises.
    """
    black = _pushed(transform, Image.new("RGB", (width, height), (0, 0, 0)), "black")
    white = _pushed(transform, Image.new("RGB", (width, height), (255, 255, 255)), "white")
    if black.shape != white.shape:
        raise TransformError(
            f"{_cannot_carry(transform)}: it makes {black.shape} of a black picture and {white.shape} of a white one "
            f"of the same size. {_MEND}"
        )
    span = white - black
    widest = np.abs(span).max(axis=(1, 2), keepdims=True)
    if widest.max() <= 1e-6 * max(np.abs(black).max(), np.abs(white).max()):
        raise TransformError(
            f"{_cannot_carry(transform)}: it answers a black and a white picture alike, as one does that standardises "
            f"each picture by its own mean. {_MEND}"
        )
    reacts = np.abs(span) >= np.maximum(_LEAST_SPAN * widest, 1e-6 * widest.max())
    return Probe(black, span, reacts)


def carry(transform: Transform, coverage: npt.NDArray[np.float32], known: Probe | None) -> npt.NDArray[np.float32]:
    """An area of the image frame, as the transform leaves it in the input frame.

    The area is pushed through white on black, and once more black on white: where the transform treats each pixel on
    its own, the two answers share out the picture between them.

    Args:
        transform: the transform.
        coverage: float32 (height, width) in [0, 1], in the image frame.
        known: the probe of this transform for this size, where it is at hand.

    Returns:
        float32 (H, W) in [0, 1], in the input frame.

    Raises:
        TransformError: it does not treat each pixel on its own; or as `probe` raises.
    """
    between = known if known is not None else probe(transform, *coverage.shape)
    levels = np.rint(coverage * 255.0).astype(np.uint8)
    parts = []
    for plane in (levels, 255 - levels):
        output = _pushed(transform, Image.fromarray(plane).convert("RGB"), "region's")
        if output.shape != between.black.shape:
            raise TransformError(
                f"{_cannot_carry(transform)}: it makes {output.shape} of the region's mask and {between.black.shape} "
                f"of a black picture of the same size. {_MEND}"
            )
        parts.append(between.brightness(output))
    carried, rest = parts
    lowest, highest = float(carried.min()), float(carried.max())
    sharing = float(np.abs(carried + rest - 1.0)[between.reacts.any(axis=0)].mean())
    if lowest < _LOWEST or highest > _HIGHEST or sharing > _LEAST_SHARING:
        raise TransformError(
            f"{_cannot_carry(transform)}: what it makes of a pixel depends on the rest of the picture. Between black, "
            f"0, and white, 1, the region's mask comes out from {lowest:.2f} to {highest:.2f}, and with its inverse "
            f"it misses a sum of 1 by {sharing:.2f} on average. {_MEND}"
        )
    return np.clip(carried, 0.0, 1.0).astype(np.float32)


_MEND = (
    "Pass a transform that only resizes, crops, pads and normalises by constants, or pass the model input as a tensor"
)


def _cannot_carry(transform: Transform) -> str:
    return f"the transform {name(transform)} cannot carry a region"


def _pushed(transform: Transform, picture: Image.Image, colour: str) -> npt.NDArray[np.float64]:
    shown = f"a {colour} picture of {picture.width}×{picture.height} pixels, pushed through to see where pixels go"
    try:
        return call(transform, picture).cpu().double().numpy()
    except TransformError as error:
        raise TransformError(f"{_cannot_carry(transform)}. For {shown}: {error}") from None
    except Exception as error:
        error.add_note(f"raised for {shown}")
        raise
