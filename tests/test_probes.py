"""A region carried through transforms: where its edges land, by arithmetic, and which transforms cannot carry one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageOps
from torchvision import models, transforms as T
from torchvision.transforms import v2

from pytest_gradcam.errors import TransformError
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.regions import Region

SIZES = [(224, 224), (375, 500), (640, 427), (300, 1000), (97, 61)]  # (height, width)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Placing:
    """Where a transform puts the picture: input = image * scale + offset, on each axis (y, x)."""

    scale: tuple[float, float]
    offset: tuple[float, float]


def centred(resized: tuple[int, int], size: tuple[int, int], frame: tuple[int, int]) -> Placing:
    """Resized to `resized`, then cropped or padded to `frame` about the centre."""
    offset = []
    for length, wanted in zip(resized, frame, strict=True):
        offset.append((wanted - length) // 2 if wanted > length else -round((length - wanted) / 2))
    return Placing((resized[0] / size[0], resized[1] / size[1]), (offset[0], offset[1]))


def shorter_side(target: int) -> Callable[[tuple[int, int]], tuple[int, int]]:
    def resized(size: tuple[int, int]) -> tuple[int, int]:
        height, width = size
        if width <= height:
            return int(target * height / width), target
        return target, int(target * width / height)

    return resized


def longer_side(target: int) -> Callable[[tuple[int, int]], tuple[int, int]]:
    def resized(size: tuple[int, int]) -> tuple[int, int]:
        ratio = max(size) / target
        return round(size[0] / ratio), round(size[1] / ratio)

    return resized


def timm_eval(**settings: Any) -> Any:
    timm_data: Any = timm.data
    return timm_data.create_transform(is_training=False, mean=MEAN, std=STD, **settings)


Resized = Callable[[tuple[int, int]], tuple[int, int]]
TRANSFORMS: dict[str, tuple[Any, Resized, tuple[int, int]]] = {
    # name: the transform; the size of the resized picture, from its own; the input frame
    "torchvision ResNet": (models.ResNet18_Weights.IMAGENET1K_V1.transforms(), shorter_side(256), (224, 224)),
    "torchvision ConvNeXt": (models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1.transforms(), shorter_side(236), (224, 224)),
    "torchvision Swin, bicubic": (models.Swin_T_Weights.IMAGENET1K_V1.transforms(), shorter_side(232), (224, 224)),
    "torchvision v2 on tensors": (
        v2.Compose(
            [
                v2.ToImage(),
                v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.CenterCrop(224),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        ),
        shorter_side(256),
        (224, 224),
    ),
    "torchvision v2 on floats": (
        v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.CenterCrop(224),
                v2.Normalize(MEAN, STD),
            ]
        ),
        shorter_side(256),
        (224, 224),
    ),
    "torchvision squash": (T.Compose([T.Resize((160, 200)), T.ToTensor()]), lambda size: (160, 200), (160, 200)),
    "timm bicubic": (
        timm_eval(input_size=(3, 224, 224), crop_pct=0.9, interpolation="bicubic"),
        shorter_side(math.floor(224 / 0.9)),
        (224, 224),
    ),
    "timm bilinear": (
        timm_eval(input_size=(3, 160, 160), crop_pct=0.95, interpolation="bilinear"),
        shorter_side(math.floor(160 / 0.95)),
        (160, 160),
    ),
    "timm whole": (
        timm_eval(input_size=(3, 256, 256), crop_pct=1.0, interpolation="lanczos"), shorter_side(256), (256, 256)
    ),
    "timm squash": (
        timm_eval(input_size=(3, 192, 256), crop_pct=0.9, crop_mode="squash", interpolation="bicubic"),
        lambda size: (math.floor(192 / 0.9), math.floor(256 / 0.9)),
        (192, 256),
    ),
    "timm border": (
        timm_eval(input_size=(3, 224, 224), crop_pct=1.0, crop_mode="border", interpolation="bicubic"),
        longer_side(224),
        (224, 224),
    ),
    "timm border, cropped": (
        timm_eval(input_size=(3, 224, 224), crop_pct=0.9, crop_mode="border", interpolation="bilinear"),
        longer_side(math.floor(224 / 0.9)),
        (224, 224),
    ),
}  # fmt: skip


def edges(profile: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Where a profile rises through one half and falls again, in pixels, between the pixels' centres."""
    inside = np.flatnonzero(profile >= 0.5)
    low, high = int(inside[0]), int(inside[-1])
    before = 0.0 if low == 0 else low - 0.5 + (0.5 - profile[low - 1]) / (profile[low] - profile[low - 1])
    after = float(len(profile))
    if high < len(profile) - 1:
        after = high + 0.5 + (profile[high] - 0.5) / (profile[high] - profile[high + 1])
    return before, after


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_edges_land_within_one_pixel_of_the_arithmetic(name: str, size: tuple[int, int]) -> None:
    """Boxes at the centre, at the corners and of odd fractions; cut where the crop cuts them. Held to half a pixel."""
    transform, resized, frame = TRANSFORMS[name]
    placing = centred(resized(size), size, frame)
    height, width = size
    prepared = prepare(np.full((height, width, 3), 99, dtype=np.uint8), transform=transform)
    worst, judged = 0.0, 0
    shares = [(0.3, 0.25, 0.7, 0.8), (0.0, 0.0, 1.0, 1.0), (0.42, 0.4, 0.66, 0.58), (0.05, 0.05, 0.6, 0.55),
              (0.45, 0.5, 0.98, 0.96)]  # fmt: skip
    for x0, y0, x1, y1 in shares:
        box = (round(x0 * width), round(y0 * height) + 0.5 * (y0 > 0), round(x1 * width), round(y1 * height))
        carried = carry_region(Region.of(box), prepared)
        expected = []
        for axis, low, high in ((1, box[0], box[2]), (0, box[1], box[3])):
            placed = [edge * placing.scale[axis] + placing.offset[axis] for edge in (low, high)]
            expected.append(tuple(min(max(edge, 0.0), float(frame[axis])) for edge in placed))
        (left, right), (top, bottom) = expected
        if right - left < 4 or bottom - top < 4:
            continue  # all but cropped away
        row = carried[int((top + bottom) / 2)]
        column = carried[:, int((left + right) / 2)]
        found = (*edges(row), *edges(column))
        worst = max(worst, *(abs(a - b) for a, b in zip(found, (left, right, top, bottom), strict=True)))
        judged += 1
        area = (right - left) * (bottom - top)
        assert carried.sum() == pytest.approx(area, rel=0.04, abs=12)
    print(f"worst of {4 * judged} edges: {worst:.3f} pixels")  # shown by -rP
    assert judged >= 3
    assert worst <= 0.5


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def black_and_white(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Blocks of 5 pixels, whose edges bicubic and Lanczos overshoot most."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.repeat(((rows // 5 + columns // 5) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("picture", [noise, black_and_white])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_the_picture_shows_does_not_move_the_region(name: str, picture: Any) -> None:
    """Small, large and scattered regions; the answer is the one for an even picture."""
    height, width = 150, 200
    transform = TRANSFORMS[name][0]
    even = prepare(np.full((height, width, 3), 99, dtype=np.uint8), transform=transform)
    prepared = prepare(picture(height, width), transform=transform)
    scattered = np.zeros((height, width), dtype=bool)
    scattered[::7, ::5] = True
    for region in (
        Region.of((90, 70, 94, 73)),
        Region.of((30, 5, 190, 140)),
        Region.of(scattered),
    ):
        assert np.array_equal(carry_region(region, prepared), carry_region(region, even))


class TestGeometry:
    @pytest.fixture
    def picture(self) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    @pytest.mark.parametrize(
        ("step", "move"),
        [
            (T.functional.hflip, np.fliplr),
            (T.functional.vflip, np.flipud),
            (lambda image: image.transpose(Image.Transpose.ROTATE_90), np.rot90),
            (T.Pad((1, 2, 3, 4), fill=77), lambda mask: np.pad(mask, ((2, 4), (1, 3)))),
            (lambda image: image.crop((5, 3, 25, 19)), lambda mask: mask[3:19, 5:25]),
            (
                lambda image: image.resize((60, 40), Image.Resampling.NEAREST),
                lambda mask: mask.repeat(2, 0).repeat(2, 1),
            ),
            (ImageOps.invert, lambda mask: mask),
            (T.Grayscale(3), lambda mask: mask),
            (T.Grayscale(1), lambda mask: mask),
            (lambda image: image.point(lambda value: round(255 * (value / 255) ** 2.2)), lambda mask: mask),
        ],
        ids=["hflip", "vflip", "rotation", "padding", "crop", "nearest", "inversion", "grey 3", "grey 1", "gamma"],
    )
    def test_exact_moves_are_carried_exactly(self, step: Any, move: Any, picture: npt.NDArray[np.uint8]) -> None:
        region = Region.of([(7, 4, 19, 11), (2, 12, 28, 18)])
        prepared = prepare(picture, transform=lambda image: T.functional.to_tensor(step(image)))
        assert np.allclose(carry_region(region, prepared), move(region.rasterise(20, 30)), atol=1e-6)

    @pytest.mark.parametrize("std", [(0.229, 0.224, 0.225), (1e-3, 1.0, 1e3), (-1.0, 1.0, 2.0)])
    def test_channels_of_different_scale_and_sign_agree(
        self, std: tuple[float, ...], picture: npt.NDArray[np.uint8]
    ) -> None:
        scale, shift = torch.tensor(std)[:, None, None], torch.tensor([0.5, -9.0, 100.0])[:, None, None]
        prepared = prepare(picture, transform=lambda image: (T.functional.to_tensor(image) - shift) / scale)
        region = Region.of((7, 4, 19, 11))
        assert np.allclose(carry_region(region, prepared), region.rasterise(20, 30), atol=1e-4)

    def test_a_channel_that_does_not_see_the_picture_is_left_out(self, picture: npt.NDArray[np.uint8]) -> None:
        """As one that holds coordinates."""
        ramp = torch.linspace(-1, 1, 30).expand(1, 20, 30)
        prepared = prepare(picture, transform=lambda image: torch.cat([T.functional.to_tensor(image), ramp]))
        region = Region.of((7, 4, 19, 11))
        assert np.allclose(carry_region(region, prepared), region.rasterise(20, 30), atol=1e-6)

    def test_fractional_edges_keep_their_share_to_8_bits(self, picture: npt.NDArray[np.uint8]) -> None:
        prepared = prepare(picture, transform=T.ToTensor())
        region = Region.of((7.3, 4.8, 19.1, 11.25))
        assert np.abs(carry_region(region, prepared) - region.rasterise(20, 30)).max() <= 0.5 / 255 + 1e-6

    def test_half_precision_outputs_are_carried(self, picture: npt.NDArray[np.uint8]) -> None:
        steps = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD), lambda tensor: tensor.to(torch.bfloat16)])
        region = Region.of((7, 4, 19, 11))
        carried = carry_region(region, prepare(picture, transform=steps))
        assert np.allclose(carried, region.rasterise(20, 30), atol=0.02)

    @given(st.data())
    def test_region_and_complement_share_out_the_crop(self, data: st.DataObject) -> None:
        """Through a resize, the covered shares of a box and of what surrounds it add up to one."""
        height, width = data.draw(st.integers(12, 60)), data.draw(st.integers(12, 60))
        x0, y0 = data.draw(st.integers(0, width - 6)), data.draw(st.integers(0, height - 6))
        x1, y1 = data.draw(st.integers(x0 + 5, width)), data.draw(st.integers(y0 + 5, height))
        inside = np.zeros((height, width), dtype=bool)
        inside[y0:y1, x0:x1] = True
        if inside.all():
            inside[0, 0] = False
        steps = T.Compose([T.Resize((24, 24), antialias=True), T.ToTensor(), T.Normalize(MEAN, STD)])
        prepared = prepare(np.zeros((height, width), np.uint8), transform=steps)
        total = carry_region(Region.of(inside), prepared)
        if (~inside).sum() * 24 * 24 / (height * width) > 2:
            total = total + carry_region(Region.of(~inside), prepared)
            assert np.abs(total - 1).max() <= 1.5 / 255


class TestUnequalTreatment:
    """Transforms in which a pixel's fate depends on the others: served where the region survives, refused where not."""

    REGION = Region.of((8, 6, 20, 18))

    @pytest.fixture
    def picture(self) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(0).integers(40, 200, (32, 32, 3), dtype=np.uint8)

    @pytest.mark.parametrize("step", [ImageOps.equalize, ImageOps.autocontrast], ids=["equalize", "autocontrast"])
    def test_a_histogram_stretch_keeps_black_and_white_apart_and_is_served(
        self, step: Any, picture: npt.NDArray[np.uint8]
    ) -> None:
        prepared = prepare(picture, transform=lambda image: T.functional.to_tensor(step(image)))
        assert np.allclose(carry_region(self.REGION, prepared), self.REGION.rasterise(32, 32), atol=1e-6)

    @pytest.mark.parametrize("eps", [0.0, 1e-7, 1e-3])
    def test_standardising_each_picture_is_refused(self, eps: float, picture: npt.NDArray[np.uint8]) -> None:
        def standardise(image: Image.Image) -> torch.Tensor:
            values: torch.Tensor = T.functional.to_tensor(image)
            return (values - values.mean()) / (values.std() + eps)

        prepared = prepare(picture, transform=standardise)
        with pytest.raises(TransformError) as caught:
            carry_region(self.REGION, prepared)
        message = str(caught.value)
        assert message.startswith(
            "the transform TestUnequalTreatment.test_standardising_each_picture_is_refused.<locals>.standardise cannot "
            "carry a region"
        )
        if eps == 0:
            assert (
                "For a black picture of 32×32 pixels, pushed through to see where pixels go: the transform" in message
            )
            assert "of which 3072 values are not finite" in message
        else:
            assert "it answers a black and a white picture alike, as one does that standardises each picture" in message
            assert message.endswith("or pass the model input as a tensor")

    def test_standardising_that_tells_black_from_white_by_rounding_is_refused(
        self, picture: npt.NDArray[np.uint8]
    ) -> None:
        """White minus its float mean can be a rounding error, which a tiny epsilon blows up to a difference."""

        def standardise(image: Image.Image) -> torch.Tensor:
            values: torch.Tensor = T.functional.to_tensor(image)
            return (values - values.mean() * (1 - 1e-6)) / (values.std() + 1e-6)

        with pytest.raises(TransformError, match="what it makes of a pixel depends on the rest of the picture"):
            carry_region(self.REGION, prepare(picture, transform=standardise))

    def test_a_crop_to_what_is_bright_is_refused(self, picture: npt.NDArray[np.uint8]) -> None:
        def crop_borders(image: Image.Image) -> torch.Tensor:
            tensor: torch.Tensor = T.functional.to_tensor(image.crop(image.getbbox()).resize((16, 16)))
            return tensor

        prepared = prepare(picture, transform=crop_borders)
        with pytest.raises(TransformError) as caught:
            carry_region(self.REGION, prepared)
        assert (
            "what it makes of a pixel depends on the rest of the picture. Between black, 0, and white, 1, the region's "
            "mask comes out from 1.00 to 1.00, and with its inverse it misses a sum of 1 by " in str(caught.value)
        )

    def test_edges_sharpened_far_beyond_white_are_refused(self, picture: npt.NDArray[np.uint8]) -> None:
        def sharpen(image: Image.Image) -> torch.Tensor:
            values: torch.Tensor = T.functional.to_tensor(image)
            blurred: torch.Tensor = T.functional.gaussian_blur(values, [9, 9])
            return values + 3 * (values - blurred)

        with pytest.raises(TransformError, match=r"the region's mask comes out from -\d\.\d\d to [23]\.\d\d, and"):
            carry_region(self.REGION, prepare(picture, transform=sharpen))

    @pytest.mark.parametrize("gamma", [2.2, 1 / 2.2])
    @pytest.mark.parametrize("size", [16, 48, 120])
    def test_a_gamma_after_the_resize_is_served(self, gamma: float, size: int) -> None:
        steps = T.Compose([T.Resize((size, size)), T.ToTensor(), lambda tensor: tensor**gamma])
        carried = carry_region(Region.of((16, 10, 48, 42)), prepare(noise(64, 64), transform=steps))
        plain = Region.of((16, 10, 48, 42)).rasterise(64, 64)
        lit = np.argwhere(carried > 0.5).mean(axis=0) * 64 / size
        assert np.allclose(lit, np.argwhere(plain > 0.5).mean(axis=0), atol=2)

    @pytest.mark.parametrize("box", [(4, 20, 14, 30), (50, 20, 59, 29), (30, 30, 33, 33), (2, 2, 30, 60)])
    def test_a_flip_that_looks_at_the_picture_is_refused(self, box: tuple[int, ...]) -> None:
        """Turns pictures so that their brighter half is on the left."""
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[20:30, 50:60, 1] = 255
        picture[:, 40:] |= 40

        def bright_left(image: Image.Image) -> torch.Tensor:
            tensor: torch.Tensor = T.functional.to_tensor(image)
            return tensor.flip(2) if tensor[:, :, 32:].sum() > tensor[:, :, :32].sum() else tensor

        with pytest.raises(TransformError, match="depends on the rest of the picture"):
            carry_region(Region.of(box), prepare(picture, transform=bright_left))

    @pytest.mark.parametrize("box", [(26, 26, 42, 42), (10, 10, 20, 20), (40, 40, 46, 46), (17, 4, 30, 18)])
    def test_a_crop_to_a_colour_is_refused_though_the_mask_is_grey(self, box: tuple[int, ...]) -> None:
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[10:20, 10:20] = (255, 200, 0)

        def red_crop(image: Image.Image) -> torch.Tensor:
            array = np.asarray(image).astype(int)
            red = array[..., 0] - array[..., 1]
            y, x = np.unravel_index(red.argmax(), red.shape) if red.max() > 0 else (32, 32)
            y, x = int(np.clip(y, 16, 48)), int(np.clip(x, 16, 48))
            tensor: torch.Tensor = T.functional.to_tensor(image.crop((x - 16, y - 16, x + 16, y + 16)))
            return tensor

        prepared = prepare(picture, transform=red_crop)
        with pytest.raises(TransformError, match="the picture goes another way than the region's mask"):
            carry_region(Region.of(box), prepared)

    def test_a_crop_to_what_the_region_cuts_in_two_is_refused(self) -> None:
        """As of a face whose eyes are the region: the picture's own path shows, painted ones do not."""
        picture = noise(64, 64)
        picture[10:20, 10:20] = (255, 0, 0)

        def whole_thing(image: Image.Image) -> torch.Tensor:
            found = (np.asarray(image) == (255, 0, 0)).all(axis=2).sum() >= 100
            tensor: torch.Tensor = T.functional.to_tensor(image.crop((0, 0, 32, 32) if found else (16, 16, 48, 48)))
            return tensor

        prepared = prepare(picture, transform=whole_thing)
        with pytest.raises(TransformError, match=r"painted over come out with a correlation of -?0\.\d\d\. Pass"):
            carry_region(Region.of((10, 10, 20, 19)), prepared)

    def test_a_shape_that_only_the_picture_gets_is_refused(self) -> None:
        def trim_even_ones(image: Image.Image) -> torch.Tensor:
            tensor: torch.Tensor = T.functional.to_tensor(image)
            return tensor[:, :16] if bool((tensor == tensor[:, :1, :1]).all()) and tensor[0, 0, 0] == 0.4 else tensor

        prepared = prepare(np.full((32, 32, 3), 102, np.uint8), transform=trim_even_ones)
        with pytest.raises(TransformError, match=r"it makes \(3, 16, 32\) of the picture and \(3, 32, 32\) of a black"):
            carry_region(self.REGION, prepared)

    @pytest.mark.parametrize("white_only", [True, False])
    def test_shapes_that_depend_on_the_content_are_refused(
        self, white_only: bool, picture: npt.NDArray[np.uint8]
    ) -> None:
        def trim(image: Image.Image) -> torch.Tensor:
            values: torch.Tensor = T.functional.to_tensor(image)
            mean = float(values.mean())
            return values[:, :16] if (mean == 1 if white_only else 0 < mean < 1) else values

        with pytest.raises(TransformError) as caught:
            carry_region(self.REGION, prepare(picture, transform=trim))
        which = (
            "(3, 32, 32) of a black picture and (3, 16, 32) of a white one of the same size"
            if white_only
            else "(3, 16, 32) of the region's mask and (3, 32, 32) of a black picture of the same size"
        )
        assert f"cannot carry a region: it makes {which}. Pass a transform that only resizes" in str(caught.value)

    def test_what_it_raises_for_a_probe_passes_through_with_a_note(self, picture: npt.NDArray[np.uint8]) -> None:
        def needs_light(image: Image.Image) -> torch.Tensor:
            if image.getbbox() is None:
                raise LookupError("no face in it")
            tensor: torch.Tensor = T.functional.to_tensor(image)
            return tensor

        prepared = prepare(picture, transform=needs_light)
        with pytest.raises(LookupError) as caught:
            carry_region(self.REGION, prepared)
        assert caught.value.args == ("no face in it",)
        assert caught.value.__notes__ == [
            "raised for a black picture of 32×32 pixels, pushed through to see where pixels go"
        ]
