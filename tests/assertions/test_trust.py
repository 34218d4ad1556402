"""Trust in maps: permutation tests and redrawn weights on models whose answer is known, and on the demo's two."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import (
    AttentionError,
    Gradcam,
    ModelError,
    Settings,
    SettingsError,
    TargetLayerError,
    VacuousThresholdError,
    Verdict,
    ZeroEvidenceError,
    assert_explanation_depends_on_weights,
    assert_explanation_faithful,
    explain,
)
from pytest_gradcam.assertions import trust
from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.deletion import deleted, elsewhere, gathered, shares
from pytest_gradcam.assertions.fillings import blurred
from pytest_gradcam.cam.running import Options
from pytest_gradcam.demo.models import Name, load_model
from pytest_gradcam.demo.pictures import Picture, held_out
from pytest_gradcam.metrics import order
from tests.models import coloured, reads_colours

RED, BLUE = (8, 16, 24, 32), (40, 40, 64, 56)
IMAGE = coloured((0, RED), (2, BLUE))


def asking(**settings: Any) -> Asking:
    return Asking("ask", Settings(device="cpu", **settings))


def faithful(model: Any, image: Any, cls: Any = None, *, steps: Any = 4, draws: Any = 39, **keywords: Any) -> Verdict:
    threshold = keywords.pop("threshold", None)
    return trust.judge_faithful(asking(**keywords), model, image, cls, steps=steps, draws=draws, threshold=threshold)


def depends(model: Any, image: Any, cls: Any = None, *, draws: Any = 8, **keywords: Any) -> Verdict:
    threshold, similarity = keywords.pop("threshold", None), keywords.pop("similarity", "pearson")
    return trust.judge_depends_on_weights(
        asking(**keywords), model, image, cls, draws=draws, similarity=similarity, threshold=threshold
    )


@cache
def demo(name: Name) -> nn.Module:
    return load_model(name)


@cache
def pictures() -> list[Picture]:
    return list(held_out(6))


def edges(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
    """A map that knows the picture and no model."""
    grey = inputs[0].mean(dim=0)
    return (grey[1:, 1:] - grey[:-1, :-1]).abs()


def top_left(_model: nn.Module, _inputs: Tensor, _target: Any) -> Tensor:
    """A map that knows neither."""
    cells = torch.zeros(8, 8)
    cells[:2, :3] = 1.0
    return cells


def blobs(_model: nn.Module, inputs: Tensor, _target: Any) -> Tensor:
    """Smooth noise, another for each picture."""
    random = np.random.default_rng(int(inputs.double().sum().abs() * 1e6) % 2**32)
    return torch.from_numpy(cv2.resize(random.normal(size=(4, 4)), (12, 12), interpolation=cv2.INTER_CUBIC))


def level_of_head(model: Any, inputs: Tensor, _target: Any) -> Tensor:
    """A map of something for the head of `reads_colours`, and of the same value everywhere for all but some others."""
    own = model.head.weight.flatten().detach().tolist() == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    return inputs[0, 0, ::8, ::8] if own else torch.ones(8, 8)


class TestFaithful:
    def test_the_map_of_what_is_read_has_the_least_p_that_there_is(self) -> None:
        verdict = faithful(reads_colours(), IMAGE, 0)
        assert verdict.passed and verdict.value == 1 / 40
        assert (verdict.metric, verdict.chance, verdict.threshold, verdict.at_most) == ("p", 0.5, 0.05, True)
        assert verdict.message == (
            "what the map of class 0 shows matters more to the model than other places: p 0.03, allowed 0.05"
        )

    def test_p_is_that_of_the_curves_written_out(self) -> None:
        """One forward for each picture, one picture for each step, and their plain mean."""
        x = coloured((0, RED), (0, (40, 40, 56, 56)), (0, (0, 0, 8, 8)))
        model = reads_colours()
        verdict = faithful(model, x, 0, draws=20, method=top_left)
        blur = torch.from_numpy(blurred(x[0].numpy(), 1 / 8))
        cells = np.zeros((8, 8))
        cells[:2, :3] = 1.0

        def area(ranked: Any) -> float:
            values = []
            for share in (0.0, 0.04, 0.08, 0.16, 0.32):
                picture = x[0].clone()
                for cell in ranked[: round(share * 64)]:
                    row, column = divmod(int(cell), 8)
                    area = (slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                    picture[area] = blur[area]
                logits = model(picture[None]).detach()[0]
                values.append(float(logits[0] - max(logits[1], logits[2])))
            return sum(values[1:]) / 4

        own = area(order(cells, seed=0))
        rest = [area(order(each, seed=i)) for i, each in enumerate(elsewhere(cells, 20)[0], 1)]
        # Single precision may tell curves apart that are the same: none of these is so near.
        apart = min(abs(each - own) for each in rest)
        assert apart > 1e-4 and 0.3 < verdict.value <= 1.0
        assert verdict.value == (1 + sum(each <= own for each in rest)) / 21
        facts = dict(verdict.facts)
        assert facts["taken"].startswith(f"{own:.2f} ") and facts["elsewhere"].startswith(f"{np.mean(rest):.2f} ")

    def test_a_map_of_nothing_fails(self) -> None:
        verdict = faithful(reads_colours(), IMAGE, 0, method=top_left)
        assert verdict.outcome == "failed" and verdict.value > 0.5
        assert "matters no more to the model than other places" in verdict.message

    def test_a_callable_is_followed_itself(self) -> None:
        assert faithful(reads_colours(), IMAGE, lambda output: output[0, 0]).value == 1 / 40
        assert faithful(reads_colours(), IMAGE, lambda output: output[0, 0], method=top_left).outcome == "failed"

    @pytest.mark.parametrize("name", ["honest", "shortcut"])
    def test_both_models_of_the_demo_are_explained(self, name: Name) -> None:
        """What a model reads is no matter of merit: the shortcut's map shows the stamp, and rightly."""
        picture = pictures()[0]
        assert faithful(demo(name), picture.image).passed
        wrong = faithful(demo(name), picture.image, method=edges)
        assert wrong.value > 0.05 and not wrong.passed

    def test_several_are_judged_by_their_mean_p(self) -> None:
        images = [coloured((0, RED), (2, (0, 0, 8, 8 * n))) for n in (1, 2, 3)]
        verdict = faithful(reads_colours(), images, 0)
        assert verdict.outcome == "inconclusive" and verdict.values == (1 / 40,) * 3  # as low as p can be: no spread
        assert verdict.metric == "pass_rate" and verdict.value == 1.0
        assert faithful(reads_colours(), images, 0, method=top_left).outcome == "failed"
        mixed = [*images[:2], coloured((0, (8, 40, 24, 56)), (0, (0, 0, 8, 8)))]
        assert faithful(reads_colours(), mixed, 0, method=edges).outcome == "inconclusive"

    def test_several_by_rate_at_the_threshold_of_one(self) -> None:
        images = [coloured((0, RED), (2, (0, 0, 8, 8 * n))) for n in (1, 2)]
        verdict = faithful(reads_colours(), images, 0, judge_by="rate")
        assert verdict.value == 1.0 and verdict.outcome == "inconclusive"
        verdict = faithful(reads_colours(), images, 0, judge_by="rate", method=top_left)
        assert verdict.value == 0.0

    def test_noise_is_at_chance(self) -> None:
        verdict = faithful(demo("honest"), [picture.image for picture in pictures()], method=blobs)
        assert 0.25 < verdict.value < 0.75 and verdict.outcome != "passed"

    def test_the_same_to_the_last_bit_and_nothing_touched(self) -> None:
        model, image = copy.deepcopy(demo("honest")).train(), pictures()[2].image
        state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        first, second = (faithful(model, image, method="hirescam").to_json() for _ in range(2))
        first.pop("seconds"), second.pop("seconds")
        assert first == second
        assert model.training and torch.equal(random, torch.get_rng_state())
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        whole = faithful(reads_colours(factor=1000.0), x, 0, method=top_left)
        monkeypatch.setattr(trust, "_WAITING", 1)
        assert faithful(reads_colours(factor=1000.0), x, 0, method=top_left).facts == whole.facts

    def test_the_function_raises(self) -> None:
        assert assert_explanation_faithful(reads_colours(), IMAGE, 0).passed
        with pytest.raises(AttentionError, match="matters no more to the model than other places: p ") as raised:
            assert_explanation_faithful(reads_colours(), IMAGE, 0, method=top_left)
        assert raised.value.verdict is not None

    def test_thresholds_that_say_nothing(self) -> None:
        with pytest.raises(
            VacuousThresholdError, match=r"^p at most 0.05 is what no map could have: the least with 18"
        ):
            faithful(reads_colours(), IMAGE, 0, draws=18)
        assert faithful(reads_colours(), IMAGE, 0, draws=19).value == 0.05
        for threshold in (0.5, 1.0, float("inf")):
            with pytest.raises(VacuousThresholdError, match="would be passed by chance alone"):
                faithful(reads_colours(), IMAGE, 0, threshold=threshold)
        for threshold in (0.0, -1.0, float("nan")):
            with pytest.raises(VacuousThresholdError, match="is what no map could have"):
                faithful(reads_colours(), IMAGE, 0, threshold=threshold)

    @pytest.mark.parametrize("value", [0, -1, 2.5, True, "many"])
    def test_counts_that_are_none(self, value: Any) -> None:
        for name in ("steps", "draws"):
            with pytest.raises(
                SettingsError, match=f"^{name} .* is no number of {name}: give a whole number, 1 or more"
            ):
                faithful(reads_colours(), IMAGE, 0, **{name: value})

    def test_maps_that_cannot_be_judged(self) -> None:
        with pytest.raises(ZeroEvidenceError):
            faithful(reads_colours(), IMAGE, 2)
        with pytest.raises(TargetLayerError, match="has the same value everywhere: it shows no place"):
            faithful(reads_colours(), IMAGE, 0, method=lambda model, x, target: torch.ones(8, 8))
        with pytest.raises(TargetLayerError, match=r"is on a grid of 2×2 cells, where \d places differ from its own"):
            faithful(reads_colours(), IMAGE, 0, method=lambda model, x, target: torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


class TestDeletion:
    def test_elsewhere_is_the_map_and_nowhere_near(self) -> None:
        random = np.random.default_rng(0)
        cells = np.maximum(cv2.resize(random.normal(size=(3, 4)), (9, 7), interpolation=cv2.INTER_CUBIC), 0)
        found, alike = elsewhere(cells, 30)
        assert 1 / (4 * 63) < alike < 0.5
        assert len(found) == 30 == len({each.tobytes() for each in found})
        for each in found:
            assert np.array_equal(np.sort(each.ravel()), np.sort(cells.ravel()))
            assert np.corrcoef(each.ravel(), cells.ravel())[0, 1] <= 0.5 + 1e-9
        assert all(np.array_equal(a, b) for a, b in zip(found, elsewhere(cells, 30)[0], strict=True))

    def test_patches_stay_patches(self) -> None:
        cells = np.zeros((8, 8))
        cells[2:4, 3:6] = 1.0
        for each in elsewhere(cells, 50)[0]:
            rows, columns = (np.flatnonzero(each.any(axis=1 - axis)) for axis in (0, 1))
            assert sorted([len(rows), len(columns)]) == [2, 3]

    def test_all_places_are_drawn_where_there_are_few(self) -> None:
        """Of one cell on 3×4 there are twelve places, however it is turned, and its own is left out."""
        cells = np.zeros((3, 4))
        cells[1, 2] = 1.0
        found, alike = elsewhere(cells, 1000)
        assert len(found) == 11 and alike == pytest.approx(1 / 12)

    def test_what_is_deleted_is_blurred_and_the_rest_is_there(self) -> None:
        image = np.random.default_rng(0).random((3, 30, 20)).astype(np.float32)
        cells = np.arange(24.0).reshape(6, 4)
        (curve,) = deleted(image, [cells], 4)
        assert shares(4) == pytest.approx([0.04, 0.08, 0.16, 0.32])
        for picture, share in zip(curve, (0.04, 0.08, 0.16, 0.32), strict=True):
            gone = (cells >= 24 - max(1, round(share * 24))).repeat(5, 0).repeat(5, 1)
            assert np.array_equal(picture, np.where(gone, blurred(image, 1 / 8), image))

    def test_fine_maps_are_gathered_and_what_speaks_against_is_left_out(self) -> None:
        raw = np.full((64, 32), -1.0)
        raw[:4, :2] = 2.0
        cells = gathered(raw)
        assert cells.shape == (16, 16) and cells[0, 0] == 2.0 and cells.sum() == 2.0


class TestDependsOnWeights:
    @pytest.mark.parametrize("name", ["honest", "shortcut"])
    def test_both_models_of_the_demo(self, name: Name) -> None:
        image = pictures()[0].image
        verdict = depends(demo(name), image)
        assert verdict.passed and verdict.value < 0.5
        assert (verdict.metric, verdict.threshold, verdict.chance) == ("pearson", 0.8, 1.0)
        assert verdict.message.startswith("the map of class 0 (astronaut) depends on the model's weights: Pearson")

    def test_a_map_that_is_the_same_for_all_classes_fails_by_the_head(self) -> None:
        verdict = depends(demo("honest"), pictures()[0].image, method="eigencam")
        assert verdict.outcome == "failed" and verdict.value == pytest.approx(1.0)
        facts = dict(verdict.facts)
        assert facts["head"] == "1.00 with the head's weights drawn anew, the mean of 8"
        assert float(facts["all"].split()[0]) < 0.8

    def test_a_map_that_knows_no_model_fails_by_both(self) -> None:
        verdict = depends(demo("honest"), pictures()[0].image, method=edges)
        assert verdict.outcome == "failed" and verdict.value == pytest.approx(1.0)
        assert [fact[1][:4] for fact in verdict.facts] == ["1.00", "1.00"]
        with pytest.raises(AttentionError, match="does not depend on the model's weights"):
            assert_explanation_depends_on_weights(demo("honest"), pictures()[0].image, draws=2, method=edges)

    def test_means_are_those_of_copies_made_by_hand(self) -> None:
        """Class 0 reads red and blue, 2 and 1; a copy reads them with two of the six weights, in another order."""
        model: Any = reads_colours()
        with torch.no_grad():
            model.head.weight.copy_(torch.tensor([[2.0, 1.0], [0.5, 0.25], [-1.0, -3.0]]))
        verdict = depends(model, IMAGE, 0, draws=3)
        own = explain(model, IMAGE, 0).raw.ravel()
        alike = []
        for seed in range(3):
            places = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
            other = copy.deepcopy(model)
            with torch.no_grad():
                other.head.weight.copy_(model.head.weight.flatten()[places].view(3, 2))
            alike.append(np.corrcoef(own, explain(other, IMAGE, 0).raw.ravel())[0, 1])
        assert dict(verdict.facts)["head"].startswith(f"{np.mean(alike):.2f} with")

    @pytest.mark.parametrize(("similarity", "threshold"), [("cosine", 0.9), ("rmse", None), ("wasserstein", None)])
    def test_by_other_measures(self, similarity: str, threshold: float | None) -> None:
        image = pictures()[0].image
        verdict = depends(demo("honest"), image, similarity=similarity)
        assert verdict.passed and verdict.at_most == (similarity == "cosine")
        assert threshold is None or verdict.threshold == threshold
        assert depends(demo("honest"), image, similarity=similarity, method="eigencam").outcome == "failed"

    def test_several_together(self) -> None:
        images = [picture.image for picture in pictures()[:3]]
        verdict = depends(demo("honest"), images, draws=4)
        assert verdict.passed and len(verdict.values) == 3 and verdict.interval is not None
        assert depends(demo("honest"), images, draws=2, method="eigencam").outcome == "failed"
        alone = depends(demo("honest"), images[1], draws=4)
        assert verdict.values[1] == pytest.approx(alone.value, abs=1e-5)

    def test_copies_are_explained_at_the_layer_that_was_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []
        own = Asking.explain

        def spied(self: Asking, *args: Any, options: Options | None = None) -> Any:
            asked.append(None if options is None else options.layer)
            return own(self, *args, options=options)

        monkeypatch.setattr(Asking, "explain", spied)
        depends(demo("honest"), pictures()[0].image, draws=1)
        assert asked == [None, ["layer4"], ["layer4"]]
        asked.clear()
        model = demo("honest")
        depends(model, pictures()[0].image, draws=1, layer=[model.layer3, "layer4"])
        assert asked[1:] == [["layer3", "layer4"]] * 2

    def test_the_same_to_the_last_bit_and_nothing_touched(self) -> None:
        model, image = copy.deepcopy(demo("shortcut")).train(), pictures()[3].image
        state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        versions = [parameter._version for parameter in model.parameters()]
        first, second = (depends(model, image, draws=2).to_json() for _ in range(2))
        first.pop("seconds"), second.pop("seconds")
        assert first == second
        assert model.training and torch.equal(random, torch.get_rng_state())
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert versions == [parameter._version for parameter in model.parameters()]

    def test_copies_without_a_map_say_nothing_and_are_an_error_where_they_are_the_most(self) -> None:
        with pytest.raises(ModelError, match=r"^1 of 1 copies with the head's weights drawn anew have no map"):
            depends(reads_colours(), IMAGE, 0, draws=1, method=level_of_head)

    def test_what_cannot_be_judged(self) -> None:
        with pytest.raises(ZeroEvidenceError):
            depends(reads_colours(), IMAGE, 2)
        with pytest.raises(
            VacuousThresholdError, match=r"would be passed by a map that is the same whatever the weigh"
        ):
            depends(reads_colours(), IMAGE, 0, threshold=1.0)
        with pytest.raises(SettingsError, match="draws 0 is no number of draws"):
            depends(reads_colours(), IMAGE, 0, draws=0)

    def test_the_fixture_takes_it(self) -> None:
        verdict = Gradcam(Settings(device="cpu")).assert_explanation_depends_on_weights(
            demo("honest"), pictures()[0].image, draws=2
        )
        assert verdict.assertion == "assert_explanation_depends_on_weights"
