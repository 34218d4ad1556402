"""Pictures read into upright RGB: every served kind, and every other refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile
from torchvision import transforms as T

from pytest_gradcam.errors import ImageError, ImageTypeError
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.pictures import load
from pytest_gradcam.regions import Region

KINDS = (
    "an image is a path, a PIL.Image, a uint8 array (H, W, 3) or (H, W), or a float tensor (C, H, W) that already is "
    "model input"
)


@pytest.fixture
def rgb() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture that JPEG keeps well: brighter to the right and, in another channel, downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [columns * 255 / (width - 1), rows * 255 / (height - 1), np.full((height, width), 90.0)]
    return np.stack(planes, axis=2).round().astype(np.uint8)


class TestServedKinds:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_path_is_read(self, kind: Any, rgb: npt.NDArray[np.uint8], tmp_path: Path) -> None:
        Image.fromarray(rgb).save(tmp_path / "cat.png")
        assert np.array_equal(load(kind(tmp_path / "cat.png")), rgb)

    def test_a_pil_image_is_taken_as_it_is(self, rgb: npt.NDArray[np.uint8]) -> None:
        assert np.array_equal(load(Image.fromarray(rgb)), rgb)

    def test_an_rgb_array_is_copied(self, rgb: npt.NDArray[np.uint8]) -> None:
        loaded = load(rgb)
        assert np.array_equal(loaded, rgb)
        assert not np.shares_memory(loaded, rgb)

    def test_a_mirrored_view_of_an_array_is_served(self, rgb: npt.NDArray[np.uint8]) -> None:
        assert np.array_equal(load(rgb[:, ::-1]), np.fliplr(rgb))

    def test_a_grey_array_becomes_three_equal_channels(self, rgb: npt.NDArray[np.uint8]) -> None:
        assert np.array_equal(load(rgb[..., 0]), np.stack([rgb[..., 0]] * 3, axis=2))

    def test_mode_l_becomes_three_equal_channels(self, rgb: npt.NDArray[np.uint8]) -> None:
        assert np.array_equal(load(Image.fromarray(rgb[..., 1])), np.stack([rgb[..., 1]] * 3, axis=2))

    def test_mode_1_is_black_and_white(self) -> None:
        bits = np.eye(5, dtype=bool)
        assert np.array_equal(load(Image.fromarray(bits)), np.stack([bits * np.uint8(255)] * 3, axis=2))

    def test_mode_p_is_looked_up_in_its_palette(self) -> None:
        picture = Image.new("P", (2, 1))
        picture.putpalette([10, 20, 30, 200, 100, 50])
        picture.putpixel((1, 0), 1)
        assert load(picture).tolist() == [[[10, 20, 30], [200, 100, 50]]]

    def test_mode_cmyk_is_converted(self) -> None:
        """Without black ink, red is 255 minus cyan, and so on."""
        assert load(Image.new("CMYK", (1, 1), (10, 100, 200, 0))).tolist() == [[[245, 155, 55]]]

    @pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
    def test_other_colour_models_come_back_as_the_colours_they_stand_for(self, mode: str) -> None:
        picture = smooth(20, 30)
        assert np.abs(load(Image.fromarray(picture).convert(mode)).astype(int) - picture).max() <= 6

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
    def test_opaque_alpha_is_dropped(self, mode: str, rgb: npt.NDArray[np.uint8]) -> None:
        grey = Image.fromarray(rgb[..., 0])
        if mode in ("RGBA", "RGBa"):
            picture, expected = Image.fromarray(rgb).convert("RGBA").convert(mode), rgb
        else:
            picture, expected = grey.convert("LA").convert(mode), np.stack([rgb[..., 0]] * 3, axis=2)
        assert picture.mode == mode
        assert np.array_equal(load(picture), expected)

    def test_a_users_lazy_picture_stays_usable(self, rgb: npt.NDArray[np.uint8], tmp_path: Path) -> None:
        Image.fromarray(rgb).save(tmp_path / "cat.png")
        with Image.open(tmp_path / "cat.png") as picture:
            load(picture)
            assert np.array_equal(np.asarray(picture), rgb)


class TestUprightByExif:
    # orientation → what a viewer must do with the stored pixels, from the EXIF 2.3 specification, 4.6.4 A, tag 274
    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda a: a),
            (2, np.fliplr),
            (3, lambda a: np.rot90(a, 2)),
            (4, np.flipud),
            (5, lambda a: a.transpose(1, 0, 2)),
            (6, lambda a: np.rot90(a, -1)),
            (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
            (8, np.rot90),
        ],
    )
    @pytest.mark.parametrize("opened", [False, True], ids=["path", "PIL"])
    def test_the_image_frame_is_the_upright_picture(
        self, orientation: int, upright: Any, opened: bool, tmp_path: Path
    ) -> None:
        stored = smooth(16, 32)
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(tmp_path / "phone.jpg", quality=100, subsampling=0, exif=exif)
        with Image.open(tmp_path / "phone.jpg") as picture:
            loaded = load(picture if opened else tmp_path / "phone.jpg")
        expected = upright(stored)
        assert loaded.shape == expected.shape
        assert np.abs(loaded.astype(int) - expected).max() <= 4

    def test_the_transform_and_the_region_are_in_the_upright_frame(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(smooth(16, 32)).save(tmp_path / "phone.jpg", exif=exif)
        prepared = prepare(tmp_path / "phone.jpg", transform=T.ToTensor())
        assert prepared.frame == (32, 16)
        assert tuple(prepared.tensor.shape) == (1, 3, 32, 16)
        carried = carry_region(Region.of((3, 20, 9, 31)), prepared)
        assert np.argwhere(carried > 0.5).min(axis=0).tolist() == [20, 3]
        assert np.argwhere(carried > 0.5).max(axis=0).tolist() == [30, 8]


class TestUnreadableFiles:
    def test_a_missing_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ImageError) as caught:
            load("nowhere.png")
        where = f"there is no file 'nowhere.png' in {tmp_path}"
        assert str(caught.value) == f"{where}: pass the path of a picture, absolute or from there"

    @pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000], ids=["empty", "null byte", "too long"])
    def test_a_string_that_cannot_be_a_path(self, path: str) -> None:
        with pytest.raises(ImageError, match=r"^there is no file "):
            load(path)

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError) as caught:
            load(tmp_path)
        assert str(caught.value) == f"the image {str(tmp_path)!r} is a directory: pass the path of one picture in it"

    @pytest.mark.parametrize("content", [b"", b"no picture at all"], ids=["empty", "text"])
    def test_a_file_that_is_no_picture(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "notes.png"
        path.write_bytes(content)
        with pytest.raises(ImageError) as caught:
            load(path)
        expected = f"the image {str(path)!r} is in no format that PIL can read: pass a PNG, JPEG or the like"
        assert str(caught.value) == expected

    @pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tiff", "webp"])
    def test_a_truncated_picture(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"half.{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageError) as caught:
            load(path)
        assert str(caught.value).startswith(f"the image {str(path)!r} ")

    def test_a_truncated_jpeg_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "half.jpg"
        Image.fromarray(smooth(64, 64)).save(path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(
            ImageError, match=r"half\.jpg' cannot be decoded: .*truncated.* Is it whole, and still open\?"
        ):
            load(path)

    @pytest.mark.parametrize("limit", [40, 1], ids=["warning as error", "error"])
    def test_a_decompression_bomb(self, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "bomb.png"
        Image.fromarray(smooth(6, 9)).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError) as caught:
            load(path)
        message = str(caught.value)
        assert message.startswith(
            f"the image {str(path)!r} is too large to be opened safely: Image size (54 pixels) exceeds limit"
        )
        assert message.endswith("attack. If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS")

    @pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")  # as outside of tests
    def test_a_bomb_of_which_pil_only_warns_is_not_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "bomb.png"
        Image.fromarray(smooth(6, 9)).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
        monkeypatch.setattr(ImageFile.ImageFile, "load", pytest.fail)
        with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ImageError, match="too large to be opened"):
            load(path)
        with pytest.warns(Image.DecompressionBombWarning), Image.open(path) as picture:
            with pytest.raises(ImageError, match=r"opened safely: Image size \(54 pixels\) exceeds limit"):
                load(picture)

    def test_a_large_picture_that_is_no_file_is_no_bomb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
        assert (load(Image.fromarray(smooth(6, 9))) == smooth(6, 9)).all()

    def test_a_pil_image_whose_file_was_closed(self, tmp_path: Path) -> None:
        path = tmp_path / "cat.png"
        Image.fromarray(smooth(6, 9)).save(path)
        with Image.open(path) as picture:
            pass
        with pytest.raises(ImageError) as caught:
            load(picture)
        assert str(caught.value).startswith(f"the PIL image {str(path)!r} cannot be decoded: ")
        assert str(caught.value).endswith("Is it whole, and still open?")


class TestTransparency:
    MEND = "flatten it onto a background, for example with Image.alpha_composite, and pass the RGB picture"

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
    def test_an_alpha_channel_that_is_not_opaque_is_refused(self, mode: str) -> None:
        grey = mode not in ("RGBA", "RGBa")
        start = "PA" if mode == "PA" else "LA" if grey else "RGBA"
        picture = Image.new(start, (4, 3), (9, 255) if grey else (9, 9, 9, 255))
        picture.putpixel((2, 1), (9, 70) if grey else (9, 9, 9, 70))
        picture = picture.convert(mode)
        with pytest.raises(ImageError) as caught:
            load(picture)
        assert str(caught.value) == (
            f"the PIL image of 4×3 pixels has transparency (mode {mode}, alpha down to 70 of 255), and a model sees "
            f"none: {self.MEND}"
        )

    def test_a_palette_with_a_faint_colour_is_refused(self) -> None:
        picture = Image.new("RGBA", (4, 3), (9, 9, 9, 255))
        picture.putpixel((2, 1), (9, 9, 9, 70))
        with pytest.raises(ImageError, match=r"has transparency \(mode P, alpha down to 70 of 255\)"):
            load(picture.quantize())

    @pytest.mark.parametrize("mode", ["P", "RGB", "L"])
    def test_a_colour_marked_as_transparent_is_refused(self, mode: str, tmp_path: Path) -> None:
        picture = Image.new(mode, (4, 3))
        picture.save(tmp_path / "key.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
        with pytest.raises(ImageError, match=rf"key\.png' has transparency \(mode {mode}, alpha down to 0 of 255\)"):
            load(tmp_path / "key.png")

    def test_a_transparent_colour_that_no_pixel_has_is_no_transparency(self, tmp_path: Path) -> None:
        Image.new("RGB", (4, 3), (5, 5, 5)).save(tmp_path / "key.png", transparency=(0, 0, 0))
        assert np.array_equal(load(tmp_path / "key.png"), np.full((3, 4, 3), 5))


@pytest.mark.parametrize(
    ("mode", "mend"),
    [
        ("I;16", "16-bit grey: scale it to 0..255 yourself and pass a uint8 array"),
        ("I;16B", "16-bit grey: scale it to 0..255 yourself and pass a uint8 array"),
        ("I", "32-bit integers: scale it to 0..255 yourself and pass a uint8 array"),
        ("F", "floats: scale it to 0..255 yourself and pass a uint8 array"),
        ("LAB", "L*a*b* colours: convert it to RGB with PIL.ImageCms"),
    ],
)
def test_pil_modes_without_an_agreed_scale_are_refused(mode: str, mend: str) -> None:
    with pytest.raises(ImageError) as caught:
        load(Image.new(mode, (4, 3)))
    assert str(caught.value) == f"the PIL image of 4×3 pixels has mode {mode}, {mend}"


def test_a_16_bit_png_is_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 40000, dtype=np.uint16)).save(tmp_path / "scan.png")
    with pytest.raises(ImageError, match=r"scan\.png' has mode I;16, 16-bit grey: scale it to 0\.\.255 yourself"):
        load(tmp_path / "scan.png")


def test_a_pil_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError) as caught:
        load(Image.new("RGB", (0, 5)))
    assert str(caught.value) == "the PIL image of 0×5 pixels is 0 wide and 5 high: pass one that has pixels"


SERVED = "arrays are uint8 (H, W, 3) or (H, W)"


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.zeros((5, 7, 3), np.float32),
            ImageTypeError,
            f"an array of shape (5, 7, 3) and dtype float32 is no image: {SERVED}; pass (image * "
            "255).round().astype(np.uint8) if it is in 0..1, or torch.from_numpy of a (C, H, W) array if it is "
            "model input",
        ),
        (
            np.zeros((5, 7), bool),
            ImageTypeError,
            f"an array of shape (5, 7) and dtype bool is no image: {SERVED}; pass image.astype(np.uint8) * 255",
        ),
        (
            np.zeros((5, 7), np.uint16),
            ImageTypeError,
            f"an array of shape (5, 7) and dtype uint16 is no image: {SERVED}; pass (image // 257).astype(np.uint8) if "
            "it uses all 16 bits",
        ),
        (
            np.zeros((5, 7, 3), np.int64),
            ImageTypeError,
            f"an array of shape (5, 7, 3) and dtype int64 is no image: {SERVED}; pass image.astype(np.uint8) if it is "
            "in 0..255",
        ),
        (
            np.zeros((5, 7, 4), np.uint8),
            ImageError,
            f"an array of shape (5, 7, 4) and dtype uint8 is no image: {SERVED}; flatten its alpha channel onto a "
            "background, or pass image[..., :3] if that is opaque",
        ),
        (
            np.zeros((5, 7, 1), np.uint8),
            ImageError,
            f"an array of shape (5, 7, 1) and dtype uint8 is no image: {SERVED}; pass image[..., 0]",
        ),
        (
            np.zeros((3, 5, 7), np.uint8),
            ImageError,
            f"an array of shape (3, 5, 7) and dtype uint8 is no image: {SERVED}; pass image.transpose(1, 2, 0)",
        ),
        (
            np.zeros((1, 5, 7), np.uint8),
            ImageError,
            f"an array of shape (1, 5, 7) and dtype uint8 is no image: {SERVED}; pass image[0]",
        ),
        (
            np.zeros((2, 5, 7, 3), np.uint8),
            ImageError,
            f"an array of shape (2, 5, 7, 3) and dtype uint8 is no image: {SERVED}; pass one picture, image[0]; many "
            "go to explain_batch",
        ),
        (
            np.zeros(7, np.uint8),
            ImageError,
            f"an array of shape (7,) and dtype uint8 is no image: {SERVED}; pass one picture",
        ),
        (
            np.zeros((0, 7, 3), np.uint8),
            ImageError,
            f"an array of shape (0, 7, 3) and dtype uint8 has no pixels: {KINDS}",
        ),
    ],
    ids=lambda value: f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else "",
)
def test_an_array_of_the_wrong_shape_or_dtype_is_refused_with_the_mend(
    array: npt.NDArray[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        load(array)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, f"None of type NoneType is no image: {KINDS}"),
        (7, f"7 of type int is no image: {KINDS}"),
        (["a.png"], f"['a.png'] of type list is no image: {KINDS}; many images go to explain_batch"),
        (
            b"\x89PNG",
            f"b'\\x89PNG' of type bytes is no image: {KINDS}; the bytes of a file are opened with "
            "PIL.Image.open(io.BytesIO(data))",
        ),
    ],
    ids=["None", "int", "list", "bytes"],
)
def test_a_value_of_another_type_is_refused_with_what_is_served(image: object, message: str) -> None:
    with pytest.raises(ImageTypeError) as caught:
        prepare(image, transform=T.ToTensor())
    assert str(caught.value) == message
    assert isinstance(caught.value, TypeError)
