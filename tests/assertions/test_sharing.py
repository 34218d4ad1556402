"""What tests of a session share: a hit is what computing it anew gives, whatever was changed in between."""

from __future__ import annotations

import enum
import functools
import gc
import logging
import math
import os
import random
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from pytest_gradcam import AttentionError, TransformError, ZeroEvidenceWarning, explain, explain_batch, explanations
from pytest_gradcam.assertions import Gradcam, contents
from pytest_gradcam.assertions.contents import digest, digest_of_tensors
from pytest_gradcam.assertions.fingerprint import fingerprint
from pytest_gradcam.assertions.libraries import Unreadable
from pytest_gradcam.assertions.sharing import Kept, Shared
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.images import carry_region, prepare
from pytest_gradcam.regions import Region
from tests.models import coloured, picture, reads_colours, seeded, small

IMAGE = coloured((0, (0, 8, 16, 24)), (1, (20, 20, 40, 44)), (2, (40, 40, 64, 56)))
CLS = 1
SCALE = 1.0

pytestmark = pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")


class Scaled(nn.Module):
    """A small model whose map depends on all that a test may change."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)
        self.register_buffer("shift", torch.zeros(6, 1, 1))
        self.scale = 1.0
        self.factors = [1.0, 1.0]
        self.options = {"power": 1.0}
        self.config = types.SimpleNamespace(slope=0.1)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.leaky_relu(self.features(x) + self.shift, self.config.slope)
        x = self.second(x * self.factors[0]) * self.scale * self.factor * SCALE * scaled_by()
        x = x.sign() * x.abs() ** self.options["power"]
        scores: Tensor = self.head(x.mean((2, 3)) ** 3)
        return scores


def scaled_by() -> float:
    return 1.0


def optimizer_step(model: Scaled) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(IMAGE).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def one_element(model: Scaled) -> None:
    model.second.weight.data[3, 2, 1, 1] += 0.5


def through_numpy(model: Scaled) -> None:
    model.second.weight.detach().numpy()[0] *= -2.0


def state_dict(model: Scaled) -> None:
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})


def module_replaced(model: Scaled) -> None:
    model.second = seeded(nn.Conv2d(6, 6, 3, padding=1), 5)


def hook_added(model: Scaled) -> None:
    model.second.register_forward_hook(lambda _module, _inputs, output: output * torch.arange(6.0)[:, None, None])


def pre_hook_added(model: Scaled) -> None:
    model.second.register_forward_pre_hook(lambda _module, inputs: (inputs[0].flip(1),))


def forward_of_instance(model: Scaled) -> None:
    was = model.second.forward
    model.second.forward = lambda x: was(x).flip(1)  # type: ignore[method-assign,assignment]


def parametrised(model: Scaled) -> None:
    parametrizations.weight_norm(model.second)
    with torch.no_grad():
        model.second.parametrizations.weight.original0 *= 2.0  # type: ignore[union-attr,operator]


CHANGES: dict[str, Callable[[Scaled], Any]] = {
    "optimizer": optimizer_step,
    "data of one element": one_element,
    "numpy view": through_numpy,
    "state dict": state_dict,
    "data replaced": lambda model: setattr(model.second.weight, "data", model.second.weight.data * -1.0),
    "buffer": lambda model: model.shift.add_(0.5),  # type: ignore[operator]
    "buffer through data": lambda model: model.shift.data.fill_(0.25),  # type: ignore[operator]
    "module replaced": module_replaced,
    "hook": hook_added,
    "pre-hook": pre_hook_added,
    "float": lambda model: setattr(model, "scale", -1.5),
    "in a list": lambda model: model.factors.__setitem__(0, -2.0),
    "in a dictionary": lambda model: model.options.update(power=2.0),
    "in a configuration": lambda model: setattr(model.config, "slope", 0.9),
    "convolution's padding": lambda model: setattr(model.second, "padding_mode", "circular"),
    "forward of an instance": forward_of_instance,
    "pruned": lambda model: prune.random_unstructured(model.second, "weight", amount=0.5),  # type: ignore[no-untyped-call]
    "parametrised": parametrised,
    "dtype": lambda model: model.double(),
}


def shared() -> Gradcam:
    return Gradcam(cache=Shared())


def cache_of(gradcam: Gradcam) -> Shared:
    assert gradcam._cache is not None
    return gradcam._cache


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each computation was of."""
    counted: list[int] = []
    plain = explanations.explain_prepared

    def counting(model: Any, prepared: Any, *rest: Any) -> list[Explanation]:
        counted.append(len(prepared))
        return plain(model, prepared, *rest)

    monkeypatch.setattr(explanations, "explain_prepared", counting)
    return counted


def same(a: Explanation, b: Explanation) -> None:
    """Bit by bit."""
    assert np.array_equal(a.raw, b.raw)
    assert np.array_equal(a.cam, b.cam)
    assert np.array_equal(a.image, b.image)
    for name in ("evidence", "cls", "label", "score", "probability", "predicted", "layer", "method", "engine", "view"):
        assert getattr(a, name) == getattr(b, name), name


class TestNeverStale:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_after_a_change_the_map_is_the_new_one(self, change: Callable[[Scaled], Any], computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        before = gradcam.explain(model, IMAGE, CLS, layer="second")
        same(gradcam.explain(model, IMAGE, CLS, layer="second"), before)
        assert computed == [1], "the second is shared, or the test below tells nothing"
        change(model)
        after = gradcam.explain(model, IMAGE, CLS, layer="second")
        fresh = explain(model, IMAGE, CLS, layer="second")
        assert not np.array_equal(fresh.raw, before.raw), "the change matters"
        same(after, fresh)

    @pytest.mark.parametrize(
        ("where", "name", "value"),
        [
            (Scaled, "factor", -2.0),
            (Scaled, "forward", lambda self, x: self.head(self.second(self.features(x)).mean((2, 3)))),
            (nn.Conv2d, "forward", lambda self, x: self._conv_forward(x, self.weight, None) * 2.0),
            (torch.nn.functional, "leaky_relu", lambda x, slope: x.tanh() * slope),
        ],
        ids=["class attribute", "forward of the class", "forward of torch's class", "torch's function"],
    )
    def test_a_patch_is_seen(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any) -> None:
        model, gradcam = Scaled(), shared()
        gradcam.explain(model, IMAGE, CLS, layer="second")
        monkeypatch.setattr(where, name, value)
        same(gradcam.explain(model, IMAGE, CLS, layer="second"), explain(model, IMAGE, CLS, layer="second"))

    @pytest.mark.parametrize(("name", "value"), [("SCALE", -3.0), ("scaled_by", lambda: -2.0)])
    def test_what_the_forward_names_is_seen(self, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
        model, gradcam = Scaled(), shared()
        before = gradcam.explain(model, IMAGE, CLS, layer="second")
        monkeypatch.setitem(globals(), name, value)
        after = gradcam.explain(model, IMAGE, CLS, layer="second")
        same(after, explain(model, IMAGE, CLS, layer="second"))
        assert not np.array_equal(after.raw, before.raw)

    def test_a_hook_that_was_removed_is_gone(self) -> None:
        model, gradcam = Scaled(), shared()
        before = gradcam.explain(model, IMAGE, CLS, layer="second")
        handle = model.second.register_forward_hook(lambda _module, _inputs, output: output * 3.0)
        gradcam.explain(model, IMAGE, CLS, layer="second")
        handle.remove()
        same(gradcam.explain(model, IMAGE, CLS, layer="second"), before)

    def test_what_a_hook_closes_over_is_seen(self) -> None:
        model, gradcam, by = Scaled(), shared(), [1.0]
        model.features.register_forward_hook(lambda _module, _inputs, output: output * by[0])
        gradcam.explain(model, IMAGE, CLS, layer="second")
        by[0] = -1.0
        same(gradcam.explain(model, IMAGE, CLS, layer="second"), explain(model, IMAGE, CLS, layer="second"))

    def test_a_new_model_in_the_place_of_an_old_one_is_another(self) -> None:
        gradcam, model = shared(), small(seed=0)
        for seed in range(3):
            vars(model).update(vars(small(seed=seed)))  # another model with the same id
            same(gradcam.explain(model, IMAGE, CLS), explain(model, IMAGE, CLS))

    def test_a_value_that_moves_to_another_module_is_seen(self) -> None:
        first, second = nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU())
        first[0].x = 1.0  # type: ignore[assignment]
        second[1].x = 1.0  # type: ignore[assignment]
        assert fingerprint(first) != fingerprint(second)

    def test_autocast_and_flags_are_other_maps(self) -> None:
        model, gradcam = Scaled(), shared()
        before = gradcam.explain(model, IMAGE, CLS, layer="second")
        with torch.autocast("cpu", torch.bfloat16):
            under = gradcam.explain(model, IMAGE, CLS, layer="second")
            same(under, explain(model, IMAGE, CLS, layer="second"))
        assert not np.array_equal(under.raw, before.raw)

    def test_options_images_and_classes_are_told_apart(self, computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        asked: list[tuple[Tensor, dict[str, Any]]] = [
            (IMAGE, {"cls": 0}),
            (IMAGE, {"cls": 1}),
            (IMAGE.flip(-1), {"cls": 1}),
            (IMAGE.double(), {"cls": 1}),
            (IMAGE, {"cls": 1, "method": "hirescam"}),
            (IMAGE, {"cls": 1, "layer": "features"}),
            (IMAGE, {"cls": 1, "engine": "split"}),
            (IMAGE, {"cls": "b", "labels": ["a", "b", "c"]}),
        ]
        for number, (image, options) in enumerate(asked, 1):
            given = {"layer": "second", **options}
            if "split" in given.values():
                given["layer"] = None
            made = gradcam.explain(model, image, **given)
            same(gradcam.explain(model, image, **given), made)
            assert len(computed) == number

    def test_training_is_the_same_model(self, computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        gradcam.explain(model.eval(), IMAGE, CLS)
        gradcam.explain(model.train(), IMAGE, CLS)
        assert computed == [1]
        assert model.training

    def test_whoever_changes_a_map_or_picture_changes_it_for_nobody_else(self) -> None:
        model, gradcam = Scaled(), shared()
        for kind in (IMAGE, np.asarray(IMAGE[0].permute(1, 2, 0) * 255).astype(np.uint8)):
            options: dict[str, Any] = {"transform": to_tensor} if isinstance(kind, np.ndarray) else {}
            fresh = explain(model, kind, CLS, **options)
            for _ in range(3):
                made = gradcam.explain(model, kind, CLS, **options)
                same(made, fresh)
                made.raw[:] = 7.0
                made.cam[:] = 7.0
                made.image[:] = 7


def to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255.0


class TestNotShared:
    """What nobody can tell is computed anew."""

    @pytest.mark.parametrize(
        "options",
        [
            {"cls": lambda output: output[0, 1]},
            {"forward": lambda model, x: model(x)},
            {"method": lambda model, x, target: np.ones((4, 4))},
            {"layer": "module"},
        ],
        ids=["callable class", "forward", "own method", "layer as a module"],
    )
    def test_callables_and_modules(self, options: dict[str, Any], computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        given = {"cls": CLS, **options}
        if "layer" in given:
            given["layer"] = model.second
        for _ in range(2):
            gradcam.explain(model, IMAGE, **given)
        assert computed == [1, 1]

    @pytest.mark.parametrize(
        "held",
        [
            random.Random(0),
            np.random.default_rng(0),
            torch.Generator(),
            iter([1.0]),
            (x for x in [1.0]),
            {object: {Path}},
        ],
        ids=["Random", "numpy", "torch", "iterator", "generator", "set of objects"],
    )
    def test_a_model_that_holds_something_unknown(self, held: object, computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        model.held = held  # type: ignore[assignment]
        for _ in range(2):
            gradcam.explain(model, IMAGE, CLS)
        assert computed == [1, 1]

    def test_pairs_and_opaque_models(self, computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        pair = (model.features, lambda x: model.head(x.mean((2, 3))))
        for _ in range(2):
            gradcam.explain(pair, IMAGE, CLS, engine="split")
            gradcam.explain(model.__call__, IMAGE, CLS, method="occlusion")
        assert computed == [1] * 4

    def test_torch_function_modes(self, computed: list[int]) -> None:
        model, gradcam = Scaled(), shared()
        for _ in range(2):
            with torch.device("cpu"):
                gradcam.explain(model, IMAGE, CLS)
        assert computed == [1, 1]

    def test_errors_are_raised_each_time(self, tmp_path: Path) -> None:
        gradcam = shared()
        for _ in range(2):
            with pytest.raises(AttentionError):
                gradcam.assert_attention_in_region(Scaled(), IMAGE, (48, 0, 56, 8), CLS, layer="second")
            with pytest.raises(ValueError, match="class 9 is out of range"):
                gradcam.explain(Scaled(), IMAGE, 9)
            with pytest.raises(ValueError, match="there is no file"):
                gradcam.explain(Scaled(), tmp_path / "none.png", CLS, transform=to_tensor)
            with pytest.raises(TransformError, match="is random"):
                gradcam.explain(Scaled(), np.full((64, 64, 3), 9, np.uint8), CLS, transform=Noisy())
            with pytest.warns(ZeroEvidenceWarning) as warned:
                gradcam.explain(reads_colours(factor=-1.0), IMAGE, 0)
            assert warned[0].filename == __file__


class Noisy:
    def __init__(self) -> None:
        self.drawn = random.Random(0)

    def __call__(self, picture: Image.Image) -> Tensor:
        return to_tensor(picture) + self.drawn.random()


class Resized:
    def __init__(self, side: int) -> None:
        self.side, self.calls = side, 0

    def __call__(self, picture: Image.Image) -> Tensor:
        return to_tensor(picture.resize((self.side, self.side)))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The transforms that were called."""
    counted: list[object] = []
    from pytest_gradcam import transforms

    plain = transforms.call

    def counting(transform: Any, picture: Image.Image) -> Tensor:
        counted.append(transform)
        return plain(transform, picture)

    for module in ("transforms", "probes"):
        monkeypatch.setattr(f"pytest_gradcam.{module}.call", counting)
    return counted


class TestPictures:
    def test_one_picture_in_any_shape_is_transformed_once(self, tmp_path: Path, called: list[object]) -> None:
        pixels = (picture(80, 60)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        Image.fromarray(pixels).save(tmp_path / "b.png")
        gradcam, model, resized = shared(), Scaled(), Resized(64)
        fresh = explain(model, pixels, CLS, transform=Resized(64))
        same(gradcam.explain(model, pixels, CLS, transform=resized), fresh)
        same(gradcam.explain(model, tmp_path / "a.png", CLS, transform=resized), fresh)
        called.clear()
        for image in (pixels, Image.fromarray(pixels), tmp_path / "a.png", tmp_path / "b.png", str(tmp_path / "b.png")):
            same(gradcam.explain(model, image, CLS, transform=Resized(64)), fresh)
        assert called == []

    def test_a_file_that_changes_is_read_anew(self, tmp_path: Path) -> None:
        gradcam, model = shared(), Scaled()
        for level in (0, 1):
            pixels = np.zeros((64, 64, 3), np.uint8)
            pixels[10:30, 10:30, level] = 255
            Image.fromarray(pixels).save(tmp_path / "a.png")
            made = gradcam.explain(model, tmp_path / "a.png", CLS, transform=to_tensor)
            same(made, explain(model, pixels, CLS, transform=to_tensor))

    def test_an_array_written_to_is_another(self) -> None:
        gradcam, model = shared(), Scaled()
        pixels, tensor = np.zeros((64, 64, 3), np.uint8), torch.zeros(3, 64, 64)
        for _ in range(2):
            pixels[10:30, 20:40] += 80
            tensor[:, 10:30, 20:40] += 0.5
            made = gradcam.explain(model, pixels, CLS, transform=to_tensor)
            same(made, explain(model, pixels, CLS, transform=to_tensor))
            same(gradcam.explain(model, tensor, CLS), explain(model, tensor, CLS))

    def test_a_transform_that_was_changed_is_another(self) -> None:
        shared, resized, region = Shared(), Resized(64), Region.of((10, 40, 60, 60))
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for side in (64, 32, 48, 64):
            resized.side = side
            fresh = prepare(pixels, transform=Resized(side))
            for _ in range(2):
                made = shared.prepare(None, pixels, resized)
                assert torch.equal(made.tensor, fresh.tensor)
                assert np.array_equal(made.seen, fresh.seen)
                assert np.array_equal(shared.carry(region, made), carry_region(region, fresh))

    def test_a_region_is_carried_once(self, called: list[object]) -> None:
        shared = Shared()
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        boxes = [Region.of((40, 40, 60, 60)), Region.of((10, 40, 60, 60))]
        first = [shared.carry(box, shared.prepare(None, pixels, Resized(48))) for box in boxes]
        called.clear()
        for box, mask in zip(boxes, first, strict=True):
            for _ in range(2):
                again = shared.carry(box, shared.prepare(None, pixels, Resized(48)))
                assert np.array_equal(again, mask)
                again[:] = 7.0
        assert called == []
        assert not np.array_equal(first[0], first[1])
        shared.carry(Region.of((10, 40, 60, 59)), shared.prepare(None, pixels, Resized(48)))
        assert called != []

    def test_a_random_transform_stays_refused(self) -> None:
        shared = Shared()
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for _ in range(2):
            with pytest.raises(TransformError, match="is random"):
                shared.prepare(None, pixels, lambda picture: to_tensor(picture) + random.random())
            with pytest.raises(TransformError, match="is random"):
                shared.prepare(None, pixels, Noisy())


class TestBatches:
    def test_a_list_is_found_as_a_list(self, computed: list[int]) -> None:
        gradcam, model = shared(), Scaled()
        images = [picture(seed=seed) for seed in range(3)]
        boxes = [(8, 8, 40, 40)] * 3
        for _ in range(2):
            gradcam.assert_attention_outside_region(model, images, boxes, CLS, threshold=0.95, inconclusive="warn")
        assert computed == [3]
        same(gradcam.explain(model, images[1], CLS), explain(model, images[1], CLS))
        assert computed == [3, 1, 1]

    def test_what_was_computed_ahead_is_found(self, computed: list[int]) -> None:
        gradcam, model = shared(), Scaled()
        images = [picture(seed=seed) for seed in range(20)]
        gradcam.prefetch(model, images, CLS)
        assert computed == [16, 4]
        gradcam.prefetch(model, images, CLS)
        batch = explain_batch(model, torch.cat(images), CLS)
        for image, fresh in zip(images, batch, strict=True):
            made = gradcam.explain(model, image, CLS)
            assert np.abs(made.raw - fresh.raw).max() <= 1e-5 * np.abs(fresh.raw).max()
            assert np.array_equal(made.image, fresh.image)
        assert computed == [16, 4]

    def test_only_what_is_missing_is_computed_ahead(self, computed: list[int]) -> None:
        gradcam, model = shared(), Scaled()
        gradcam.explain(model, picture(seed=1), 2)
        gradcam.prefetch(model, torch.cat([picture(seed=seed) for seed in range(3)]), [0, 2, 1])
        assert computed == [1, 2]
        optimizer_step(model)
        same(gradcam.explain(model, picture(seed=1), 2), explain(model, picture(seed=1), 2))

    def test_where_nothing_is_shared_nothing_is_computed_ahead(self, computed: list[int]) -> None:
        Gradcam().prefetch(Scaled(), [IMAGE], CLS)
        model = Scaled()
        model.held = iter([1.0])  # type: ignore[assignment]
        shared().prefetch(model, [IMAGE], CLS)
        assert computed == []
        with pytest.raises(ValueError, match="2 classes for 1 images"):
            Gradcam().prefetch(Scaled(), [IMAGE], [0, 1])

    def test_the_bad_one_of_many_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"image 1: .* is not finite"):
            shared().prefetch(Scaled(), [IMAGE, IMAGE * torch.nan], CLS)


class TestBounds:
    def test_what_was_asked_for_longest_ago_goes_first(self) -> None:
        kept = Kept(10_000)
        for number in range(4):
            kept.put(number, str(number), 2000)
            assert kept.get(0) == "0"
        assert [kept.get(number) for number in range(4)] == ["0", None, "2", "3"]
        assert kept.bytes <= 10_000
        kept.put("large", "", 20_000)
        assert kept.get("large") is None
        kept.put(3, "again", 10)
        assert (kept.get(3), len(kept)) == ("again", 3)

    def test_a_session_of_many_pictures_and_models_stays_within_its_bound(self) -> None:
        shared = Shared(pictures=1_500_000, maps=20_000)
        gradcam = Gradcam(cache=shared)
        for seed in range(30):
            pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            gradcam.explain(small(seed=seed % 3), pixels, CLS, transform=to_tensor)
            assert shared.pictures.bytes <= 1_500_000
            assert shared.maps.bytes <= 20_000
        assert len(shared.pictures) > 1
        assert len(shared.maps) > 1

    def test_a_kept_map_keeps_no_picture_and_no_model(self) -> None:
        gradcam, model = shared(), Scaled()
        image = IMAGE.clone()
        gradcam.explain(model, image, CLS)
        gone = weakref.ref(model), weakref.ref(image)
        del model, image
        gc.collect()
        assert [each() for each in gone] == [None, None]


class TestContents:
    """The digest of large tensors against changes that plain sums do not see."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
    def test_every_change_is_seen(self, dtype: torch.dtype) -> None:
        tensor = torch.randn(512, 1000).mul(100).to(dtype)
        transposed = tensor[:, :512].T.contiguous()
        seen = {digest_of_tensors([tensor])}
        lines = [0, 1, 511]
        changed = [
            tensor.neg(),
            tensor.flip(0),
            tensor.flip(1),
            tensor.roll(1, 0),
            tensor.roll(1, 1),
            tensor.roll(256, 0),
            transposed,
            tensor[:511],
            torch.cat([-tensor[:256], tensor[256:]]),
            *[tensor.index_copy(0, torch.tensor([i]), -tensor[i : i + 1]) for i in lines],
            *[tensor.index_copy(1, torch.tensor([i]), -tensor[:, i : i + 1]) for i in lines],
            tensor[torch.tensor([1, 0, *range(2, 512)])],
            tensor[:, torch.tensor([1, 0, *range(2, 1000)])],
        ]
        for other in changed:
            found = digest_of_tensors([other])
            assert found not in seen
            seen.add(found)

    def test_one_bit_anywhere_is_seen(self) -> None:
        words = torch.from_numpy(np.random.default_rng(0).integers(0, 2**62, 200_000))
        before = digest_of_tensors([words])
        rng = random.Random(0)
        places = [0, len(words) - 1, *[rng.randrange(len(words)) for _ in range(100)]]
        for place in places:
            bit = 1 << rng.randrange(63)
            words[place] ^= bit
            assert digest_of_tensors([words]) != before
            words[place] ^= bit
        assert digest_of_tensors([words]) == before

    def test_what_keeps_the_sums_of_rows_and_columns_is_seen(self) -> None:
        """Sums of blocks of 127 rows of 509 words, which stood here before, see none of these."""
        words = torch.from_numpy(np.random.default_rng(0).integers(0, 2**62, (200, 509)))
        rows, columns = torch.tensor([3, 60]), torch.tensor([5, 400])
        exchanged = words.clone()
        exchanged[rows[0], columns], exchanged[rows[1], columns] = words[3, columns] + 9, words[60, columns] - 9
        exchanged[3, 400] -= 18
        exchanged[60, 400] += 18
        assert torch.equal(exchanged[:127].sum(0), words[:127].sum(0))
        assert torch.equal(exchanged.sum(1), words.sum(1))
        signs = torch.randn(127, 2 * 509).float()
        flipped = signs.clone()
        for row in (3, 60):
            for column in (10, 800):
                flipped[row, column] *= -1
        one_hot = torch.zeros(8, 1018)
        one_hot[0, 0] = one_hot[1, 2] = 1.0
        swapped = one_hot[torch.tensor([1, 0, *range(2, 8)])]
        for before, after in ((words, exchanged), (signs, flipped), (one_hot, swapped)):
            assert digest_of_tensors([before]) != digest_of_tensors([after])

    def test_layouts_and_views(self) -> None:
        tensor = torch.randn(64, 32, 3, 3)
        for view in (tensor.to(memory_format=torch.channels_last), tensor[::2], tensor[:, 1:], tensor.flatten()[1:]):
            before = digest_of_tensors([view])
            view.view(-1)[-1] if view.is_contiguous() else view[-1, -1, -1, -1].add_(1.0)
            if view.is_contiguous():
                view.view(-1)[-1] += 1.0
            assert digest_of_tensors([view]) != before
        assert digest(np.zeros((2, 3))) != digest(np.zeros((3, 2)))
        assert digest(np.zeros(3, np.float32)) != digest(np.zeros(3, np.int32))
        assert digest_of_tensors([torch.tensor(1 + 2j).conj()]) != digest_of_tensors([torch.tensor(1 + 2j)])

    def test_what_a_device_gathers_is_all_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contents, "GATHERED", 1_000_000)
        tensors = [torch.randn(300_000), torch.randn(3, 5).bfloat16(), torch.randn(64, 512, 3), torch.randn(0)]
        blocks = list(contents._gathered(tensors))
        assert len(blocks) > 1
        plain = b"".join(each.reshape(-1).view(torch.uint8).numpy().tobytes() for each in tensors)
        assert b"".join(block.numpy().tobytes() for block in blocks) == plain

    @pytest.mark.cuda
    def test_a_device_is_read_there(self) -> None:
        tensors = [torch.randn(3_000_000, device="cuda"), torch.randn(10, device="cuda").bfloat16()]
        before = digest_of_tensors(tensors)
        assert digest_of_tensors(tensors) == before
        for tensor in tensors:
            tensor.data[-1] += 1.0
            assert digest_of_tensors(tensors) != before
            before = digest_of_tensors(tensors)


class TestFingerprint:
    def test_equal_things_read_the_same(self) -> None:
        def made() -> list[object]:
            return [
                small(seed=3),
                Resized(3),
                functools.partial(max, 1, key=len),
                lambda x: x + 1,
                {"a": (1, 2.0, None), "b": {1, 2}},
                logging.getLogger("x"),
                Path("a"),
                np.float32(3.0),
                torch.float32,
                nn.ReLU,
                torch.relu,
                np.add,
                slice(1, 2),
            ]

        for one, other in zip(made(), made(), strict=True):
            assert fingerprint(one) == fingerprint(other)

    def test_different_things_do_not(self) -> None:
        values = [
            *(1, 1.0, True, "1", b"1", None, 0.0, -0.0, [], (), {}, [1], (1,), {1: 1}, {1}),
            *(np.float32(1), np.float64(1), torch.ones(1), nn.Parameter(torch.ones(1)), np.ones(1)),
            *(Path("1"), nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU, Resized(1), Resized(2), [[], 1], [[1]]),
        ]
        assert len({fingerprint(value) for value in values}) == len(values)

    def test_what_refers_to_itself_ends(self) -> None:
        model = Scaled()
        model.itself = [model]  # type: ignore[assignment]
        assert fingerprint(model) == fingerprint(model)

    @pytest.mark.parametrize(
        "value",
        [torch.eye(3).to_sparse(), torch.ones(2, device="meta"), np.array([object()]), functools.cache(len), Noisy()],
        ids=["sparse", "meta", "objects", "cache", "random"],
    )
    def test_what_cannot_be_read(self, value: object) -> None:
        with pytest.raises(Unreadable):
            fingerprint(value)


class AFloat(float):
    pass


class AnInt(int):
    pass


class AText(str):
    __slots__ = ()


class Private:
    __slots__ = ("__value",)

    def __init__(self, value: float) -> None:
        self.__value = value

    def value(self) -> float:
        return self.__value


class Meta(type):
    value = 1.0


class OfMeta(metaclass=Meta):
    pass


class Member(enum.Enum):
    ONE = 1


class Reading(Scaled):
    """Its map is scaled, in half of the channels, by what `reads` finds."""

    reads: Any = None

    def __init__(self, held: object = None) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        by = torch.ones(6, 1, 1)
        by[:3] = float(self.reads(self.held))
        scores: Tensor = self.head((self.second(self.features(x)) * by).mean((2, 3)))
        return scores


config: Any = types.ModuleType("config_of_a_user")
config.value = 1.0
sys.modules["config_of_a_user"] = config
logger = logging.getLogger("tests.sharing")
GAIN = 1.0


def imports(held: object) -> float:
    import config_of_a_user  # type: ignore[import-not-found]

    return float(config_of_a_user.value)


def imports_a_name(held: object) -> float:
    from config_of_a_user import value

    return float(value)


def value_of(held: Any) -> float:
    return float(held.value)


def closing_over(module: Any) -> Callable[[object], float]:
    return lambda held: float(module.value)


READINGS: dict[str, Callable[[Any], Any]] = {
    "module of its own": lambda held: config.value,
    "module in a closure": closing_over(config),
    "module handed on": lambda held: value_of(config),
    "module by another name": lambda held: [config][0].value,
    "import": imports,
    "import of a name": imports_a_name,
    "getattr": lambda held: getattr(config, "val" + "ue"),
    "globals": lambda held: globals()["config"].value,
    "vars": lambda held: vars(config)["value"],
    "eval": lambda held: eval("config.value"),
    "sys.modules": lambda held: sys.modules["config_of_a_user"].value,
}

HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "float of a subclass": (lambda: AFloat(1), lambda model: setattr(model, "held", AFloat(-5)), float),
    "int of a subclass": (lambda: AnInt(1), lambda model: setattr(model, "held", AnInt(-5)), float),
    "str of a subclass": (lambda: AText("1"), lambda model: setattr(model, "held", AText("-5")), float),
    "complex": (lambda: 1 + 0j, lambda model: setattr(model, "held", -5 + 0j), lambda held: held.real),
    "private slot": (lambda: Private(1.0), lambda model: model.held.__init__(-5.0), lambda held: held.value()),
    "metaclass": (lambda: OfMeta, lambda _: setattr(Meta, "value", -5.0), lambda held: held.value),
    "member of an enum": (lambda: Member.ONE, lambda _: setattr(Member.ONE, "gain", -5.0), lambda held: held.gain),
    "level of a logger": (
        lambda: logger,
        lambda _: logger.setLevel(10),
        lambda held: -5.0 if held.isEnabledFor(10) else 1.0,
    ),
    "module": (lambda: config, lambda _: setattr(config, "value", -5.0), lambda held: held.value),
}


class TestWhatNobodyWroteDown:
    """What a forward can read without naming it: seen, or not shared."""

    @pytest.fixture(autouse=True)
    def as_before(self) -> Iterator[None]:
        config.value, Meta.value = 1.0, 1.0
        Member.ONE.gain = 1.0  # type: ignore[attr-defined]
        logger.setLevel(50)
        yield
        logger.setLevel(logging.NOTSET)

    def judged(self, model: Reading, change: Callable[[Any], Any]) -> None:
        gradcam = shared()
        before = gradcam.explain(model, IMAGE, CLS, layer="second")
        change(model)
        fresh = explain(model, IMAGE, CLS, layer="second")
        assert not np.array_equal(fresh.raw, before.raw), "the change matters"
        same(gradcam.explain(model, IMAGE, CLS, layer="second"), fresh)

    @pytest.mark.parametrize("reads", READINGS.values(), ids=READINGS)
    def test_a_python_module(self, monkeypatch: pytest.MonkeyPatch, reads: Any) -> None:
        monkeypatch.setattr(Reading, "reads", staticmethod(reads))
        self.judged(Reading(), lambda _: setattr(config, "value", -5.0))

    @pytest.mark.parametrize(("held", "change", "reads"), HELD.values(), ids=HELD)
    def test_an_attribute(self, monkeypatch: pytest.MonkeyPatch, held: Any, change: Any, reads: Any) -> None:
        monkeypatch.setattr(Reading, "reads", staticmethod(lambda held, reads=reads: reads(held)))
        self.judged(Reading(held()), change)

    def test_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GAIN_OF_A_USER", "1")
        monkeypatch.setattr(Reading, "reads", staticmethod(lambda held: float(os.environ["GAIN_OF_A_USER"])))
        self.judged(Reading(), lambda _: monkeypatch.setenv("GAIN_OF_A_USER", "-5"))

    @pytest.mark.parametrize("how", ["closure", "partial", "wrapped"])
    def test_a_library_that_is_patched_twice_by_the_same_code(self, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        plain = torch.relu

        def patched(by: float) -> Any:
            def relu(by: float, x: Tensor, inplace: bool = False) -> Tensor:
                return plain(x) * torch.where(torch.arange(x.shape[1]) < 3, by, 1.0)[:, None, None]

            if how == "partial":
                return functools.partial(relu, by)
            closure = lambda x, inplace=False: relu(by, x)  # noqa: E731
            return functools.wraps(torch.nn.functional.relu)(closure) if how == "wrapped" else closure

        relued = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        seeded(relued)
        gradcam = shared()
        monkeypatch.setattr(torch.nn.functional, "relu", patched(1.0))
        before = gradcam.explain(relued, IMAGE, CLS, layer="0")
        monkeypatch.setattr(torch.nn.functional, "relu", patched(-5.0))
        fresh = explain(relued, IMAGE, CLS, layer="0")
        assert not np.array_equal(fresh.raw, before.raw)
        same(gradcam.explain(relued, IMAGE, CLS, layer="0"), fresh)

    @pytest.mark.parametrize("what", ["step", "function", "resize"])
    def test_a_transform_s_library_that_is_patched(self, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        from torchvision import transforms
        from torchvision.transforms import functional

        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        steps = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
        transform = Resized(32) if what == "resize" else transforms.Compose(steps)
        where, name = {
            "step": (transforms.ToTensor, "__call__"),
            "function": (functional, "normalize"),
            "resize": (Image.Image, "resize"),
        }[what]
        sharing, plain = Shared(), getattr(where, name)
        before = sharing.prepare(None, pixels, transform)

        def patched(*given: Any, **options: Any) -> Any:
            found = plain(*given, **options)
            return 1 - found if isinstance(found, Tensor) else found.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

        monkeypatch.setattr(where, name, patched)
        after = sharing.prepare(None, pixels, transform)
        assert torch.equal(after.tensor, prepare(pixels, transform=transform).tensor)
        assert not torch.equal(after.tensor, before.tensor)

    def test_plain_code_is_shared(self, computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Reading, "reads", staticmethod(lambda held: held[0] * math.sqrt(4.0) * GAIN))
        model, gradcam = Reading([1.0, {"a": "b"}]), shared()
        for _ in range(2):
            gradcam.explain(model, IMAGE, CLS, layer="second")
        assert computed == [1]

    @pytest.mark.parametrize("source", ["torchvision", "timm", "transformers"])
    def test_models_of_libraries_are_shared(self, source: str) -> None:
        model: Any
        if source == "torchvision":
            import torchvision

            model = torchvision.models.mobilenet_v3_small()
        elif source == "timm":
            import timm

            model = timm.create_model("vit_tiny_patch16_224", depth=2)
        else:
            transformers: Any = pytest.importorskip("transformers")
            sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
            model = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))
        assert fingerprint(model) == fingerprint(model)
