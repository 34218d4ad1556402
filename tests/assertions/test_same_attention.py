"""Maps of two models: the same weights in fewer bits, other weights, other grids, and one model twice."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from pytest_gradcam import (
    ClassError,
    ModelError,
    VacuousThresholdError,
    ZeroEvidenceError,
    assert_attention_stable,
    assert_same_attention,
    explain,
)
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
