"""Baselines compared: what the maps were made from is named before any number, rounding is no change, floors hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from pytest_gradcam import explain
from pytest_gradcam.baselines.baseline import Baseline, baseline_of
from pytest_gradcam.baselines.compare import FLOORS, Limits, changes_of, compare, limits
from pytest_gradcam.baselines.format import dumps, loads
from pytest_gradcam.baselines.names import CheckName
from pytest_gradcam.demo.pictures import held_out
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.images import prepare
from pytest_gradcam.metrics import pearson, wasserstein
from tests.baselines.made import baseline, with_raw
from tests.models import small

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
MODEL = small()
PHOTO = Image.fromarray(next(iter(held_out(1))).image)
WIDE = limits("retrained", 1e-6, 100.0)


def fails(before: Baseline, now: Baseline) -> dict[str, str]:
    """What changed, by name; nothing was compared."""
    compared = compare(before, now, WIDE)
    assert compared.changes and not compared.passed
    assert all(map(math.isnan, (compared.pearson, compared.shift, compared.allowed)))
    assert dict(compared.changes) == dict(changes_of(before, now))
    return dict(compared.changes)


class TestWhatChangedIsNamed:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"image": "picture:" + "f" * 32},
                {"image": "the picture is another: its pixels are not those of the baseline"},
            ),
            ({"image": "tensor:" + "f" * 32}, {"image": "was a picture, is a tensor"}),
            (
                {"size": (224, 300), "transform": "Compose~ffffffffffff"},
                {"transform": "it makes another input of the same picture: was 200×224, is 300×224 pixels"},
            ),
            ({"cls": 7, "label": None}, {"class": "was class 281 (tabby, tabby cat), is class 7"}),
            ({"cls": None, "label": None}, {"class": "was class 281 (tabby, tabby cat), is the score"}),
            ({"method": "hirescam"}, {"method": "was gradcam, is hirescam"}),
            ({"layers": ("layer3",), "layer": "layer3"}, {"layer": "was layer4.1, is layer3"}),
            (
                {"layers": ("a", "b"), "layer": "a … b", "view": "2 layers"},
                {"layer": "was layer4.1, is a, b"},
            ),
            ({"layers": ("a", "b", "c", "d"), "layer": "a … d"}, {"layer": "was layer4.1, is a, b, c …"}),
            ({"view": "NHWC 7×7"}, {"view": "was NCHW 7×7, is NHWC 7×7"}),
            (
                {"cls": 7, "label": "x", "method": "legrad"},
                {"class": "was class 281 (tabby, tabby cat), is class 7 (x)"} | {"method": "was gradcam, is legrad"},
            ),
        ],
        ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
    )
    def test_before_any_number(self, change: dict[str, Any], said: dict[str, str]) -> None:
        assert fails(baseline(), baseline(**change)) == said

    def test_another_grid(self) -> None:
        assert fails(baseline(), baseline(grid=(7, 8), view="NCHW 7×7")) == {"grid": "was 7×7, is 7×8"}

    def test_another_grid_and_its_view_are_one_change(self) -> None:
        assert fails(baseline(), baseline(grid=(14, 14))) == {"view": "was NCHW 7×7, is NCHW 14×14"}

    def test_other_values_of_the_same_picture_name_the_transform(self) -> None:
        other = baseline(transform="Compose~ffffffffffff", glance=baseline().glance * np.float32(1.02))
        assert fails(baseline(), other) == {
            "transform": "it makes other values of the same picture (was Compose~0123456789ab, is Compose~ffffffffffff)"
        }
        assert fails(baseline(), replace(other, transform=baseline().transform)) == {
            "transform": "it makes other values of the same picture"
        }

    @pytest.mark.parametrize(("share", "is_same"), [(0.0049, True), (0.0051, False), (-0.0049, True), (-0.0051, False)])
    def test_half_a_percent_of_the_largest_value_is_where_another_input_begins(
        self, share: float, is_same: bool
    ) -> None:
        glance = baseline().glance.copy()
        glance[0, 0, 0] += np.float32(share * np.abs(glance[0]).max())
        assert (changes_of(baseline(), baseline(glance=glance)) == ()) == is_same

    def test_tensors(self) -> None:
        before = baseline(image="tensor:" + "0" * 32, transform="")
        other = "tensor:" + "f" * 32
        assert fails(before, replace(before, image=other, glance=before.glance[::-1].copy())) == {
            "image": "the tensor has other values than that of the baseline"
        }
        assert fails(before, replace(before, image=other, size=(64, 32))) == {
            "image": "the tensor was 3×224×200, is 3×64×32"
        }
        assert fails(before, replace(before, image=other, glance=before.glance[:1])) == {
            "image": "the tensor was 3×224×200, is 1×224×200"
        }

    @pytest.mark.parametrize(
        "change",
        [
            {"engine": "split"},
            {"device": "cuda"},
            {"versions": {"torch": "9"}},
            {"score": -1.0},
            {"probability": None},
            {"predicted": 5},
            {"label": "another name"},
            {"transform": "Other~ffffffffffff"},
        ],
    )
    def test_what_is_no_change(self, change: dict[str, Any]) -> None:
        """Another engine, device, version, spelling of the transform: the map is what is compared."""
        compared = compare(baseline(), baseline(**change), limits("same_weights"))
        assert compared.passed and compared.changes == ()
        assert compared.pearson == pytest.approx(1.0)

    @pytest.mark.filterwarnings("error")
    def test_inputs_at_the_ends_of_float32(self) -> None:
        huge = np.full((3, 4, 4), 3e38, np.float32)
        assert "transform" in fails(baseline(glance=huge), baseline(glance=-huge))
        assert compare(baseline(glance=huge), baseline(glance=huge), WIDE).passed


def of_picture(transform: Callable[[Tensor], Tensor], image: Image.Image = PHOTO) -> Baseline:
    """The baseline of the photo, through a transform that starts with its pixels in [0, 1]."""

    def whole(picture: Image.Image) -> Tensor:
        return transform(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255)

    prepared = prepare(image, transform=whole)
    check = CheckName("test_a.py", "test_x")
    return loads(dumps(baseline_of(check, explain(MODEL, prepared.tensor, 1), prepared)))


def normalised(x: Tensor) -> Tensor:
    return (x - MEAN) / STD


def of_tensor(x: Tensor) -> Baseline:
    prepared = prepare(x)
    return baseline_of(CheckName("test_a.py", "test_x"), explain(MODEL, prepared.tensor, 1), prepared)


X = normalised(torch.from_numpy(np.array(PHOTO)).permute(2, 0, 1).float() / 255)


def one_pixel(x: Tensor) -> Tensor:
    changed = x.clone()
    changed[0, 5, 5] *= 1.01
    return changed


ROUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "1e-6 of each value": lambda x: x * (1 + 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))),
    "bfloat16": lambda x: x.bfloat16().float(),
    "half": lambda x: x.half().float(),
    "1% of one pixel": one_pixel,
}
CHANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "BGR": lambda x: x.flip(0),
    "a horizontal flip": lambda x: x.flip(2),
    "a vertical flip": lambda x: x.flip(1),
    "another crop": lambda x: torch.nn.functional.interpolate(x[None, :, 8:-8, 8:-8], x.shape[1:], mode="bilinear")[0],
    "shifted by 8 pixels": lambda x: x.roll(8, 2),
    "in 0..255": lambda x: 255 * (x * STD + MEAN),
    "not normalised": lambda x: x * STD + MEAN,
    "a mean of .5 for .485": lambda x: x - (0.5 - MEAN) / STD,
    "a mean of .48 for .485": lambda x: x + (0.005 / STD) * torch.tensor([1.0, 0.0, 0.0])[:, None, None],
    "a std of .25 for .225": lambda x: x * (STD / 0.25),
    "darker by 3%": lambda x: (0.97 * (x * STD + MEAN) - MEAN) / STD,
}


@pytest.mark.parametrize("as_picture", [True, False], ids=["picture", "tensor"])
class TestInputs:
    @pytest.mark.parametrize("name", ROUNDED)
    def test_rounding_is_no_change(self, name: str, as_picture: bool) -> None:
        change = ROUNDED[name]
        if as_picture:
            before, now = of_picture(normalised), of_picture(lambda x: change(normalised(x)))
        else:
            before, now = of_tensor(X), of_tensor(change(X))
        assert changes_of(before, now) == changes_of(now, before) == ()

    @pytest.mark.parametrize("name", CHANGED)
    def test_another_input_is_named(self, name: str, as_picture: bool) -> None:
        change = CHANGED[name]
        if as_picture:
            before, now = of_picture(normalised), of_picture(lambda x: change(normalised(x)))
        else:
            before, now = of_tensor(X), of_tensor(change(X))
        named = "transform" if as_picture else "image"
        for a, b in ((before, now), (now, before)):
            assert [name for name, _ in changes_of(a, b)] == [named]

    def test_a_pixel_of_a_picture_is_another_picture(self, as_picture: bool) -> None:
        """Whose digest is compared; tensors are never the same bits on two machines."""
        pixels = np.array(PHOTO)
        pixels[3, 3, 0] ^= 1
        if as_picture:
            changes = changes_of(of_picture(normalised), of_picture(normalised, Image.fromarray(pixels)))
            assert [name for name, _ in changes] == ["image"]
        else:
            other = normalised(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
            assert changes_of(of_tensor(X), of_tensor(other)) == ()


def correlated(raw: npt.NDArray[Any], wanted: float, seed: int = 0) -> npt.NDArray[Any]:
    """A map whose Pearson correlation with the first is this, in float64."""
    first = (raw - raw.mean()).astype(np.float64).ravel()
    first /= np.linalg.norm(first)
    other = np.random.default_rng(seed).normal(size=first.size)
    other -= other.mean() + first * (other @ first)
    other /= np.linalg.norm(other)
    return np.asarray((wanted * first + math.sqrt(1 - wanted**2) * other).reshape(raw.shape))


class TestFloors:
    @pytest.mark.parametrize(("floor", "least"), [("same_weights", 0.999), ("retrained", 0.9)])
    def test_least_correlation(self, floor: str, least: float) -> None:
        before = with_raw(baseline(), correlated(baseline().raw, 1.0))
        wide = limits(floor, None, 100.0)
        for step, passes in ((1e-5, True), (-1e-5, False)):
            compared = compare(before, with_raw(before, correlated(before.raw, least + step)), wide)
            assert compared.pearson == pytest.approx(least + step, abs=1e-6)
            assert (compared.correlates, compared.passed, compared.stays) == (passes, passes, True)

    @pytest.mark.parametrize(
        ("floor", "share"), [("same_weights", 2 * math.sqrt(0.001)), ("retrained", 2 * math.sqrt(0.1))]
    )
    def test_the_shift_is_a_share_of_the_distance_from_an_even_map(self, floor: str, share: float) -> None:
        cam = np.random.default_rng(0).uniform(0, 1, (7, 7))
        spot = np.zeros((7, 7))
        spot[0, 0] = cam.sum()
        before = with_raw(baseline(), cam)
        allowed = share * wasserstein(before.cam, np.ones((7, 7), np.float32))
        whole = wasserstein(before.cam, spot)
        for factor, passes in ((0.999, True), (1.001, False)):
            moved = factor * allowed / whole  # the distance is linear along the way to a spot
            now = with_raw(before, (1 - moved) * cam + moved * spot)
            compared = compare(before, now, limits(floor, 1e-6))
            assert wasserstein(before.cam, now.cam) == pytest.approx(factor * allowed, rel=1e-5)
            assert (compared.stays, compared.passed) == (passes, passes)
            if not passes:
                assert compared.allowed == pytest.approx(allowed, rel=1e-6)
                assert compared.shift == pytest.approx(factor * allowed, rel=1e-5)

    def test_free_thresholds_hold_at_their_exact_border(self) -> None:
        before = with_raw(baseline(), np.eye(7))
        now = with_raw(baseline(), np.eye(7) + np.random.default_rng(1).uniform(size=(7, 7)))
        correlation, way = pearson(before.raw, now.raw), wasserstein(before.cam, now.cam)
        below, above = math.nextafter(correlation, 0), math.nextafter(correlation, 1)
        assert compare(before, now, limits("retrained", correlation, 100.0)).passed
        assert compare(before, now, limits("retrained", below, 100.0)).passed
        assert not compare(before, now, limits("retrained", above, 100.0)).correlates
        assert compare(before, now, limits("retrained", 1e-9, way)).stays
        assert not compare(before, now, limits("retrained", 1e-9, way * (1 - 1e-9))).stays

    def test_names_and_numbers_of_floors(self) -> None:
        assert limits("same_weights") == Limits("same_weights", 0.999, None, 2 * math.sqrt(1 - 0.999))
        assert limits("retrained", 0.5, 2.0) == Limits("thresholds", 0.5, 2.0, 2 * math.sqrt(1 - 0.9))
        for wrong in ("same", None, 0.9):
            with pytest.raises(SettingsError, match="unknown floor"):
                limits(wrong)

    def test_scale_is_no_change_and_sign_is(self) -> None:
        before = baseline()
        assert compare(before, with_raw(before, 1e6 * before.raw), limits("same_weights")).passed
        assert not compare(before, with_raw(before, -before.raw), limits("retrained")).passed

    def test_even_maps(self) -> None:
        even, other = with_raw(baseline(), np.ones((7, 7))), baseline()
        assert compare(even, with_raw(even, 3 * np.ones((7, 7))), limits("same_weights")).pearson == 1.0
        assert compare(even, other, limits("retrained")).pearson == 0.0
        assert not compare(other, even, limits("retrained")).passed

    @pytest.mark.parametrize("floor", FLOORS)
    def test_bounds_change_no_outcome(self, floor: str) -> None:
        """What the quick bounds let pass, the exact distance lets pass too; over pairs from alike to unlike."""
        rng, outcomes, wanted = np.random.default_rng(0), [], limits(floor)
        for number in range(300):
            shape = tuple(rng.integers(1, 8, 2)) if number % 2 else (7, 7)
            if math.prod(shape) < 2:
                continue
            raw = rng.normal(size=shape)
            raw.flat[0] = 1.0
            noise = 10 ** rng.uniform(-3, 0.5)
            before = with_raw(baseline(grid=(7, 7)), raw)
            now = with_raw(before, raw + noise * rng.normal(size=shape))
            if now.raw.max() <= 0:
                continue
            exact = wasserstein(before.cam, now.cam)
            allowed = wanted.share * wasserstein(before.cam, np.ones(shape))
            compared = compare(before, now, wanted)
            if abs(exact - allowed) > 1e-6:
                assert compared.stays == (exact <= allowed)
            assert compared.shift >= exact - 1e-6
            assert compared.allowed <= allowed + 1e-6
            outcomes.append(compared.stays)
        assert 30 < sum(outcomes) < len(outcomes) - 30


@pytest.mark.parametrize("grid", [(17, 17), (32, 32), (20, 12), (7, 40)])
@pytest.mark.parametrize("floor", ["same_weights", "retrained"])
def test_bounds_decide_nothing_that_the_distance_would_not_on_large_grids_too(
    grid: tuple[int, int], floor: str
) -> None:
    """There the distance is that of averaged maps: two neighbouring cells may be no distance apart, or two."""
    random = np.random.default_rng(3)
    for trial in range(6):
        raw = random.random(grid) ** 4
        other = np.roll(raw, (trial % 2, trial % 3), axis=(0, 1)) if trial else raw + 1e-3 * random.random(grid)
        before, now = with_raw(baseline(grid=grid), raw), with_raw(baseline(grid=grid), other)
        wanted = limits(floor)
        moved = wasserstein(before.cam, now.cam)
        allowed = wanted.share * wasserstein(before.cam, np.ones(grid))
        found = compare(before, now, wanted)
        assert found.stays == (moved <= allowed)
        assert found.shift >= moved - 1e-9 and found.allowed <= allowed + 1e-9
