"""Maps of turned pictures: those that move with the picture, those that stay, and those that cannot tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_gradcam import (
    InconclusiveError,
    SettingsError,
    VacuousThresholdError,
    Verdict,
    assert_attention_equivariant,
    explain,
)
from pytest_gradcam.metrics import SIMILARITIES
from pytest_gradcam.small_models import SmallModel
from tests.assertions.known import (
    IMAGE,
    RED,
    TURNS,
    correlation,
    everywhere,
    facts,
    failed,
    inputs,
    model,
    transposed,
)
from tests.models import coloured, reads_colours


class TestEquivariant:
    @pytest.mark.parametrize("under", TURNS)
    @pytest.mark.parametrize("size", [(64, 64), (64, 96)])
    def test_a_model_that_reads_pixels_is_exactly_so(self, under: Any, size: tuple[int, int]) -> None:
        x = coloured((0, RED), height=size[0], width=size[1])
        verdict = assert_attention_equivariant(reads_colours(), x, 0, under=under)
        assert verdict.value == pytest.approx(1.0, abs=1e-6)
        raw = explain(reads_colours(), x, 0).raw
        if size == (64, 64):
            stayed = correlation(raw, TURNS[under][1](raw))
            assert verdict.chance == pytest.approx(stayed, abs=1e-6)
            assert facts(verdict)["stays"] == f"{stayed:.2f} would be there if the map stayed where it is"
        assert verdict.threshold == pytest.approx((1 + verdict.chance) / 2)
        assert [sight.title for sight in verdict.sights] == ["as it is", under]
        seen = torch.from_numpy(verdict.sights[1].explanation.image.copy()).permute(2, 0, 1)
        before = torch.from_numpy(verdict.sights[0].explanation.image.copy()).permute(2, 0, 1)
        assert torch.equal(seen, TURNS[under][0](before))

    def test_symmetric_kernels_are_exactly_so_under_a_flip_and_not_under_turns(self) -> None:
        net = SmallModel(seed=1, size=(16, 16), symmetric=True, channels=(6, 6)).build()
        images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        verdict = assert_attention_equivariant(net, images, under="hflip")
        assert len(verdict.values) >= 4 and min(verdict.values) > 1 - 1e-6
        clean = explain(net, images[0])
        turned = explain(net, images[0].flip(1), clean.cls).raw[::-1]
        verdict = assert_attention_equivariant(net, images[0], under="vflip")
        assert verdict.value == pytest.approx(correlation(clean.raw, turned), abs=1e-5)
        assert verdict.value < 0.999

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    @pytest.mark.parametrize("under", ["hflip", "vflip", "rot90"])
    def test_a_map_that_stays_where_it_is_fails(self, under: Any, similarity: str) -> None:
        def ask() -> Verdict:
            net = reads_colours()
            return assert_attention_equivariant(net, IMAGE, 0, under=under, method=everywhere, similarity=similarity)

        verdict = failed(ask)
        assert verdict.value == pytest.approx(verdict.chance, abs=1e-9)
        assert verdict.message.startswith(f"the map of class 0 does not move with the picture under {under}: ")

    @pytest.mark.parametrize("under", ["hflip", "vflip", "rot90"])
    def test_a_map_that_confuses_rows_and_columns_fails(self, under: Any) -> None:
        x = coloured((0, (0, 8, 8, 24)))
        failed(lambda: assert_attention_equivariant(reads_colours(), x, 0, under=under, method=transposed))

    @pytest.mark.parametrize("similarity", ["pearson", "cosine", "rmse"])
    @pytest.mark.parametrize("name", ["honest", "shortcut"])
    def test_trained_models_pass_together(self, name: str, similarity: str) -> None:
        """The stamp that the shortcut reads is a part of the picture: it is turned too."""
        for under in ("hflip", "rot180"):
            assert assert_attention_equivariant(model(name), inputs(), under=under, similarity=similarity).passed

    def test_too_few_images_cannot_tell(self) -> None:
        with pytest.raises(InconclusiveError, match="cannot tell whether maps move with their pictures under rot90"):
            assert_attention_equivariant(model("honest"), inputs(), under="rot90")

    def test_a_symmetric_map_is_refused_and_left_out_of_several(self) -> None:
        middle, low = coloured((0, (24, 8, 40, 24))), coloured((0, (24, 40, 40, 56)))
        with pytest.raises(VacuousThresholdError) as raised:
            assert_attention_equivariant(reads_colours(), middle, 0)
        assert str(raised.value) == (
            "the map of class 0 is too much like itself after hflip (Pearson correlation 1.00): nobody could tell "
            "whether it moved with the picture. Use another turn, or a picture whose object is not in the middle"
        )
        with pytest.raises(VacuousThresholdError, match=r"^none of 2 images can tell: image 0: the map of class 0"):
            assert_attention_equivariant(reads_colours(), [middle, low], 0)
        verdict = assert_attention_equivariant(reads_colours(), [middle, IMAGE, low, IMAGE.flip(2)], 0, pass_rate=0.1)
        assert len(verdict.values) == len(verdict.sights) == 2
        assert facts(verdict)["left out"] == "2 of 4 images, whose map is too much like itself after hflip: images 0, 2"
        assert set(facts(verdict)["worst"].split(", ")) == {"image 1 (1.00)", "image 3 (1.00)"}

    def test_the_class_is_that_of_the_picture_as_it_is(self) -> None:
        """Its weights read the left half only: what is red there is predicted red, and turned it is not."""
        net = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
        head, reads = net[4], net[1]
        assert isinstance(head, nn.Linear) and isinstance(reads, nn.Conv2d)
        with torch.no_grad():
            reads.weight.zero_()
            reads.weight[0, 0] = reads.weight[1, 2] = 1.0
            head.weight.fill_(0.0)
            head.bias.copy_(torch.tensor([0.0, 0.5]))
            weights = head.weight.view(2, 2, 8, 8)
            weights[0, 0, :, :4] = 1.0
            weights[0, 0, :, 4:] = 0.01
        verdict = assert_attention_equivariant(net.eval(), coloured((0, RED)), method="hirescam")
        assert [sight.explanation.cls for sight in verdict.sights] == [0, 0]
        assert [sight.explanation.predicted for sight in verdict.sights] == [0, 1]
        assert facts(verdict)["prediction"] == "class 1 under hflip, else class 0"

    @pytest.mark.parametrize(
        ("threshold", "said"),
        [
            (-0.3, "Pearson correlation -0.3 would be passed by a map that stays where it is, which has -0.07"),
            (1.1, "is what no two maps could pass: a map and itself have 1. Use a lower"),
        ],
    )
    def test_thresholds_that_mean_nothing(self, threshold: float, said: str) -> None:
        with pytest.raises(VacuousThresholdError, match=said):
            assert_attention_equivariant(reads_colours(), IMAGE, 0, threshold=threshold)

    def test_an_unknown_turn(self) -> None:
        with pytest.raises(SettingsError, match=r"unknown under 'hflop': known are hflip, .*; did you mean 'hflip'\?"):
            assert_attention_equivariant(reads_colours(), IMAGE, 0, under="hflop")  # type: ignore[arg-type]
