"""Two maps beside each other: what was gained and lost stands where it was, in characters, half blocks and pixels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from pytest_gradcam.cam.heatmap import blend
from pytest_gradcam.report.beside import colour_beside, compared, picture_beside, plain_beside
from pytest_gradcam.report.lines import in_ascii, recolour
from pytest_gradcam.report.maps import colour_map, plain_map
from pytest_gradcam.report.overlay import picture, save_overlay
from pytest_gradcam.report.records import to_record
from pytest_gradcam.report.terminal import failure_text
from pytest_gradcam.verdicts import Outcome, Place, Sight, Verdict
from tests.report.synthetic import box_mask, corner_map, explanation, photo, verdict

Cam = npt.NDArray[np.float32]

GAP, STRIP = 8, 26
LEGEND = "+ # gained   - = lost"
SIDE = 80  # 20 columns and 10 rows of characters: 4 pixels wide and 8 high each
FRAMES = [(96, 96), (32, 96), (96, 32), (7, 7), (14, 14), (1, 7), (7, 1), (1, 1), (8, 4000), (4000, 8), (5, 13)]


def square(x0: int, y0: int, x1: int, y1: int, value: float = 1.0) -> Cam:
    """A map that is zero but for a box, on whole characters."""
    cam = np.zeros((SIDE, SIDE), dtype=np.float32)
    cam[y0:y1, x0:x1] = value
    return cam


BEFORE, AFTER = square(0, 64, 16, 80), square(60, 0, 80, 24)  # from the bottom left to the top right corner


def bare(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def three(lines: list[str]) -> list[list[str]]:
    """The rows of each of the three maps of a block that has titles; frames and what is between are asserted."""
    pitch = (len(lines[-1]) - len(lines[-1].lstrip())) // 2  # the legend stands below the third
    maps: list[list[str]] = [[], [], []]
    for line in lines[1:-1]:
        framed = [line[:pitch].rstrip(), line[pitch : 2 * pitch].rstrip(), line[2 * pitch :]]
        for rows, row in zip(maps, framed, strict=True):
            assert row[0] == row[-1] == "│"
            assert len(row) == len(framed[2])
            rows.append(row[1:-1])
    return maps


def pixels(lines: list[str]) -> list[npt.NDArray[np.int_]]:
    """The colours of the three maps in half blocks, read back from their codes: (2 × rows, columns, 3) each."""
    maps: list[list[list[list[int]]]] = [[], [], []]
    for line in lines[1:-1]:
        pieces = re.findall(r"│((?:\x1b\[[0-9;]*m|▀)+)│", line)
        assert len(pieces) == 3
        for rows, piece in zip(maps, pieces, strict=True):
            upper: list[list[int]] = []
            lower: list[list[int]] = []
            for codes, blocks in re.findall(r"\x1b\[([0-9;]+)m(▀+)", piece):
                numbers = [int(number) for number in codes.split(";")]
                upper += [numbers[2:5]] * len(blocks)
                lower += [numbers[7:10]] * len(blocks)
            rows += [upper, lower]
    return [np.array(rows) for rows in maps]


def orange(rgb: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray((rgb[..., 0] > rgb[..., 1] + 20.0) & (rgb[..., 1] > rgb[..., 2] + 20.0))


def blue(rgb: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray((rgb[..., 2] > rgb[..., 1] + 20.0) & (rgb[..., 1] > rgb[..., 0] + 20.0))


def grey(rgb: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray((rgb[..., 0] == rgb[..., 1]) & (rgb[..., 1] == rgb[..., 2]))


class TestPlain:
    def test_the_whole_block_of_a_map_that_moved_from_one_corner_to_another(self) -> None:
        blank = " " * 20
        old = [blank] * 8 + ["@@@@" + " " * 16] * 2
        new = [" " * 15 + "@@@@@"] * 3 + [blank] * 7
        change = [" " * 15 + "#####"] * 3 + [blank] * 5 + ["====" + " " * 16] * 2
        assert plain_beside(BEFORE, AFTER) == [
            "baseline                current                 difference",
            *(f"│{a}│  │{b}│  │{c}│" for a, b, c in zip(old, new, change, strict=True)),
            " " * 48 + LEGEND,
        ]

    @pytest.mark.parametrize(
        ("change", "sign"),
        [(0.0, " "), (0.14, " "), (0.16, "+"), (0.49, "+"), (0.51, "#"), (-0.14, " "), (-0.16, "-"), (-0.51, "=")],
    )
    def test_a_sign_tells_what_was_gained_and_lost_and_how_much(self, change: float, sign: str) -> None:
        """The left half is at 1 in both; what is to the right of it changes."""
        before, after = square(0, 0, 40, SIDE), square(0, 0, 40, SIDE)
        before[:, 40:] = 0.5 - change / 2
        after[:, 40:] = 0.5 + change / 2
        assert three(plain_beside(before, after))[2] == [" " * 10 + sign * 10] * 10

    def test_equal_maps_have_an_empty_difference(self) -> None:
        old, new, change = three(plain_beside(corner_map(), corner_map()))
        assert old == new
        assert set("".join(change)) == {" "}

    def test_both_maps_are_drawn_as_one_alone_is(self) -> None:
        old, new, _ = three(plain_beside(corner_map(), corner_map()[::-1].copy()))
        for shown, cam in ((old, corner_map()), (new, corner_map()[::-1].copy())):
            assert [f"│{row}│" for row in shown] == plain_map(cam, np.zeros((96, 96), np.float32), columns=20)

    def test_both_maps_are_on_one_scale(self) -> None:
        """A map that is half as strong everywhere must not look alike."""
        old, new, change = three(plain_beside(square(0, 0, SIDE, SIDE), square(0, 0, SIDE, SIDE, value=0.45)))
        assert [set("".join(rows)) for rows in (old, new, change)] == [{"@"}, {"="}, {"="}]

    def test_a_peak_smaller_than_a_character_is_gained_at_full_strength(self) -> None:
        after = np.zeros((SIDE, SIDE), dtype=np.float32)
        after[10, 50] = 1.0
        change = three(plain_beside(np.zeros_like(after), after))[2]
        assert change == [" " * 20] + [" " * 12 + "#" + " " * 7] + [" " * 20] * 8

    def test_a_grid_of_its_own_is_enlarged_and_each_cell_stands_in_its_place(self) -> None:
        before, after = np.zeros((1, 7), np.float32), np.zeros((1, 7), np.float32)
        before[0, 0], after[0, 6] = 1.0, 1.0
        assert three(plain_beside(before, after))[2] == ["===-" + " " * 12 + "+###"] * 4

    def test_the_coarser_map_is_resized_to_the_finer(self) -> None:
        """Against OpenCV's own enlargement, in both orders."""
        coarse = np.random.default_rng(0).random((7, 7), dtype=np.float32)
        coarse[6, 6] = 1.0  # in the corner, where enlarging takes nothing off the peak
        fine = corner_map()
        enlarged = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        assert plain_beside(coarse, fine) == plain_beside(enlarged, fine)
        assert plain_beside(fine, coarse) == plain_beside(fine, enlarged)

    @pytest.mark.parametrize(
        ("frame", "size"),
        [((96, 96), (10, 20)), ((48, 96), (5, 20)), ((96, 48), (12, 12)), ((32, 96), (4, 20)), ((96, 32), (12, 8))],
    )
    def test_the_maps_keep_their_shape(self, frame: tuple[int, int], size: tuple[int, int]) -> None:
        for rows in three(plain_beside(np.zeros(frame, np.float32), np.ones(frame, np.float32))):
            assert (len(rows), len(rows[0])) == size

    @pytest.mark.parametrize("frame", [(96, 96), (96, 32)])
    def test_titles_and_legend_stand_above_and_below_their_maps(self, frame: tuple[int, int]) -> None:
        lines = plain_beside(np.zeros(frame, np.float32), np.ones(frame, np.float32), ("a", "two words", "change"))
        frames = [found.start() for found in re.finditer(r"│[^│]*│", lines[1])]
        assert [lines[0].index(title) for title in ("a", "two words", "change")] == frames
        assert lines[-1].index(LEGEND) == frames[2]

    def test_a_long_title_is_cut(self) -> None:
        lines = plain_beside(BEFORE, AFTER, ("checkpoint of last Tuesday", "x" * 22, "difference"))
        assert lines[0] == "checkpoint of last T..  " + "x" * 22 + "  difference"

    def test_a_title_stays_on_its_line(self) -> None:
        lines = plain_beside(BEFORE, AFTER, ("two\nlines", "b", "c"))
        assert lines[0].split("  ", 1)[0] == "two lines"
        assert len(lines) == 12

    def test_a_region_is_outlined_in_the_maps_and_not_in_the_difference(self) -> None:
        """Spelt in ASCII, an outline there would read as gained and lost."""
        mask = box_mask(SIDE, (20, 24, 60, 64))
        old, new, change = three(plain_beside(BEFORE, AFTER, mask=mask))
        for shown, cam in ((old, BEFORE), (new, AFTER)):
            assert [f"│{row}│" for row in shown] == plain_map(cam, mask, columns=20)
            assert "".join(shown).count("┌") == 1
        assert change == three(plain_beside(BEFORE, AFTER))[2]


class TestColour:
    def test_what_was_gained_is_orange_and_what_was_lost_is_blue_and_the_rest_is_grey(self) -> None:
        change = pixels(colour_beside(BEFORE, AFTER, photo(SIDE, SIDE)))[2]
        gained, lost = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
        gained[:6, 15:] = lost[16:, :4] = True
        assert (orange(change) == gained).all()
        assert (blue(change) == lost).all()
        assert (grey(change) == ~(gained | lost)).all()

    def test_without_change_it_is_the_dimmed_grey_picture(self) -> None:
        image = np.full((SIDE, SIDE, 3), (100, 200, 50), dtype=np.uint8)
        change = pixels(colour_beside(AFTER, AFTER, image))[2]
        assert set(change.ravel().tolist()) == {69}  # luma .299·100 + .587·200 + .114·50 = 153, of which .45

    def test_both_maps_are_drawn_as_one_alone_is(self) -> None:
        lines = colour_beside(BEFORE, AFTER, photo(SIDE, SIDE), mask=box_mask(SIDE, (20, 24, 60, 64)))
        alone = [
            colour_map(photo(SIDE, SIDE), cam, box_mask(SIDE, (20, 24, 60, 64)), columns=20) for cam in (BEFORE, AFTER)
        ]
        for line, old, new in zip(lines[1:-1], *alone, strict=True):
            assert line.startswith(f"{old}  {new}  │")

    def test_the_region_is_outlined_in_the_difference_too(self) -> None:
        mask = box_mask(SIDE, (20, 24, 60, 64))
        white = (pixels(colour_beside(BEFORE, AFTER, None, mask=mask))[2] == 255).all(axis=-1)
        wanted = np.zeros((20, 20), dtype=bool)
        wanted[6:16, 5:15] = True
        wanted[7:15, 6:14] = False
        assert (white == wanted).all()

    def test_without_a_picture_the_ground_is_black(self) -> None:
        change = pixels(colour_beside(BEFORE, BEFORE))[2]
        assert not change.any()

    def test_the_legend_is_in_the_colours_of_the_difference(self) -> None:
        legend = colour_beside(BEFORE, AFTER)[-1]
        assert bare(legend) == " " * 48 + "██ gained   ██ lost"
        codes = re.findall(r"38;2;(\d+);(\d+);(\d+)m██ (\w+)\x1b\[0m", legend)
        assert [name for *_, name in codes] == ["gained", "lost"]
        gained, lost = (np.array([int(part) for part in rgb]) for *rgb, _ in codes)
        assert orange(gained)
        assert blue(lost)

    def test_256_colours_where_the_terminal_knows_no_more(self) -> None:
        text = "".join(colour_beside(BEFORE, AFTER, photo(), truecolor=False))
        assert "38;5;" in text
        assert "8;2;" not in text


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Cam, Cam]:
    """Two maps of frames or of grids, mostly of one shape."""
    shapes = st.sampled_from(FRAMES) | st.tuples(st.integers(1, 40), st.integers(1, 40))
    shape = draw(shapes)
    shapes = st.just(shape) if draw(st.booleans()) else shapes
    values = st.floats(0.0, 1.0, width=32)
    before, after = (draw(arrays(np.float32, each, elements=values)) for each in (shape, draw(shapes)))
    return before, after


class TestAnyPair:
    @settings(deadline=None, max_examples=150)
    @given(pair=pairs(), titles=st.tuples(*[st.text(max_size=40)] * 3), image=st.booleans())
    def test_it_fits_is_found_again_and_can_be_spelt(
        self, pair: tuple[Cam, Cam], titles: tuple[str, str, str], image: bool
    ) -> None:
        plain = plain_beside(*pair, titles)
        coloured = colour_beside(*pair, photo() if image else None, titles)
        assert max(map(len, plain)) <= 70
        assert max(len(bare(line)) for line in coloured) <= 70
        assert 5 <= len(plain) == len(coloured) <= 14
        assert all(line == line.rstrip() and "\n" not in line for line in plain)
        assert all(in_ascii(line).isascii() and len(in_ascii(line)) == len(line) for line in plain[1:])
        written = "\n".join(["E   before", *(f"E         {line}" for line in plain), "E   after"])
        assert recolour(written, plain, coloured).split("\n") == [
            "E   before",
            *(f"E         {line}" for line in coloured),
            "E   after",
        ]

    @settings(deadline=None)
    @given(pair=pairs())
    def test_the_other_way_round_what_was_gained_is_lost(self, pair: tuple[Cam, Cam]) -> None:
        before, after = pair
        old, new, change = three(plain_beside(before, after))
        swapped = [row.translate(str.maketrans("+#-=", "-=+#")) for row in change]
        assert three(plain_beside(after, before)) == [new, old, swapped]

    @settings(deadline=None)
    @given(pair=st.tuples(*[arrays(np.float32, (10, 20), elements=st.floats(0, 1, width=32))] * 2))
    def test_each_sign_is_that_of_the_cells_difference(self, pair: tuple[Cam, Cam]) -> None:
        """Maps that are constant on each character, so that no mean is taken: the thresholds written out."""
        before, after = (np.kron(cam, np.ones((8, 4), np.float32)).astype(np.float32) for cam in pair)
        change = three(plain_beside(before, after))[2]
        for row, line in enumerate(change):
            for column, sign in enumerate(line):
                value = float(pair[1][row, column]) - float(pair[0][row, column])
                if min(abs(abs(value) - edge) for edge in (0.15, 0.5)) > 1e-5:
                    size = (abs(value) > 0.15) + (abs(value) > 0.5)
                    assert sign == (" +#" if value > 0 else " -=")[size]

    @pytest.mark.parametrize("frame", FRAMES)
    def test_a_picture_of_any_frame_is_drawn_whole(self, frame: tuple[int, int]) -> None:
        cams = np.zeros(frame, np.float32), np.ones(frame, np.float32)
        drawn = picture_beside(*cams, photo(*frame))
        high, wide = drawn.shape[0] - STRIP - 2 * GAP, (drawn.shape[1] - 5 * GAP) / 4
        assert wide == round(wide) >= 1
        assert 320 <= max(high, wide) <= 640
        assert abs(wide / high - frame[1] / frame[0]) * min(high, wide) <= max(wide / high, 1.0)


class TestPicture:
    def panels(self, drawn: npt.NDArray[np.uint8], count: int = 4) -> list[npt.NDArray[np.uint8]]:
        wide = (drawn.shape[1] - (count + 1) * GAP) // count
        return [drawn[STRIP + GAP : STRIP + GAP + wide, x : x + wide] for x in range(GAP, drawn.shape[1], wide + GAP)]

    def test_four_panels_what_it_saw_both_maps_and_the_difference(self) -> None:
        image = photo(400, 400)
        before, after = (np.kron(cam, np.ones((5, 5), np.float32)).astype(np.float32) for cam in (BEFORE, AFTER))
        seen, old, new, change = self.panels(picture_beside(before, after, image))
        assert (seen == image).all()
        assert (old == blend(image, before)).all()
        assert (new == blend(image, after)).all()
        gained, lost = np.zeros((400, 400), bool), np.zeros((400, 400), bool)
        gained[:120, 300:] = lost[320:, :80] = True
        assert (orange(change) == gained).all()
        assert (blue(change) == lost).all()
        assert grey(change[~(gained | lost)]).all()
        luma = image @ np.array([0.299, 0.587, 0.114])
        assert np.abs(change[..., 0] - 0.45 * luma)[~(gained | lost)].max() < 1

    def test_without_a_picture_three_panels_on_a_dark_ground(self) -> None:
        grid = np.zeros((7, 7), np.float32)
        drawn = picture_beside(grid, grid, None)
        assert drawn.shape == (STRIP + 2 * GAP + 322, 4 * GAP + 3 * 322, 3)
        assert not self.panels(drawn, 3)[2].any()

    def test_a_region_is_outlined_on_the_last_three(self) -> None:
        mask = box_mask(box=(24, 24, 72, 72))
        blank = np.zeros((96, 96), np.float32)
        drawn = picture_beside(blank, blank, np.full((96, 96, 3), 128, np.uint8), mask=mask)
        for panel, outlined in zip(self.panels(drawn), (False, True, True, True), strict=True):
            assert (panel[96, 96:288] == 255).all() == outlined
            assert (panel[150, 97] == 255).all() == outlined

    def test_titles_stand_above_their_panels_and_the_caption_below(self) -> None:
        blank = np.zeros((96, 96), np.float32)
        wordless = picture_beside(blank, blank, photo(), ("", "", ""))
        for i, titles in enumerate([("W", "", ""), ("", "W", ""), ("", "", "W")], start=1):
            touched = (picture_beside(blank, blank, photo(), titles) != wordless).any(axis=-1)
            if i < 3:
                y, x = np.nonzero(touched)
                assert y.max() < STRIP
                assert GAP + i * 392 <= x.min() <= x.max() < GAP + i * 392 + 20
            else:
                assert touched[:STRIP, GAP + 3 * 392 : GAP + 3 * 392 + 12].any()
                assert not touched[STRIP:].any() and not touched[:, : GAP + 3 * 392].any()
        captioned = picture_beside(blank, blank, photo(), ("", "", ""), caption="what happened")
        assert (captioned[:-STRIP] == wordless).all()
        assert captioned[-STRIP:].max() > 200

    def test_the_title_of_the_difference_says_in_its_colours_what_they_mean(self) -> None:
        blank = np.zeros((96, 96), np.float32)
        title = picture_beside(blank, blank, photo())[:STRIP, GAP + 3 * 392 :].astype(int)
        gained, lost = np.nonzero(orange(title))[1], np.nonzero(blue(title))[1]
        assert 0 < gained.max() < lost.min()


def pair(outcome: Outcome = "failed", **changes: Any) -> Verdict:
    """A verdict that compares the map of the bottom left corner with that of the top right corner."""
    raw = explanation().raw
    place: Place | None = changes.pop("place", None)
    titles = changes.pop("titles", ("baseline", "current"))
    before = Sight(explanation(), place, titles[0])
    after = Sight(explanation(raw=raw[::-1, ::-1].copy()), place, titles[1])
    return replace(verdict(), outcome=outcome, sights=(before, after), **{"compared": True, **changes})


class TestVerdict:
    def test_the_message_has_one_block_in_place_of_two_maps(self) -> None:
        shown = pair()
        old, new = (sight.explanation.cam for sight in shown.sights)
        block = "\n".join(f"  {line}" for line in plain_beside(old, new, ("baseline", "current", "difference")))
        text = failure_text(shown, "here.png")
        assert f"\n\n{block}\n\nlayer stages.3" in text
        assert text.count("│") == block.count("│")
        assert all(line == line.rstrip() for line in text.splitlines())

    def test_its_region_is_outlined(self) -> None:
        assert failure_text(pair(place=verdict().place), None).count("┌") == 2

    def test_the_record_has_one_entry_that_takes_the_place_of_the_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLORTERM", "truecolor")
        shown = pair(titles=("model A", "model B"))
        old, new = (sight.explanation.cam for sight in shown.sights)
        (drawn,) = to_record(shown, "test_it")["maps"]
        titles = "model A", "model B", "difference"
        assert drawn == {
            "plain": plain_beside(old, new, titles),
            "colour": colour_beside(old, new, photo(), titles, truecolor=True),
        }
        swapped = recolour(failure_text(shown, None), drawn["plain"], drawn["colour"])
        assert all(f"  {line}" in swapped.split("\n") for line in drawn["colour"])
        assert not any(line in swapped for line in drawn["plain"][1:])

    def test_the_overlay_is_the_picture_of_both(self, tmp_path: Path) -> None:
        shown = pair(place=verdict().place)
        old, new = (sight.explanation.cam for sight in shown.sights)
        titles = "baseline", "current", "difference"
        wanted = picture_beside(old, new, photo(), titles, shown.message, box_mask())
        assert (picture(shown) == wanted).all()
        read = cv2.imread(str(save_overlay(shown, tmp_path / "it.png")))
        assert read is not None
        assert (read[..., ::-1] == wanted).all()

    def test_two_maps_that_are_not_compared_stay_below_one_another(self) -> None:
        shown = pair(compared=False)
        assert compared(shown) is None
        assert LEGEND not in failure_text(shown, None)
        assert len(to_record(shown, "test_it")["maps"]) == 2
        assert picture(shown).shape[0] > 2 * 384

    def test_of_several_images_the_worst_is_shown_alone(self) -> None:
        shown = pair(values=(0.1, 0.2))
        assert compared(shown) is None
        assert len(to_record(shown, "test_it")["maps"]) == 1

    def test_one_that_passed_travels_light(self) -> None:
        assert to_record(pair("passed"), "test_it")["maps"] == []
