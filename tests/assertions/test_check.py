"""`gradcam.check`: what it must see, what it must not mind, and what it says. Its files have tests of their own."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import AttentionError, Gradcam, Verdict, ZeroEvidenceError, explain
from pytest_gradcam.baselines.format import loads
from pytest_gradcam.demo.models import inputs, load_model
from pytest_gradcam.demo.pictures import LABELS, Picture, compose, held_out
from pytest_gradcam.errors import (
    BaselineError,
    GradcamError,
    MissingBaselineError,
    SettingsError,
    TargetLayerError,
    VacuousThresholdError,
)
from pytest_gradcam.metrics import pearson, wasserstein
from pytest_gradcam.report.records import to_record
from pytest_gradcam.report.summary import summary
from tests.assertions.shelves import Project
from tests.models import coloured, picture, reads_colours, seeded, small

PICTURES = list(held_out(8))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@cache
def honest() -> nn.Module:
    return load_model("honest")


@cache
def tuned_on_the_stamp() -> nn.Module:
    """The honest model after 20 steps on pictures whose stamp is the class, and whose object is random."""
    model = copy.deepcopy(honest()).train()
    random = np.random.default_rng(7)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    for step in range(20):
        images, classes = [], []
        for i in range(32):
            cls, unrelated = (int(value) for value in random.integers(len(LABELS), size=2))
            images.append(compose(step * 32 + i, seed=77, cls=unrelated, stamp=cls).image)
            classes.append(cls)
        loss = functional.cross_entropy(model(inputs(images)), torch.tensor(classes))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return model.eval()


class SwapsChannels(nn.Module):
    """A model that was given an input in another order of channels than it was trained on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> Any:
        return self.inner(x.flip(1))


def tensor_of(each: Picture) -> Tensor:
    return inputs([each.image])[0]


def outcomes(gradcam: Gradcam, model: nn.Module, **keywords: Any) -> list[bool]:
    """Whether the check of each picture passes; a map without evidence does not."""
    found = []
    for each in PICTURES:
        try:
            gradcam.check(model, tensor_of(each), each.cls, name=each.name, **keywords)
        except AttentionError:
            found.append(False)
        else:
            found.append(True)
    return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Baselines of the honest model, of 8 pictures."""
    project = Project(tmp_path_factory.mktemp("stored"))
    assert all(outcomes(project.gradcam("new"), honest()))
    assert project.happened == ["created"] * len(PICTURES)
    return project


class TestSees:
    @pytest.mark.parametrize("floor", ["same_weights", "retrained"])
    def test_a_model_that_was_tuned_on_a_shortcut(self, stored: Project, floor: str) -> None:
        assert not any(outcomes(stored.gradcam(floor=floor), tuned_on_the_stamp()))

    @pytest.mark.parametrize("floor", ["same_weights", "retrained"])
    def test_the_checkpoint_of_another_model(self, stored: Project, floor: str) -> None:
        assert not any(outcomes(stored.gradcam(floor=floor), load_model("shortcut")))

    def test_swapped_channels_at_the_floor_of_the_same_weights(self, stored: Project) -> None:
        """A swap may move a map less than a new training does: only this floor sees every one."""
        assert not any(outcomes(stored.gradcam(layer="inner.layer4"), SwapsChannels(honest())))
        swapped = copy.deepcopy(honest())
        first = next(module for module in swapped.modules() if isinstance(module, nn.Conv2d))
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))
        assert not any(outcomes(stored.gradcam(), swapped))
        assert any(outcomes(stored.gradcam(floor="retrained"), swapped))

    @pytest.mark.parametrize("floor", ["same_weights", "retrained"])
    def test_another_layer_by_name(self, stored: Project, floor: str) -> None:
        with pytest.raises(AttentionError, match="cannot be compared: the layer has changed, was layer4, is layer3"):
            stored.gradcam(floor=floor, layer="layer3").check(
                honest(), tensor_of(PICTURES[0]), PICTURES[0].cls, name=PICTURES[0].name
            )

    def test_another_layer_by_its_map_too(self, stored: Project) -> None:
        """The layer of another model may have the same name: then the numbers see it, at this floor."""
        first = explain(honest(), tensor_of(PICTURES[0]), PICTURES[0].cls, layer="layer4")
        other = explain(honest(), tensor_of(PICTURES[0]), PICTURES[0].cls, layer="layer3")
        assert pearson(first.raw, other.raw) < 0.999


def as_bfloat16(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).bfloat16()


def as_channels_last(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def as_int8(model: nn.Module) -> nn.Module:
    """Weights rounded to 255 levels, as quantising for inference does."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.ndim > 1:
                step = parameter.abs().amax() / 127
                parameter.copy_((parameter / step).round() * step)
    return rounded


class TestDoesNotMind:
    @pytest.mark.parametrize("made", [as_bfloat16, as_channels_last, as_int8, copy.deepcopy], ids=lambda f: f.__name__)
    def test_the_same_weights_in_another_form(self, stored: Project, made: Callable[[nn.Module], nn.Module]) -> None:
        files = sorted((stored.root / "__gradcam__").rglob("*.safetensors"))
        before = [path.read_bytes() for path in files]
        assert all(outcomes(stored.gradcam(), made(honest())))
        assert [path.read_bytes() for path in files] == before

    def test_another_number_of_threads(self, stored: Project) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            assert all(outcomes(stored.gradcam(), honest()))
        finally:
            torch.set_num_threads(threads)

    def test_the_other_engine(self, stored: Project) -> None:
        assert all(outcomes(stored.gradcam(engine="split"), honest()))

    @pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
    def test_other_architectures(self, project: Project, name: str) -> None:
        model = seeded(timm.create_model(name, num_classes=4))
        x = picture(160, 160)
        project.gradcam("new").check(model, x, 1)
        for made in (as_bfloat16, as_channels_last):
            assert project.gradcam().check(made(model), x, 1).passed
        assert project.gradcam(engine="split").check(model, x, 1).passed

    def test_that_the_search_finds_another_layer(self, project: Project) -> None:
        """Where no layer is named, the map is read at the baseline's: what is found depends on the weights."""
        model, x = small(), picture()
        project.gradcam("new", layer="relu1").check(model, x, 1)
        assert project.gradcam(layer="relu1").check(model, x, 1).passed
        assert explain(model, x, 1).layer != "relu1"
        verdict = project.gradcam().check(model, x, 1)
        assert verdict.explanation.layer == "relu1"


class TestCompares:
    def test_by_pearson_and_the_distance_of_the_maps(self, project: Project) -> None:
        model, x = small(), picture()
        before = explain(model, x, 1)
        project.gradcam("new").check(model, x, 1)
        other = small(seed=3)
        now = explain(other, x, 1, layer=before.layer)
        with pytest.raises(AttentionError) as caught:
            project.gradcam().check(other, x, 1)
        verdict = caught.value.verdict
        assert verdict is not None
        assert verdict.metric == "pearson"
        assert verdict.value == pytest.approx(pearson(before.raw, now.raw), abs=1e-6)
        assert verdict.threshold == 0.999
        moved = wasserstein(before.raw, now.raw)
        allowed = 2 * np.sqrt(0.001) * wasserstein(before.raw, np.ones_like(before.raw))
        assert f"{moved:.2f} cells, allowed {allowed:.2f}" in dict(verdict.facts)["distance"]

    def test_that_mass_moved_though_the_maps_correlate(self, project: Project) -> None:
        model, x = small(), picture()
        before = explain(model, x, 1)
        project.gradcam("new").check(model, x, 1)
        noisy = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

        def forward(module: nn.Module, images: Tensor) -> Any:
            return module(images + (noisy - x))

        now = explain(model, x, 1, forward=forward)
        correlation, moved = pearson(before.raw, now.raw), wasserstein(before.raw, now.raw)
        keywords: dict[str, Any] = {"pearson": correlation - 1e-4, "forward": forward}
        assert project.gradcam().check(model, x, 1, shift=moved + 1e-4, **keywords).passed
        with pytest.raises(AttentionError, match=r"earth mover's distance \S+ cells, allowed") as caught:
            project.gradcam().check(model, x, 1, shift=moved - 1e-4, **keywords)
        verdict = caught.value.verdict
        assert verdict is not None
        assert (verdict.metric, verdict.at_most) == ("wasserstein", True)
        assert verdict.value == pytest.approx(moved)

    def test_that_failed_by_distance_alone_can_be_shown(self, project: Project) -> None:
        """At the end of a run, too: all of its numbers are finite."""
        model, x = small(), picture()
        project.gradcam("new").check(model, x, 1)

        def forward(module: nn.Module, images: Tensor) -> Any:
            noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
            return module(images + 0.05 * noise)

        with pytest.raises(AttentionError) as caught:
            project.gradcam().check(model, x, 1, pearson=0.01, shift=1e-4, forward=forward)
        verdict = caught.value.verdict
        assert verdict is not None and verdict.metric == "wasserstein"
        before = explain(model, x, 1).raw
        assert verdict.chance == pytest.approx(wasserstein(before, np.ones_like(before)), rel=1e-5)
        title, lines = summary(
            [{**to_record(verdict, "test_it.py::test_x"), "failed": True, "folder": "f", "overlay": None}]
        )
        assert title == "attention: 1 judged, 1 failed" and "allowed 0.0001" in lines[0]

    def test_the_direction_is_told(self, project: Project) -> None:
        model, x = reads_colours(), coloured((0, (0, 24, 16, 40)), (2, (48, 24, 64, 40)))
        project.gradcam("new").check(model, x, 0)
        with torch.no_grad():
            model.head.weight.copy_(model.head.weight[[1, 0, 2]])  # type: ignore[union-attr,index,operator]
        with pytest.raises(AttentionError) as caught:
            project.gradcam().check(model, x, 0)
        assert caught.value.verdict is not None
        facts = dict(caught.value.verdict.facts)
        assert facts["moved"] == "100% of the map's mass, from the left to the right"

    def test_a_created_baseline_is_compared_with_what_was_read_back(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that writes does not pass by its word: what lies on the disk is what is compared."""
        from pytest_gradcam.baselines import store
        from pytest_gradcam.baselines.format import dumps as real

        other = explain(small(seed=3), picture(), 1)

        def wrong(baseline: Any, received: Any = None) -> bytes:
            positive = np.maximum(other.raw, 0)
            return real(
                type(baseline)(
                    **{
                        **{n: getattr(baseline, n) for n in baseline.__slots__},
                        "raw": other.raw,
                        "cam": positive / positive.max(),
                    }
                ),
                received,
            )

        monkeypatch.setattr(store, "dumps", wrong)
        with pytest.raises(AttentionError):
            project.gradcam("new").check(small(), picture(), 1)


class TestNamesWhatChanged:
    def expect(self, project: Project, text: str, *arguments: Any, **keywords: Any) -> Verdict:
        with pytest.raises(AttentionError, match=re.escape(text)) as caught:
            project.gradcam(**keywords).check(*arguments)
        verdict = caught.value.verdict
        assert verdict is not None and verdict.metric == "changes"
        return verdict

    def test_the_class_that_is_predicted(self, project: Project) -> None:
        model, x = reads_colours(), coloured((0, (0, 0, 32, 32)), (2, (40, 40, 48, 48)))
        project.gradcam("new").check(model, x)
        with torch.no_grad():
            model.head.weight.copy_(model.head.weight[[1, 0, 2]])  # type: ignore[union-attr,index,operator]
        self.expect(project, "the class has changed, was class 0, is class 1", model, x)

    def test_the_image(self, project: Project) -> None:
        project.gradcam("new").check(small(), picture(seed=1), 1)
        self.expect(project, "the image has changed: the tensor has other values", small(), picture(seed=2), 1)
        verdict = self.expect(project, "the image and view have changed", small(), picture(64, 96), 1)
        assert dict(verdict.facts)["image"] == "the tensor was 3×64×64, is 3×64×96"

    def test_a_thing_that_moved_a_little_in_a_tensor(self, project: Project) -> None:
        """Where averages over parts of the picture are the same, too."""
        before = picture(224, 224) * 0.5
        after = before.clone()
        before[:, 2, 8:20, 8:20] += 1.0
        after[:, 2, 8:20, 40:52] += 1.0
        project.gradcam("new").check(small(), before, 1)
        self.expect(project, "the image has changed: the tensor has other values", small(), after, 1)

    def test_one_channel_beside_a_large_one(self, project: Project) -> None:
        depth = torch.full((1, 1, 64, 64), 1000.0)
        before, after = (torch.cat([picture(seed=seed), depth], dim=1) for seed in (1, 2))
        model = small(channels=4)
        project.gradcam("new").check(model, before, 1)
        self.expect(project, "the image has changed", model, after, 1)

    def test_not_the_rounding_of_a_tensor(self, project: Project) -> None:
        x = picture(224, 224) * 4 - 2
        project.gradcam("new").check(small(), x, 1)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        for same in (x.bfloat16().float(), x.half().float(), x + 1e-4 * noise):
            assert project.gradcam(floor="retrained").check(small(), same, 1).passed

    def test_one_pixel_of_a_picture(self, project: Project) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        project.gradcam("new", transform=to_tensor).check(small(), pixels, 1)
        pixels[5, 5, 0] ^= 1
        text = "the image has changed: the picture is another"
        self.expect(project, text, small(), pixels, 1, transform=to_tensor)

    def test_the_transform(self, project: Project) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        project.gradcam("new", transform=to_tensor).check(small(), pixels, 1)
        text = "the transform has changed: it makes other values of the same picture (was to_tensor~"
        self.expect(project, text, small(), pixels, 1, transform=to_bgr)
        assert project.gradcam(transform=to_tensor_by_another_name).check(small(), pixels, 1).passed

    def test_the_method(self, project: Project) -> None:
        project.gradcam("new").check(small(), picture(), 1)
        self.expect(
            project, "the method has changed, was grad-cam, is layercam", small(), picture(), 1, method="layercam"
        )

    def test_the_grid(self, project: Project) -> None:
        project.gradcam("new", layer="relu2").check(small(), picture(), 1)
        model = small()
        model.conv2.stride = (1, 1)  # type: ignore[assignment]
        self.expect(project, "the view has changed, was nchw 16×16, is nchw 32×32", model, picture(), 1, layer="relu2")

    def test_one_layer_of_many(self, project: Project) -> None:
        """Whose line for a person, the first and the last, is the same."""
        model = seeded(timm.create_model("test_vit", num_classes=4))
        before, now = ([f"blocks.{block}.norm1" for block in blocks] for blocks in ((0, 1, 2, 5), (0, 1, 3, 5)))
        assert (
            explain(model, picture(160, 160), 1, layer=before).layer
            == explain(model, picture(160, 160), 1, layer=now).layer
        )
        project.gradcam("new", layer=before).check(model, picture(160, 160), 1)
        text = "the layer has changed, was blocks.2.norm1, is blocks.3.norm1"
        self.expect(project, text, model, picture(160, 160), 1, layer=now)

    def test_several_at_once(self, project: Project) -> None:
        project.gradcam("new").check(small(), picture(seed=1), 1)
        verdict = self.expect(project, "the image and class have changed", small(), picture(seed=2), 2)
        assert (verdict.value, verdict.threshold, verdict.at_most) == (2.0, 0.0, True)

    def test_both_maps_are_shown(self, project: Project) -> None:
        project.gradcam("new", layer="relu1").check(small(), picture(), 1)
        verdict = self.expect(project, "the layer and grid have changed", small(), picture(), 1, layer="relu2")
        assert [sight.title for sight in verdict.sights] == ["baseline", "current"]
        assert [sight.explanation.layer for sight in verdict.sights] == ["relu1", "relu2"]


def to_tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def to_tensor_by_another_name(image: Any) -> Tensor:
    return to_tensor(image)


def to_bgr(image: Any) -> Tensor:
    return to_tensor(image).flip(0)


class TestRefuses:
    def test_what_it_has_no_baseline_for(self, project: Project) -> None:
        with pytest.raises(
            MissingBaselineError, match=r"^there is no baseline for test_it\.py::test_reads@a: write it"
        ) as e:
            project.gradcam().check(small(), picture(), 1, name="a")
        assert not isinstance(e.value, AssertionError)
        assert project.happened == ["missing"]
        assert not project.baseline("a").exists()
        received = project.root / "gradcam-report/received/__gradcam__/test_it/test_reads@a.safetensors"
        assert np.array_equal(loads(received.read_bytes()).raw, explain(small(), picture(), 1).raw)

    @pytest.mark.parametrize("update", [None, "new", "all"])
    def test_a_map_without_evidence(self, project: Project, update: str) -> None:
        with pytest.raises(ZeroEvidenceError):
            project.gradcam(update).check(reads_colours(), coloured((0, (0, 0, 32, 32))), 2)
        assert not list(project.root.rglob("*.safetensors"))

    def test_a_map_that_is_the_same_everywhere(self, project: Project) -> None:
        with pytest.raises(TargetLayerError, match="same value everywhere"):
            project.gradcam("new").check(reads_colours(), torch.ones(1, 3, 64, 64), 0, layer="reads")
        assert not list(project.root.rglob("*.safetensors"))

    def test_a_shift_that_any_map_would_keep(self, project: Project) -> None:
        project.gradcam("new").check(small(), picture(), 1)
        even = explain(small(), picture(), 1).raw
        far = wasserstein(even, np.ones_like(even))
        project.gradcam().check(small(), picture(), 1, shift=far * 0.99)
        with pytest.raises(VacuousThresholdError, match="would be passed by a map that is the same everywhere"):
            project.gradcam().check(small(), picture(), 1, shift=far * 1.01)

    @pytest.mark.parametrize(
        ("keywords", "error"),
        [
            ({"pearson": 0.0}, VacuousThresholdError),
            ({"pearson": -0.5}, VacuousThresholdError),
            ({"pearson": 1.01}, VacuousThresholdError),
            ({"pearson": float("nan")}, VacuousThresholdError),
            ({"pearson": "high"}, SettingsError),
            ({"shift": -1.0}, VacuousThresholdError),
            ({"shift": float("inf")}, VacuousThresholdError),
            ({"shift": float("nan")}, VacuousThresholdError),
            ({"floor": "retrain"}, SettingsError),
            ({"metric": "energy"}, SettingsError),
            ({"name": 3}, BaselineError),
            ({"name": "../x"}, BaselineError),
        ],
        ids=str,
    )
    def test_keywords_that_say_nothing(
        self, project: Project, keywords: dict[str, Any], error: type[GradcamError]
    ) -> None:
        with pytest.raises(error):
            project.gradcam("new").check(small(), picture(), 1, **keywords)
        assert not list(project.root.rglob("*.safetensors"))

    def test_to_write_where_a_changed_one_lies_unless_told(self, project: Project) -> None:
        project.gradcam("new").check(small(), picture(), 1)
        before = project.baseline().read_bytes()
        for update in (None, "new", "prune"):
            with pytest.raises(AttentionError):
                project.gradcam(update).check(small(seed=3), picture(), 1)
            assert project.baseline().read_bytes() == before
        assert project.gradcam("all").check(small(seed=3), picture(), 1).passed
        assert project.baseline().read_bytes() != before
        assert project.happened == ["created", "changed", "changed", "changed", "updated"]


def test_a_callable_score_has_a_baseline_too(project: Project) -> None:
    def margin(output: Tensor) -> Tensor:
        return output[0, 1] - output[0, 2]

    project.gradcam("new").check(small(), picture(), margin)
    assert project.gradcam().check(small(), picture(), margin).passed


def test_a_baseline_without_layers_is_compared(project: Project) -> None:
    """Occlusion reads no layer."""
    project.gradcam("new", method="occlusion").check(small(), picture(), 1)
    assert project.gradcam(method="occlusion").check(small(), picture(), 1).passed


def test_the_model_is_left_as_it_was(project: Project) -> None:
    model = small().train()
    before = copy.deepcopy(model.state_dict())
    project.gradcam("new").check(model, picture(), 1)
    project.gradcam().check(model, picture(), 1)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
