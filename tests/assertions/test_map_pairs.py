"""What all comparisons of maps have in common, and the chance that they are judged by."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pytest_gradcam import (
    ImageError,
    SettingsError,
    Verdict,
    ZeroEvidenceError,
    assert_attention_equivariant,
    assert_attention_stable,
    assert_classes_differ,
    assert_same_attention,
    explain,
)
from tests.assertions.known import BLUE, IMAGE, RED, WRITTEN_OUT, inputs, model, rounded
from tests.models import coloured, reads_colours


class TestChance:
    """What a map of the same values in random places has, drawn a thousand times."""

    @pytest.mark.parametrize("similarity", ["pearson", "cosine", "rmse"])
    def test_is_what_random_places_give(self, similarity: str) -> None:
        net, x = model("honest"), inputs()[0]
        verdict = assert_same_attention(net, copy.deepcopy(net), x, similarity=similarity)
        raw, random = explain(net, x).raw, np.random.default_rng(0)
        drawn = [WRITTEN_OUT[similarity](raw, random.permutation(raw.ravel()).reshape(raw.shape)) for _ in range(1000)]
        assert verdict.chance == pytest.approx(float(np.mean(drawn)), abs=0.02)

    def test_sets_what_distances_are_alike(self) -> None:
        """RMSE of two maps that are spread alike, at a correlation of .9, is √.1 of that at a correlation of 0."""
        net = model("honest")
        for similarity in ("rmse", "wasserstein"):
            verdict = assert_same_attention(net, copy.deepcopy(net), inputs()[0], similarity=similarity)
            assert verdict.threshold == pytest.approx(math.sqrt(0.1) * verdict.chance)


ASKS: dict[str, Callable[..., Verdict]] = {
    "differ": lambda net, x, **how: assert_classes_differ(net, x, 0, 1, **how),
    "equivariant": lambda net, x, **how: assert_attention_equivariant(net, x, 0, **how),
    "stable": lambda net, x, **how: assert_attention_stable(net, x, 0, **how),
    "same": lambda net, x, **how: assert_same_attention(net, rounded(net, 30), x, 0, **how),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
class TestAll:
    def test_give_the_same_bits_again_and_draw_nothing_from_global_generators(
        self, ask: Callable[..., Verdict]
    ) -> None:
        net, images = reads_colours(), [IMAGE, IMAGE.flip(2)]
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
        values = [ask(net, images, pass_rate=0.1).values for _ in range(2)]
        assert values[0] == values[1]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]

    def test_leave_the_model_as_it_was(self, ask: Callable[..., Verdict]) -> None:
        net = reads_colours().train()
        state = {name: value.clone() for name, value in net.state_dict().items()}
        ask(net, IMAGE)
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        assert all(module.training for module in net.modules())
        assert all(parameter.grad is None for parameter in net.parameters())

    def test_a_list_has_the_values_of_its_images(self, ask: Callable[..., Verdict]) -> None:
        images = [IMAGE, coloured((0, (8, 32, 24, 56)), (2, RED))]
        together = ask(reads_colours(), images, threshold=0.45, pass_rate=0.1)
        alone = [ask(reads_colours(), image, threshold=0.45).value for image in images]
        assert together.values == pytest.approx(alone, abs=1e-6)
        assert together.interval is not None and len(together.sights) == 2

    def test_unknown_similarities_and_thresholds_that_are_no_numbers(self, ask: Callable[..., Verdict]) -> None:
        with pytest.raises(SettingsError) as raised:
            ask(reads_colours(), IMAGE, similarity="pearsn")
        assert str(raised.value) == (
            "unknown similarity 'pearsn': known are pearson, cosine, wasserstein, rmse; did you mean 'pearson'?"
        )
        for threshold in ("much", True, [0.5]):
            with pytest.raises(SettingsError, match="is not a number: give one such as"):
                ask(reads_colours(), IMAGE, threshold=threshold)

    def test_refuse_the_same_image_twice_and_none(self, ask: Callable[..., Verdict]) -> None:
        with pytest.raises(ImageError, match="images 0 and 1 are the same"):
            ask(reads_colours(), [IMAGE, IMAGE.clone()])
        with pytest.raises(ImageError, match="there are no images"):
            ask(reads_colours(), [])

    def test_need_evidence(self, ask: Callable[..., Verdict]) -> None:
        with pytest.raises(ZeroEvidenceError, match=r"^image 1: no evidence: nothing at reads"):
            ask(reads_colours(), [IMAGE, coloured((2, BLUE))])

    def test_take_what_explain_takes(self, ask: Callable[..., Verdict]) -> None:
        verdict = ask(reads_colours(), IMAGE, method="hirescam", layer="reads", labels=["red", "blue", "grey"])
        assert {s.explanation.method for s in verdict.sights} == {"hirescam"}
        assert {s.explanation.layer for s in verdict.sights} == {"reads"}
        assert "(red)" in verdict.message
