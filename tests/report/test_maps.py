"""Maps as characters: where the heat is shown, where the outline runs, and that no region is lost."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from pytest_gradcam.report.maps import cells, colour_map, fitted, plain_map
from tests.report.synthetic import box_mask, corner_map, photo

NO_REGION = np.zeros((96, 96), dtype=np.float32)
NO_MAP = np.zeros((96, 96), dtype=np.float32)
BOX_DRAWING = set("│─┌┐└┘├┤┬┴┼")
WHITE = "255;255;255"


def inside(lines: list[str]) -> list[str]:
    """The lines without their frame, which is asserted on the way."""
    assert all(line[0] == line[-1] == "│" for line in lines)
    return [line[1:-1] for line in lines]


def pixels(lines: list[str]) -> npt.NDArray[np.int_]:
    """The colours of a map in half blocks, read back from its escape codes: (2 × lines, columns, 3)."""
    rows: list[list[tuple[int, ...]]] = []
    for line in inside(lines):
        upper: list[tuple[int, ...]] = []
        lower: list[tuple[int, ...]] = []
        now: list[tuple[int, ...]] = []
        for code, _block in re.findall(r"\x1b\[([0-9;]*)m|(▀)", line.removesuffix("\x1b[0m")):
            if code:
                numbers = [int(number) for number in code.split(";")]
                assert (numbers[:2], numbers[5:7]) == ([38, 2], [48, 2])
                now = [tuple(numbers[2:5]), tuple(numbers[7:10])]
            else:
                upper.append(now[0])
                lower.append(now[1])
        rows += [upper, lower]
    return np.array(rows)


class TestPlain:
    def test_the_picture_of_the_design(self) -> None:
        """A map that is hot in the bottom left corner and a box at the top: both stand where the picture has them."""
        assert inside(plain_map(corner_map(), box_mask(), columns=24)) == [
            "                        ",
            "         ┌────────┐     ",
            "         │        │     ",
            "         │        │     ",
            "         │        │     ",
            "         └────────┘     ",
            "                        ",
            "......                  ",
            "::::....                ",
            "----::....              ",
            "**+=--:...              ",
            "@@#+=-::..              ",
        ]

    @pytest.mark.parametrize("level", range(10))
    def test_each_tenth_of_the_range_has_its_character(self, level: int) -> None:
        """The left quarter is at 1, so that the rest is shown as it is: in the middle of its tenth."""
        cam = np.full((40, 80), (level + 0.5) / 10, dtype=np.float32)
        cam[:, :20] = 1.0
        shown = inside(plain_map(cam, np.zeros((40, 80), dtype=np.float32), columns=40))
        assert {line[:9] for line in shown} == {"@" * 9}
        assert {line[11:] for line in shown} == {" .:-=+*#%@"[level] * 29}

    def test_a_small_peak_is_shown_at_full_strength(self) -> None:
        cam = NO_MAP.copy()
        cam[50, 50] = 1.0
        assert "".join(inside(plain_map(cam, NO_REGION))).count("@") == 1

    @pytest.mark.parametrize(
        ("frame", "size"), [((96, 96), (22, 44)), ((48, 96), (11, 44)), ((96, 48), (22, 22)), ((1024, 1024), (22, 44))]
    )
    def test_a_character_stands_for_twice_as_much_height_as_width(
        self, frame: tuple[int, int], size: tuple[int, int]
    ) -> None:
        blank = np.zeros(frame, dtype=np.float32)
        lines = inside(plain_map(blank, blank))
        assert (len(lines), len(lines[0])) == size

    @pytest.mark.parametrize("frame", [(8, 4000), (4000, 8), (1, 1), (3, 3)])
    def test_odd_frames_stay_small_and_are_drawn(self, frame: tuple[int, int]) -> None:
        lines = inside(plain_map(np.ones(frame, dtype=np.float32), np.zeros(frame, dtype=np.float32)))
        assert 4 <= len(lines) <= 22
        assert {len(line) for line in lines} == {len(lines[0])}
        assert 8 <= len(lines[0]) <= 44

    def test_a_region_at_the_edge_is_closed_there(self) -> None:
        mask = box_mask(box=(0, 52, 50, 96))
        shown = inside(plain_map(NO_MAP, mask, columns=16))
        assert [line.rstrip() for line in shown[4:]] == ["┌───────┐", "│       │", "│       │", "└───────┘"]

    def test_two_regions_have_two_outlines(self) -> None:
        mask = np.maximum(box_mask(box=(0, 0, 24, 24)), box_mask(box=(60, 60, 96, 96)))
        shown = "".join(inside(plain_map(NO_MAP, mask)))
        assert [shown.count(corner) for corner in "┌┐└┘"] == [2, 2, 2, 2]

    def test_a_hole_is_outlined_too(self) -> None:
        mask = np.maximum(box_mask(box=(8, 8, 88, 88)) - box_mask(box=(32, 32, 64, 64)), 0.0)
        shown = "".join(inside(plain_map(NO_MAP, mask)))
        assert [shown.count(corner) for corner in "┌┐└┘"] == [2, 2, 2, 2]

    @given(data=st.data())
    def test_the_outline_of_any_region_is_closed(self, data: st.DataObject) -> None:
        """Each line that leaves a character to a side is met by one from that side: no loose ends."""
        noise = data.draw(st.lists(st.booleans(), min_size=64, max_size=64))
        mask = np.kron(np.array(noise, dtype=np.float32).reshape(8, 8), np.ones((12, 12), dtype=np.float32))
        grid = inside(plain_map(NO_MAP, mask))
        rightward, leftward = set("─┌└├┬┴┼"), set("─┐┘┤┬┴┼")
        downward, upward = set("│┌┐├┤┬┼"), set("│└┘├┤┴┼")
        for line in grid:
            assert line[0] not in leftward - rightward
            for here, right in pairwise(line):
                assert (here in rightward) == (right in leftward)
        for above, below in pairwise(grid):
            for here, under in zip(above, below, strict=True):
                assert (here in downward) == (under in upward)


class TestSmallRegions:
    @given(x=st.integers(0, 223), y=st.integers(0, 223), w=st.integers(1, 4), h=st.integers(1, 4))
    def test_a_region_smaller_than_a_character_is_seen_where_it_is(self, x: int, y: int, w: int, h: int) -> None:
        mask = np.zeros((224, 224), dtype=np.float32)
        mask[y : y + h, x : x + w] = 1.0
        blank = np.zeros_like(mask)
        shown = inside(plain_map(blank, mask))
        drawn = [
            (row, column) for row, line in enumerate(shown) for column, mark in enumerate(line) if mark in BOX_DRAWING
        ]
        assert drawn
        rows, columns = zip(*drawn, strict=True)
        assert abs(np.mean(rows) - (y + h / 2) / 224 * 22 + 0.5) <= 1.5
        assert abs(np.mean(columns) - (x + w / 2) / 224 * 44 + 0.5) <= 1.5

    def test_a_small_region_is_seen_beside_a_large_one(self) -> None:
        mask = np.maximum(box_mask(side=224, box=(10, 10, 100, 100)), box_mask(side=224, box=(200, 200, 202, 202)))
        shown = inside(plain_map(np.zeros_like(mask), mask))
        assert any(set(line[35:]) & BOX_DRAWING for line in shown[16:])

    def test_a_hairline_is_seen_along_its_whole_length(self) -> None:
        mask = box_mask(side=224, box=(20, 100, 204, 101))
        assert cells(mask, 22, 44).sum(axis=1).max() == 36

    def test_a_region_of_part_of_a_pixel_is_seen(self) -> None:
        mask = NO_REGION.copy()
        mask[10, 10] = 0.02
        assert cells(mask, 22, 44).sum() == 1

    def test_no_region_has_no_cells(self) -> None:
        assert not cells(NO_REGION, 22, 44).any()

    def test_a_cell_is_the_regions_from_half_on(self) -> None:
        """One column of cells is covered to 0.6, its neighbour to 0.4, beside cells that are covered wholly."""
        mask = np.zeros((10, 50), dtype=np.float32)
        mask[:, 14:36] = 1.0
        assert cells(mask, 1, 5)[0].tolist() == [False, True, True, True, False]
        mask[:, :16] = 0.0
        mask[:, 34:] = 0.0
        assert cells(mask, 1, 5)[0].tolist() == [False, False, True, False, False]


class TestFitted:
    def test_a_direction_with_too_many_is_averaged_while_the_other_is_enlarged(self) -> None:
        """Stripes of one pixel in 20 would be missed by taking a sample in each cell."""
        cam = np.zeros((2, 200), dtype=np.float32)
        cam[1, ::20] = 1.0
        shown = fitted(cam, 8, 10)
        assert shown[:2] == pytest.approx(0.0)
        assert shown[6:] == pytest.approx(0.05)
        assert (np.diff(shown[1:7], axis=0) > 0.0).all()

    def test_what_has_the_size_is_left_as_it_is(self) -> None:
        assert (fitted(corner_map(), 96, 96) == corner_map()).all()


class TestColour:
    def test_two_pixels_to_a_character(self) -> None:
        assert pixels(colour_map(photo(), corner_map(), box_mask())).shape == (44, 44, 3)

    def test_without_heat_it_is_the_dimmed_picture(self) -> None:
        grey = np.full((96, 96, 3), 200, dtype=np.uint8)
        assert set(pixels(colour_map(grey, NO_MAP, NO_REGION)).ravel().tolist()) == {90}  # 0.45 of 200

    def test_the_hottest_place_is_red_and_the_picture_shows_where_it_is_cold(self) -> None:
        shown = pixels(colour_map(photo(), corner_map(), NO_REGION))
        red, green, blue = shown[43, 0]
        assert red > 100
        assert max(green, blue) < 40
        seen = photo()[2:4, 94:96].mean(axis=(0, 1))
        assert np.abs(shown[1, 43] - 0.45 * seen).max() < 3

    def test_the_outline_is_white_and_runs_along_the_regions_rim(self) -> None:
        shown = pixels(
            colour_map(np.zeros((88, 88, 3), np.uint8), np.zeros((88, 88), np.float32), box_mask(88, (20, 30, 60, 70)))
        )
        wanted = np.zeros((44, 44), dtype=bool)
        wanted[15:35, 10:30] = True
        wanted[16:34, 11:29] = False
        assert ((shown == 255).all(axis=-1) == wanted).all()

    def test_a_region_of_one_pixel_is_white(self) -> None:
        mask = box_mask(side=224, box=(100, 100, 101, 101))
        shown = colour_map(photo(224, 224), np.zeros_like(mask), mask)
        assert sum(line.count(WHITE) for line in shown) == 1

    def test_codes_are_written_only_where_the_colour_changes(self) -> None:
        grey = np.full((96, 96, 3), 200, dtype=np.uint8)
        for line in colour_map(grey, NO_MAP, NO_REGION):
            assert line.count("\x1b[") == 2  # the colour and its end

    def test_every_line_ends_its_colours(self) -> None:
        assert all(line.endswith("\x1b[0m│") for line in colour_map(photo(), corner_map(), box_mask()))

    def test_without_truecolor_the_nearest_of_xterms_256_colours_is_used(self) -> None:
        """Against a search through the whole palette: 216 colours of a cube, then 24 greys."""
        steps = (0, 95, 135, 175, 215, 255)
        palette = [(r, g, b) for r in steps for g in steps for b in steps] + [(8 + 10 * n,) * 3 for n in range(24)]
        picture = np.random.default_rng(0).integers(0, 256, (44, 88, 3)).astype(np.uint8)
        cam = np.linspace(0, 1, 44 * 88, dtype=np.float32).reshape(44, 88)
        mask = np.zeros((44, 88), dtype=np.float32)
        mask[10:30, 20:60] = 1.0
        wanted = pixels(colour_map(picture, cam, mask))
        for row, line in enumerate(colour_map(picture, cam, mask, truecolor=False)):
            shown = _indices(line)
            for half in (0, 1):
                for colour, index in zip(wanted[2 * row + half], shown[half], strict=True):
                    distances = np.square(np.array(palette) - colour).sum(axis=1)
                    assert distances[index - 16] == distances.min()


def _indices(line: str) -> tuple[list[int], list[int]]:
    upper: list[int] = []
    lower: list[int] = []
    for codes, blocks in re.findall(r"\x1b\[38;5;(\d+;48;5;\d+)m(▀+)", line):
        top, bottom = codes.split(";48;5;")
        upper += [int(top)] * len(blocks)
        lower += [int(bottom)] * len(blocks)
    return upper, lower
