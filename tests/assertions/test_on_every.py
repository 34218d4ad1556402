"""`assert_attention_on_every`: no required part is ignored. By a model that reads what is red, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_gradcam import (
    AttentionError,
    Gradcam,
    ImageError,
    InconclusiveError,
    Region,
    RegionError,
    Settings,
    SettingsError,
    VacuousRegionError,
    VacuousThresholdError,
    Verdict,
    ZeroEvidenceError,
    assert_attention_on_every,
    explain,
)
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.statistics import clopper_pearson, skewed_interval
from tests.models import Floats, cam_of, coloured, reads_colours

Box = tuple[int, int, int, int]
LEAST = METRICS["calibrated_energy"].inside
# On 8×8 cells of 8 pixels, far from each other.
HEAD, TAIL, LEGS, REST = (8, 8, 24, 24), (40, 40, 56, 56), (40, 8, 48, 32), (0, 48, 16, 64)


def reds(*boxes: Box) -> Any:
    return coloured(*((0, box) for box in boxes))


def ask(image: Any, regions: Any, cls: Any = 0, **keywords: Any) -> Verdict:
    """The verdict, whatever it is."""
    try:
        return assert_attention_on_every(reads_colours(), image, regions, cls, **keywords)
    except (AttentionError, InconclusiveError) as error:
        if error.verdict is None:
            raise
        return error.verdict


def mask_of(box: Box) -> Floats:
    mask = np.zeros((64, 64))
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return mask


def cells_of(*boxes: Box) -> Floats:
    cells = np.zeros((8, 8))
    for x0, y0, x1, y1 in boxes:
        cells[y0 // 8 : y1 // 8, x0 // 8 : x1 // 8] = 1
    return cells


def parts(attention: Floats, regions: list[Box]) -> list[float]:
    """What each region has of its part, of a map with this much on each cell: the definition written out."""
    cam, even = (cam_of(cells, 64, 64) for cells in (attention, cells_of(*regions)))
    found = []
    for region in regions:
        mask = mask_of(region)
        has, has_if_even = (float((each * mask).sum() / each.sum()) for each in (cam, even))
        found.append((has - mask.mean()) / (has_if_even - mask.mean()))
    return found


class TestParts:
    @pytest.mark.parametrize("regions", [[HEAD, TAIL], [HEAD, TAIL, LEGS], [LEGS, REST]])
    def test_an_even_share_gives_each_its_part(self, regions: list[Box]) -> None:
        verdict = ask(reds(*regions), regions)
        assert verdict.outcome == "passed"
        assert verdict.value == pytest.approx(1.0, abs=1e-4)
        assert (verdict.metric, verdict.chance, verdict.threshold) == ("calibrated_energy", 0.0, LEAST)

    def test_the_ignored_part_fails_and_is_named(self) -> None:
        verdict = ask(reds(HEAD, LEGS), [HEAD, TAIL, LEGS])
        assert verdict.outcome == "failed"
        assert str(verdict.region) == "the box (40, 40, 56, 56)"
        expected = parts(cells_of(HEAD, LEGS), [HEAD, TAIL, LEGS])
        assert verdict.value == pytest.approx(expected[1], abs=1e-4)
        assert verdict.message == (
            "class 0 is not explained by every region: calibrated energy of the part that has least "
            f"{expected[1]:.2f}, needs {LEAST:.2f}"
        )
        names = "the box (8, 8, 24, 24)", "the box (40, 40, 56, 56)", "the box (40, 8, 48, 32)"
        each = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, expected, strict=True))
        assert dict(verdict.facts)["each"] == each

    def test_parts_at_chance_have_nothing(self) -> None:
        """All of the picture is read alike: each region has as much as its area."""
        verdict = ask(reds((0, 0, 64, 64)), [HEAD, TAIL])
        assert verdict.outcome == "failed"
        assert verdict.value == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize(("strength", "passes"), [(1.0, True), (0.5, True), (0.25, True), (0.05, False)])
    def test_a_part_that_is_read_less_has_less(self, strength: float, passes: bool) -> None:
        image = reds(HEAD, TAIL)
        image[:, :, 40:56, 40:56] *= strength
        verdict = ask(image, [HEAD, TAIL])
        expected = parts(cells_of(HEAD) + strength * cells_of(TAIL), [HEAD, TAIL])
        assert verdict.value == pytest.approx(min(expected), abs=1e-4)
        assert verdict.passed == passes == (min(expected) >= LEAST)

    def test_parts_of_other_sizes_are_held_to_their_size(self) -> None:
        regions: list[Box] = [(0, 0, 32, 32), (48, 48, 56, 56)]
        assert ask(reds(*regions), regions).value == pytest.approx(1.0, abs=1e-4)
        even = reds(*regions)
        even[:, :, :32, :32] /= 16  # as much in all of the large one as in the small one
        assert ask(even, regions).value == pytest.approx(
            min(parts(cells_of((0, 0, 32, 32)) / 16 + cells_of((48, 48, 56, 56)), regions)),
            abs=1e-4,
        )

    def test_red_besides_the_parts_takes_from_all(self) -> None:
        verdict = ask(reds(HEAD, TAIL, REST), [HEAD, TAIL])
        assert verdict.value == pytest.approx(min(parts(cells_of(HEAD, TAIL, REST), [HEAD, TAIL])), abs=1e-4)
        assert 0.5 < verdict.value < 0.8

    def test_their_order_does_not_matter(self) -> None:
        image = reds(HEAD)
        verdicts = [ask(image, regions) for regions in ([HEAD, TAIL], [TAIL, HEAD])]
        assert verdicts[0].value == verdicts[1].value
        assert {str(verdict.region) for verdict in verdicts} == {"the box (40, 40, 56, 56)"}

    def test_overlapping_regions_are_filled_once(self) -> None:
        """What two regions share counts for both, and the even map has it once."""
        regions: list[Box] = [(8, 8, 40, 24), (32, 8, 64, 24)]
        image = reds((8, 8, 40, 24))
        expected = parts(cells_of((8, 8, 40, 24)), regions)
        verdict = ask(image, regions)
        assert verdict.value == pytest.approx(expected[1], abs=1e-4)
        assert ask(reds(*regions), regions).value == pytest.approx(1.0, abs=1e-4)

    @pytest.mark.parametrize(
        "other", [mask_of(TAIL).astype(bool), Region.of(TAIL), [(40, 40), (56, 40), (56, 56), (40, 56)], [TAIL]]
    )
    def test_a_part_may_be_any_region(self, other: Any) -> None:
        assert ask(reds(HEAD, TAIL), [HEAD, other]).value == pytest.approx(1.0, abs=1e-4)

    def test_regions_are_in_the_frame_of_the_picture(self) -> None:
        """A picture of twice the size, that the transform halves."""
        image = reds(HEAD, TAIL)
        pixels = np.kron((255 * image[0].permute(1, 2, 0).numpy()).astype(np.uint8), np.ones((2, 2, 1), np.uint8))

        def halved(picture: Any) -> Any:
            import torch

            return torch.from_numpy(np.array(picture)[::2, ::2].copy()).permute(2, 0, 1).float() / 255

        doubled = [tuple(2 * side for side in box) for box in (HEAD, TAIL)]
        assert ask(pixels, doubled, transform=halved).value == pytest.approx(1.0, abs=1e-4)


class TestThresholds:
    def test_at_the_value_passes_and_beyond_it_fails(self) -> None:
        image = reds(HEAD, TAIL)
        image[:, :, 40:56, 40:56] *= 0.5
        value = ask(image, [HEAD, TAIL]).value
        assert ask(image, [HEAD, TAIL], threshold=value).passed
        assert not ask(image, [HEAD, TAIL], threshold=float(np.nextafter(value, 2))).passed

    @pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan"), float("inf")])
    def test_what_chance_would_pass_or_nothing_could_is_refused(self, threshold: float) -> None:
        with pytest.raises(VacuousThresholdError, match=r"is not above 0, .* and at most 1"):
            ask(reds(HEAD, TAIL), [HEAD, TAIL], threshold=threshold)

    def test_that_of_the_settings_is_for_other_assertions(self) -> None:
        gradcam = Gradcam(Settings(threshold=0.9, metric="energy"))
        verdict = gradcam.assert_attention_on_every(reads_colours(), reds(HEAD, TAIL), [HEAD, TAIL], 0)
        assert (verdict.threshold, verdict.metric) == (LEAST, "calibrated_energy")

    def test_a_metric_is_not_taken(self) -> None:
        with pytest.raises(SettingsError, match="unknown keyword 'metric' of assert_attention_on_every"):
            ask(reds(HEAD, TAIL), [HEAD, TAIL], metric="energy")


class TestWhatIsRefused:
    @pytest.mark.parametrize("regions", [[HEAD], [], HEAD, list(HEAD), Region.of([HEAD, TAIL]), "boxes", None])
    def test_fewer_than_two_regions(self, regions: Any) -> None:
        with pytest.raises(RegionError, match=r"regions must be a list of two or more, .*assert_attention_in_region$"):
            ask(reds(HEAD), regions)

    @pytest.mark.parametrize("other", [HEAD, (8, 8, 16, 24)])
    def test_a_part_that_is_in_another(self, other: Box) -> None:
        """The same region twice would make two parts of one."""
        with pytest.raises(RegionError, match="share 100% of the smaller one"):
            ask(reds(HEAD, TAIL), [HEAD, other])

    def test_regions_that_share_out_all_of_the_picture(self) -> None:
        """Together they cover it: an even map is uniform, and none of them can be ignored."""
        with pytest.raises(VacuousRegionError):
            ask(reds(HEAD, TAIL), [(0, 0, 32, 64), (32, 0, 64, 64)])

    @pytest.mark.parametrize("bad", [(80, 80, 90, 90), (24, 24, 8, 8), np.zeros((64, 64), bool)])
    def test_a_region_that_is_none(self, bad: Any) -> None:
        with pytest.raises(RegionError):
            ask(reds(HEAD), [HEAD, bad])

    def test_zero_evidence(self) -> None:
        with pytest.raises(ZeroEvidenceError):
            ask(reds(HEAD), [HEAD, TAIL], cls=2)

    @pytest.mark.parametrize("regions", [[HEAD, TAIL], [[HEAD, TAIL]], [[HEAD, TAIL]] * 3, np.array([HEAD, TAIL])])
    def test_a_list_of_images_needs_as_many_lists(self, regions: Any) -> None:
        with pytest.raises(RegionError, match=r"regions must be|regions must be 2 lists of regions, one for each"):
            ask([reds(HEAD), reds(TAIL)], regions)

    def test_the_same_image_with_the_same_regions(self) -> None:
        with pytest.raises(ImageError, match="images 0 and 1 are the same, and are asked the same"):
            ask([reds(HEAD), reds(HEAD)], [[HEAD, TAIL]] * 2)

    def test_errors_about_one_image_say_which(self) -> None:
        images = [reds(HEAD, TAIL), reds(HEAD, TAIL, REST), reds(TAIL)]
        with pytest.raises(RegionError, match=r"^image 1: the box"):
            ask(images, [[HEAD, TAIL], [HEAD, (80, 80, 90, 90)], [HEAD, TAIL]])
        with pytest.raises(VacuousRegionError, match=r"^image 2: the box"):
            ask(images, [[HEAD, TAIL], [HEAD, TAIL], [(0, 0, 32, 64), (32, 0, 64, 64)]])
        with pytest.raises(ZeroEvidenceError, match=r"^image 1: no evidence"):
            ask([images[0], coloured((2, HEAD))], [[HEAD, TAIL]] * 2)


class TestLists:
    # In the last, the tail is ignored.
    IMAGES = (reds(HEAD, TAIL), reds(LEGS, REST), reds(HEAD, TAIL, REST), reds(HEAD, LEGS))
    REGIONS = ([HEAD, TAIL], [LEGS, REST], [HEAD, TAIL], [HEAD, TAIL, LEGS])

    def test_are_judged_by_the_mean_of_the_least(self) -> None:
        verdict = ask(list(self.IMAGES), list(self.REGIONS))
        singles = [ask(image, regions) for image, regions in zip(self.IMAGES, self.REGIONS, strict=True)]
        assert list(verdict.values) == pytest.approx([single.value for single in singles], rel=1e-6)
        assert verdict.value == pytest.approx(np.mean([single.value for single in singles]))
        expected = skewed_interval([value - LEAST for value in verdict.values])
        assert verdict.interval == pytest.approx((expected.low + LEAST, expected.high + LEAST))
        assert verdict.outcome == "inconclusive"

    def test_the_worst_image_is_shown_with_the_part_that_it_ignores(self) -> None:
        verdict = ask(list(self.IMAGES), list(self.REGIONS))
        assert verdict.worst == 3
        assert str(verdict.region) == "the box (40, 40, 56, 56)"
        assert dict(verdict.facts)["each"].startswith("the box (8, 8, 24, 24) ")
        assert dict(verdict.facts)["alone"] == "3 of 4 images are on the right side of the threshold by themselves"

    def test_may_be_judged_by_their_rate(self) -> None:
        verdict = ask(list(self.IMAGES), list(self.REGIONS), judge_by="rate")
        expected = clopper_pearson(3, 4)
        assert (verdict.metric, verdict.value, verdict.interval) == ("pass_rate", 0.75, (expected.low, expected.high))

    def test_classes_may_differ(self) -> None:
        images = [reds(HEAD, TAIL), coloured((2, LEGS), (2, REST), (0, HEAD))]
        verdict = ask(images, [[HEAD, TAIL], [LEGS, REST]], [0, 1])
        assert verdict.values == pytest.approx((1.0, 1.0), abs=1e-4)
        assert [each.cls for each in verdict.explanations] == [0, 1]

    def test_all_parts_of_all_images_pass(self) -> None:
        images = [reds(HEAD, TAIL), reds(LEGS, REST), reds(HEAD, REST), reds(TAIL, LEGS)]
        for i, image in enumerate(images):
            image[0, 0, 56:64, 56:64] = 0.1 * i  # besides the parts, so that no two values are equal
        regions = [[HEAD, TAIL], [LEGS, REST], [HEAD, REST], [TAIL, LEGS]]
        verdict = ask(images, regions)
        assert verdict.outcome == "passed"
        assert verdict.message.startswith("of 4 images (fewer than 20), the classes are explained by every region: ")


def test_the_map_is_that_of_explain() -> None:
    image = reds(HEAD, TAIL)
    verdict = ask(image, [HEAD, TAIL])
    assert np.array_equal(verdict.explanation.raw, explain(reads_colours(), image, 0).raw)
