"""The pictures of a verdict: small, what they claim to be, and enough for a browser to draw them anew."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features

from pytest_gradcam.report.page.pictures import MOST_BYTES, outline_path, pictures_of
from pytest_gradcam.verdicts import Sight
from tests.report.pages import comparing
from tests.report.synthetic import box_mask, corner_raw, explanation, photo, verdict


def decoded(uri: str) -> npt.NDArray[np.uint8]:
    head, _, data = uri.partition(",")
    image = Image.open(BytesIO(base64.b64decode(data, validate=True)))
    assert image.format is not None and head == f"data:image/{image.format.lower()};base64"
    return np.asarray(image.convert("RGB"))


def grid_of(text: str) -> npt.NDArray[np.float32]:
    rows, columns, data = text.split(" ")
    cells = np.frombuffer(base64.b64decode(data, validate=True), np.uint8)
    return cells.reshape(int(rows), int(columns)).astype(np.float32) / np.float32(255.0)


def filled(path: str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """The pixels whose centres lie inside an outline, by OpenCV's test, even-odd."""
    contours = [
        np.array([[float(n) for n in point.split(" ")] for point in part.strip("MZ").split("L")], np.float32)
        for part in re.findall(r"M[^Z]*Z", path)
    ]
    found = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            centre = ((x + 0.5) * 100 / width, (y + 0.5) * 100 / height)
            found[y, x] = sum(cv2.pointPolygonTest(contour, centre, False) > 0 for contour in contours) % 2
    return found


def test_of_a_verdict() -> None:
    found = pictures_of(verdict())
    assert set(found) == {"seen", "overlay", "grid", "outline"}
    assert json.loads(json.dumps(found)) == found
    assert np.abs(decoded(found["seen"]).astype(int) - photo()).mean() < 8.0


def test_overlay_is_hot_where_the_map_is_and_shows_the_region() -> None:
    """Of jet, the corner that the map is hottest in is red, the far one is blue, and the box has a white line."""
    over = decoded(pictures_of(verdict())["overlay"]).astype(int)
    side = over.shape[0]
    hot, cold = over[-8:-2, 2:8].mean((0, 1)), over[2:8, -8:-2].mean((0, 1))
    assert hot[0] - hot[2] > 60 and cold[2] - cold[0] > 30
    edge = over[10 * side // 96 : 40 * side // 96, 36 * side // 96 - 2 : 36 * side // 96 + 4]
    assert edge.min(-1).max(1).mean() > 180


def test_of_two_maps_that_are_compared() -> None:
    """Both, their difference, and both grids: the one before is the one now upside down."""
    found = pictures_of(comparing())
    assert set(found) == {"seen", "before", "now", "difference", "overlay", "grid", "grid_before", "outline", "titles"}
    assert found["overlay"] == found["now"] and found["titles"] == "baseline\ncurrent"
    np.testing.assert_array_equal(grid_of(found["grid"]), grid_of(found["grid_before"])[::-1])
    change = decoded(found["difference"]).astype(int)
    gained, lost = change[-8:-2, 2:8].mean((0, 1)), change[2:8, 2:8].mean((0, 1))
    assert gained[0] - gained[2] > 60 and lost[2] - lost[0] > 60


def test_of_two_pictures() -> None:
    flipped = Sight(explanation(image=photo()[:, ::-1].copy()), title="flipped")
    found = pictures_of(verdict(sights=(replace(verdict().sights[0], title="as it is"), flipped)))
    assert {"second", "grid_second"} <= set(found) and found["titles"] == "as it is\nflipped"
    assert "before" not in found


def test_of_predictions_alone_there_are_none() -> None:
    assert pictures_of(verdict(sights=())) == {}


def test_without_a_region_there_is_no_outline() -> None:
    assert "outline" not in pictures_of(verdict(sights=(Sight(explanation()),)))


def test_grid_is_the_map() -> None:
    """ReLU and the maximum, in steps of 1/255; nothing where nothing speaks for the class."""
    raw = corner_raw() - np.float32(0.3)
    found = grid_of(pictures_of(verdict(explanation=explanation(raw=raw)))["grid"])
    np.testing.assert_allclose(found, np.maximum(raw, 0) / raw.max(), atol=0.5 / 255 + 1e-6)
    nothing = pictures_of(verdict(explanation=explanation(evidence=0.0)))["grid"]
    assert not grid_of(nothing).any()


def test_grid_of_a_fine_map_is_coarse_enough() -> None:
    fine = np.asarray(cv2.resize(corner_raw(), (300, 150)), np.float32)
    assert grid_of(pictures_of(verdict(explanation=explanation(raw=fine)))["grid"]).shape == (14, 28)


@pytest.mark.parametrize("shape", [(1, 1), (7, 900), (900, 7), (1300, 2000)])
def test_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.float32)
    mask[: (shape[0] + 1) // 2] = 1.0
    found = pictures_of(verdict(explanation=explanation(image=photo(*shape)), mask=mask))
    for name in ("seen", "overlay"):
        assert max(decoded(found[name]).shape[:2]) <= 224


def test_they_are_small() -> None:
    """Noise, the worst that there is, in four pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    sights = tuple(
        Sight(explanation(image=noise, raw=raw), title="x") for raw in (corner_raw(), corner_raw()[::-1].copy())
    )
    of_noise = pictures_of(verdict(sights=sights, compared=True))
    assert sum(map(len, of_noise.values())) < 55_000
    smooth = cv2.GaussianBlur(noise, (0, 0), 3.0)
    sights = tuple(replace(sight, explanation=explanation(image=smooth)) for sight in sights)
    of_a_photo = pictures_of(verdict(sights=sights, compared=True))
    assert sum(len(of_a_photo[name]) for name in ("seen", "before", "now", "difference")) * 3 / 4 <= MOST_BYTES


def test_jpeg_where_pillow_knows_no_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    assert pictures_of(verdict())["seen"].startswith("data:image/jpeg;base64,")
    assert decoded(pictures_of(verdict())["seen"]).shape == (96, 96, 3)


class TestTheOutline:
    def test_of_a_box_is_its_edges(self) -> None:
        path = outline_path(box_mask(100, (20, 30, 60, 90)))
        points = {tuple(map(float, point.split(" "))) for point in path.strip("MZ").split("L")}
        assert points == {(20.0, 30.0), (60.0, 30.0), (60.0, 90.0), (20.0, 90.0)}

    @pytest.mark.parametrize("kind", ["disc", "ring", "two", "pixel", "all", "corner"])
    def test_of_any_region_holds_its_pixels(self, kind: str) -> None:
        """A few pixels at a slanted edge aside, which the outline cuts straight."""
        y, x = np.mgrid[:40, :60]
        radius = np.hypot(x - 30, y - 20)
        mask: Any = {
            "disc": radius < 15,
            "ring": (radius < 18) & (radius > 8),
            "two": ((x > 5) & (x < 15)) | ((x > 40) & (y < 12)),
            "pixel": (x == 17) & (y == 23),
            "all": x >= 0,
            "corner": (x >= 50) & (y >= 30),
        }[kind]
        found = filled(outline_path(mask.astype(np.float32)), 40, 60)
        assert (found != mask).sum() <= 0.06 * mask.sum()

    def test_of_a_ragged_region_is_short(self) -> None:
        noise = (np.random.default_rng(0).random((224, 224)) < 0.5).astype(np.float32)
        assert len(outline_path(noise)) < 10_000
