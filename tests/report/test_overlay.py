"""The overlay: two panels with the right pixels in the right places, and a file that is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pytest_gradcam.cam.heatmap import blend
from pytest_gradcam.report.overlay import is_overlay, outline, picture, save_overlay
from tests.report.synthetic import box_mask, explanation, photo, verdict

GAP = 8
GREY = np.full((96, 96, 3), 128, dtype=np.uint8)


def panels(height: int, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The two panels of the overlay of a picture of that size."""
    seen = explanation(image=photo(height, width))
    mask = np.zeros((height, width), dtype=np.float32)
    mask[: height // 2, : width // 2] = 1.0
    drawn = picture(verdict(explanation=seen, mask=mask))
    wide = (drawn.shape[1] - 3 * GAP) // 2
    high = round(wide * height / width)
    return drawn[GAP : GAP + high, GAP : GAP + wide], drawn[GAP : GAP + high, 2 * GAP + wide : 2 * GAP + 2 * wide]


class TestPicture:
    def test_the_left_panel_is_what_the_model_saw_each_pixel_a_square(self) -> None:
        left, _ = panels(96, 96)
        assert left.shape == (384, 384, 3)
        assert (left == np.kron(photo(), np.ones((4, 4, 1), dtype=np.uint8))).all()

    def test_the_right_panel_is_the_map_over_it_away_from_the_outline(self) -> None:
        _, right = panels(384, 512)
        wanted = blend(photo(384, 512), explanation(image=photo(384, 512)).cam)
        assert (right[220:, :] == wanted[220:, :]).all()
        assert (right[:, 290:] == wanted[:, 290:]).all()

    @pytest.mark.parametrize(
        ("frame", "panel"),
        [
            ((8, 8), (320, 320)),
            ((96, 96), (384, 384)),
            ((224, 224), (448, 448)),
            ((320, 240), (320, 240)),
            ((100, 50), (400, 200)),
            ((1024, 512), (1024, 512)),
            ((3000, 2000), (1024, 683)),
        ],
    )
    def test_a_panel_is_neither_too_small_to_see_nor_larger_than_it_need_be(
        self, frame: tuple[int, int], panel: tuple[int, int]
    ) -> None:
        left, right = panels(*frame)
        assert left.shape == right.shape == (*panel, 3)

    @pytest.mark.parametrize("message", ["é 猫 × … ≤", "long " * 200, ""])
    def test_any_first_line_can_be_its_caption(self, message: str) -> None:
        assert picture(verdict(message=message)).shape == picture(verdict()).shape

    def test_the_caption_fits_its_strip(self) -> None:
        """The margin right of the text stays paper, however long the line."""
        strip = picture(verdict(message="W" * 500))[-26:]
        assert (strip[:, -4:] == strip[0, -1]).all()
        assert (strip[:, 100:-100] != strip[0, -1]).any()


class TestOutline:
    def test_white_inside_the_rim_black_on_both_sides_and_nothing_else_is_touched(self) -> None:
        drawn = outline(GREY, box_mask(box=(20, 30, 60, 70)), width=2)
        row = drawn[50, :, 0].tolist()
        assert row[18:24] == [128, 0, 255, 255, 0, 128]
        assert row[56:62] == [128, 0, 255, 255, 0, 128]
        assert row[:18] == [128] * 18
        assert row[24:56] == [128] * 32

    @pytest.mark.parametrize("ground", [0, 255])
    def test_it_is_seen_on_black_and_on_white(self, ground: int) -> None:
        drawn = outline(np.full((96, 96, 3), ground, dtype=np.uint8), box_mask())
        assert {0, 255} <= set(drawn.ravel().tolist())

    def test_a_region_at_the_edge_is_closed_there(self) -> None:
        drawn = outline(GREY, box_mask(box=(0, 0, 40, 40)), width=2)
        assert (drawn[:40, 0] == 255).all()
        assert (drawn[0, :40] == 255).all()

    def test_a_region_of_one_pixel_is_seen(self) -> None:
        drawn = outline(GREY, box_mask(box=(50, 50, 51, 51)), width=2)
        assert (drawn == 255).all(axis=-1).sum() == 1
        assert (drawn == 0).all(axis=-1).sum() == 8

    def test_a_region_of_part_of_a_pixel_is_seen(self) -> None:
        mask = np.zeros((96, 96), dtype=np.float32)
        mask[50, 50] = 0.1
        assert (outline(GREY, mask) == 255).any()

    def test_it_follows_a_region_of_any_shape(self) -> None:
        y, x = np.mgrid[:96, :96]
        radius = np.hypot(x - 48, y - 48)
        drawn = outline(GREY, (radius < 30).astype(np.float32), width=2)
        white = (drawn == 255).all(axis=-1)
        assert radius[white].min() > 26
        assert radius[white].max() < 30
        assert len({round(float(angle), 1) for angle in np.arctan2(y - 48, x - 48)[white]}) > 60

    def test_the_picture_given_is_not_drawn_on(self) -> None:
        before = GREY.copy()
        outline(GREY, box_mask())
        assert (before == GREY).all()


class TestSave:
    def test_the_file_holds_the_picture_in_missing_folders(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folders" / "it.png"
        assert save_overlay(verdict(), path) == path
        read = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_COLOR)
        assert read is not None
        assert (read[..., ::-1] == picture(verdict())).all()

    def test_the_file_bears_the_mark_and_others_do_not(self, tmp_path: Path) -> None:
        ours = save_overlay(verdict(), tmp_path / "ours.png")
        with Image.open(ours) as opened:
            assert opened.info["Software"] == "pytest-gradcam"
        assert is_overlay(ours)
        theirs = tmp_path / "theirs.png"
        Image.fromarray(picture(verdict())).save(theirs)
        (tmp_path / "text.png").write_bytes(ours.read_bytes()[33:])  # the mark, in a file that is no PNG
        (tmp_path / "folder.png").mkdir()
        for name in ("theirs.png", "text.png", "folder.png", "absent.png"):
            assert not is_overlay(tmp_path / name)

    def test_nothing_else_is_left_in_the_folder(self, tmp_path: Path) -> None:
        save_overlay(verdict(), tmp_path / "it.png")
        assert [path.name for path in tmp_path.iterdir()] == ["it.png"]

    def test_an_earlier_file_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "it.png"
        path.write_bytes(b"old")
        save_overlay(verdict(), path)
        assert path.read_bytes().startswith(b"\x89PNG")

    def test_where_it_fails_the_earlier_file_is_whole_and_no_draft_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "it.png"
        path.write_bytes(b"old")

        def full(source: os.PathLike[str], target: os.PathLike[str]) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            save_overlay(verdict(), path)
        assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("it.png", b"old")]
