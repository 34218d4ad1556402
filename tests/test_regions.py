"""Region: what may be written for one, and what is refused in which words."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision import tv_tensors

from pytest_gradcam.errors import RegionError, RegionTypeError
from pytest_gradcam.regions import Region


def block(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.float32]:
    """A box with whole corners, drawn by slicing."""
    canvas = np.zeros((height, width), dtype=np.float32)
    canvas[y0:y1, x0:x1] = 1.0
    return canvas


class TestMasks:
    @pytest.mark.parametrize(
        "convert",
        [
            lambda mask: mask,
            lambda mask: mask.astype(np.uint8),
            lambda mask: mask.astype(np.uint8) * 255,
            torch.from_numpy,
            lambda mask: tv_tensors.Mask(torch.from_numpy(mask)),
            lambda mask: tv_tensors.Mask(torch.from_numpy(mask)[None].to(torch.uint8)),
            Region.mask,
            np.asfortranarray,
        ],
        ids=["bool", "uint8 0 1", "uint8 0 255", "tensor", "Mask", "Mask (1, H, W)", "Region", "Fortran order"],
    )
    def test_every_kind_of_mask_is_itself(self, convert: Any) -> None:
        mask = np.random.default_rng(0).random((7, 13)) > 0.5
        assert np.array_equal(Region.of(convert(mask)).rasterise(7, 13), mask)

    def test_masks_of_many_objects_are_united(self) -> None:
        masks = np.stack([block(5, 6, 0, 0, 2, 2), block(5, 6, 1, 1, 6, 4)]) > 0
        region = Region.of(tv_tensors.Mask(torch.from_numpy(masks)))
        assert np.array_equal(region.rasterise(5, 6), masks.any(axis=0))

    def test_later_changes_of_the_array_do_not_reach_the_region(self) -> None:
        mask = np.ones((3, 3), dtype=bool)
        region = Region.of(mask)
        mask[:] = False
        assert region.rasterise(3, 3).sum() == 9


class TestTorchvisionBoxes:
    @pytest.mark.parametrize(
        ("style", "numbers"), [("XYXY", (10, 20, 30, 50)), ("XYWH", (10, 20, 20, 30)), ("CXCYWH", (20, 35, 20, 30))]
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
    def test_formats_are_converted(self, style: str, numbers: tuple[int, ...], dtype: torch.dtype) -> None:
        boxes = tv_tensors.BoundingBoxes(torch.tensor([numbers], dtype=dtype), format=style, canvas_size=(60, 40))
        assert np.array_equal(Region.of(boxes).rasterise(60, 40), block(60, 40, 10, 20, 30, 50))

    def test_odd_sizes_keep_their_halves(self) -> None:
        boxes = tv_tensors.BoundingBoxes(torch.tensor([[4, 4, 3, 3]]), format="CXCYWH", canvas_size=(9, 9))
        assert str(Region.of(boxes)) == "the box (2.5, 2.5, 5.5, 5.5)"

    @pytest.mark.parametrize(("style", "numbers"), [("XYWHR", 5), ("CXCYWHR", 5), ("XYXYXYXY", 8)])
    def test_rotated_formats_are_refused(self, style: str, numbers: int) -> None:
        boxes = tv_tensors.BoundingBoxes(torch.full((1, numbers), 9.0), format=style, canvas_size=(60, 40))
        with pytest.raises(RegionError) as caught:
            Region.of(boxes)
        assert str(caught.value) == (
            f"BoundingBoxes of format {style} are rotated, and boxes here are parallel to the axes: pass the corners "
            "as a polygon, [(x, y), …]"
        )

    def test_another_canvas_than_the_image_is_refused(self) -> None:
        boxes = tv_tensors.BoundingBoxes(torch.tensor([[10, 20, 30, 50]]), format="XYXY", canvas_size=(60, 40))
        with pytest.raises(RegionError) as caught:
            Region.of(boxes).rasterise(120, 80)
        assert str(caught.value) == (
            "the box (10, 20, 30, 50) was drawn on a canvas 40 wide and 60 high (its canvas_size), and the image is 80 "
            "wide and 120 high: pass the boxes of the picture as it was before any transform"
        )

    def test_none_at_all_is_refused(self) -> None:
        boxes = tv_tensors.BoundingBoxes(torch.zeros((0, 4)), format="XYXY", canvas_size=(60, 40))
        with pytest.raises(RegionError, match=r"^the BoundingBoxes hold no box: a region is a box"):
            Region.of(boxes)

    def test_fractions_are_refused(self) -> None:
        boxes = tv_tensors.BoundingBoxes(torch.tensor([[0.25, 0.5, 0.5, 0.75]]), format="XYXY", canvas_size=(60, 40))
        with pytest.raises(
            RegionError, match=r"^the BoundingBoxes \[\[0\.25, 0\.5, 0\.5, 0\.75\]\]: these look like fra"
        ):
            Region.of(boxes)


KINDS = (
    "a region is a box (x0, y0, x1, y1), a list of boxes, a polygon of at least 3 points (x, y), a boolean mask "
    "(height, width), torchvision BoundingBoxes or Mask, or a Region"
)
FRACTIONS = (
    "these look like fractions of the image, and regions are in pixels of the picture you passed: multiply x by its "
    "width and y by its height (if the very first pixel is meant, write integers)"
)
FRAME = "in pixels of the picture you passed, not of the resized one."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            (100, 30, 50, 20),
            "the box (100, 30, 50, 20) is inside out: x1 (50) must be larger than x0 (100) and y1 (20) must be larger "
            "than y0 (30). Boxes are (x0, y0, x1, y1). If it was (x, y, width, height), write (100, 30, 150, 50).",
        ),
        (
            (10, 20, 10, 30),
            "the box (10, 20, 10, 30) is without area: x1 (10) must be larger than x0 (10). Boxes are (x0, y0, x1, "
            "y1). If it was (x, y, width, height), write (10, 20, 20, 50).",
        ),
        ((0.0, 0, 0, 0), "the box (0, 0, 0, 0) is without area: x1 (0) must be larger than x0 (0) and y1 (0) must be "
         "larger than y0 (0). Boxes are (x0, y0, x1, y1)."),
        (
            (1, 2, float("nan"), 3),
            "the box (1, 2, nan, 3) holds nan: every coordinate must be a finite number of pixels",
        ),
        (
            (1, 2, float("inf"), 3),
            "the box (1, 2, inf, 3) holds inf: every coordinate must be a finite number of pixels",
        ),
        ((1, 2, 10**400, 3), "the box (1, 2, inf, 3) holds inf: every coordinate must be a finite number of pixels"),
        ((1, 2, 3), "a box has 4 numbers, (x0, y0, x1, y1), and this one has 3: (1, 2, 3)."),
        ((1, 2, 3, 4, 5), "a box has 4 numbers, (x0, y0, x1, y1), and this one has 5: (1, 2, 3, 4, 5)."),
        (
            (1, 2, 3, 4, 5, 9),
            "a box has 4 numbers, (x0, y0, x1, y1), and this one has 6: (1, 2, 3, 4, 5, 9). A polygon is a list of "
            "points: [(x, y), …].",
        ),
        (np.arange(3), "a box has 4 numbers, (x0, y0, x1, y1), and this one has 3: (0, 1, 2)."),
        (
            [(1, 2, 3, 4), (5, 6, 7)],
            "item 1 of the list, (5, 6, 7), has 3 numbers: a list of boxes has 4 in each, (x0, y0, x1, y1), and a "
            "polygon has 2, (x, y)",
        ),
        ([], f"the region is an empty list: {KINDS}"),
        ((), f"the region is an empty tuple: {KINDS}"),
        (np.zeros((0, 4)), f"the region is an empty array of shape (0, 4): {KINDS}"),
        ((0.1, 0.2, 0.5, 0.75), f"the box (0.1, 0.2, 0.5, 0.75): {FRACTIONS}"),
        ((0.0, 0.0, 1.0, 1.0), f"the box (0.0, 0.0, 1.0, 1.0): {FRACTIONS}"),
        (np.array([0.5, 0.5, 0.25, 0.25]), f"the box (0.5, 0.5, 0.25, 0.25): {FRACTIONS}"),
        ([(0, 0, 0.5, 1), (0, 0, 1, 1)], f"the boxes [(0, 0, 0.5, 1), (0, 0, 1, 1)]: {FRACTIONS}"),
        ([(0.1, 0.1), (0.9, 0.1), (0.5, 0.9)], f"the polygon [(0.1, 0.1), (0.9, 0.1), (0.5, 0.9)]: {FRACTIONS}"),
        (
            [(1, 2), (30, 40)],
            "the polygon [(1, 2), (30, 40)] has 2 corners and no area: a polygon needs at least 3 points (x, y), and a "
            "box is written (x0, y0, x1, y1)",
        ),
        (
            [(1, 2), (30, 40), (1, 2)],
            "the polygon [(1, 2), (30, 40)] has 2 corners and no area: a polygon needs at least 3 points (x, y), and a "
            "box is written (x0, y0, x1, y1)",
        ),
        (
            [(0, 0), (5, 5), (9, 9)],
            "the polygon [(0, 0), (5, 5), (9, 9)] has no area: its points lie on one line. Give the corners of an "
            "area, in order",
        ),
        (
            [(0, 0), (5, float("nan")), (9, 9)],
            "the polygon [(0, 0), (5, nan), (9, 9)] holds nan: every coordinate must be a finite number of pixels",
        ),
        (
            np.zeros((3, 4), dtype=bool),
            "the mask of shape (3, 4) is empty, nothing in it is True: mark the pixels of the region as True",
        ),
        (
            np.ones((1, 3, 4), dtype=bool),
            "a mask is two-dimensional, (height, width), and this one has shape (1, 3, 4): pass one plane of it, or "
            "mask.any(axis=0) for the union of many",
        ),
        (
            np.ones((2, 5, 5), dtype=np.float32),
            "an array of shape (2, 5, 5) and dtype float32 is no region: boxes are (N, 4), a polygon is (P, 2), and a "
            "mask is boolean (height, width), so that a map of weights is passed as weights > 0.5",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:30],
)  # fmt: skip
def test_a_malformed_region_is_refused_with_the_mend(value: object, message: str) -> None:
    with pytest.raises(RegionError) as caught:
        Region.of(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10,20,30,40", f"'10,20,30,40' of type str is no region: {KINDS}"),
        (b"box", f"b'box' of type bytes is no region: {KINDS}"),
        (None, f"None of type NoneType is no region: {KINDS}"),
        (5, f"5 of type int is no region: {KINDS}"),
        ({"box": (1, 2, 3, 4)}, f"{{'box': (1, 2, 3, 4)}} of type dict is no region: {KINDS}"),
        ((1, 2, "3", 4), f"'3' of type str stands among numbers: {KINDS}"),
        ((1, 2, None, 4), f"None of type NoneType stands among numbers: {KINDS}"),
        ((True, 2, 3, 4), f"True of type bool is no number of pixels: {KINDS}"),
        ([(1, 2, 3, 4), "box"], f"'box' of type str is no region: {KINDS}"),
        (np.array(["a"]), f"an array of dtype <U1 is no region: {KINDS}"),
        (tv_tensors.Image(torch.zeros(3, 4, 4)), f"a torchvision Image is no region: {KINDS}"),
        (
            np.ones((9, 9), dtype=np.float32),
            "an array of shape (9, 9) and dtype float32 is no region: boxes are (N, 4), a polygon is (P, 2), and a "
            "mask is boolean (height, width), so that a map of weights is passed as weights > 0.5",
        ),
        (
            np.full((9, 9), 7, dtype=np.uint8),
            "a uint8 mask holds 0 and 1, or 0 and 255, and this one holds 7: pass a boolean mask, for example mask == "
            "7 or mask > 127",
        ),
        (
            np.arange(81, dtype=np.uint8).reshape(9, 9),
            "a uint8 mask holds 0 and 1, or 0 and 255, and this one holds 0, 1, 2, 3, 4, 5, …: pass a boolean mask, "
            "for example mask == 7 or mask > 127",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:30],
)
def test_a_value_of_the_wrong_type_is_refused_with_what_is_served(value: object, message: str) -> None:
    with pytest.raises(RegionTypeError) as caught:
        Region.of(value)
    assert str(caught.value) == message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Region.mask(np.ones((3, 3), dtype=np.float64)),
            "a mask is boolean, and this one has dtype float64: pass mask > 0.5, or mask != 0",
        ),
        (lambda: Region.mask([[True]]), "a mask is a boolean array (height, width), not list"),  # type: ignore[arg-type]
        (lambda: Region.polygon(5), "5 of type int is no list of points (x, y)"),
        (lambda: Region.polygon([(1, 2), 3]), "3 of type int is no point (x, y) of a polygon"),
    ],
)
def test_the_constructors_refuse_wrong_types(make: Any, message: str) -> None:
    with pytest.raises(RegionTypeError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            (300, 300, 400, 400),
            "the box (300, 300, 400, 400) lies outside the image: it is 224 wide and 200 high. Boxes are (x0, y0, x1, "
            f"y1) {FRAME}",
        ),
        (
            (-50, 10, 0, 20),
            "the box (-50, 10, 0, 20) lies outside the image: it is 224 wide and 200 high. Boxes are (x0, y0, x1, y1) "
            f"{FRAME}",
        ),
        (
            (224, 0, 225, 9),
            "the box (224, 0, 225, 9) lies outside the image: it is 224 wide and 200 high. Boxes are (x0, y0, x1, y1) "
            f"{FRAME}",
        ),
        (
            (100, -4, 300.5, 100),
            "the box (100, -4, 300.5, 100) sticks out of the image by 4 at the top and 76.5 on the right: it is 224 "
            f"wide and 200 high. Boxes are (x0, y0, x1, y1) {FRAME} If it is meant to reach beyond the edge, clip it "
            "there.",
        ),
        (
            (0, 0, 224, 202),
            "the box (0, 0, 224, 202) sticks out of the image by 2 at the bottom: it is 224 wide and 200 high. Boxes "
            f"are (x0, y0, x1, y1) {FRAME} If it is meant to reach beyond the edge, clip it there.",
        ),
        (
            [(0, 300), (10, 300), (10, 400)],
            "the polygon of 3 points (x from 0 to 10, y from 300 to 400) lies outside the image: it is 224 wide and "
            f"200 high. Points are (x, y) {FRAME}",
        ),
        (
            [(-9, 0), (10, 0), (10, 40)],
            "the polygon of 3 points (x from -9 to 10, y from 0 to 40) sticks out of the image by 9 on the left: it is "
            f"224 wide and 200 high. Points are (x, y) {FRAME} If it is meant to reach beyond the edge, clip it "
            "there.",
        ),
        (
            [(1, 1), (9, 1), (9, 9), (9, 1)],
            "the polygon of 4 points (x from 1 to 9, y from 1 to 9) covers nothing of the image, which is 224 wide and "
            "200 high: give the corners of an area inside it",
        ),
        (
            np.ones((100, 50), dtype=bool),
            "the mask of 5000 pixels is 50 wide and 100 high, and the image is 224 wide and 200 high: a mask has one "
            "element for each pixel of the picture you passed, not of the resized one.",
        ),
        (
            np.ones((224, 200), dtype=bool),
            "the mask of 44800 pixels is 200 wide and 224 high, and the image is 224 wide and 200 high: a mask has one "
            "element for each pixel of the picture you passed, not of the resized one. It looks transposed: pass "
            "mask.T.",
        ),
        (
            [(0, 0, 10, 10), (300, 300, 400, 400)],
            "the box (300, 300, 400, 400) lies outside the image: it is 224 wide and 200 high. Boxes are (x0, y0, x1, "
            f"y1) {FRAME}",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:30],
)
def test_a_region_that_does_not_fit_the_image_is_refused(value: object, message: str) -> None:
    with pytest.raises(RegionError) as caught:
        Region.of(value).rasterise(200, 224)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((36, 6, 76, 46), "the box (36, 6, 76, 46)"),
        ((36.5, 6.0, 76.25, 46), "the box (36.5, 6, 76.25, 46)"),
        ([(1, 2, 3, 4), (5, 6, 7, 8)], "the 2 boxes (1, 2, 3, 4), (5, 6, 7, 8)"),
        (
            [(i, 0, i + 1, 5) for i in range(9)],
            "the 9 boxes (0, 0, 1, 5), (1, 0, 2, 5), (2, 0, 3, 5), (3, 0, 4, 5) and 5 more",
        ),
        ([(0, 0), (9, 0), (9, 9), (4, 12), (0, 9)], "the polygon of 5 points"),
        (np.arange(12).reshape(3, 4) > 5, "the mask of 6 pixels"),
        (np.arange(12).reshape(3, 4) > 10, "the mask of 1 pixel"),
        ([(1, 2, 3, 4), [(0, 0), (9, 0), (9, 9)]], "the union of the box (1, 2, 3, 4), the polygon of 3 points"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_region_names_itself(value: object, text: str) -> None:
    assert str(Region.of(value)) == text


def test_an_empty_region_cannot_be_made() -> None:
    with pytest.raises(RegionError, match=r"^the region is empty: a region is a box"):
        Region(())
    with pytest.raises(RegionError, match=r"^the region is empty: a region is a box"):
        Region.union()


@pytest.mark.parametrize("value", [(1, 2, 3, 4), [(1, 2), (9, 2), (9, 9)], np.eye(4, dtype=bool)], ids=repr)
def test_regions_are_values(value: object) -> None:
    """They compare and hash by content, survive pickling, and cannot be changed."""
    region = Region.of(value)
    assert pickle.loads(pickle.dumps(region)) == region == Region.of(value)
    assert len({region, Region.of(value)}) == 1
    with pytest.raises(AttributeError):
        region.shapes = ()  # type: ignore[misc]


def test_importing_and_using_regions_does_not_import_torch() -> None:
    code = (
        "import sys; from pytest_gradcam.regions import Region; Region.of([(1, 2, 3, 4)]).rasterise(9, 9);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
