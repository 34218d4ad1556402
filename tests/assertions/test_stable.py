"""Maps under noise: models that take no notice, one that trembles, and noise that is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pytest_gradcam import (
    ImageError,
    SettingsError,
    assert_attention_stable,
    explain,
)
from pytest_gradcam.metrics import SIMILARITIES
from tests.assertions.known import IMAGE, RED, Trembling, correlation, facts, failed, inputs, model
from tests.models import coloured, reads_colours


class TestStable:
    @pytest.mark.parametrize("similarity", ["pearson", "cosine", "rmse"])
    @pytest.mark.parametrize("name", ["honest", "shortcut"])
    def test_trained_models_pass(self, name: str, similarity: str) -> None:
        verdict = assert_attention_stable(model(name), inputs()[:8], draws=3, similarity=similarity)
        assert all(abs(value - SIMILARITIES[similarity].at_same) < 0.02 for value in verdict.values)

    def test_is_the_mean_over_draws_of_noise_in_the_inputs_own_deviations(self) -> None:
        net, x = model("honest"), inputs()[:1]
        verdict = assert_attention_stable(net, x, noise=0.5, draws=3, threshold=0.5)
        generator = torch.Generator().manual_seed(0)
        clean = explain(net, x)
        drawn = [x + 0.5 * float(x.numpy().std()) * torch.randn(x.shape, generator=generator) for _ in range(3)]
        under_noise = [explain(net, each, clean.cls) for each in drawn]
        values = [correlation(clean.raw, each.raw) for each in under_noise]
        assert verdict.value == pytest.approx(sum(values) / 3, abs=1e-4)
        assert facts(verdict)["farthest"] == f"{min(values):.2f} of 3 draws"
        changed = sum(each.predicted != clean.predicted for each in under_noise)
        assert facts(verdict)["prediction"] == f"changed in {changed} of 3 draws"
        assert [sight.title for sight in verdict.sights] == ["without noise", "under noise"]
        assert np.allclose(verdict.sights[1].explanation.raw, under_noise[int(np.argmin(values))].raw, atol=1e-4)
        assert (verdict.chance, verdict.threshold) == (0.0, 0.5)

    def test_counts_changed_predictions(self) -> None:
        """Red and blue weigh the same: under noise, a coin is tossed."""
        x = coloured((0, RED), (2, (40, 40, 56, 56)))
        x += torch.linspace(0, 1e-6, 64)
        verdict = assert_attention_stable(reads_colours(), x, draws=12, threshold=0.2)
        net, generator = reads_colours(), torch.Generator().manual_seed(0)
        spread = float(x.numpy().std())
        drawn = torch.cat([x + 0.05 * spread * torch.randn(x.shape, generator=generator) for _ in range(12)])
        with torch.no_grad():
            changed = int((net(drawn).argmax(1) != net(x).argmax(1)).sum())
        assert 0 < changed < 12
        assert facts(verdict)["prediction"] == f"changed in {changed} of 12 draws"

    def test_a_model_that_trembles_fails(self) -> None:
        images = torch.rand(10, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        verdict = failed(lambda: assert_attention_stable(Trembling().eval(), images, 0))
        assert verdict.value < 0.5
        one = failed(lambda: assert_attention_stable(Trembling().eval(), images[0], 0))
        sentence, measured = one.message.split(": ")
        assert sentence == "the map of class 0 does not stay as it is under noise of 0.05 standard deviations"
        assert measured == f"mean Pearson correlation {one.value:.2f}, needs 0.90"

    def test_draws_are_run_in_one_batch(self) -> None:
        net, seen = reads_colours(), []
        net.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        assert_attention_stable(net, IMAGE, 0, draws=7)
        assert seen.count(7) == 1 and seen.count(1) < 7

    @pytest.mark.parametrize("noise", [0, 0.0, -0.1, float("nan"), float("inf"), "much", True])
    def test_no_noise_is_refused(self, noise: Any) -> None:
        with pytest.raises(SettingsError, match=r"noise .* is (no noise|not a number): give "):
            assert_attention_stable(reads_colours(), IMAGE, 0, noise=noise)

    @pytest.mark.parametrize("draws", [0, -1, 2.5, True])
    def test_no_draws_are_refused(self, draws: Any) -> None:
        with pytest.raises(SettingsError, match="is no number of draws"):
            assert_attention_stable(reads_colours(), IMAGE, 0, draws=draws)

    def test_noise_that_is_none_in_truth_is_refused(self) -> None:
        with pytest.raises(ImageError, match=r"^image 1: the image has the same value everywhere"):
            assert_attention_stable(reads_colours(), [IMAGE, torch.full((3, 64, 64), 0.5)], 0)
        with pytest.raises(SettingsError, match=r"noise 1e-12 is lost in the rounding of torch\.float32"):
            assert_attention_stable(reads_colours(), IMAGE + 0.5, 0, noise=1e-12)
