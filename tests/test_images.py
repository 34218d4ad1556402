"""Images made ready for a model: tensors checked, what the model saw, the transform argument, regions carried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision import transforms as T, tv_tensors

from pytest_gradcam.errors import ImageError, ImageTypeError, NonFiniteError, RegionError, TransformError
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.regions import Region

INPUT = "model input is a float tensor (C, H, W) or (1, C, H, W)"


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture that JPEG keeps well: brighter to the right and, in another channel, downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [columns * 255 / (width - 1), rows * 255 / (height - 1), np.full((height, width), 90.0)]
    return np.stack(planes, axis=2).round().astype(np.uint8)


class TestTensors:
    @pytest.mark.parametrize("batched", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
    def test_a_float_tensor_is_model_input(self, batched: bool, dtype: torch.dtype) -> None:
        image = torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
        prepared = prepare(image[None] if batched else image)
        assert torch.equal(prepared.tensor, image[None])
        assert prepared.tensor.dtype == dtype
        assert prepared.frame == (8, 10)
        assert prepared.transform is None

    def test_image_frame_and_input_frame_are_one(self) -> None:
        region = Region.of((1.5, 2, 7, 6.25))
        prepared = prepare(torch.zeros(3, 8, 10))
        assert np.array_equal(carry_region(region, prepared), region.rasterise(8, 10))

    def test_the_users_tensor_is_not_shared(self) -> None:
        image = torch.zeros(3, 8, 10)
        prepare(image).tensor.add_(1)
        assert image.sum() == 0

    def test_gradients_and_subclasses_are_left_behind(self) -> None:
        tensor = prepare(tv_tensors.Image(torch.zeros(3, 8, 10).requires_grad_())).tensor
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad

    def test_inside_inference_mode_the_tensor_can_still_be_differentiated_through(self) -> None:
        with torch.inference_mode():
            tensors = [prepare(torch.ones(3, 8, 10)).tensor, prepare(smooth(6, 9), transform=T.ToTensor()).tensor]
        assert not any(tensor.is_inference() for tensor in tensors)

    @pytest.mark.parametrize(
        ("tensor", "error", "message"),
        [
            (
                torch.zeros(3, 8, 10, dtype=torch.uint8),
                ImageTypeError,
                f"a tensor of shape (3, 8, 10) and dtype uint8 is no model input: {INPUT}; pass a picture of bytes as "
                "an array, image.permute(1, 2, 0).numpy(), and it goes through the transform",
            ),
            (
                torch.zeros(3, 8, 10, dtype=torch.complex64),
                ImageTypeError,
                f"a tensor of shape (3, 8, 10) and dtype complex64 is no model input: {INPUT}; pass a picture of bytes "
                "as an array, image.permute(1, 2, 0).numpy(), and it goes through the transform",
            ),
            (
                torch.zeros(8, 10),
                ImageError,
                f"a tensor of shape (8, 10) and dtype float32 has no channels: {INPUT}; pass image[None]",
            ),
            (
                torch.zeros(4, 3, 8, 10),
                ImageError,
                f"a tensor of shape (4, 3, 8, 10) and dtype float32 holds 4 images: {INPUT}; pass image[0], or all of "
                "them to explain_batch",
            ),
            (
                torch.zeros(1, 1, 3, 8, 10),
                ImageError,
                f"a tensor of shape (1, 1, 3, 8, 10) and dtype float32 has 5 dimensions: {INPUT}",
            ),
            (
                torch.zeros(3, 0, 10),
                ImageError,
                f"a tensor of shape (3, 0, 10) and dtype float32 has no pixels: {INPUT}, none of them 0",
            ),
            (
                torch.zeros(64, 64, 3),
                ImageError,
                f"a tensor of shape (64, 64, 3) and dtype float32 has its channels last: {INPUT}; pass "
                "image.permute(2, 0, 1)",
            ),
            (
                torch.zeros(3, 8, 10).to_sparse(),
                ImageTypeError,
                f"a tensor of shape (3, 8, 10) and dtype float32 is of layout sparse_coo: {INPUT}, dense and with "
                "values; pass image.to_dense() or real data",
            ),
            (
                torch.zeros(3, 8, 10, device="meta"),
                ImageTypeError,
                f"a tensor of shape (3, 8, 10) and dtype float32 is without data (meta): {INPUT}, dense and with "
                "values; pass image.to_dense() or real data",
            ),
        ],
        ids=lambda value: f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else "",
    )
    def test_another_tensor_is_refused_with_the_mend(
        self, tensor: torch.Tensor, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error) as caught:
            prepare(tensor)
        assert str(caught.value) == message

    @pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("-inf"), "-inf")])
    def test_values_that_are_not_finite_are_counted_and_placed(self, value: float, word: str) -> None:
        image = torch.zeros(3, 8, 10)
        image[1, 2, 3] = value
        image[2, 0, 0] = value
        with pytest.raises(NonFiniteError) as caught:
            prepare(image)
        assert str(caught.value) == (
            f"a tensor of shape (3, 8, 10) and dtype float32 is not finite in 2 of its 240 values, the first {word} at "
            "channel 1, row 2, column 3: look for a division by zero or an overflow in what made it"
        )

    def test_a_transform_beside_a_tensor_is_refused(self) -> None:
        with pytest.raises(TransformError) as caught:
            prepare(torch.zeros(3, 8, 10), transform=T.ToTensor())
        assert str(caught.value) == (
            "the image is a tensor of shape (3, 8, 10), which is model input already, and the transform ToTensor() was "
            "given with it: pass the picture (path, PIL image or uint8 array) with the transform, or the tensor without"
        )


class Declaring(torch.nn.Module):
    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 10), "mean": mean, "std": std}


class TestWhatTheModelSaw:
    @pytest.fixture
    def picture(self) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(1).integers(0, 256, (8, 10, 3), dtype=np.uint8)

    def test_values_in_0_to_1_are_shown_as_they_are(self, picture: npt.NDArray[np.uint8]) -> None:
        assert np.array_equal(prepare(T.functional.to_tensor(picture)).seen, picture)

    def test_a_declared_normalisation_is_undone(self, picture: npt.NDArray[np.uint8]) -> None:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        tensor = T.functional.normalize(T.functional.to_tensor(picture), mean, std)
        assert np.array_equal(prepare(tensor, model=Declaring(mean, std)).seen, picture)

    def test_a_declaration_that_does_not_fit_the_values_is_not_used(self) -> None:
        tensor = torch.linspace(-30, 30, 240).reshape(3, 8, 10)
        seen = prepare(tensor, model=Declaring((0.5,) * 3, (0.5,) * 3)).seen
        assert np.array_equal(seen, prepare(tensor).seen)

    def test_other_values_are_stretched_over_the_whole_image(self) -> None:
        seen = prepare(torch.tensor([-2.0, 0.0, 2.0]).reshape(3, 1, 1).expand(3, 2, 2)).seen
        assert seen[0, 0].tolist() == [0, 128, 255]

    def test_an_even_image_outside_0_to_1_is_mid_grey(self) -> None:
        assert np.unique(prepare(torch.full((3, 2, 2), 7.0)).seen).tolist() == [128]

    def test_one_channel_is_repeated(self) -> None:
        seen = prepare(torch.tensor([[[0.0, 0.2], [0.6, 1.0]]])).seen
        assert seen.tolist() == [[[0] * 3, [51] * 3], [[153] * 3, [255] * 3]]

    @pytest.mark.parametrize("channels", [2, 5])
    def test_other_channel_counts_are_averaged(self, channels: int) -> None:
        tensor = torch.zeros(channels, 2, 2)
        tensor[0] = 1.0
        assert np.unique(prepare(tensor).seen).tolist() == [round(255 / channels)]

    def test_of_a_picture_it_is_the_picture_without_the_normalisation(self, picture: npt.NDArray[np.uint8]) -> None:
        steps = T.Compose([T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
        assert np.array_equal(prepare(picture, transform=steps).seen, picture)

    def test_of_a_cropped_picture_it_is_the_crop(self, picture: npt.NDArray[np.uint8]) -> None:
        steps = T.Compose([T.CenterCrop((4, 6)), T.ToTensor(), T.Normalize((0.5,) * 3, (0.25,) * 3)])
        assert np.array_equal(prepare(picture, transform=steps).seen, picture[2:6, 2:8])

    def test_padding_is_black(self, picture: npt.NDArray[np.uint8]) -> None:
        steps = T.Compose([T.Pad(2, fill=200), T.ToTensor()])
        assert np.array_equal(prepare(picture, transform=steps).seen, np.pad(picture, ((2, 2), (2, 2), (0, 0))))

    def test_a_transform_that_cannot_carry_regions_still_makes_model_input(
        self, picture: npt.NDArray[np.uint8]
    ) -> None:
        def standardise(image: Image.Image) -> torch.Tensor:
            values: torch.Tensor = T.functional.to_tensor(image)
            return (values - values.mean()) / values.std()

        prepared = prepare(picture, transform=standardise)
        assert torch.equal(prepared.tensor[0], standardise(Image.fromarray(picture)))
        stretched = (picture - picture.min()) / (int(picture.max()) - int(picture.min())) * 255
        assert np.abs(prepared.seen - stretched).max() <= 0.501


class TestTransformArgument:
    def test_something_that_cannot_be_called_is_refused(self) -> None:
        with pytest.raises(TransformError) as caught:
            prepare(np.zeros((8, 8), np.uint8), transform="eval")  # type: ignore[arg-type]
        assert str(caught.value) == (
            "the transform is 'eval' of type str: it must be a callable from a PIL image to a tensor, or None for the "
            "one that the model declares"
        )

    def test_it_gets_an_rgb_pil_image_whatever_was_given(self, tmp_path: Path) -> None:
        Image.new("L", (9, 6)).save(tmp_path / "grey.png")
        got: list[Any] = []

        def spy(image: Image.Image) -> torch.Tensor:
            got.append((type(image), image.mode, image.size))
            tensor: torch.Tensor = T.functional.to_tensor(image)
            return tensor

        for image in (tmp_path / "grey.png", np.zeros((6, 9), np.uint8), Image.new("CMYK", (9, 6))):
            prepare(image, transform=spy)
        assert set(got) == {(Image.Image, "RGB", (9, 6))}


class TestCarryRegion:
    def test_a_region_that_does_not_fit_the_picture_is_refused_in_its_frame(self) -> None:
        steps = T.Compose([T.Resize((10, 10)), T.ToTensor()])
        prepared = prepare(smooth(40, 60), transform=steps)
        with pytest.raises(RegionError, match=r"lies outside the image: it is 60 wide and 40 high\."):
            carry_region(Region.of((70, 0, 90, 10)), prepared)

    def test_a_region_that_is_cropped_away_is_refused(self) -> None:
        prepared = prepare(smooth(40, 60), transform=T.Compose([T.CenterCrop(20), T.ToTensor()]))
        with pytest.raises(RegionError) as caught:
            carry_region(Region.of((0, 0, 15, 9)), prepared)
        assert str(caught.value) == (
            "the box (0, 0, 15, 9) is cropped away: the transform Compose( CenterCrop(size=(20, 20)) ToTensor() ) "
            "leaves 0 pixels of it in the 20×20 that the model sees of the 60×40 image. Use a region that the model "
            "sees, or a transform that does not crop it away or shrink it to nothing"
        )

    def test_a_region_that_is_shrunk_to_nothing_is_refused(self) -> None:
        prepared = prepare(smooth(400, 600), transform=T.Compose([T.Resize((10, 10)), T.ToTensor()]))
        with pytest.raises(RegionError, match=r"is cropped away: .* leaves 0\.\d+ pixels of it in the 10×10"):
            carry_region(Region.of((100, 100, 110, 110)), prepared)

    def test_a_region_at_the_edge_of_the_crop_keeps_what_is_inside(self) -> None:
        prepared = prepare(smooth(40, 60), transform=T.Compose([T.CenterCrop(20), T.ToTensor()]))
        carried = carry_region(Region.of((0, 0, 25, 12)), prepared)
        assert np.argwhere(carried == 1).tolist() == [[row, column] for row in (0, 1) for column in range(5)]
        assert carried.sum() == 10
