"""CocoSource: what is asked of each image of a COCO file, and what is said of each thing that is wrong in one."""

from __future__ import annotations

import copy
import json
import pickle
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from pytest_gradcam.audit.data.coco import CocoSource
from pytest_gradcam.audit.data.sample import Asked, DataSetError, SampleError, Source
from pytest_gradcam.errors import GradcamError
from pytest_gradcam.regions import Region
from tests.audit.data.generated import class_name, coco_data_set, squares

HEIGHT, WIDTH = 40, 60
Flags = npt.NDArray[np.bool_]


def data(*annotations: dict[str, Any], **image: Any) -> dict[str, Any]:
    """A COCO file of one picture, `a.jpg`, with categories 3 `cat` and 7 `dog`."""
    full = [{"id": place + 1, "image_id": 5, "category_id": 3} | each for place, each in enumerate(annotations)]
    return {
        "images": [{"id": 5, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT} | image],
        "annotations": full,
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    Image.new("RGB", (WIDTH, HEIGHT), "green").save(folder / "a.jpg")
    Image.new("RGB", (WIDTH, HEIGHT), "blue").save(folder / "b.jpg")
    return folder


def source(folder: Path, content: Any) -> CocoSource:
    file = folder / "file.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return CocoSource(file, folder)


def asked(folder: Path, *annotations: dict[str, Any]) -> tuple[Asked, ...]:
    return source(folder, data(*annotations))[0].asked


def only(folder: Path, *annotations: dict[str, Any]) -> Asked:
    (one,) = asked(folder, *annotations)
    return one


def drawn(one: Asked) -> npt.NDArray[np.float32]:
    assert one.region is not None, one.why
    return one.region.rasterise(HEIGHT, WIDTH)


def some_mask(seed: int = 0) -> Flags:
    """A blob with a hole, and a speck."""
    rng = np.random.default_rng(seed)
    flags = np.zeros((HEIGHT, WIDTH), dtype=bool)
    flags[5:25, 10:30] = True
    flags[10:15, 12:20] = False
    flags[rng.integers(HEIGHT), rng.integers(WIDTH)] = True
    return flags


def run_lengths(flags: Flags) -> list[int]:
    """Down the columns, beginning with the zeros: https://cocodataset.org/#format-data, written out."""
    runs, value, length = [], False, 0
    for flag in flags.T.ravel():
        if flag != value:
            runs.append(length)
            value, length = bool(flag), 0
        length += 1
    return [*runs, length]


class TestRegions:
    def test_generated_boxes_come_back(self, tmp_path: Path) -> None:
        """Every class of every picture covers exactly its squares."""
        file, images = coco_data_set(tmp_path, 6, (60, 80), classes=3)
        read = CocoSource(file, images)
        assert isinstance(read, Source)
        assert read.categories == ("colour00", "colour01", "colour02")
        for index in range(6):
            sample = read[index]
            truth = squares(index, (60, 80), 3)
            assert [one.cls for one in sample.asked] == sorted({square.cls for square in truth})
            for one in sample.asked:
                wanted = np.zeros((60, 80), dtype=np.float32)
                for square in truth:
                    if square.cls == one.cls:
                        wanted[square.y0 : square.y1, square.x0 : square.x1] = 1
                assert one.region is not None
                np.testing.assert_array_equal(one.region.rasterise(60, 80), wanted)
            assert sample.about == {"light": ("day", "night")[index % 2]}
            assert sample.key == read.key(index) == f"{index:06d}.jpg"
            assert sample.image == images / f"{index:06d}.jpg"

    def test_classes_are_places_in_the_order_of_ids(self, folder: Path) -> None:
        """Category 3 is written after 7, and comes first."""
        read = source(folder, data({"bbox": [1, 1, 4, 4], "category_id": 7}, {"bbox": [9, 9, 4, 4]}))
        assert read.categories == ("cat", "dog")
        assert [(one.cls, one.region) for one in read[0].asked] == [
            (0, Region.box(9, 9, 13, 13)),
            (1, Region.box(1, 1, 5, 5)),
        ]

    def test_compressed_run_lengths(self, folder: Path) -> None:
        """What pycocotools encodes is the mask again, whatever the bbox says."""
        flags = some_mask()
        coded = coco_mask.encode(np.asfortranarray(flags.astype(np.uint8)))
        text = {"size": coded["size"], "counts": coded["counts"].decode()}
        np.testing.assert_array_equal(drawn(only(folder, {"segmentation": text, "bbox": [0, 0, 60, 40]})), flags)

    @given(flags=st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).random((9, 7)) < 0.4))
    def test_run_lengths_of_any_mask(self, tmp_path_factory: pytest.TempPathFactory, flags: Flags) -> None:
        """Both forms give the mask that was encoded."""
        flags[4, 4] = True
        folder = tmp_path_factory.mktemp("runs")
        Image.new("RGB", (7, 9)).save(folder / "a.jpg")
        coded = coco_mask.encode(np.asfortranarray(flags.astype(np.uint8)))
        for counts in (coded["counts"].decode(), run_lengths(flags)):
            read = source(folder, data({"segmentation": {"size": [9, 7], "counts": counts}}, width=7, height=9))
            (one,) = read[0].asked
            assert one.region is not None, one.why
            np.testing.assert_array_equal(one.region.rasterise(9, 7), flags)

    def test_long_compressed_runs(self, folder: Path, tmp_path: Path) -> None:
        """Run lengths beyond 16 bits, as one object in a large picture has them."""
        flags = np.zeros((700, 900), dtype=bool)
        flags[300:310, 400:420] = True
        flags[650:, 880:] = True
        Image.new("RGB", (900, 700)).save(tmp_path / "a.jpg")
        coded = coco_mask.encode(np.asfortranarray(flags.astype(np.uint8)))
        text = {"size": [700, 900], "counts": coded["counts"].decode()}
        (one,) = source(tmp_path, data({"segmentation": text}, width=900, height=700))[0].asked
        assert one.region is not None, one.why
        np.testing.assert_array_equal(one.region.rasterise(700, 900), flags)

    def test_polygon_covers_what_pycocotools_draws(self, folder: Path) -> None:
        """But for the pixels at its edge, of which pycocotools takes all or nothing."""
        polygon = [10.5, 5.25, 45.0, 8.0, 50.0, 30.5, 30.0, 22.0, 12.0, 35.0]
        covered = drawn(only(folder, {"segmentation": [polygon], "bbox": [0, 0, 1, 1]}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools and numpy 2
            peer = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)))
        # It rounds corners to pixels' edges, by up to half a pixel: no pixel far from an edge may differ.
        inner = (covered == 1) | (covered == 0)
        assert (peer[inner] == covered[inner]).mean() > 0.99
        points = np.array(polygon).reshape(-1, 2)
        x, y = points.T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2  # the shoelace formula
        assert covered.sum() == pytest.approx(area, rel=1e-5)

    def test_objects_of_a_class_are_united(self, folder: Path) -> None:
        """Polygons of one annotation, a mask and a box of others: everything that any covers, and nothing else."""
        flags = np.zeros((HEIGHT, WIDTH), dtype=bool)
        flags[30:35, 50:55] = True
        more = np.zeros((HEIGHT, WIDTH), dtype=bool)
        more[33:38, 53:58] = True
        one = only(
            folder,
            {"segmentation": [[1, 1, 5, 1, 5, 5, 1, 5], [8, 1, 12, 1, 12, 5, 8, 5]]},
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": run_lengths(flags)}},
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": run_lengths(more)}},
            {"segmentation": [], "bbox": [20, 20, 3, 4]},
        )
        wanted = flags | more
        wanted[1:5, 1:5] = wanted[1:5, 8:12] = wanted[20:24, 20:23] = True
        np.testing.assert_array_equal(drawn(one), wanted)

    def test_crowd_is_part_of_the_region(self, folder: Path) -> None:
        """With a note, as it is no single object."""
        flags = some_mask()
        one = only(
            folder,
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": run_lengths(flags)}, "iscrowd": 1},
        )
        np.testing.assert_array_equal(drawn(one), flags)
        assert one.notes == ("a crowd (iscrowd) is part of the region",)

    def test_box_of_the_first_pixel_is_no_fraction(self, folder: Path) -> None:
        """JSON does not tell 1 from 1.0, and this is one whole pixel."""
        assert drawn(only(folder, {"bbox": [0, 0, 1.0, 1]})).sum() == 1

    def test_box_a_pixel_too_far_stays(self, folder: Path) -> None:
        """Regions may stick out by a pixel: rounding is no fault, and gets no note."""
        one = only(folder, {"bbox": [50, 30, 10.6, 10.9]})
        assert one.notes == ()
        assert drawn(one).sum() == 100

    def test_box_further_out_is_clipped_with_a_note(self, folder: Path) -> None:
        """The part of the object that is in the picture is where the model can look."""
        one = only(folder, {"bbox": [-5, 30, 15, 30]})
        assert one.region == Region.box(0, 30, 10, 40)
        assert one.notes == ("the box (-5, 30, 10, 60) was clipped to the image, which is 60 wide and 40 high",)

    def test_polygon_further_out_is_clipped_with_a_note(self, folder: Path) -> None:
        """A triangle of which the lower half is outside."""
        one = only(folder, {"segmentation": [[10, 20, 50, 20, 50, 60, 10, 60]]})
        wanted = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
        wanted[20:, 10:50] = 1
        np.testing.assert_allclose(drawn(one), wanted, atol=1e-6)
        assert "was clipped to the image" in one.notes[0]

    def test_image_without_annotations_asks_nothing(self, folder: Path) -> None:
        assert asked(folder) == ()

    def test_about_has_what_describes_the_image(self, folder: Path) -> None:
        """Scalars that are not COCO's own; no lists, no long texts, nothing that is not finite."""
        image = {"weather": "rain", "hour": 7, "night": False, "blur": 0.5, "license": 1, "coco_url": "http://x/"}
        odd = {"tags": ["a"], "log": "x" * 1000, "sharp": float("nan"), "none": None, "half": "\ud800"}
        sample = source(folder, data(**image, **odd))[0]
        assert sample.about == {"weather": "rain", "hour": "7", "night": "False", "blur": "0.5", "half": "\\ud800"}


class TestBrokenAnnotations:
    """One that cannot be used leaves the region of its class unknown, and says why."""

    @pytest.mark.parametrize(
        ("annotation", "why"),
        [
            ({"bbox": [70, 5, 10, 10]}, "the box (70, 5, 80, 15) lies outside the image: it is 60 wide and 40 high"),
            ({"bbox": [5, 5, 0, 10]}, "[5, 5, 0, 10]: width and height must be above 0"),
            ({"bbox": [5, 5, -3, 10]}, "[5, 5, -3, 10]: width and height must be above 0"),
            ({"bbox": [5, 5, float("nan"), 10]}, "holds nan"),
            ({"bbox": [5, 5, float("inf"), 10]}, "holds inf"),
            ({"bbox": [5, 5, "8", 10]}, "its bbox is [5, 5, '8', 10]: it must be 4 numbers"),
            ({"bbox": [5, 5, 10]}, "its bbox is [5, 5, 10]: it must be 4 numbers"),
            ({"bbox": "5 5 10 10"}, "its bbox is '5 5 10 10'"),
            ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "look like fractions of the image"),
            ({"bbox": None}, "it has neither a segmentation nor a bbox"),
            ({}, "it has neither a segmentation nor a bbox"),
            ({"segmentation": [[1, 1, 5, 5]]}, "[1, 1, 5, 5]: it must be an even number of numbers, at least 6"),
            ({"segmentation": [[1, 1, 5, 5, 9, 2, 3]]}, "it must be an even number of numbers"),
            ({"segmentation": [[1, 1, 5, None, 9, 2]]}, "[1, 1, 5, None, 9, 2]"),
            ({"segmentation": [1, 1, 5, 1, 5, 5]}, "a polygon of its segmentation is 1"),
            ({"segmentation": [[1, 1, 5, 5, 9, 9]]}, "has no area"),
            ({"segmentation": [[100, 1, 105, 1, 105, 5]]}, "lies outside the image"),
            ({"segmentation": "x"}, "its segmentation is 'x'"),
            ({"segmentation": {"size": [60, 40], "counts": [2400]}}, "the size [60, 40], and must have"),
            ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "nothing in it is True"),
            ({"segmentation": {"size": [40, 60], "counts": [5, 10]}}, "fill 15 pixels, and the image has 2400"),
            ({"segmentation": {"size": [40, 60], "counts": [-5, 2405]}}, "they are no run lengths"),
            ({"segmentation": {"size": [40, 60], "counts": [1.5, 2]}}, "they are no run lengths"),
            ({"segmentation": {"size": [40, 60], "counts": ""}}, "fill 0 pixels"),
            ({"segmentation": {"size": [40, 60], "counts": "o"}}, "they are no run lengths"),
            ({"segmentation": {"size": [40, 60], "counts": "\u00e4\u0000"}}, "they are no run lengths"),
            ({"segmentation": {"size": [40, 60], "counts": "o" * 40 + "1"}}, "they are no run lengths"),
            ({"segmentation": {}}, "its segmentation has the size None"),
            ({"iscrowd": "yes", "bbox": [1, 1, 5, 5]}, "its iscrowd is 'yes'"),
        ],
        ids=str,
    )
    def test_why(self, folder: Path, annotation: dict[str, Any], why: str) -> None:
        """Its id and its values are named; a right bbox does not stand in for a broken segmentation."""
        with_box = {"bbox": [2, 2, 6, 6]} | annotation if "segmentation" in annotation else annotation
        one = only(folder, {"bbox": [20, 20, 5, 5]}, with_box)
        assert one.region is None
        assert one.why.startswith("annotation 2: ")
        assert why in one.why

    def test_other_classes_keep_their_regions(self, folder: Path) -> None:
        cat, dog = asked(folder, {"bbox": [5, 5, 0, 0]}, {"bbox": [5, 5, 9, 9], "category_id": 7})
        assert (cat.region, dog.region) == (None, Region.box(5, 5, 14, 14))

    def test_unknown_category_is_recorded(self, folder: Path) -> None:
        """It is another class's object, so that the cat's region is whole."""
        cat, unknown = asked(folder, {"bbox": [5, 5, 9, 9], "category_id": 99}, {"bbox": [5, 5, 9, 9]})
        assert cat.region == Region.box(5, 5, 14, 14)
        assert unknown == Asked(None, None, "annotation 1: its category_id is 99, and the file names no such category")

    @pytest.mark.parametrize("category", [None, [3], 3.5, True, {}])
    def test_no_category_may_be_any(self, folder: Path, category: object) -> None:
        """Nothing tells whose region lacks it: all are unknown."""
        one = only(folder, {"bbox": [5, 5, 9, 9]}, {"bbox": [25, 5, 9, 9], "category_id": category})
        assert (one.cls, one.region) == (0, None)
        assert "annotation 2: its category_id is" in one.why

    def test_same_annotation_twice_counts_once(self, folder: Path) -> None:
        one = only(folder, *[{"id": 4, "bbox": [5, 5, 9, 9]}] * 3)
        assert one.region == Region.box(5, 5, 14, 14)
        assert one.notes == ("annotation 4 is there twice, and was counted once",)

    def test_different_annotations_of_one_id(self, folder: Path) -> None:
        """Which of them is meant cannot be told."""
        cat, dog = asked(folder, {"id": 4, "bbox": [5, 5, 9, 9]}, {"id": 4, "bbox": [5, 5, 9, 9], "category_id": 7})
        assert cat.region is dog.region is None
        assert cat.why == dog.why == "annotation 4: another annotation has the same id, and is not the same"

    def test_annotations_without_id_are_named_by_place(self, folder: Path) -> None:
        one = only(folder, {"id": None, "bbox": [5, 5, 9, 9]}, {"id": None, "bbox": [0, 0, 0, 0]})
        assert one.why.startswith("annotations[1]: ")

    def test_many_faults_are_cut_short(self, folder: Path) -> None:
        one = only(folder, *[{"bbox": [5, 5, -place, 9]} for place in range(50)])
        assert one.why.endswith("; and 47 more like these")

    def test_annotations_of_no_image_are_remarked(self, folder: Path) -> None:
        """They change no image, and are not forgotten."""
        content = data({"bbox": [5, 5, 9, 9]}, {"bbox": [5, 5, 9, 9], "image_id": 6}, {"image_id": [5]}, {})
        content["annotations"] += [None, 7]
        read = source(folder, content)
        assert read.remarks == (
            "4 of 6 annotations belong to no image of the file: annotation 2, annotation 3, annotations[4], …",
        )
        assert source(folder, data()).remarks == ()


class TestBrokenImages:
    """What is wrong with one entry is said where it is asked for; its key can be told all the same."""

    @pytest.mark.parametrize(
        ("image", "why"),
        [
            ({"file_name": "none.jpg"}, "there is no picture 'none.jpg'"),
            ({"file_name": "../a.jpg"}, "leads out of the folder"),
            ({"file_name": "b/../../a.jpg"}, "leads out of the folder"),
            ({"file_name": "..\\a.jpg"}, "leads out of the folder"),
            ({"file_name": "/etc/hostname"}, "leads out of the folder"),
            ({"file_name": "C:\\a.jpg"}, "leads out of the folder"),
            ({"file_name": "C:a.jpg"}, "leads out of the folder"),
            ({"file_name": "a\0.jpg"}, "there is no picture"),
            ({"file_name": "\ud800.jpg"}, "there is no picture"),
            ({"file_name": "x" * 5000}, "there is no picture"),
            ({"file_name": "."}, "there is no picture"),
            ({"file_name": ""}, "no file name, but ''"),
            ({"file_name": None}, "no file name, but None"),
            ({"file_name": ["a.jpg"]}, "no file name, but ['a.jpg']"),
            ({"file_name": "text.jpg"}, "'text.jpg' cannot be opened"),
            ({"width": 61}, "a picture 61 wide and 40 high, and 'a.jpg' is 60 wide and 40 high"),
            ({"width": "60"}, "a picture '60' wide"),
            ({"width": True}, "a picture True wide"),
            ({"height": None}, "None high"),
            ({"id": [5]}, "has for its id [5]"),
            ({"id": None}, "has for its id None"),
        ],
        ids=str,
    )
    def test_why(self, folder: Path, image: dict[str, Any], why: str) -> None:
        (folder / "text.jpg").write_text("no picture")
        read = source(folder, data({"bbox": [1, 1, 5, 5]}, **image))
        read.key(0).encode()
        with pytest.raises(SampleError) as error:
            read[0]
        assert why in str(error.value)
        str(error.value).encode()

    def test_entry_that_is_no_object(self, folder: Path) -> None:
        content = data()
        content["images"].append("b.jpg")
        read = source(folder, content)
        assert (len(read), read.key(1)) == (2, "#1")
        with pytest.raises(SampleError, match=r"entry 1 of the images is 'b.jpg', and no object"):
            read[1]

    def test_size_that_is_not_stated_is_not_checked(self, folder: Path) -> None:
        content = data({"bbox": [50, 30, 10, 10]})
        del content["images"][0]["width"], content["images"][0]["height"]
        assert drawn(source(folder, content)[0].asked[0]).sum() == 100

    def test_same_image_id_twice(self, folder: Path) -> None:
        """The first has the annotations; the second is recorded."""
        content = data({"bbox": [1, 1, 5, 5]})
        content["images"].append({"id": 5, "file_name": "b.jpg"})
        read = source(folder, content)
        assert read[0].asked[0].region == Region.box(1, 1, 6, 6)
        with pytest.raises(SampleError, match="image id 5 is there twice"):
            read[1]

    def test_same_file_twice_has_two_keys(self, folder: Path) -> None:
        content = data()
        content["images"] += [{"id": 6, "file_name": "./a.jpg"}, {"id": 7, "file_name": "a.jpg#5"}]
        read = source(folder, content)
        assert [read.key(index) for index in range(3)] == ["a.jpg#5", "a.jpg#6", "a.jpg#5#2"]

    def test_link_to_another_disk_is_followed(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "sub").symlink_to(folder, target_is_directory=True)
        assert source(tmp_path, data({"bbox": [1, 1, 5, 5]}, file_name="sub/a.jpg"))[0].key == "sub/a.jpg"

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
    def test_turned_picture(self, tmp_path: Path, suffix: str) -> None:
        """The model gets it upright: annotations for it unturned are refused, others noted."""
        picture = Image.new("RGB", (HEIGHT, WIDTH))
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(tmp_path / f"a.{suffix}", exif=exif)
        read = source(tmp_path, data({"bbox": [50, 30, 10, 10]}, file_name=f"a.{suffix}"))
        assert "EXIF orientation, 6" in read[0].asked[0].notes[0]
        assert drawn(read[0].asked[0]).sum() == 100
        unturned = data({"bbox": [1, 1, 5, 5]}, file_name=f"a.{suffix}", width=HEIGHT, height=WIDTH)
        with pytest.raises(SampleError, match="that size before its EXIF orientation, 6, turns it"):
            source(tmp_path, unturned)[0]


class TestWholeFile:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "no JSON that can be read"),
            (b"{", "no JSON that can be read"),
            (b"\xff\xfe\xff", "no JSON that can be read"),
            (b"[" * 10**6, "no JSON that can be read"),
            (b'{"images":' * 10**5, "no JSON that can be read"),
            (b"[1]", "it holds a list, and not an object"),
            (b"{}", "it has no images"),
            (b'{"images": {}, "annotations": [], "categories": []}', "it has for images a dict"),
            (b'{"images": [], "annotations": [], "categories": []}', "has no images"),
            (b'{"images": [{}], "categories": [{"id": 1, "name": "a"}]}', "it has no annotations"),
            (b'{"images": [{}], "annotations": [], "categories": []}', "has no categories"),
            (b'{"images": [{}], "annotations": [], "categories": [3]}', "category 0 of the COCO file is 3"),
            (b'{"images": [{}], "annotations": [], "categories": [{"id": 1}]}', "needs an id and a name"),
            (b'{"images": [{"id": 1' + b"0" * 5000 + b"}]}", "no JSON that can be read"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_no_coco_file(self, folder: Path, content: bytes, why: str) -> None:
        with pytest.raises(DataSetError) as error:
            source(folder, content)
        assert why in str(error.value)

    @pytest.mark.parametrize(
        ("second", "why"),
        [
            ({"id": 7, "name": "cat"}, "two categories of name 'cat'"),
            ({"id": 3, "name": "dog"}, "two categories of id 3: 'cat' and 'dog'"),
        ],
    )
    def test_categories_twice(self, folder: Path, second: dict[str, Any], why: str) -> None:
        content = data()
        content["categories"] = [{"id": 3, "name": "cat"}, second]
        with pytest.raises(DataSetError, match=why):
            source(folder, content)

    def test_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataSetError, match="cannot be read: No such file"):
            CocoSource(tmp_path / "none.json", tmp_path)

    def test_folder_that_is_missing(self, folder: Path) -> None:
        with pytest.raises(DataSetError, match=r"folder of images '.*none' does not exist"):
            CocoSource(folder / "file.json", folder / "none")

    def test_byte_order_mark(self, folder: Path) -> None:
        assert len(source(folder, b"\xef\xbb\xbf" + json.dumps(data()).encode())) == 1

    def test_fingerprint_is_of_the_content(self, folder: Path, tmp_path: Path) -> None:
        first = source(folder, data()).fingerprint
        assert source(tmp_path, data()).fingerprint == first
        assert source(tmp_path, data({"bbox": [1, 1, 5, 5]})).fingerprint != first

    def test_pickled_it_reads_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also in a process that stands elsewhere."""
        monkeypatch.chdir(tmp_path)
        file, images = coco_data_set(Path("set"), 2, (60, 80))
        read = CocoSource(file, images)
        packed = pickle.dumps(read)
        wanted = [(read[i].key, read[i].asked, read[i].about) for i in range(2)]
        monkeypatch.chdir("/")
        again = pickle.loads(packed)
        assert [(again[i].key, again[i].asked, again[i].about) for i in range(2)] == wanted

    def test_reading_touches_no_picture(self, tmp_path: Path) -> None:
        """Annotations are read without the pictures: of a hundred thousand, none is opened before it is its turn."""
        file, images = coco_data_set(tmp_path, 3, (60, 80))
        for picture in images.iterdir():
            picture.unlink()
        assert [CocoSource(file, images).key(index) for index in range(3)] == [f"{index:06d}.jpg" for index in range(3)]

    def test_without_pycocotools_run_lengths_say_what_to_install(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And boxes need it not."""
        monkeypatch.setitem(sys.modules, "pycocotools", None)
        assert drawn(only(folder, {"bbox": [1, 1, 5, 5]})).sum() == 25
        counts = run_lengths(some_mask())
        with pytest.raises(DataSetError, match=r'pip install "pytest-gradcam\[audit\]"'):
            asked(folder, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}})

    def test_class_names_are_in_the_order_of_classes(self) -> None:
        names = [class_name(cls) for cls in range(30)]
        assert names == sorted(names)


ODD: list[Any] = [None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "..", "\ud800", "x" * 300, [], {}]


def mutated(rng: random.Random, value: Any) -> Any:
    """The same JSON value with one thing in it changed, moved, doubled or lost."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        if rng.random() < 0.15:
            return {other: kept for other, kept in value.items() if other != name}
        return value | {name: mutated(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        if rng.random() < 0.15:
            return value[:place] + value[place + 1 :] if rng.random() < 0.5 else [*value, copy.deepcopy(value[place])]
        return [*value[:place], mutated(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.5:
        place = rng.randrange(len(value))
        return value[:place] + chr(rng.choice([*range(128), 0xE4, 0x2028])) + value[place + rng.randrange(2) :]
    return rng.choice([*ODD, [copy.deepcopy(value)], [value] * 5])


@pytest.mark.parametrize("seed", range(8))
def test_broken_files_raise_only_our_errors(folder: Path, seed: int) -> None:
    """300 files with one to five faults each: an error of ours, or regions that fit the image."""
    rng = random.Random(seed)
    flags = some_mask()
    coded = coco_mask.encode(np.asfortranarray(flags.astype(np.uint8)))
    whole = data(
        {"bbox": [5, 5, 9, 9]},
        {"segmentation": [[10, 5, 45, 8, 50, 30]], "bbox": [10, 5, 40, 25]},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": coded["counts"].decode()}, "category_id": 7},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": run_lengths(flags)}, "iscrowd": 1},
        {"image_id": 6, "bbox": [1, 2, 3, 4]},
    )
    whole["images"].append({"id": 6, "file_name": "b.jpg", "width": WIDTH, "height": HEIGHT, "light": "day"})
    for _ in range(300):
        content = whole
        for _ in range(rng.randint(1, 5)):
            content = mutated(rng, content)
        try:
            read = pickle.loads(pickle.dumps(source(folder, content)))
        except GradcamError:
            continue
        assert len({read.key(index) for index in range(len(read))}) == len(read)
        for index in range(len(read)):
            try:
                sample = read[index]
            except SampleError:
                continue
            assert len({one.cls for one in sample.asked}) == len(sample.asked)
            for one in sample.asked:
                assert (one.region is None) == bool(one.why)
                if one.region is not None:
                    assert one.region.rasterise(HEIGHT, WIDTH).sum() > 0
