"""Maps of two classes: those that depend on the class, and those that do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    ClassError,
    InconclusiveError,
    TargetLayerError,
    VacuousThresholdError,
    Verdict,
    ZeroEvidenceError,
    assert_classes_differ,
    explain,
)
from pytest_gradcam.metrics import SIMILARITIES
from pytest_gradcam.small_models import SmallModel
from tests.assertions.known import (
    BLUE,
    COUNT,
    IMAGE,
    WRITTEN_OUT,
    classes,
    correlation,
    everywhere,
    explain_quietly,
    facts,
    failed,
    inputs,
    model,
    others,
)
from tests.models import coloured, reads_colours


class TestClassesDiffer:
    @pytest.mark.parametrize("name", ["honest", "shortcut"])
    def test_trained_models_pass(self, name: str) -> None:
        net = model(name)
        verdict = assert_classes_differ(net, inputs(), classes(), others())
        assert (verdict.metric, verdict.threshold, verdict.chance, verdict.at_most) == ("pearson", 0.9, 1.0, True)
        for i in (0, 5):
            maps = [explain_quietly(net, inputs()[i], cls).raw for cls in (classes()[i], others()[i])]
            assert verdict.values[i] == pytest.approx(correlation(*maps), abs=1e-5)
        assert (
            facts(verdict)["alone"] == f"{COUNT} of {COUNT} images are on the right side of the threshold by themselves"
        )

    @pytest.mark.parametrize("similarity", ["pearson", "cosine", "rmse"])
    def test_measures_as_written_out(self, similarity: str) -> None:
        verdict = assert_classes_differ(reads_colours(), IMAGE, 0, 1, similarity=similarity)
        maps = [explain(reads_colours(), IMAGE, cls).raw for cls in (0, 1)]
        assert verdict.value == pytest.approx(WRITTEN_OUT[similarity](*maps), abs=1e-6)
        assert verdict.at_most == (similarity != "rmse")
        assert verdict.chance == (0.0 if similarity == "rmse" else 1.0)

    def test_shows_both_maps(self) -> None:
        verdict = assert_classes_differ(reads_colours(), IMAGE, "blue", "red", labels=["red", "blue", "grey"])
        assert [sight.title for sight in verdict.sights] == ["class 1 (blue)", "class 0 (red)"]
        assert [sight.explanation.cls for sight in verdict.sights] == [1, 0]
        assert verdict.message == (
            "the maps of class 1 (blue) and class 0 (red) differ: "
            f"Pearson correlation {verdict.value:.2f}, allowed 0.90"
        )

    def test_a_head_that_makes_no_difference_fails(self) -> None:
        net = SmallModel(seed=3).build()
        with torch.no_grad():
            linear = next(module for module in net.head if isinstance(module, nn.Linear))
            linear.weight[1] = linear.weight[0]
        verdict = failed(lambda: assert_classes_differ(net, torch.rand(3, 8, 8), 0, 1))
        assert verdict.value == pytest.approx(1.0, abs=1e-9)
        assert verdict.message == "the maps of class 0 and class 1 are alike: Pearson correlation 1.00, allowed 0.90"

    def test_a_method_that_knows_no_class_fails(self) -> None:
        """Eigen-CAM is the first principal component of the activations, whatever the class."""
        verdict = failed(
            lambda: assert_classes_differ(model("honest"), inputs(), classes(), others(), method="eigencam")
        )
        assert min(verdict.values) > 0.999

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_equal_maps_fail_by_every_measure(self, similarity: str) -> None:
        def ask() -> Verdict:
            return assert_classes_differ(reads_colours(), IMAGE, 0, 1, method=everywhere, similarity=similarity)

        verdict = failed(ask)
        assert verdict.value == pytest.approx(SIMILARITIES[similarity].at_same, abs=1e-9)

    def test_one_class_twice_is_refused(self) -> None:
        def score(output: Tensor) -> Tensor:
            return output[0, 0]

        for cls, other in ((0, 0), (None, 1), ("red", 0)):
            with pytest.raises(ClassError, match=r"cls and other are both class \d"):
                assert_classes_differ(reads_colours(), IMAGE, cls, other, labels=["red", "blue", "grey"])
        with pytest.raises(ClassError, match="the same callable"):
            assert_classes_differ(reads_colours(), IMAGE, score, score)
        with pytest.raises(ClassError, match="image 1: cls and other are both class 0"):
            assert_classes_differ(reads_colours(), [IMAGE, IMAGE.flip(3)], 0, [1, 0])

    def test_zero_evidence_is_allowed_of_the_other_class_only(self) -> None:
        """The honest model finds nothing that speaks for a shuttle where it finds a cat; its map is negative there."""
        net, x = model("honest"), inputs()[1]
        without = [cls for cls in range(4) if explain_quietly(net, x, cls).evidence == 0]
        assert without
        assert assert_classes_differ(net, x, 1, without[0]).passed
        with pytest.raises(ZeroEvidenceError, match=f"nothing at layer4 .* speaks for class {without[0]}"):
            assert_classes_differ(net, x, without[0], 1)
        with pytest.raises(ZeroEvidenceError, match="similarity='pearson' compares what speaks against it too"):
            assert_classes_differ(net, x, 1, without[0], similarity="rmse")

    def test_a_map_of_nothing_is_refused(self) -> None:
        with pytest.raises(ZeroEvidenceError, match=r"the map of class 2 at reads \(grad-cam\) is zero everywhere"):
            assert_classes_differ(reads_colours(), IMAGE, 0, 2)

    def test_a_map_that_shows_no_place_is_refused(self) -> None:
        with pytest.raises(TargetLayerError, match="has the same value everywhere, 1: it shows no place"):
            assert_classes_differ(reads_colours(), IMAGE, 0, 1, method=lambda model, x, target: torch.ones(8, 8))

    def test_an_image_without_evidence_counts_as_failed_where_the_rate_is_judged(self) -> None:
        images = [IMAGE, IMAGE.flip(3), coloured((2, BLUE))]
        with pytest.raises(ZeroEvidenceError, match=r"^image 2: no evidence"):
            assert_classes_differ(reads_colours(), images, 0, 1)
        with pytest.raises(InconclusiveError) as raised:
            assert_classes_differ(reads_colours(), images, 0, 1, judge_by="rate", pass_rate=0.9)
        verdict = raised.value.verdict
        assert verdict.value == pytest.approx(2 / 3)
        assert facts(verdict)["lacking"].startswith("1 without any evidence: image 2;")

    @pytest.mark.parametrize(
        ("similarity", "threshold", "said"),
        [
            ("pearson", 1.0, "would be passed by a map that is the same for all classes, which has 1"),
            ("cosine", 3, "would be passed by"),
            ("pearson", -1.1, "is what no two maps could pass: on this grid the farthest apart have -1.00"),
            ("rmse", 0.0, "would be passed by a map that is the same for all classes, which has 0. Use a higher"),
            ("wasserstein", 9.9, "the farthest apart have 9.90. Use a lower"),
            ("wasserstein", -1, "would be passed by"),
            ("rmse", 1.5, "the farthest apart have 1.00"),
        ],
    )
    def test_thresholds_that_mean_nothing(self, similarity: str, threshold: float, said: str) -> None:
        with pytest.raises(VacuousThresholdError, match=said):
            assert_classes_differ(reads_colours(), IMAGE, 0, 1, similarity=similarity, threshold=threshold)
