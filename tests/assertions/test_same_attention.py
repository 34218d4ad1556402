"""Maps of two models: the same weights in fewer bits, other weights, other grids, and one model twice."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from pytest_gradcam import (
    ClassError,
    ModelError,
    Settings,
    TargetLayerError,
    VacuousThresholdError,
    ZeroEvidenceError,
    assert_attention_stable,
    assert_same_attention,
    explain,
)
from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.same_layers import explain_as
from pytest_gradcam.demo import models as demo
from pytest_gradcam.metrics import SIMILARITIES
from pytest_gradcam.small_models import SmallModel
from tests.assertions.known import (
    IMAGE,
    WRITTEN_OUT,
    ChannelsSwapped,
    classes,
    correlation,
    facts,
    failed,
    inputs,
    model,
    pictures,
    rounded,
)
from tests.models import coloured, reads_colours


class Mixing(nn.Module):
    """Class 0 reads red, class 1 blue; each cell is left where it is or, to a share, mixed with all others.

    Where all of it is mixed, `late` has cells that stand for no place, and `reads` is found; else `late` is.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.reads = nn.Conv2d(3, 2, 1, bias=False)
        self.late = nn.ReLU()
        generator = torch.Generator().manual_seed(0)
        mixed = torch.rand(64, 64, generator=generator) / 32
        self.register_buffer("mixes", (1 - share) * torch.eye(64) + share * mixed)
        with torch.no_grad():
            self.reads.weight.zero_()
            self.reads.weight[0, 0] = self.reads.weight[1, 2] = 1.0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        cells = self.reads(nn.functional.avg_pool2d(x, 8))
        mixed = (cells.flatten(2) @ self.get_buffer("mixes").T).reshape(cells.shape)
        found: Tensor = self.late(mixed).mean((2, 3))
        return found


class TestBothAreReadAtTheSameLayers:
    @pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, torch.compile])
    def test_at_those_of_the_original(self, wrap: object) -> None:
        a, b = Mixing(1.0), Mixing(0.5)
        assert (explain(a, IMAGE, 0).layers, explain(b, IMAGE, 0).layers) == (("reads",), ("late",))
        verdict = assert_same_attention(a, wrap(b), IMAGE, 0, threshold=0.999)  # type: ignore[operator]
        assert [sight.explanation.layers for sight in verdict.sights] == [("reads",), ("reads",)]
        at_reads = explain(b, IMAGE, 0, layer="reads").raw
        assert verdict.value == pytest.approx(correlation(explain(a, IMAGE, 0).raw, at_reads), abs=1e-6)
        assert correlation(explain(b, IMAGE, 0).raw, at_reads) < 0.999
        assert "layers" not in facts(verdict)

    def test_by_the_method_that_was_chosen_for_the_original(self) -> None:
        """An uneven head makes `auto` HiResCAM."""
        even = reads_colours()
        uneven = nn.Sequential(OrderedDict(shrink=even[0], reads=even[1], flat=nn.Flatten(), head=nn.Linear(128, 2)))
        with torch.no_grad():
            weights = torch.rand(2, 2, 64, generator=torch.Generator().manual_seed(0)) * torch.eye(2)[..., None]
            uneven.get_submodule("head").weight.copy_(weights.flatten(1))  # type: ignore[operator]
        alone = explain(uneven.eval(), IMAGE, 0)
        assert (alone.layers, alone.method, explain(even, IMAGE, 0).method) == (("reads",), "hirescam", "grad-cam")
        verdict = assert_same_attention(even, uneven, IMAGE, 0, threshold=0.999)
        assert [sight.explanation.method for sight in verdict.sights] == ["grad-cam", "grad-cam"]
        assert correlation(verdict.sights[0].explanation.raw, alone.raw) < 0.99
        # Of a layer that is named, `auto` does not ask how it is read: the method has to be named with it.
        verdict = assert_same_attention(uneven, copy.deepcopy(uneven), IMAGE, 0, threshold=0.999)
        assert [sight.explanation.method for sight in verdict.sights] == ["hirescam", "hirescam"]

    def test_where_they_cannot_be_read_the_verdict_says_so(self) -> None:
        verdict = assert_same_attention(Mixing(0.5), Mixing(1.0), IMAGE, 0, threshold=0.1)
        assert [sight.explanation.layers for sight in verdict.sights] == [("late",), ("reads",)]
        said = facts(verdict)["layers"]
        assert said.startswith(
            "model A was read at late (grad-cam), model B at reads (grad-cam), which cannot be read as model A was: "
            "layer 'late' (nchw 8×8) gives no map"
        )

    def test_where_there_are_none_the_verdict_says_so(self) -> None:
        verdict = assert_same_attention(Mixing(0.5), reads_colours(), IMAGE, 0, threshold=0.1)
        assert verdict.sights[1].explanation.layers == explain(reads_colours(), IMAGE, 0).layers
        assert facts(verdict)["layers"].endswith(", which has no layer 'late'")

    def test_a_name_of_the_users_holds_for_both(self) -> None:
        verdict = assert_same_attention(Mixing(1.0), Mixing(0.5), IMAGE, 0, layer="reads", method="layercam")
        assert {(s.explanation.layers, s.explanation.method) for s in verdict.sights} == {(("reads",), "layercam")}
        with pytest.raises(TargetLayerError, match="model B: Sequential has no layer 'late'"):
            assert_same_attention(Mixing(0.5), reads_colours(), IMAGE, 0, layer="late")

    def test_a_module_of_the_original_stands_for_its_name(self) -> None:
        a, b = Mixing(1.0), Mixing(0.5)
        verdict = assert_same_attention(a, b, IMAGE, 0, layer=a.reads)
        assert [sight.explanation.layers for sight in verdict.sights] == [("reads",), ("reads",)]
        verdict = assert_same_attention(a, b, IMAGE, 0, layer=[a.reads])
        assert verdict.sights[1].explanation.layers == ("reads",)

    def test_pairs_are_cut_by_the_user(self) -> None:
        a, b = ((net[:2], net[2:]) for net in (reads_colours(), reads_colours()))
        verdict = assert_same_attention(a, b, IMAGE, 0, engine="split", threshold=0.999)
        assert "layers" not in facts(verdict)

    def test_methods_without_layers_are_left_alone(self) -> None:
        verdict = assert_same_attention(Mixing(0.5), Mixing(0.4), IMAGE, 0, method="occlusion", threshold=0.5)
        assert "layers" not in facts(verdict)

    def test_each_image_at_its_own(self) -> None:
        """Another size may have another layer in the original; each has its own class too."""
        a, b = Mixing(1.0), Mixing(0.5)
        asking = Asking("test", Settings())
        prepared = [asking.prepare(b, IMAGE)] * 3
        first = asking.explain(a, prepared, [0, 1, 0])
        first = [first[0], replace(first[1], layers=("late",)), first[2]]
        second = explain_as(asking, a, b, prepared, [0, 1, 0], first)
        assert [(each.explanation.layers, each.explanation.cls) for each in second] == [
            (("reads",), 0),
            (("late",), 1),
            (("reads",), 0),
        ]
        with pytest.raises(ClassError, match=r"^image 1: class 7 is out of range"):
            explain_as(asking, a, b, prepared, [0, 7, 0], first)

    def test_a_transformer_under_new_weights(self) -> None:
        torch.manual_seed(0)
        a = timm.create_model("test_vit", num_classes=4).eval()
        b = copy.deepcopy(a)
        with torch.no_grad():
            for p in b.parameters():
                p.add_(0.02 * p.abs().mean() * torch.randn_like(p))
        x = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(2))
        verdict = assert_same_attention(a, b, x, 1, threshold=0.5)
        layers = [sight.explanation.layers for sight in verdict.sights]
        assert layers[0] == layers[1] == explain(a, x, 1).layers and len(layers[0]) > 1

    def test_one_image_is_shown_beside_itself(self) -> None:
        assert assert_same_attention(Mixing(1.0), Mixing(0.5), IMAGE, 0).compared
        net = model("honest")
        assert not assert_same_attention(net, copy.deepcopy(net), inputs()).compared


class TestSameAttention:
    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_the_same_weights_in_fewer_bits_pass(self, similarity: str) -> None:
        net = model("honest")
        for other in (copy.deepcopy(net).bfloat16(), rounded(net)):
            assert assert_same_attention(net, other, inputs()[:4], similarity=similarity).passed
        if similarity == "pearson":
            assert assert_same_attention(net, copy.deepcopy(net).bfloat16(), inputs(), threshold=0.999).passed
            assert assert_same_attention(net, rounded(net), inputs(), threshold=0.999).passed

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_another_model_fails(self, similarity: str) -> None:
        net, other = model("honest"), model("shortcut")
        verdict = failed(lambda: assert_same_attention(net, other, inputs()[:8], similarity=similarity))
        assert facts(verdict)["alone"] == "0 of 8 images are on the right side of the threshold by themselves"
        if similarity in WRITTEN_OUT:
            maps = [explain(each, inputs()[3], classes()[3]).raw for each in (net, other)]
            assert verdict.values[3] == pytest.approx(WRITTEN_OUT[similarity](*maps), abs=1e-5)

    def test_new_weights_fail(self) -> None:
        verdict = failed(lambda: assert_same_attention(model("honest"), demo.build().eval(), inputs()))
        assert verdict.value < 0.5

    def test_swapped_channels_fail_where_the_same_weights_are_asked_for(self) -> None:
        net = model("honest")
        failed(lambda: assert_same_attention(net, ChannelsSwapped(net).eval(), inputs(), threshold=0.999))

    def test_a_copy_has_exactly_the_same(self) -> None:
        net = model("honest")
        verdict = assert_same_attention(net, copy.deepcopy(net), inputs()[0], threshold=1 - 1e-12)
        assert [sight.title for sight in verdict.sights] == ["model A", "model B"]
        assert verdict.message.startswith(f"model B looks where model A looks for class {classes()[0]} (astronaut): ")

    def test_one_model_twice_is_refused(self) -> None:
        net = reads_colours()
        pair = net[:3], net[3:]
        for a, b in ((net, net), (net, nn.DataParallel(net)), (torch.compile(net), net), ((*pair,), (*pair,))):
            with pytest.raises(ModelError, match="model_a and model_b are the same object"):
                assert_same_attention(a, b, IMAGE)

    def test_both_maps_are_of_the_class_that_the_original_predicts(self) -> None:
        net, other = reads_colours(), reads_colours()
        with torch.no_grad():
            other.get_submodule("head").weight[0] *= 10.0  # type: ignore[index, operator]
        verdict = assert_same_attention(net, other, IMAGE)
        assert [sight.explanation.cls for sight in verdict.sights] == [1, 1]
        assert facts(verdict)["prediction"] == "class 0 by model B, else class 1"

    def test_grids_of_two_sizes_are_compared_on_the_finer(self) -> None:
        fine, coarse = reads_colours(side=8), reads_colours(side=16)
        x = coloured((0, (3, 8, 40, 37)))
        verdict = assert_same_attention(fine, coarse, x, 0, threshold=0.5)
        raw = torch.from_numpy(explain(coarse, x, 0).raw)[None, None]
        resized = nn.functional.interpolate(raw, (8, 8), mode="bilinear", align_corners=False)[0, 0].numpy()
        assert verdict.value == pytest.approx(correlation(explain(fine, x, 0).raw, resized), abs=1e-5)
        assert facts(verdict)["grids"] == "8×8 and 4×4: compared on 8×8, which costs some similarity"

    def test_each_model_has_its_own_transform(self) -> None:
        torch.manual_seed(4)
        overlay = {"input_size": (3, 64, 64), "crop_pct": 1.0, "label_names": ["a", "cat", "c", "d"]}
        other = timm.create_model("test_resnet", num_classes=4, output_stride=8, pretrained_cfg_overlay=overlay).eval()
        picture = Image.fromarray(pictures()[1].image)
        verdict = failed(lambda: assert_same_attention(model("honest"), other, picture, 1))
        assert [sight.explanation.size for sight in verdict.sights] == [(96, 96), (64, 64)]
        assert facts(verdict)["inputs"] == "96×96 and 64×64 pixels, each by its own transform"
        assert "labels" not in facts(verdict)

    def test_errors_say_which_model_they_are_about(self) -> None:
        small = SmallModel(seed=1, size=(64, 64), classes=2).build()
        with pytest.raises(ClassError, match=r"^model B: class 2 is out of range"):
            assert_same_attention(SmallModel(seed=1, size=(64, 64)).build(), small, IMAGE, 2)

    def test_a_model_without_a_map_is_named(self) -> None:
        """What the second model has no map for, it does not look at: that is a failure, and no error."""
        dead = reads_colours()
        with torch.no_grad():
            dead.get_submodule("head").weight[0] = 0.0  # type: ignore[operator]
        with pytest.raises(ZeroEvidenceError, match=r"^model B: no evidence: the map of class 0 at reads .* is zero"):
            assert_same_attention(reads_colours(), dead, IMAGE, 0)

    @pytest.mark.parametrize(
        ("similarity", "threshold", "said"),
        [
            (
                "pearson",
                0.0,
                "would be passed by a map of the same values in random places, which has 0.00. Use a higher",
            ),
            ("pearson", -1.0, "would be passed by"),
            ("rmse", 0.9, "Use a lower threshold"),
            ("wasserstein", 50, "Use a lower threshold"),
            ("cosine", 0.05, "or similarity='pearson', which is blind to a constant"),
            ("rmse", -0.1, "is what no two maps could pass: a map and itself have 0. Use a higher"),
            ("pearson", float("nan"), "threshold nan is not finite"),
            ("pearson", float("inf"), "threshold inf is not finite"),
        ],
    )
    def test_thresholds_that_mean_nothing(self, similarity: str, threshold: float, said: str) -> None:
        for ask in (assert_same_attention, lambda a, b, *rest, **how: assert_attention_stable(a, *rest, **how)):
            with pytest.raises(VacuousThresholdError, match=said):
                ask(reads_colours(), reads_colours(), IMAGE, 0, similarity=similarity, threshold=threshold)
