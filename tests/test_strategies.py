"""The strategies draw what they promise, and what a failing example prints is enough to build it again."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import Phase, find, given, settings, strategies as st
from torch import Tensor, nn

from pytest_gradcam import explain, strategies
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.images import prepare
from pytest_gradcam.regions import Region
from pytest_gradcam.shapes import Box, Mask, Polygon
from pytest_gradcam.small_models import ACTIVATIONS, HEADS, SmallModel, SmallNet
from pytest_gradcam.strategies import boxes, images, maps, masks, model_inputs, polygons, regions, small_models

some = settings(max_examples=50)
T = TypeVar("T")
SIZES = st.tuples(st.integers(2, 40), st.integers(2, 40))


def to_tensor(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """What a strategy draws, without shrinking."""
    found: list[T] = []

    @settings(max_examples=count, phases=[Phase.generate])
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found


def shoelace(points: list[tuple[float, float]]) -> float:
    """Area of a polygon that does not cross itself."""
    x, y = np.array(points).T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


@some
@given(images(grey=None))
def test_images_are_pictures_that_can_be_prepared(image: npt.NDArray[np.uint8]) -> None:
    """uint8, (H, W, 3) or (H, W), and nothing in them that `explain` would refuse."""
    assert image.dtype == np.uint8
    prepared = prepare(image, transform=to_tensor)
    assert prepared.frame == image.shape[:2]


@pytest.mark.parametrize(("grey", "shape"), [(False, (5, 7, 3)), (True, (5, 7))])
def test_images_have_the_size_asked_for(grey: bool, shape: tuple[int, ...]) -> None:
    assert find(images(height=5, width=st.just(7), grey=grey), lambda image: True).shape == shape


def test_images_shrink_to_black() -> None:
    """The simplest picture is one black pixel, and the simplest bright one is plain."""
    assert find(images(), lambda image: True).tolist() == [[[0, 0, 0]]]
    assert find(images(grey=True), lambda image: bool(image.max() > 9)).tolist() == [[10]]


@some
@given(SIZES, st.data())
def test_boxes_lie_inside_and_are_proper(size: tuple[int, int], data: st.DataObject) -> None:
    """Half-open, with sides from `min_side`, and never the whole image."""
    height, width = size
    least = data.draw(st.integers(1, min(size) - 1))
    x0, y0, x1, y1 = data.draw(boxes(height, width, min_side=least))
    assert 0 <= x0 <= x1 - least
    assert x1 <= width
    assert 0 <= y0 <= y1 - least
    assert y1 <= height
    assert (x0, y0, x1, y1) != (0, 0, width, height)


def test_boxes_reach_every_place() -> None:
    """All 8 proper boxes of a 2×2 image are drawn, and the whole image only when asked for."""
    proper = {
        (x0, y0, x1, y1) for x0 in (0, 1) for y0 in (0, 1) for x1 in (1, 2) for y1 in (1, 2) if x0 < x1 and y0 < y1
    }
    proper.remove((0, 0, 2, 2))
    assert set(drawn(boxes(2, 2), 200)) == proper
    assert (0, 0, 2, 2) in drawn(boxes(2, 2, proper=False), 200)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (boxes(4, 6, min_side=5), "no proper box with sides of 5 pixels or more fits an image 6 wide, 4 high"),
        (boxes(4, 4, min_side=4), "no proper box with sides of 4 pixels"),
        (boxes(0, 4, proper=False), "no box with sides of 1 pixels or more fits an image 4 wide, 0 high"),
        (polygons(1, 9), "no polygon is drawn in an image 9 wide, 1 high"),
    ],
)
def test_what_cannot_be_drawn_is_named(strategy: st.SearchStrategy[object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find(strategy, lambda drawn: True)


@some
@given(SIZES, st.data())
def test_polygons_lie_inside_and_cover_their_area(size: tuple[int, int], data: st.DataObject) -> None:
    """Rasterised, it covers what the shoelace formula says: it neither crosses itself nor leaves."""
    points = data.draw(polygons(*size))
    covered = Region.polygon(points).rasterise(*size)
    assert covered.sum(dtype=np.float64) == pytest.approx(shoelace(points), rel=1e-5)


@some
@given(SIZES, st.data())
def test_masks_have_an_inside_and_an_outside(size: tuple[int, int], data: st.DataObject) -> None:
    mask = data.draw(masks(*size))
    assert mask.shape == size
    assert mask.dtype == np.bool_
    assert mask.any()
    assert not mask.all()


@some
@given(SIZES, st.data())
def test_regions_fit_their_image(size: tuple[int, int], data: st.DataObject) -> None:
    """Every region rasterises, to something."""
    covered = data.draw(regions(*size)).rasterise(*size)
    assert 0 < covered.mean()
    assert 0 <= covered.min()
    assert covered.max() <= 1


def test_regions_are_of_every_kind() -> None:
    """Boxes, polygons and masks, alone and in unions."""
    found = drawn(regions(9, 9), 100)
    assert {type(region.shapes[0]) for region in found if len(region.shapes) == 1} == {Box, Polygon, Mask}
    assert {type(region.shapes[1]) for region in found if len(region.shapes) > 1} == {Box, Polygon, Mask}


@some
@given(model_inputs(batch=st.integers(1, 3), channels=2, size=(5, 9), dtype=torch.float64))
def test_model_inputs_are_finite_and_not_constant(x: Tensor) -> None:
    assert x.shape[1:] == (2, 5, 9)
    assert x.dtype == torch.float64
    assert bool(x.isfinite().all())
    assert x.std() > 0


@some
@given(SIZES, st.data())
def test_maps_are_cams_with_evidence(size: tuple[int, int], data: st.DataObject) -> None:
    """float32 in [0, 1], and the maximum is 1."""
    cam = data.draw(maps(*size))
    assert cam.shape == size
    assert cam.dtype == np.float32
    assert cam.min() >= 0
    assert cam.max() == 1


def test_maps_may_be_zero_somewhere_or_nowhere() -> None:
    found = drawn(maps(8, 8), 100)
    assert any((cam == 0).mean() > 0.5 for cam in found)
    assert any(cam.min() > 0.1 for cam in found)


@some
@given(small_models())
def test_small_models_are_rebuilt_from_what_is_printed(model: SmallModel) -> None:
    """`repr` → the same value → the same weights."""
    again = eval(repr(model), {"SmallModel": SmallModel})
    assert again == model
    one, other = model.build().state_dict(), again.build().state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@some
@given(small_models())
def test_small_models_have_the_grid_that_they_declare(model: SmallModel) -> None:
    """The last stage's size, and one row of logits for each image, from a net in eval mode."""
    net = model.build()
    assert not any(module.training for module in net.modules())
    x = torch.zeros(2, model.in_channels, *model.size)
    assert net.stages(x).shape == (2, model.channels[-1], *model.grid)
    assert net(x).shape == (2, model.classes)


@pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")
@some
@given(small_models(), st.data())
def test_small_models_can_be_explained(model: SmallModel, data: st.DataObject) -> None:
    """The target layer is found: the last stage, the 1×1 convolution after it, or one before closed ReLUs."""
    x = data.draw(model_inputs(channels=model.in_channels, size=model.size))
    found = explain(model.build(), x, 0, device="cpu")
    if found.layer == ("head.0" if model.head == "conv" else "stages"):
        assert found.grid == model.grid
    else:
        assert found.layer.startswith("stages.")


@some
@given(small_models(size=(7, 9), norm=True, head=st.sampled_from(["conv", "gap-mlp"]), channels=(2, 3), seed=5))
def test_traits_are_as_asked_for(model: SmallModel) -> None:
    """A value is kept, a strategy is drawn from."""
    assert (model.size, model.norm, model.channels, model.seed) == ((7, 9), True, (2, 3), 5)
    assert model.head in ("conv", "gap-mlp")


def test_every_head_is_drawn_with_every_activation() -> None:
    seen = {(model.head, model.activation) for model in drawn(small_models(), 300)}
    assert seen == {(head, activation) for head in HEADS for activation in ACTIVATIONS}


def test_seeds_are_weights() -> None:
    one, other = (SmallModel(seed=seed).build().state_dict() for seed in (1, 2))
    assert not torch.equal(one["stages.0.conv.weight"], other["stages.0.conv.weight"])


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    SmallModel(norm=True, head="flatten-mlp").build()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [False, True])
def test_in_place_is_in_place(activation: str, norm: bool) -> None:
    """An in-place ReLU writes over the output of what comes before it; the others leave it signed."""
    net = SmallModel(activation=activation, norm=norm).build()
    kept: list[Tensor] = []
    before = net.get_submodule("stages.0.norm" if norm else "stages.0.conv")
    before.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    with torch.no_grad():
        net(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert bool((kept[0] >= 0).all()) == ("in-place" in activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_the_net_is_the_formula_written_out(head: str, activation: str) -> None:
    """Convolution, BatchNorm, ReLU and head, from the state dict alone."""
    model = SmallModel(seed=3, norm=True, activation=activation, head=head, stride=2)
    net = model.build().double()
    w = net.state_dict()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    windows = nn.functional.unfold(x, 3, padding=1, stride=2)
    z = torch.einsum("of,nfl->nol", w["stages.0.conv.weight"].flatten(1), windows)
    z = (z + w["stages.0.conv.bias"][:, None]).unflatten(2, model.grid)
    mean, variance, gain, shift = (
        w[f"stages.0.norm.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    a = ((z - mean) / (variance + 1e-5).sqrt() * gain + shift).clamp(min=0)
    features = a.flatten(1) if "flatten" in head else a.mean(dim=(2, 3))
    layers = sorted({name.split(".")[1] for name in w if name.startswith("head.")})
    for i, layer in enumerate(layers):
        features = features.relu() if i else features
        features = features @ w[f"head.{layer}.weight"].flatten(1).T + w[f"head.{layer}.bias"]
    torch.testing.assert_close(net(x).detach(), features, rtol=1e-10, atol=1e-10)
    assert len(layers) == (2 if "mlp" in head else 1)


def test_symmetric_kernels_are_their_own_mirror_image() -> None:
    weights = [
        SmallModel(symmetric=symmetric).build().state_dict()["stages.0.conv.weight"] for symmetric in (True, False)
    ]
    assert torch.equal(weights[0], weights[0].flip(3))
    assert not torch.equal(weights[1], weights[1].flip(3))


def test_circular_padding_and_missing_biases_are_built() -> None:
    net: SmallNet = SmallModel(padding_mode="circular", bias=False, head="gap-mlp", head_bias=False).build()
    conv = net.get_submodule("stages.0.conv")
    assert isinstance(conv, nn.Conv2d)
    assert conv.padding_mode == "circular"
    assert not [name for name in net.state_dict() if name.endswith("bias")]


@pytest.mark.parametrize(("stride", "channels", "expected"), [(1, (2, 2), 1), (2, (2,), 2), (2, (2, 2), 4)])
def test_the_total_stride_is_the_distance_of_cells(stride: int, channels: tuple[int, ...], expected: int) -> None:
    assert SmallModel(size=(16, 16), stride=stride, channels=channels).total_stride == expected


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"head": "gap"}, "unknown head 'gap' of a small model: known are gap-linear"),
        ({"activation": "gelu"}, "unknown activation 'gelu'"),
        ({"padding_mode": "reflect"}, "unknown padding_mode 'reflect'"),
        ({"classes": 0}, "classes is 0: a small model needs 1 or more"),
        ({"padding": -1}, "padding is -1"),
        ({"channels": ()}, r"channels is \(\)"),
        ({"channels": (2, 0)}, r"channels is \(2, 0\)"),
        ({"size": (3, 3), "padding": 0}, "has a grid of 1×1: at least 2×2 cells"),
        ({"kernel": 1, "padding": 1}, "has a grid of 10×10: at least 2×2 cells, and no more than the input has pixels"),
    ],
)
def test_impossible_traits_are_named(traits: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SmallModel(**traits)


def test_a_missing_hypothesis_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only module that needs it says how to get it."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    spec = importlib.util.spec_from_file_location("without_hypothesis", strategies.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="pip install hypothesis"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")  # the example's own mark, when pytest runs it
def test_the_example_of_the_documentation_runs() -> None:
    """The module's own example, as a user would copy it."""
    (example,) = re.findall(r"```python\n(.*?)```", strategies.__doc__ or "", flags=re.DOTALL)
    code = "\n".join(line.removeprefix("    ") for line in example.splitlines())
    namespace: dict[str, Any] = {"mine": lambda cam: cam / max(float(cam.max()), 1.0)}
    exec(compile(code, Path(strategies.__file__).name, "exec"), namespace)
    namespace["test_my_normalisation_is_idempotent"]()
