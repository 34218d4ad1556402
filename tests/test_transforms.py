"""The transform a model declares, and what is asked of any: a tensor, finite, the same each time, no trace left."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from PIL import Image
from timm.models import PretrainedCfg
from torchvision import transforms as T
from torchvision.transforms import v2

from pytest_gradcam.errors import TransformError
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.regions import Region
from pytest_gradcam.transforms import declared_transform, model_input

EVAL = "Pass the transform that the model is evaluated with, without augmentation"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def to_tensor(picture: Image.Image) -> torch.Tensor:
    tensor: torch.Tensor = T.functional.to_tensor(picture)
    return tensor


class Declaring(torch.nn.Module):
    """A model of no known family that declares its input as timm's do."""

    def __init__(self, config: object, channels: int = 3) -> None:
        super().__init__()
        self.pretrained_cfg = config
        self.stem = torch.nn.Conv2d(channels, 4, 3)


CONFIG: dict[str, Any] = {
    "input_size": (3, 32, 48),
    "mean": (0.5, 0.25, 0.125),
    "std": (0.5, 0.25, 0.2),
    "interpolation": "bilinear",
    "crop_pct": 0.8,
    "crop_mode": "squash",
    "first_conv": "stem",
}


DECLARING = Declaring(CONFIG)  # made here, since making weights draws random numbers


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    wrapped: Any = torch.compile(model)
    assert isinstance(wrapped, torch.nn.Module)
    return wrapped


def expected_of_config(picture: Image.Image) -> torch.Tensor:
    """CONFIG by hand: squash to 1/0.8 of the input, crop its centre, normalise."""
    small = picture.resize((60, 40), Image.Resampling.BILINEAR).crop((6, 4, 54, 36))
    values = np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.array(CONFIG[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    return torch.from_numpy((values - mean) / std)


class TestDeclared:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda model: model,
            torch.nn.DataParallel[torch.nn.Module],
            compiled,
            lambda model: torch.nn.DataParallel(compiled(model)),
            lambda model: (model, torch.nn.Identity()),
        ],
        ids=["bare", "DataParallel", "compiled", "DataParallel of compiled", "pair"],
    )
    def test_the_declared_steps_are_taken(self, wrap: Callable[[Any], Any], picture: Image.Image) -> None:
        prepared = prepare(picture, model=wrap(Declaring(CONFIG)))
        assert torch.allclose(prepared.tensor[0], expected_of_config(picture), atol=1e-5)

    def test_a_timm_model_gets_what_timm_would_make_for_it(self, picture: Image.Image) -> None:
        model = timm.create_model("resnet18", num_classes=3)
        timm_data: Any = timm.data
        steps = timm_data.create_transform(**timm_data.resolve_model_data_config(model), is_training=False)
        assert torch.equal(prepare(picture, model=model).tensor[0], steps(picture))

    def test_timms_own_configuration_class_is_read(self, picture: Image.Image) -> None:
        keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
        config = PretrainedCfg(**{key: CONFIG[key] for key in keys})
        prepared = prepare(picture, model=Declaring(config))
        assert torch.allclose(prepared.tensor[0], expected_of_config(picture), atol=1e-5)

    @pytest.mark.parametrize("declared", [True, False], ids=["input_size of 1 channel", "built with in_chans=1"])
    def test_a_model_of_one_channel_gets_a_grey_picture(self, declared: bool, picture: Image.Image) -> None:
        """Without normalisation of its own for one channel, it gets the average of the three."""
        size = {"input_size": (1, 32, 48), "mean": (0.25,), "std": (0.4,)} if declared else {}
        tensor = prepare(picture, model=Declaring(CONFIG | size, channels=1)).tensor
        mean, std = (0.25, 0.4) if declared else (0.875 / 3, 0.95 / 3)
        grey = picture.convert("L").resize((60, 40), Image.Resampling.BILINEAR).crop((6, 4, 54, 36))
        expected = (np.asarray(grey, dtype=np.float32) / 255 - mean) / std
        assert np.allclose(tensor[0, 0], expected, atol=1e-5)
        assert tensor.shape[1] == 1

    def test_a_region_is_carried_through_a_grey_transform(self, picture: Image.Image) -> None:
        prepared = prepare(picture, model=Declaring(CONFIG, channels=1))
        assert carry_region(Region.of((30, 12, 60, 48)), prepared).sum() == pytest.approx(20 * 24, rel=0.01)
        assert prepared.seen.shape == (32, 48, 3)

    def test_a_vision_transformer_built_for_another_size_gets_that_size(self, picture: Image.Image) -> None:
        model = timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), depth=1)
        assert tuple(prepare(picture, model=model).tensor.shape) == (1, 3, 64, 96)

    def test_a_model_that_folds_pixels_into_channels_gets_its_three_channels(self, picture: Image.Image) -> None:
        """TResNet's first layer takes 48 channels: blocks of 4 × 4 pixels of 3."""
        tensor = prepare(picture, model=Declaring(CONFIG, channels=48)).tensor
        assert torch.allclose(tensor[0], expected_of_config(picture), atol=1e-5)

    def test_a_model_of_other_channel_counts_is_refused(self, picture: Image.Image) -> None:
        with pytest.raises(TransformError) as caught:
            prepare(picture, model=Declaring(CONFIG, channels=5))
        assert str(caught.value) == (
            "Declaring takes 5 channels, and a picture has 3 (or 1 as grey): pass transform=…, a callable from a PIL "
            "image to a tensor (5, H, W), or pass a float tensor that already is model input"
        )

    @pytest.mark.parametrize(
        ("model", "who"),
        [
            (None, "no model was given"),
            (torch.nn.Sequential(), "Sequential does not declare its transform"),
            (torch.nn.DataParallel(torch.nn.ReLU()), "DataParallel does not declare its transform"),
            ((torch.nn.ReLU(), torch.nn.Linear(1, 1)), "(ReLU, Linear) does not declare its transform"),
            (Declaring({"input_size": (3, 8, 8)}), "Declaring does not declare its transform"),
            (Declaring(None), "Declaring does not declare its transform"),
        ],
        ids=["None", "undeclared", "wrapped", "pair", "without mean and std", "None declared"],
    )
    def test_a_model_that_declares_nothing_is_an_error_that_says_what_to_pass(
        self, model: object, who: str, picture: Image.Image
    ) -> None:
        with pytest.raises(TransformError) as caught:
            prepare(picture, model=model)
        assert str(caught.value) == (
            f"{who}, so a picture cannot be made into its input: pass transform=…, a callable from a PIL image to a "
            "tensor (torchvision: transform=weights.transforms(); timm: transform=timm.data.create_transform("
            "**timm.data.resolve_model_data_config(model))), or pass a float tensor (C, H, W) that already is "
            "model input"
        )

    def test_a_given_transform_goes_before_the_declared_one(self, picture: Image.Image) -> None:
        assert torch.equal(prepare(picture, model=Declaring(CONFIG), transform=to_tensor).tensor[0], to_tensor(picture))

    def test_one_declaration_gives_one_object(self) -> None:
        """So that it is examined for randomness once, not once for each picture."""
        assert declared_transform(Declaring(CONFIG)) is declared_transform(Declaring(dict(CONFIG)))


class TestOutput:
    @pytest.mark.parametrize("batched", [False, True])
    def test_both_shapes_of_one_picture_are_taken(self, batched: bool, picture: Image.Image) -> None:
        prepared = prepare(picture, transform=lambda image: to_tensor(image)[None] if batched else to_tensor(image))
        assert torch.equal(prepared.tensor, to_tensor(picture)[None])

    def test_a_buffer_that_the_transform_uses_again_is_copied(self, picture: Image.Image) -> None:
        buffer = torch.zeros(3, 60, 90)
        prepared = prepare(picture, transform=lambda image: buffer.copy_(to_tensor(image)))
        assert torch.equal(prepared.tensor[0], to_tensor(picture))

    def test_a_transform_that_draws_on_its_picture_gets_a_fresh_one_each_time(self, picture: Image.Image) -> None:
        def brighten_in_place(image: Image.Image) -> torch.Tensor:
            image.paste(image.point(lambda value: value // 2))
            return to_tensor(image)

        prepared = prepare(picture, transform=brighten_in_place)
        assert torch.equal(prepared.tensor[0], to_tensor(picture.point(lambda value: value // 2)))

    @pytest.mark.parametrize(
        ("transform", "gave"),
        [
            (T.Resize(8), "a PIL.Image.Image: {wanted}; end it with torchvision's ToTensor(), or v2.ToImage() and "
             "v2.ToDtype(torch.float32, scale=True)"),
            (np.asarray, "a numpy array of shape (60, 90, 3) and dtype uint8: {wanted}; end it with torchvision's "
             "ToTensor(), or v2.ToImage() and v2.ToDtype(torch.float32, scale=True)"),
            (lambda image: None, "nothing (None): {wanted}"),
            (lambda image: [to_tensor(image)], "a builtins.list: {wanted}"),
            (lambda image: {"pixel_values": 1}, "a builtins.dict: {wanted}; take the tensor from it, one of "
             "'pixel_values'"),
            (T.PILToTensor(), "a tensor of shape (3, 60, 90) and dtype uint8: {wanted}; v2.ToDtype(torch.float32, "
             "scale=True) makes bytes into floats"),
            (lambda image: to_tensor(image)[0], "a tensor of shape (60, 90) and dtype float32: {wanted}"),
            (lambda image: torch.stack([to_tensor(image)] * 5), "a tensor of shape (5, 3, 60, 90) and dtype float32: "
             "{wanted}"),
            (lambda image: to_tensor(image)[:, :0], "a tensor of shape (3, 0, 90) and dtype float32: {wanted}"),
            (lambda image: to_tensor(image) / 0, "a tensor of shape (3, 60, 90) and dtype float32, of which 16200 "
             "values are not finite: {wanted} without NaN or infinity; a division by the standard deviation of an even "
             "picture is the usual cause"),
        ],
        ids=["PIL", "array", "None", "list", "dict", "uint8", "2-D", "five crops", "empty", "infinite"],
    )  # fmt: skip
    def test_what_is_no_model_input_is_refused_by_type_and_shape(
        self, transform: Any, gave: str, picture: Image.Image
    ) -> None:
        with pytest.raises(TransformError) as caught:
            prepare(picture, transform=transform)
        wanted = "one picture must become a float tensor (C, H, W) or (1, C, H, W)"
        assert str(caught.value).split(" gave ", 1)[1] == gave.format(wanted=wanted)

    def test_what_the_transform_raises_passes_through(self, picture: Image.Image) -> None:
        error = KeyError("the user's own")

        def fail(image: Image.Image) -> torch.Tensor:
            raise error

        with pytest.raises(KeyError) as caught:
            prepare(picture, transform=fail)
        assert caught.value is error


class PrivatelyRandom:
    """Flips a picture with probability one half, by a generator that no global state shows."""

    def __init__(self, seed: int) -> None:
        self.coin = np.random.default_rng(seed)
        self.calls = 0

    def __call__(self, image: Image.Image) -> torch.Tensor:
        self.calls += 1
        tensor = to_tensor(image)
        return tensor.flip(2) if self.coin.random() < 0.5 else tensor


class TestRandomness:
    @pytest.mark.parametrize(
        ("step", "source"),
        [
            (T.RandomHorizontalFlip(0.5), "torch"),
            (T.RandomResizedCrop(20), "torch"),
            (v2.RandomRotation(10), "torch"),
            (lambda image: image.rotate(random.random()), "random"),
            (lambda image: image.rotate(np.random.rand()), "numpy.random"),
            (T.RandomHorizontalFlip(0.0), "torch"),
        ],
        ids=["flip", "crop", "v2 rotation", "random", "numpy.random", "draws and does nothing"],
    )
    def test_drawing_from_a_global_generator_is_refused(self, step: Any, source: str, picture: Image.Image) -> None:
        with pytest.raises(TransformError) as caught:
            prepare(picture, transform=lambda image: to_tensor(step(image)))
        assert str(caught.value).startswith("the transform TestRandomness.")
        assert str(caught.value).endswith(f"<lambda> is random: it draws random numbers from {source}. {EVAL}")

    def test_several_sources_are_all_named(self, picture: Image.Image) -> None:
        with pytest.raises(TransformError, match=r"draws random numbers from torch and numpy\.random and random\."):
            prepare(picture, transform=lambda image: torch.rand(3, 8, 8) + np.random.rand() + random.random())

    @pytest.mark.parametrize("seed", range(6))
    def test_a_private_generator_is_found_by_asking_again(self, seed: int, picture: Image.Image) -> None:
        transform = PrivatelyRandom(seed)
        with pytest.raises(TransformError) as caught:
            prepare(picture, transform=transform)
        assert f"is random: it answered the same picture differently when it was asked again. {EVAL}" in str(
            caught.value
        )

    @pytest.mark.parametrize("seed", range(6))
    def test_a_private_flip_is_found_on_a_blank_picture_too(self, seed: int) -> None:
        with pytest.raises(TransformError, match="is random: it answered the same picture differently"):
            prepare(Image.new("RGB", (90, 60)), transform=PrivatelyRandom(seed))

    def test_a_transform_that_cannot_serve_noise_is_looked_at_closely_on_the_picture(
        self, picture: Image.Image
    ) -> None:
        blank = Image.new("RGB", (90, 60))
        calls: list[int] = []

        def needs_a_blank(image: Image.Image) -> torch.Tensor:
            calls.append(1)
            if image.getbbox() is not None:
                raise LookupError("no blank in it")
            return to_tensor(image)

        assert torch.equal(model_input(needs_a_blank, blank), to_tensor(blank))
        assert len(calls) == 1 + 8 + 2
        with pytest.raises(LookupError, match="no blank in it"):
            model_input(needs_a_blank, picture)

    def test_a_region_is_pushed_twice_and_compared(self, picture: Image.Image) -> None:
        answers = iter([False] * 13 + [True])  # 8 of noise, 2 of the picture, black, white, the mask, the mask again
        steps = lambda image: to_tensor(image).flip(2) if next(answers) else to_tensor(image)  # noqa: E731
        prepared = prepare(picture, transform=steps)
        with pytest.raises(TransformError, match="is random: it answered the same picture differently"):
            carry_region(Region.of((30, 12, 50, 48)), prepared)

    def test_another_dtype_is_another_answer(self, picture: Image.Image) -> None:
        dtypes = iter([torch.float32] + [torch.float64] * 9)
        with pytest.raises(TransformError, match="is random: it answered the same picture differently"):
            prepare(picture, transform=lambda image: to_tensor(image).to(next(dtypes)))

    def test_a_transform_is_asked_8_times_more_when_it_is_new(self, picture: Image.Image) -> None:
        transform = PrivatelyRandom(0)
        transform.coin = type("Fair", (), {"random": lambda self: 1.0})()
        model_input(transform, picture)
        assert transform.calls == 10
        model_input(transform, picture)
        assert transform.calls == 12

    def test_a_transform_that_cannot_be_weakly_held_is_remembered_too(self, picture: Image.Image) -> None:
        class Slotted:
            __slots__ = ("calls",)

            def __init__(self) -> None:
                self.calls = 0

            def __call__(self, image: Image.Image) -> torch.Tensor:
                self.calls += 1
                return to_tensor(image)

        transform = Slotted()
        model_input(transform, picture)
        model_input(transform, picture)
        assert transform.calls == 12
        for _ in range(40):
            model_input(Slotted(), picture.resize((2, 2)))
        model_input(transform, picture)
        assert transform.calls == 22, "forgotten after 40 others, so that nothing is kept alive for ever"

    def test_a_transform_that_became_random_is_found_later(self, picture: Image.Image) -> None:
        angles = iter([0.0] * 10 + [10.0, 20.0])
        transform = lambda image: to_tensor(image.rotate(next(angles)))  # noqa: E731
        model_input(transform, picture)
        with pytest.raises(TransformError, match="is random"):
            model_input(transform, picture)

    def test_no_transform_is_kept_alive(self, picture: Image.Image) -> None:
        transform = PrivatelyRandom(0)
        transform.coin = type("Fair", (), {"random": lambda self: 1.0})()
        prepare(picture, transform=transform)
        reference = weakref.ref(transform)
        del transform
        gc.collect()
        assert reference() is None


def global_states() -> tuple[npt.NDArray[Any], tuple[Any, ...], Any]:
    legacy: Any = np.random.get_state()
    return torch.get_rng_state().numpy(), legacy[1:3], random.getstate()


@pytest.fixture
def untouched_generators() -> Iterator[None]:
    """Fails the test that leaves a global random generator in another state than it found it in."""
    before = global_states()
    yield
    after = global_states()
    assert np.array_equal(before[0], after[0])
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]


def draw_everywhere(image: Image.Image) -> torch.Tensor:
    return torch.rand(3, 8, 8) + np.random.rand() + random.random()


def draw_and_fail(image: Image.Image) -> torch.Tensor:
    draw_everywhere(image)
    raise KeyError("the user's own")


def seed_everywhere(image: Image.Image) -> torch.Tensor:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return torch.rand(3, 8, 8)


@pytest.mark.usefixtures("untouched_generators")
class TestGeneratorsAreRestored:
    @pytest.mark.parametrize("transform", [draw_everywhere, seed_everywhere])
    def test_when_the_transform_is_refused(self, transform: Any, picture: Image.Image) -> None:
        with pytest.raises(TransformError, match="is random: it draws random numbers"):
            prepare(picture, transform=transform)

    def test_when_the_transform_raises(self, picture: Image.Image) -> None:
        with pytest.raises(KeyError):
            prepare(picture, transform=draw_and_fail)

    def test_when_all_is_well(self, picture: Image.Image) -> None:
        prepared = prepare(picture, model=DECLARING)
        carry_region(Region.of((30, 12, 60, 48)), prepared)

    @pytest.mark.parametrize("quiet", [10, 11, 12], ids=["black", "white", "mask"])
    def test_when_only_a_probe_draws(self, quiet: int, picture: Image.Image) -> None:
        """The first 10 calls compare; black, white and the region's mask come after them."""
        calls = iter(range(100))
        steps = lambda image: draw_everywhere(image) if next(calls) >= quiet else to_tensor(image)  # noqa: E731
        with pytest.raises(TransformError, match="draws random numbers"):
            carry_region(Region.of((30, 12, 60, 48)), prepare(picture, transform=steps))


@pytest.mark.cuda
class TestOnCuda:
    def test_drawing_from_the_devices_generator_is_refused_and_undone(self, picture: Image.Image) -> None:
        torch.zeros(1, device="cuda")
        before = torch.cuda.get_rng_state()
        with pytest.raises(TransformError, match=r"is random: it draws random numbers from torch\.cuda\."):
            prepare(picture, transform=lambda image: to_tensor(image) + torch.rand(1, device="cuda").cpu())
        assert torch.equal(torch.cuda.get_rng_state(), before)

    def test_what_a_transform_leaves_on_the_device_stays_there_and_regions_are_carried(
        self, picture: Image.Image
    ) -> None:
        prepared = prepare(picture, transform=lambda image: to_tensor(image).cuda())
        region = Region.of((30, 12, 60, 48))
        assert prepared.tensor.is_cuda
        assert np.array_equal(prepared.seen, np.asarray(picture))
        assert np.allclose(carry_region(region, prepared), region.rasterise(60, 90), atol=1e-6)
