"""Occlusion and RISE: against loops over their formulas, and of models that can only be called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_gradcam import (
    SettingsError,
    ZeroEvidenceWarning,
    explain,
    explain_batch,
    explain_classes,
)
from pytest_gradcam.cam import from_inputs
from pytest_gradcam.cam.blackbox import (
    edges,
    mean_colour,
    occlusion,
    occlusion_grid,
    random_masks,
    revealed,
    rise,
    windows,
)
from pytest_gradcam.cam.running import Options, ready
from tests.cam.perturbation_twins import Doubles, enlarged, occlusion_of, rise_of, score_of
from tests.models import apart, coloured, picture, reads_colours, small

METHODS = ["occlusion", "rise"]
methods = pytest.mark.parametrize("method", METHODS)
CLOSE = 1e-10
SIDE = 32


@pytest.fixture(autouse=True)
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of RISE's masks: what is tested here holds for any number."""
    monkeypatch.setattr(from_inputs, "MASKS", 100)


def own_class(cls: int) -> Callable[[Any], Tensor]:
    return lambda output: output[0, cls]


def raws(model: Any, x: Tensor, classes: Any, **options: Any) -> Doubles:
    with ready(model, x, Options(**options)) as run:
        return from_inputs.of_image(run, classes).raws


class TestOcclusion:
    @pytest.mark.parametrize("size", [(32, 32), (32, 48)])
    def test_is_each_cells_mean_fall(self, size: tuple[int, int]) -> None:
        model, x = small().double(), picture(*size).double()
        got = raws(model, x, [1], method="occlusion")[0]
        assert apart(got, occlusion_of(model, x, own_class(1), 2, 2)) <= CLOSE

    def test_of_a_score_of_the_users_own(self) -> None:
        model, x = small().double(), picture(SIDE, SIDE).double()

        def score(output: Any) -> Any:
            return (output[0, 0] - output[0, 1]) ** 2

        got = raws(model, x, [score], method="occlusion")[0]
        assert apart(got, occlusion_of(model, x, score, 2, 2)) <= CLOSE

    def test_by_hand(self) -> None:
        """Two windows on a row of three cells: the middle one is under both."""
        raw = occlusion((1, 3), [(0, 1, 0, 2), (0, 1, 1, 3)], np.array([[4.0], [-2.0]]))
        assert raw.tolist() == [[[4.0, 1.0, -2.0]]]

    @pytest.mark.parametrize(
        ("size", "grid"), [((224, 224), (16, 16)), ((224, 448), (16, 32)), ((100, 64), (25, 16)), ((9, 5), (9, 5))]
    )
    def test_cells_are_a_sixteenth_of_the_shorter_side(self, size: tuple[int, int], grid: tuple[int, int]) -> None:
        assert occlusion_grid(*size) == grid

    def test_every_pixel_is_in_one_cell_where_they_do_not_divide_the_side(self) -> None:
        sides = np.diff(edges(100, 16))
        assert sides.sum() == 100
        assert set(sides) == {6, 7}

    def test_a_square_image_takes_225_forwards(self) -> None:
        assert len(windows((16, 16))) == 225


class TestRise:
    def test_is_the_slope_of_the_score_by_the_mask(self) -> None:
        model, x = small().double(), picture(28, 28).double()
        masks = list(random_masks(100, 28, 28))
        fill = mean_colour(x)
        scores = [score_of(model, fill + (x - fill) * mask.double(), own_class(1)) for mask in masks]
        expected = rise_of(torch.stack(masks).double().numpy(), scores)
        assert apart(raws(model, x, [1], method="rise")[0], expected) <= CLOSE

    def test_finds_the_cells_of_a_linear_score(self) -> None:
        """A score that is a weighted sum of what is shown has its weights as slopes, where cells are shown apart."""
        generator = torch.Generator().manual_seed(3)
        masks = (torch.rand(4000, 2, 2, generator=generator) < 0.5).double()
        weights = torch.tensor([[3.0, 0.0], [-1.0, 2.0]]).double()
        scores = (masks * weights).sum((1, 2)) + 50
        raw = rise(masks, scores[:, None].numpy())[0]
        assert torch.allclose(raw, weights, atol=0.15)

    def test_a_score_that_never_moves_has_no_map(self) -> None:
        """The paper's weighted mean would be an even map of full strength."""
        masks = torch.stack(list(random_masks(50, 14, 14)))
        assert not rise(masks, np.full((50, 1), 3.0)).any()

    def test_masks_are_the_same_each_time_and_no_generator_moves(self) -> None:
        before = torch.get_rng_state()
        one, other = (torch.stack(list(random_masks(3, 30, 20))) for _ in range(2))
        assert torch.equal(one, other)
        assert torch.equal(torch.get_rng_state(), before)
        assert one.shape == (3, 30, 20)
        assert 0 <= one.min() < one.max() <= 1

    def test_masks_are_cells_enlarged_and_shifted(self) -> None:
        """Pixel by pixel, from the same draws: cells of 4 × 3 pixels, of which each pixel may be the first."""
        generator = torch.Generator().manual_seed(0)
        shifts = set()
        for mask in random_masks(8, 28, 20):
            kept = (torch.rand(1, 1, 7, 7, generator=generator) < 0.5)[0, 0].double().numpy()
            y, x = (int(torch.randint(0, side, (), generator=generator)) for side in (4, 3))
            assert np.allclose(mask, enlarged(kept, 32, 24)[y : y + 28, x : x + 20], atol=1e-6)
            shifts.add((y, x))
        assert len(shifts) > 4

    def test_half_of_the_image_is_shown_on_average(self) -> None:
        assert float(torch.stack(list(random_masks(400, 28, 28))).mean()) == pytest.approx(0.5, abs=0.02)

    def test_what_a_mask_does_not_show_has_the_mean_colour(self) -> None:
        x = picture(8, 8)
        shown = revealed(x, mean_colour(x), torch.zeros(2, 8, 8))
        assert torch.allclose(shown[1], x.mean((2, 3))[0, :, None, None].expand(3, 8, 8))


def red_and_blue() -> Tensor:
    """Red in the upper left quarter, blue in the lower right one."""
    return coloured((0, (0, 0, 32, 32)), (2, (32, 32, 64, 64)))


QUARTERS = [(slice(0, 32), slice(0, 32)), (slice(32, 64), slice(32, 64))]


@methods
class TestBoth:
    def test_look_where_the_model_looks(self, method: str) -> None:
        """Class 0 reads red, which is in the upper left quarter, and class 1 blue, in the lower right one."""
        for cls, quarter in enumerate(QUARTERS):
            cam = explain(reads_colours(), red_and_blue(), cls, method=method).cam
            assert cam[quarter].sum() > 0.7 * cam.sum()

    def test_a_class_that_reads_nothing_has_no_evidence(self, method: str) -> None:
        with pytest.warns(ZeroEvidenceWarning):
            assert explain(reads_colours(), coloured((0, (0, 0, 9, 9))), 2, method=method).evidence == 0

    def test_an_image_without_anything_in_it_has_no_evidence(self, method: str) -> None:
        with pytest.warns(ZeroEvidenceWarning):
            assert explain(small(), torch.full((1, 3, SIDE, SIDE), 0.3), 1, method=method).evidence == 0

    def test_the_explanation_says_what_it_is_of(self, method: str) -> None:
        got = explain(small(), picture(SIDE, SIDE), 1, method=method, engine="split")
        assert (got.layer, got.method, got.engine) == ("the input", method, "forwards")
        assert got.grid == got.raw.shape

    def test_twice_it_is_the_same_bit_by_bit(self, method: str) -> None:
        model, x = small(), picture(SIDE, SIDE)
        before = torch.get_rng_state()
        one, other = (explain(model, x, 1, method=method).raw for _ in range(2))
        assert np.array_equal(one, other)
        assert torch.equal(torch.get_rng_state(), before)

    def test_classes_share_the_forwards_and_images_do_not_disturb_each_other(self, method: str) -> None:
        model, x = small(), picture(SIDE, SIDE, count=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroEvidenceWarning)
            alone = explain(model, x[:1], 2, method=method)
            assert np.array_equal(explain_batch(model, x, [2, 1], method=method)[0].raw, alone.raw)
            assert np.array_equal(explain_classes(model, x[:1], [1, 2], method=method)[1].raw, alone.raw)

    def test_a_layer_beside_it_is_refused(self, method: str) -> None:
        with pytest.raises(SettingsError, match=f"method '{method}' covers parts of the input and looks at no layer"):
            explain(small(), picture(SIDE, SIDE), 1, method=method, layer="relu2")

    def test_a_pair_is_run_one_after_the_other(self, method: str) -> None:
        model: Any = small()
        got = explain((model[:5], model[5:]), picture(SIDE, SIDE), 1, method=method)
        assert apart(got.raw, explain(model, picture(SIDE, SIDE), 1, method=method).raw) <= 1e-5
