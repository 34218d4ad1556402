"""How much of each pixel boxes, polygons and their unions cover, against counting and clipping."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, strategies as st

from pytest_gradcam.regions import Region

Floats = npt.NDArray[np.float64]


def block(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.float32]:
    """A box with whole corners, drawn by slicing."""
    canvas = np.zeros((height, width), dtype=np.float32)
    canvas[y0:y1, x0:x1] = 1.0
    return canvas


def shoelace(points: Floats) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def clipped_area(points: Floats, x: int, y: int) -> float:
    """Area of a polygon inside the pixel (x, y): Sutherland and Hodgman's clipping, then the shoelace formula."""
    corners = [tuple(point) for point in points.tolist()]
    for axis, limit, sign in ((0, x, 1), (0, x + 1, -1), (1, y, 1), (1, y + 1, -1)):
        kept: list[tuple[float, ...]] = []
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            da, db = sign * (a[axis] - limit), sign * (b[axis] - limit)
            if da >= 0:
                kept.append(a)
            if (da > 0 > db) or (da < 0 < db):
                t = da / (da - db)
                kept.append(tuple(p + t * (q - p) for p, q in zip(a, b, strict=True)))
        corners = kept
        if not corners:
            return 0.0
    return shoelace(np.array(corners))


class TestBoxes:
    def test_whole_corners_give_exactly_zero_and_one(self) -> None:
        assert np.array_equal(Region.of((36, 6, 76, 46)).rasterise(60, 90), block(60, 90, 36, 6, 76, 46))

    def test_the_result_is_float32(self) -> None:
        assert Region.of((1, 1, 2, 2)).rasterise(4, 4).dtype == np.float32

    def test_boxes_are_half_open(self) -> None:
        """(0, 0, 2, 1) is the first two pixels of the first row, and nothing else."""
        assert np.argwhere(Region.of((0, 0, 2, 1)).rasterise(3, 3)).tolist() == [[0, 0], [0, 1]]

    def test_fractional_edges_cover_by_area(self) -> None:
        expected = np.outer([0.25, 1, 0.5], [0, 0.75, 0.125])
        assert np.array_equal(Region.of((1.25, 0.75, 2.125, 2.5)).rasterise(3, 3), expected.astype(np.float32))

    @given(data=st.data())
    def test_coverage_is_the_share_of_sub_pixels(self, data: st.DataObject) -> None:
        """Corners on eighths of a pixel: counting 8 × 8 sub-pixels is exact."""
        height, width = data.draw(st.integers(2, 9)), data.draw(st.integers(2, 9))
        x0, x1 = sorted(data.draw(st.lists(st.integers(0, 8 * width), min_size=2, max_size=2, unique=True)))
        y0, y1 = sorted(data.draw(st.lists(st.integers(0, 8 * height), min_size=2, max_size=2, unique=True)))
        if max(x1, y1) <= 8:  # would be taken for fractions of the image
            x1 = 16
        fine = block(8 * height, 8 * width, x0, y0, x1, y1)
        expected = fine.reshape(height, 8, width, 8).mean(axis=(1, 3))
        assert np.array_equal(Region.of((x0 / 8, y0 / 8, x1 / 8, y1 / 8)).rasterise(height, width), expected)

    def test_up_to_one_pixel_outside_is_clipped(self) -> None:
        assert np.array_equal(Region.of((-1, -0.5, 5, 5)).rasterise(4, 4), np.ones((4, 4)))

    @pytest.mark.parametrize(
        "value",
        [
            [36, 6, 76, 46],
            np.array([36, 6, 76, 46]),
            np.array([36, 6, 76, 46], dtype=np.uint8),
            (np.float32(36), np.int64(6), 76.0, np.array(46)),
            torch.tensor([36, 6, 76, 46]),
            torch.tensor([36.0, 6, 76, 46], dtype=torch.bfloat16),
            tuple(torch.tensor([36, 6, 76, 46])),
            [(36, 6, 76, 46)],
            np.array([[36, 6, 76, 46]]),
            Region.box(36, 6, 76, 46),
            [Region.box(36, 6, 76, 46)],
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_every_way_to_write_one_box_means_the_same(self, value: object) -> None:
        assert np.array_equal(Region.of(value).rasterise(60, 90), block(60, 90, 36, 6, 76, 46))


class TestUnions:
    def test_a_list_of_boxes_is_their_union(self) -> None:
        expected = np.maximum(block(9, 9, 0, 0, 3, 3), block(9, 9, 2, 2, 5, 7))
        assert np.array_equal(Region.of([(0, 0, 3, 3), (2, 2, 5, 7)]).rasterise(9, 9), expected)
        assert np.array_equal(Region.of(np.array([[0, 0, 3, 3], [2, 2, 5, 7]])).rasterise(9, 9), expected)

    def test_overlaps_count_once(self) -> None:
        assert Region.of([(0, 0, 3, 3), (0, 0, 3, 3)]).rasterise(4, 4).max() == 1.0

    def test_shared_pixels_take_the_larger_part(self) -> None:
        assert Region.of([(0, 0, 1.25, 2), (1.5, 0, 2, 2)]).rasterise(2, 2)[0].tolist() == [1.0, 0.5]

    def test_or_joins_regions_of_different_kinds(self) -> None:
        mask = np.zeros((6, 6), dtype=bool)
        mask[5, 5] = True
        joined = Region.of((0, 0, 2, 2)) | mask | [(3, 0), (5, 0), (5, 2), (3, 2)]
        expected = block(6, 6, 0, 0, 2, 2) + block(6, 6, 3, 0, 5, 2) + block(6, 6, 5, 5, 6, 6)
        assert np.array_equal(joined.rasterise(6, 6), expected)

    def test_a_list_of_polygons_is_their_union(self) -> None:
        polygons = [[(0, 0), (2, 0), (2, 2), (0, 2)], np.array([[3, 3], [5, 3], [5, 5], [3, 5]])]
        expected = block(6, 6, 0, 0, 2, 2) + block(6, 6, 3, 3, 5, 5)
        assert np.array_equal(Region.of(polygons).rasterise(6, 6), expected)


class TestPolygons:
    def test_a_triangle_covers_half_of_the_pixels_on_its_diagonal(self) -> None:
        expected = np.tril(np.ones((4, 4)), -1) + np.eye(4) / 2
        assert np.allclose(Region.of([(0, 0), (4, 4), (0, 4)]).rasterise(4, 4), expected, atol=1e-7)

    def test_an_axis_parallel_polygon_is_the_box(self) -> None:
        box = Region.of((1.3, 2.7, 7.9, 5.2)).rasterise(8, 9)
        corners = [(1.3, 2.7), (7.9, 2.7), (7.9, 5.2), (1.3, 5.2)]
        assert np.allclose(Region.of(corners).rasterise(8, 9), box, atol=1e-6)

    @given(st.integers(0, 2**32 - 1))
    def test_coverage_is_the_clipped_area_of_each_pixel(self, seed: int) -> None:
        """Star-shaped polygons, convex or not, against clipping by the four sides of every pixel."""
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 9))
        angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.9, count)) / count
        radii = rng.uniform(1.5, 4.0, count)
        points = np.stack([4 + radii * np.cos(angles), 5 + radii * np.sin(angles)], axis=1)
        expected = [[clipped_area(points, x, y) for x in range(8)] for y in range(10)]
        assert np.allclose(Region.of(points).rasterise(10, 8), expected, atol=1e-6)

    @pytest.mark.parametrize("turned", [False, True], ids=["clockwise", "counter-clockwise"])
    def test_the_sense_of_rotation_does_not_matter(self, turned: bool) -> None:
        points = np.array([[1, 1], [7, 2], [6, 7], [3, 4.5]])
        assert Region.of(points[::-1] if turned else points).rasterise(9, 9).sum() == pytest.approx(shoelace(points))

    def test_a_repeated_first_point_closes_the_polygon(self) -> None:
        points = [(1, 1), (7, 2), (6, 7)]
        assert Region.of([*points, points[0]]) == Region.of(points)

    def test_what_sticks_out_by_up_to_one_pixel_is_clipped(self) -> None:
        points = np.array([[-1.0, 2.0], [4.0, -1.0], [9.0, 4.0], [4.0, 9.0]])
        expected = [[clipped_area(points, x, y) for x in range(8)] for y in range(8)]
        assert np.allclose(Region.of(points).rasterise(8, 8), expected, atol=1e-6)

    def test_a_polygon_that_crosses_itself_is_filled_in_both_lobes(self) -> None:
        covered = Region.of([(0, 0), (8, 8), (8, 0), (0, 8)]).rasterise(8, 8)
        assert (covered[3, 0], covered[3, 7], covered[0, 3], covered[7, 3]) == (1, 1, 0, 0)

    def test_the_constructor_takes_arrays_and_pairs(self) -> None:
        points = [(1, 1), (7, 2), (6, 7)]
        assert Region.polygon(np.array(points)) == Region.polygon(points) == Region.of(points)
