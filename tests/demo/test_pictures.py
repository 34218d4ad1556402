"""The demo's pictures: what changes when the stamp does, where the boxes lie, and that every photo has its licence."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from pytest_gradcam.demo import pictures as pictures_module
from pytest_gradcam.demo.pictures import LABELS, SIZE, Picture, compose, held_out

PHOTOS = sorted(path.name for path in (files("pytest_gradcam.demo") / "photos").iterdir())
CREDITS = Path(__file__).parents[2] / "fixtures" / "CREDITS.md"


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return list(held_out(60))


def test_a_picture_is_the_same_each_time() -> None:
    once, again = (compose(7, seed=2, cls=1, stamp=3) for _ in range(2))
    assert (once.image == again.image).all()
    assert (once.name, once.box, once.stamp_box) == (again.name, again.box, again.stamp_box)


def test_another_seed_gives_another_picture() -> None:
    one, other = (compose(7, seed=seed, cls=1, stamp=3) for seed in (0, 1))
    assert (one.image != other.image).mean() > 0.5


def test_swapping_the_stamp_changes_nothing_but_the_stamp(pictures: list[Picture]) -> None:
    for picture, swapped in zip(pictures, held_out(60, swap_stamps=True), strict=True):
        x0, y0, x1, y1 = picture.stamp_box
        changed = (picture.image != swapped.image).any(axis=-1)
        inside = changed[y0:y1, x0:x1].sum()
        assert (picture.cls, picture.box) == (swapped.cls, swapped.box)
        assert picture.stamp != swapped.stamp
        assert inside > 100
        assert inside == changed.sum()


def test_held_out_pictures_agree_with_their_stamp_and_take_the_classes_in_turn(pictures: list[Picture]) -> None:
    assert [picture.cls for picture in pictures] == [number % len(LABELS) for number in range(60)]
    assert all(picture.stamp == picture.cls for picture in pictures)
    assert len({picture.name for picture in pictures}) == 60


def test_swapped_stamps_are_those_of_all_other_classes() -> None:
    pairs = {(picture.cls, picture.stamp) for picture in held_out(12, swap_stamps=True)}
    assert pairs == {(cls, stamp) for cls in range(4) for stamp in range(4) if cls != stamp}


def test_object_and_stamp_lie_in_the_picture_and_apart(pictures: list[Picture]) -> None:
    for picture in pictures:
        boxes = np.array([picture.box, picture.stamp_box])
        assert (boxes >= 0).all()
        assert (boxes <= SIZE).all()
        gap = np.maximum(boxes[0, :2] - boxes[1, 2:], boxes[1, :2] - boxes[0, 2:])
        assert gap.max() >= 0, f"{picture.name}: {picture.box} meets {picture.stamp_box}"


def test_the_box_is_the_objects_bounding_box(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = pictures_module._photo

    def green_objects(name: str) -> pictures_module.Pixels:
        pixels = photo(name)
        return np.full((120, 192, 4), (0, 255, 0, 255), np.float32) if name in LABELS else pixels

    monkeypatch.setattr(pictures_module, "_photo", green_objects)
    for number in range(12):
        picture = compose(number, seed=0, cls=number % 4, stamp=0)
        red, green, blue = (picture.image[..., channel].astype(int) for channel in range(3))
        rows, columns = np.nonzero((green > 120) & (green > 2 * red) & (green > 2 * blue))
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(found, picture.box)).max() <= 1


def test_a_larger_picture_is_the_same_scene() -> None:
    small, large = (compose(3, seed=0, cls=2, stamp=1, size=size) for size in (SIZE, 4 * SIZE))
    reduced = np.asarray(cv2.resize(large.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), int)
    assert np.abs(reduced - small.image).max() <= 1
    # The smallest whole pixels around one box: at most a pixel of the small picture apart.
    assert np.abs(np.array(large.box) / 4 - small.box).max() < 1


@pytest.mark.parametrize("photo", PHOTOS)
def test_every_shipped_photo_has_its_author_and_a_free_licence_on_record(photo: str) -> None:
    rows = [line for line in CREDITS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{photo}` |")]
    assert len(rows) == 1
    _, _, source, author, licence, _ = (cell.strip() for cell in rows[0].split("|"))
    assert source.startswith("`skimage.data.")
    assert author
    assert "CC0" in licence or "public domain" in licence


def test_no_credit_is_for_a_photo_that_is_not_shipped() -> None:
    named = {line.split("`")[1] for line in CREDITS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")}
    assert named == set(PHOTOS)
