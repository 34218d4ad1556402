"""Where a transform puts pixels: found by pushing pictures through it, whatever its steps are.

`(T(mask) - T(black)) / (T(white) - T(black))` is the mask in the input frame, and the same quotient of the picture is
what the model saw of it. Whether the picture itself goes the way of black, white and the mask is then looked at with
the region, and with what surrounds it, painted over in it. Arrays in, arrays out; knows no files and no regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pytest_gradcam.errors import TransformError
from pytest_gradcam.transforms import Transform, call, name, random_error

_LEAST_SPAN = 1 / 32  # of the largest: what is fainter between black and white drowns in 8-bit rounding
_LOWEST, _HIGHEST = -0.35, 1.35  # bicubic and Lanczos overshoot by less
_SLACK = 0.25  # of the highest value of an area: what steps after a resize may change at its edges
_ROUNDING = 0.03  # of white: what three 8-bit pictures miss together
_MOST_MISSED = 0.25  # of the smaller one of two areas, the region and what surrounds it
_SETTLED = 0.02  # of white: where the mask is fainter, the region's edge is not near
_FLAT = 0.02  # standard deviation of a picture that shows nothing to compare
_LEAST_CORRELATION = 0.8  # a stretched histogram keeps more; a flip or another crop, less


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


def carry(
    transform: Transform,
    coverage: npt.NDArray[np.float32],
    picture: npt.NDArray[np.uint8],
    answer: npt.NDArray[np.float64],
    known: Probe | None,
) -> npt.NDArray[np.float32]:
    """An area of the picture, as the transform leaves it in the input frame.

    The area is pushed through white on black, twice, and black on white: the two share out the frame between them. Then
    the picture is pushed through with the area painted black and white, and with all but the area painted black and
    white: the paint has to come out where the mask did, and around it the picture as it was.

    Args:
        transform: the transform.
        coverage: float32 (height, width) in [0, 1], in the image frame.
        picture: uint8 (height, width, 3) RGB, in the image frame.
        answer: float64 (C, H, W), what the transform made of the picture.
        known: the probe of this transform for this size, where it is at hand.

    Returns:
        float32 (H, W) in [0, 1], in the input frame.

    Raises:
        TransformError: it is random, or where it puts a pixel depends on the rest of the picture; or as `probe` raises.
    """
    between = known if known is not None else probe(transform, *coverage.shape)
    levels = _levels(coverage)
    mask = _brightness(transform, between, levels, "region's", "the region's mask")
    if not np.array_equal(mask, _brightness(transform, between, levels, "region's", "the region's mask")):
        raise random_error(transform)
    rest = _brightness(transform, between, 255 - levels, "region's", "the region's inverse mask")
    _refuse_unequal_shares(transform, between, mask, rest)
    _refuse_another_way(transform, between, mask, levels, picture, answer)
    return _in_bounds(mask)


def _levels(coverage: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.rint(coverage * 255.0).astype(np.uint8)
    return levels


def _in_bounds(mask: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return np.clip(mask, 0.0, 1.0).astype(np.float32)


def _refuse_unequal_shares(
    transform: Transform, between: Probe, mask: npt.NDArray[np.float64], rest: npt.NDArray[np.float64]
) -> None:
    lowest, highest = float(mask.min()), float(mask.max())
    missed = _missed(np.abs(mask + rest - 1.0), mask, between)
    if lowest < _LOWEST or highest > _HIGHEST or missed > _MOST_MISSED:
        raise TransformError(
            f"{_cannot_carry(transform)}: what it makes of a pixel depends on the rest of the picture. Between black, "
            f"0, and white, 1, the region's mask comes out from {lowest:.2f} to {highest:.2f}, and with its inverse "
            f"it misses a sum of 1 by {missed:.2f} of the smaller area. {_MEND}"
        )


def _refuse_another_way(
    transform: Transform,
    between: Probe,
    mask: npt.NDArray[np.float64],
    levels: npt.NDArray[np.uint8],
    picture: npt.NDArray[np.uint8],
    answer: npt.NDArray[np.float64],
) -> None:
    """The mask is grey on its own; a transform that looks for colours or faces may treat the picture otherwise."""
    own = between.brightness(_fitting(transform, between, answer, "the picture"))
    for area, paint, place in ((mask, levels, "region"), (1.0 - mask, 255 - levels, "surroundings")):
        share = paint[..., None] / 255.0
        black, white = (
            _brightness(
                transform,
                between,
                np.rint(picture * (1.0 - share) + colour * share).astype(np.uint8),
                "painted",
                f"the picture with the {'region' if place == 'region' else 'surroundings of the region'} painted over",
            )
            for colour in (0.0, 255.0)
        )
        missed = _missed(area - np.abs(white - black), area, between)
        if missed > _MOST_MISSED:
            raise TransformError(
                f"{_another_way(transform)}: of the {place}, painted over in the picture, {missed:.2f} of the smaller "
                f"area does not come out where its mask does. {_MEND}"
            )
        if place == "region":
            around = between.reacts.any(axis=0) & (np.abs(mask) < _SETTLED)
            alike = max(_correlation(own[around], black[around]), _correlation(own[around], white[around]))
            if alike < _LEAST_CORRELATION:
                raise TransformError(
                    f"{_another_way(transform)}: around the region, the picture as it is and with the region painted "
                    f"over come out with a correlation of {alike:.2f}. {_MEND}"
                )


def _missed(deviation: npt.NDArray[np.float64], area: npt.NDArray[np.float64], between: Probe) -> float:
    """What goes beyond rounding, as a share of the smaller one of an area and its complement; of 1 pixel at least."""
    seen = between.reacts.any(axis=0)
    deviation, inside = deviation[seen], np.clip(area[seen], 0.0, 1.0)
    smaller = max(min(float(inside.sum()), float((1.0 - inside).sum())), 1.0)
    allowed = max(_SLACK * float(inside.max()), _ROUNDING)
    return float(np.maximum(deviation - allowed, 0.0).sum()) / smaller


def _correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Pearson's, so that a stretch of the histogram does not count; 1 where both are flat."""
    if first.size == 0:
        return 1.0
    spreads = float(first.std()), float(second.std())
    if max(spreads) < _FLAT:
        return 1.0
    if min(spreads) < 1e-9:
        return 0.0
    return float(((first - first.mean()) * (second - second.mean())).mean()) / (spreads[0] * spreads[1])


_MEND = (
    "Pass a transform that only resizes, crops, pads and normalises by constants, or pass the model input as a tensor"
)


def _cannot_carry(transform: Transform) -> str:
    return f"the transform {name(transform)} cannot carry a region"


def _another_way(transform: Transform) -> str:
    return (
        f"{_cannot_carry(transform)}: where it puts a pixel depends on the rest of the picture, and the picture goes "
        "another way than the region's mask"
    )


def _brightness(
    transform: Transform, between: Probe, planes: npt.NDArray[np.uint8], kind: str, shown: str
) -> npt.NDArray[np.float64]:
    output = _pushed(transform, Image.fromarray(planes).convert("RGB"), kind)
    return between.brightness(_fitting(transform, between, output, shown))


def _fitting(
    transform: Transform, between: Probe, output: npt.NDArray[np.float64], shown: str
) -> npt.NDArray[np.float64]:
    if output.shape != between.black.shape:
        raise TransformError(
            f"{_cannot_carry(transform)}: it makes {output.shape} of {shown} and {between.black.shape} of a black "
            f"picture of the same size. {_MEND}"
        )
    return output


def _pushed(transform: Transform, picture: Image.Image, colour: str) -> npt.NDArray[np.float64]:
    shown = f"a {colour} picture of {picture.width}×{picture.height} pixels, pushed through to see where pixels go"
    try:
        return call(transform, picture).cpu().double().numpy()
    except TransformError as error:
        raise TransformError(f"{_cannot_carry(transform)}. For {shown}: {error}") from None
    except Exception as error:
        error.add_note(f"raised for {shown}")
        raise
