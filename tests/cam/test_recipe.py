"""The recipe that this project grew from, written out as an oracle for both engines; and its traps.

timm resnet18 with seeded weights; a photo, shorter side 224, cropped at (0, 0, 224, 224), values in [0, 1] without
normalisation; the predicted class; gradients at layer4; α their mean over the grid; ReLU(Σ α A); min-max to [0, 1];
resized to the image; jet colours, half and half over the photo.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import timm
import timm.data
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import ZeroEvidenceWarning, explain, explain_batch
from tests.models import apart, calibrated, cam_of, grad_cam_of, reference, small

EQUAL = 1e-6


def recipe_transform(photo: Image.Image) -> Tensor:
    """Shorter side to 224, cropped at the top left, values in [0, 1]."""
    scale = 224 / min(photo.size)
    resized = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized.crop((0, 0, 224, 224)))).permute(2, 0, 1).float() / 255


@cache
def photo(name: str) -> npt.NDArray[np.uint8]:
    """A photo that ships with scikit-image, uint8 (H, W, 3)."""
    load: Any = getattr(skimage.data, name)
    return np.asarray(load(), np.uint8)


@cache
def photo_input(name: str) -> Tensor:
    return recipe_transform(Image.fromarray(photo(name)))[None]


@cache
def resnet18(seed: int, *, spread: bool = False) -> Any:
    """The resnet18 of timm with seeded random weights; `spread` gives its batch norms the photos' own statistics.

    Without them the activations of random weights are all but the same in every cell, and no cell is without evidence.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = timm.create_model("resnet18", pretrained=False)
    return calibrated(model, torch.cat([photo_input(name) for name in PHOTOS])) if spread else model.eval()


class Recipe(NamedTuple):
    """What the recipe makes of one model input: the class, the map on the grid, the map in the image."""

    cls: int
    raw: npt.NDArray[np.float32]
    cam: npt.NDArray[np.float32]


def finished(raw: npt.NDArray[np.float32], cls: int, x: Tensor) -> Recipe:
    positive = np.maximum(raw, 0)
    unit = (positive - positive.min()) / (positive.max() - positive.min())
    return Recipe(cls, raw, np.asarray(cv2.resize(unit, (x.shape[3], x.shape[2])), np.float32))


def overlay_of(cam: npt.NDArray[np.float32], x: Tensor) -> npt.NDArray[np.float64]:
    """Jet colours, half and half over the photo, in grey levels, (H, W, 3)."""
    heat = cv2.applyColorMap(np.rint(255 * cam).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    return np.asarray(0.5 * heat + 0.5 * 255 * x[0].permute(1, 2, 0).numpy(), np.float64)


def with_hooks(model: Any, x: Tensor) -> Recipe:
    """The recipe with a forward and a backward hook at layer4."""
    kept: dict[str, Tensor] = {}

    def forward(_module: Any, _inputs: Any, output: Tensor) -> None:
        kept["activations"] = output.detach()

    def backward(_module: Any, _inputs: Any, outputs: Any) -> None:
        kept["gradients"] = outputs[0].detach()

    handles = [model.layer4.register_forward_hook(forward), model.layer4.register_full_backward_hook(backward)]
    logits = model(x)
    cls = int(logits.argmax())
    logits[0, cls].backward()
    model.zero_grad()
    for handle in handles:
        handle.remove()
    alpha = kept["gradients"].mean(dim=(2, 3))
    raw = (alpha[:, :, None, None] * kept["activations"]).sum(dim=1)[0]
    return finished(raw.numpy(), cls, x)


def cut(model: Any) -> Any:
    """The model after layer4 as features, and global_pool and fc as head."""
    features = [child for name, child in model.named_children() if name not in ("global_pool", "fc")]
    return nn.Sequential(*features), nn.Sequential(model.global_pool, model.fc)


def with_cut(model: Any, x: Tensor) -> Recipe:
    """The recipe with the model cut after layer4."""
    features, head = cut(model)
    with torch.no_grad():
        activations = features(x)
    activations.requires_grad_()
    logits = head(activations)
    cls = int(logits.argmax())
    (gradients,) = torch.autograd.grad([logits[0, cls]], [activations])
    alpha = gradients.mean(dim=(2, 3))
    raw = (alpha[:, :, None, None] * activations.detach()).sum(dim=1)[0]
    return finished(raw.numpy(), cls, x)


ORACLES = {"hooks": with_hooks, "cut": with_cut}
# Photos, and the seeds of a spread model whose map of that photo has cells without evidence.
PHOTOS = {"chelsea": 0, "astronaut": 1}

engines = pytest.mark.parametrize("engine", ["hooks", "split"])
photos = pytest.mark.parametrize("name", PHOTOS)


@photos
class TestTheRecipe:
    """Both engines against both forms of the recipe, on both photos."""

    @engines
    @pytest.mark.parametrize("oracle", ORACLES)
    def test_raw_cam_and_overlay_are_the_recipes(self, name: str, oracle: str, engine: str) -> None:
        model, x = resnet18(PHOTOS[name], spread=True), photo_input(name)
        recipe = ORACLES[oracle](model, x)
        # The recipe's min-max and a division by the maximum agree only where some cell has no evidence.
        assert recipe.raw.min() < 0 < recipe.raw.max()

        got = explain(model, photo(name), transform=recipe_transform, engine=engine)
        assert (got.cls, got.layer, got.grid, got.method) == (recipe.cls, "layer4", (7, 7), "grad-cam")
        assert got.raw.dtype == got.cam.dtype == np.float32
        assert apart(got.raw, recipe.raw) <= EQUAL
        assert apart(got.cam, recipe.cam) <= EQUAL

        # Where 255 · cam lies between two grey levels up to rounding, either one's colour is the recipe's.
        below, above = (overlay_of(np.clip(recipe.cam + step, 0, 1), x) for step in (-1e-6, 1e-6))
        shown = got.overlay()
        assert np.minimum(np.abs(shown - below), np.abs(shown - above)).max() <= 1
        assert (below == above).mean() > 0.999

    @engines
    @pytest.mark.parametrize("oracle", ORACLES)
    def test_plain_seeded_weights_too(self, name: str, oracle: str, engine: str) -> None:
        """There all cells have evidence, and the minimum is not subtracted."""
        model, x = resnet18(0), photo_input(name)
        recipe = ORACLES[oracle](model, x)
        got = explain(model, photo(name), transform=recipe_transform, engine=engine)
        assert got.cls == recipe.cls
        assert apart(got.raw, recipe.raw) <= EQUAL
        assert apart(got.cam, cam_of(recipe.raw, 224, 224)) <= EQUAL
        assert got.evidence == pytest.approx(float(recipe.raw[recipe.raw > 0].sum()), rel=1e-6)

    def test_the_pair_features_and_head_gives_the_same(self, name: str) -> None:
        model, x = resnet18(PHOTOS[name], spread=True), photo_input(name)
        recipe = with_hooks(model, x)
        got = explain(cut(model), x, engine="split")
        assert (got.cls, got.layer, got.engine) == (recipe.cls, "features", "split")
        assert apart(got.raw, recipe.raw) <= EQUAL
        assert apart(got.cam, recipe.cam) <= EQUAL

    def test_what_is_shown_is_the_cropped_photo(self, name: str) -> None:
        got = explain(resnet18(0), photo(name), transform=recipe_transform)
        assert np.abs(got.image - 255 * photo_input(name)[0].permute(1, 2, 0).numpy()).max() <= 1


class TestTraps:
    """Where the recipe goes wrong when it is used on anything else."""

    @engines
    def test_a_batch_gives_each_image_its_own_map(self, engine: str) -> None:
        """The recipe's sum over the batch and its argmax over all logits would mix the images."""
        model, x = resnet18(0, spread=True), torch.cat([photo_input(name) for name in PHOTOS])
        recipes = [with_hooks(model, image[None]) for image in x]
        for got, recipe in zip(explain_batch(model, x, engine=engine), recipes, strict=True):
            assert got.cls == recipe.cls
            # A convolution of two images adds up in another order.
            assert apart(got.raw, recipe.raw) <= 1e-5
            assert apart(got.cam, cam_of(recipe.raw, 224, 224)) <= 1e-5

    @pytest.mark.parametrize("size", [(48, 80), (80, 48)])
    def test_height_and_width_are_not_swapped(self, size: tuple[int, int]) -> None:
        """cv2.resize takes (width, height), arrays and tensors (height, width)."""
        model = small()
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))
        got = explain(model, x, 1)
        expected = grad_cam_of(*reference(model, x, "relu2", 1))
        assert got.grid == got.raw.shape == (size[0] // 4, size[1] // 4)
        assert got.cam.shape == size
        assert apart(got.raw, expected) <= EQUAL
        assert apart(got.cam, cam_of(expected, *size)) <= EQUAL
        assert got.overlay().shape == (*size, 3)

    @engines
    def test_an_empty_map_is_zero_and_said_to_be(self, engine: str) -> None:
        """Min-max would divide zero by zero."""
        model = small()
        with torch.no_grad():
            fc = model.get_submodule("fc")
            assert isinstance(fc, nn.Linear)
            fc.weight.copy_(-fc.weight.abs())
        with pytest.warns(ZeroEvidenceWarning, match=r"^no evidence: nothing at relu2 speaks for class 2"):
            got = explain(model, torch.rand(1, 3, 32, 32), 2, engine=engine)
        assert got.evidence == 0.0
        assert got.raw.max() <= 0.0 and got.raw.min() < 0.0
        assert np.array_equal(got.cam, np.zeros((32, 32), np.float32))
        assert np.isfinite(got.overlay()).all()

    @engines
    def test_a_model_left_in_train_mode_is_explained_in_eval_mode(self, engine: str) -> None:
        model = small()
        x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
        evaluated = explain_batch(model, x, 1, engine=engine)
        trained = explain_batch(model.train(), x, 1, engine=engine)
        assert all(m.training for m in model.modules())
        for a, b in zip(trained, evaluated, strict=True):
            assert np.array_equal(a.raw, b.raw)
            assert a.score == b.score

    def test_normalisation_is_the_models_own_and_not_forgotten(self) -> None:
        model = resnet18(0, spread=True)
        module: Any = timm.data
        declared = module.create_transform(**module.resolve_data_config({}, model=model), is_training=False)
        x = declared(Image.fromarray(photo("chelsea")))[None]
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        plain = x * std[:, None, None] + mean[:, None, None]
        assert float(plain.min()) >= 0 and float(plain.max()) <= 1.01  # undone, these are pixels

        got = explain(model, photo("chelsea"), 285)
        assert apart(got.raw, grad_cam_of(*reference(model, x, "layer4", 285))) <= 1e-5
        assert apart(got.raw, grad_cam_of(*reference(model, plain, "layer4", 285))) > 0.05
        assert np.abs(got.image - 255 * plain[0].permute(1, 2, 0).numpy()).max() <= 1.5

    def test_the_minimum_is_not_subtracted(self) -> None:
        """Where every cell has evidence, min-max would make nothing of the weakest."""
        raw = torch.tensor([[4.0, 3.0], [2.0, 1.0]])

        class Fixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.ReLU()

            def forward(self, x: Tensor) -> Tensor:
                cells: Tensor = self.layer(raw + 1e-7 * functional.adaptive_avg_pool2d(x[:, :1], 2))
                return cells.mean((2, 3)) * 4

        got = explain(Fixed(), torch.rand(1, 3, 8, 8), 0)
        assert np.allclose(got.raw, raw)
        smooth = functional.interpolate(raw[None, None] / 4, (8, 8), mode="bilinear", align_corners=False)
        assert apart(got.cam, smooth[0, 0].numpy()) <= EQUAL
        assert got.cam.min() == pytest.approx(0.25)

    def test_methods_of_the_model_are_a_pair_too(self) -> None:
        model, x = resnet18(0), photo_input("chelsea")
        got = explain((model.forward_features, model.forward_head), x, 3, engine="split")
        assert apart(got.raw, explain(model, x, 3).raw) <= EQUAL
