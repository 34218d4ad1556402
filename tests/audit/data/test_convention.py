"""source_of: data sets of `(image, target)` as torchvision has them, and those that are nearly so."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision import datasets, tv_tensors

from pytest_gradcam.audit.data.convention import source_of
from pytest_gradcam.audit.data.sample import Asked, DataSetError, Sample, SampleError, Source, Stream
from pytest_gradcam.pictures import load
from pytest_gradcam.regions import Region
from tests.audit.data.generated import coco_data_set, squares

HEIGHT, WIDTH = 40, 60
NOTHING = "the data set gives no region"


class Listed(Dataset[Any]):
    """A map-style data set of what it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


class Flowing(IterableDataset[Any]):
    """An iterable data set that knows its length, which does not make it one with an index."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def picture() -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), "green")


def sample(target: Any, image: Any = None) -> Sample:
    read = source_of(Listed([(picture() if image is None else image, target)]))
    assert isinstance(read, Source)
    return read[0]


def asked(target: Any) -> tuple[Asked, ...]:
    return sample(target).asked


def boxes(*rows: tuple[float, ...], style: str = "XYXY", size: tuple[int, int] = (HEIGHT, WIDTH)) -> Any:
    values = torch.tensor(rows, dtype=torch.float32)
    return tv_tensors.BoundingBoxes(values, format=style, canvas_size=size)


def flags(x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


class TestTargets:
    def test_objects_of_a_label_are_united(self) -> None:
        """Each label once, in their order."""
        target = {
            "labels": torch.tensor([9, 4, 9]),
            "boxes": torch.tensor([[1, 1, 5, 5], [2, 2, 6, 6], [20, 20, 30, 25]]),
        }
        assert asked(target) == (
            Asked(4, Region.box(2, 2, 6, 6)),
            Asked(9, Region.of([(1, 1, 5, 5), (20, 20, 30, 25)])),
        )

    @pytest.mark.parametrize(
        ("style", "row"), [("XYXY", (10, 5, 20, 17)), ("XYWH", (10, 5, 10, 12)), ("CXCYWH", (15, 11, 10, 12))]
    )
    def test_every_format_of_boxes(self, style: str, row: tuple[float, ...]) -> None:
        (one,) = asked({"labels": torch.tensor([1]), "boxes": boxes(row, style=style)})
        assert one.region == Region.box(10, 5, 20, 17)

    @given(x0=st.integers(0, 50), y0=st.integers(0, 30), width=st.integers(1, 10), height=st.integers(1, 10))
    def test_formats_agree_with_torchvision(self, x0: int, y0: int, width: int, height: int) -> None:
        """What torchvision converts to another format is the same region."""
        from torchvision.transforms.v2 import functional

        whole = boxes((x0, y0, x0 + width, y0 + height))
        for style in ("XYXY", "XYWH", "CXCYWH"):
            converted = functional.convert_bounding_box_format(whole, new_format=tv_tensors.BoundingBoxFormat[style])
            (one,) = asked(converted)
            assert one == Asked(None, Region.box(x0, y0, x0 + width, y0 + height))

    def test_masks_win_over_boxes(self) -> None:
        """They are exact."""
        target = {
            "labels": [3],
            "boxes": boxes((0, 0, 40, 40)),
            "masks": tv_tensors.Mask(flags(5, 6, 9, 12)[None]),
        }
        assert asked(target) == (Asked(3, Region.mask(flags(5, 6, 9, 12).numpy())),)

    @pytest.mark.parametrize(
        "convert",
        [
            lambda mask: mask,
            lambda mask: mask.to(torch.uint8),
            lambda mask: mask.to(torch.uint8) * 255,
            lambda mask: mask.long(),
            lambda mask: mask.to(torch.bfloat16),
            lambda mask: mask.numpy(),
        ],
        ids=["bool", "uint8", "255", "int64", "bfloat16", "numpy"],
    )
    def test_masks_of_every_type(self, convert: Any) -> None:
        """Those of one label are united."""
        masks = torch.stack([flags(5, 6, 9, 12), flags(20, 6, 29, 12), flags(30, 30, 31, 31)])
        found = asked({"labels": np.array([3, 5, 3]), "masks": convert(masks)})
        assert found == (
            Asked(3, Region.mask((masks[0] | masks[2]).numpy())),
            Asked(5, Region.mask(masks[1].numpy())),
        )

    def test_no_labels_ask_for_the_predicted_class(self) -> None:
        assert asked({"boxes": boxes((1, 1, 5, 5), (9, 9, 12, 12))}) == (
            Asked(None, Region.of([(1, 1, 5, 5), (9, 9, 12, 12)])),
        )

    @pytest.mark.parametrize(
        "label", [7, torch.tensor(7), np.int64(7), np.array(7)], ids=["int", "0-d", "numpy", "array"]
    )
    def test_one_label_of_the_whole_image(self, label: object) -> None:
        assert asked({"labels": label, "boxes": boxes((1, 1, 5, 5), (9, 9, 12, 12))}) == (
            Asked(7, Region.of([(1, 1, 5, 5), (9, 9, 12, 12)])),
        )
        assert asked({"labels": label}) == asked({"labels": label, "boxes": torch.zeros(0, 4)})
        assert asked({"labels": label}) == asked(label) == (Asked(7, None, NOTHING),)

    def test_regions_alone(self) -> None:
        mask = flags(5, 6, 9, 12)
        assert asked(boxes((1, 1, 5, 5))) == (Asked(None, Region.box(1, 1, 5, 5)),)
        for one in (tv_tensors.Mask(mask), tv_tensors.Mask(mask[None]), mask, mask.numpy()):
            assert asked(one) == (Asked(None, Region.mask(mask.numpy())),)

    def test_no_objects_ask_nothing(self) -> None:
        empties: list[Any] = [torch.zeros(0, 4), torch.tensor([]), boxes().reshape(0, 4), []]
        for empty in empties:
            assert asked({"labels": torch.tensor([], dtype=torch.int64), "boxes": empty}) == ()
        assert asked({"labels": [], "masks": torch.zeros(0, HEIGHT, WIDTH)}) == ()

    def test_nothing_is_said_to_be_nothing(self) -> None:
        assert asked(None) == (Asked(None, None, NOTHING),)
        assert asked({"labels": torch.tensor([4, 2, 4])}) == (
            Asked(2, None, NOTHING),
            Asked(4, None, NOTHING),
        )
        (one,) = asked({"image_id": 3, "bbox": torch.zeros(1, 4)})
        assert one.why == f"{NOTHING}: the target has neither boxes nor masks nor labels, but 'image_id', 'bbox'"

    def test_crowds_are_noted(self) -> None:
        target = {"labels": [1, 2], "boxes": boxes((1, 1, 5, 5), (9, 9, 12, 12)), "iscrowd": torch.tensor([0, 1])}
        first, second = asked(target)
        assert (first.notes, second.notes) == ((), ("a crowd (iscrowd) is part of the region",))

    def test_about_has_the_scalars(self) -> None:
        target = {
            "labels": 1,
            "image_id": 139,
            "hour": torch.tensor(7),
            "blur": np.float32(0.5),
            "place": "street",
            "night": True,
            "area": torch.tensor([3.0]),
            "log": "x" * 1000,
            "nested": {"a": 1},
        }
        wanted = {"image_id": "139", "hour": "7", "blur": "0.5", "place": "street", "night": "True"}
        assert sample(target).about == wanted

    def test_box_that_sticks_out_is_clipped_with_a_note(self) -> None:
        (one,) = asked({"labels": [1], "boxes": boxes((-9, -9, 10, 10))})
        assert one.region == Region.box(0, 0, 10, 10)
        assert "was clipped" in one.notes[0]

    @pytest.mark.parametrize(
        ("part", "why"),
        [
            ({"boxes": boxes((9, 9, 5, 12), (1, 1, 5, 5))}, "object 0: the box (9, 9, 5, 12) is inside out"),
            ({"boxes": boxes((70, 1, 80, 5), (1, 1, 5, 5))}, "object 0: the box (70, 1, 80, 5) lies outside"),
            ({"boxes": boxes((float("nan"), 1, 8, 5), (1, 1, 5, 5))}, "holds nan"),
            ({"boxes": torch.tensor([[0.1, 0.1, 0.5, 0.5], [1, 1, 5, 5]])}, "look like fractions"),
            ({"masks": torch.stack([flags(0, 0, 0, 0), flags(1, 1, 5, 5)])}, "nothing in it is True"),
            (
                {"masks": torch.stack([flags(0, 0, 5, 5) * 7, flags(1, 1, 5, 5) * 1])},
                "object 0: the mask holds 0, 7: it must hold 0 and 1",
            ),
            ({"masks": torch.stack([flags(0, 0, 5, 5) * 0.3, flags(1, 1, 5, 5) * 1.0])}, "the mask holds 0.0, 0.3"),
        ],
        ids=str,
    )
    def test_one_broken_object(self, part: dict[str, Any], why: str) -> None:
        """Leaves the region of its class unknown; the other keeps its own."""
        first, second = asked({"labels": torch.tensor([4, 8])} | part)
        assert first.region is None
        assert why in first.why
        assert second.region is not None

    @pytest.mark.parametrize(
        ("target", "why"),
        [
            ("cat", "the target is 'cat' of type str: it must be a mapping"),
            (1.5, "the target is 1.5 of type float"),
            (True, "the target is True of type bool"),
            ([boxes((1, 1, 5, 5))], "of type list: it must be a mapping"),
            (torch.tensor([1, 2]), "of type Tensor: it must be a mapping"),
            ({"labels": ["cat"], "boxes": boxes((1, 1, 5, 5))}, "the labels are ['cat']: they must be whole"),
            ({"labels": "cat", "boxes": boxes((1, 1, 5, 5))}, "the labels are 'cat'"),
            ({"labels": torch.tensor([1.0]), "boxes": boxes((1, 1, 5, 5))}, "the labels are tensor([1.])"),
            ({"labels": torch.ones(1, 3, dtype=torch.int64)}, "the labels are tensor([[1, 1, 1]])"),
            ({"labels": [1, 2], "boxes": boxes((1, 1, 5, 5))}, "the target has 2 labels, 1 boxes"),
            (
                {"labels": [1], "boxes": boxes((1, 1, 5, 5)), "masks": torch.zeros(3, HEIGHT, WIDTH)},
                "the target has 1 labels, 1 boxes, 3 masks: it must have as many of each",
            ),
            ({"labels": [1], "boxes": boxes((1, 1, 5, 5)), "iscrowd": [0, 0]}, "1 boxes, 2 iscrowd"),
            ({"boxes": torch.zeros(4)}, "the boxes have shape (4,)"),
            ({"boxes": torch.ones(1, 5)}, "the boxes have shape (1, 5)"),
            ({"boxes": [["a"] * 4]}, "dtype <U1: they must be numbers (N, 4)"),
            ({"boxes": [[1, 2, 3, 4], [1]]}, "they are no array"),
            ({"boxes": boxes((1, 1, 5, 5), size=(60, 40))}, "a canvas 40 wide and 60 high (canvas_size)"),
            ({"boxes": boxes((9, 9, 5, 5, 30), style="CXCYWHR")}, "the boxes have shape (1, 5)"),
            ({"masks": torch.zeros(1, 60, 40)}, "the masks have shape (1, 60, 40): they must be (N, 40, 60)"),
            ({"boxes": torch.ones(1, 4, device="meta")}, "cannot be read"),
        ],
        ids=lambda value: str(value)[:50],
    )
    def test_other_structures(self, target: Any, why: str) -> None:
        with pytest.raises(SampleError) as error:
            asked(target)
        assert why in str(error.value)


class TestImages:
    def test_bytes_become_arrays(self) -> None:
        values = torch.randint(0, 255, (3, HEIGHT, WIDTH), dtype=torch.uint8)
        for image in (values, tv_tensors.Image(values)):
            np.testing.assert_array_equal(np.asarray(sample(1, image).image), values.numpy().transpose(1, 2, 0))
        np.testing.assert_array_equal(np.asarray(sample(1, values[:1]).image), values[0].numpy())

    def test_floats_are_model_input(self) -> None:
        values = torch.rand(5, HEIGHT, WIDTH)
        image = sample({"masks": flags(1, 1, 5, 5)}, tv_tensors.Image(values[:3])).image
        assert type(image) is torch.Tensor
        assert torch.equal(image, values[:3])
        assert sample({"masks": flags(1, 1, 5, 5)}, values).asked[0].region is not None

    def test_pictures_arrays_and_paths_stay(self, tmp_path: Path) -> None:
        picture().save(tmp_path / "a.png")
        array = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        pil = picture()
        assert sample({"masks": flags(1, 1, 5, 5)}, pil).image is pil
        assert sample({"masks": flags(1, 1, 5, 5)}, array).image is array
        assert sample({"masks": flags(1, 1, 5, 5)}, str(tmp_path / "a.png")).image == tmp_path / "a.png"

    def test_turned_picture_stays_as_its_target_has_it(self, tmp_path: Path) -> None:
        """Nor does torchvision turn it, so its boxes are for the pixels as they are; `load` gives just these."""
        values = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        turned = Image.fromarray(values)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / "a.png", exif=exif)
        opened = Image.open(tmp_path / "a.png")
        for image in (opened, opened.convert("RGB")):
            read = sample({"boxes": boxes((50, 30, 60, 40))}, image)
            np.testing.assert_array_equal(load(read.image), values)
            assert read.asked[0].region == Region.box(50, 30, 60, 40)

    @pytest.mark.parametrize(
        "image",
        [
            torch.zeros(HEIGHT, WIDTH),
            torch.zeros(1, 3, HEIGHT, WIDTH),
            torch.zeros(3, 0, WIDTH),
            torch.zeros(4, HEIGHT, WIDTH, dtype=torch.uint8),
            torch.zeros(3, HEIGHT, WIDTH, dtype=torch.int64),
            np.zeros((3, HEIGHT, WIDTH), dtype=np.uint8),
            np.zeros((HEIGHT, WIDTH, 3)),
            None,
            b"bytes",
            {"image": 1},
        ],
        ids=lambda image: f"{type(image).__name__} {getattr(image, 'shape', '')}",
    )
    def test_others_are_refused(self, image: Any) -> None:
        read = source_of([(image, 1)])
        assert isinstance(read, Source)
        with pytest.raises(SampleError, match=r"the image is .*: an image is a path, a PIL.Image"):
            read[0]

    def test_path_of_nothing(self) -> None:
        with pytest.raises(SampleError, match="cannot be opened"):
            sample(1, "none.png")


class TestIndexed:
    def test_key_is_the_index(self) -> None:
        read = source_of([(picture(), 1)] * 3)
        assert isinstance(read, Source)
        assert (len(read), read.key(2), read[2].key, read.categories) == (3, "2", "2", None)
        assert read.fingerprint == "builtins.list of 3 images"

    def test_pickles_with_its_data_set(self) -> None:
        read = pickle.loads(pickle.dumps(source_of(Listed([(picture(), {"boxes": boxes((1, 1, 5, 5))})]))))
        assert read[0].asked == (Asked(None, Region.box(1, 1, 5, 5)),)
        assert read.fingerprint.endswith("Listed of 1 images")

    def test_what_the_data_set_raises_is_said_of_the_image(self) -> None:
        read = source_of(Listed([KeyError("label"), (picture(), 1)]))
        assert isinstance(read, Source)
        with pytest.raises(SampleError, match="the data set raised KeyError: 'label'"):
            read[0]
        assert read[1].asked[0].cls == 1

    @pytest.mark.parametrize(
        "item",
        [picture(), (1, 2, 3), {"image": 1, "label": 2}, None, (picture(),)],
        ids=["a picture", "three", "a mapping", "nothing", "one"],
    )
    def test_items_that_are_no_pairs(self, item: Any) -> None:
        read = source_of(Listed([item]))
        assert isinstance(read, Source)
        with pytest.raises(SampleError, match=r"it must give \(image, target\)"):
            read[0]


class TestStreams:
    def test_iterables_are_streams(self) -> None:
        """Also one that has a length, or torch's `__getitem__` that only raises."""
        items = [(picture(), 1), (picture(), 2)]
        for dataset in (Flowing(items), iter(items), (item for item in items)):
            read = source_of(dataset)
            assert isinstance(read, Stream)
            assert not isinstance(read, Source)
            assert [(one.key, one.asked[0].cls) for one in read] == [("0", 1), ("1", 2)]

    def test_goes_on_after_an_image_that_cannot_be_used(self) -> None:
        read = source_of(Flowing([(picture(), 1), "odd", (picture(), 2)]))
        assert isinstance(read, Stream)
        samples = iter(read)
        assert next(samples).key == "0"
        with pytest.raises(SampleError, match="gave a str"):
            next(samples)
        assert next(samples).key == "2"
        with pytest.raises(StopIteration):
            next(samples)

    def test_generator_is_gone_through_once(self) -> None:
        """A second time it would be empty, and no verdict on nothing is wanted."""
        read = source_of((picture(), place) for place in range(2))
        assert isinstance(read, Stream)
        assert len(list(read)) == 2
        with pytest.raises(DataSetError, match="the generator has been gone through"):
            iter(read)
        again = source_of(Flowing([(picture(), 1)]))
        assert isinstance(again, Stream)
        assert len(list(again)) == len(list(again)) == 1

    def test_generator_that_raises_ends_the_audit(self) -> None:
        def broken() -> Iterator[Any]:
            yield picture(), 1
            raise OSError("the disk is gone")

        read = source_of(broken())
        assert isinstance(read, Stream)
        samples = iter(read)
        next(samples)
        with pytest.raises(DataSetError, match="raised OSError: the disk is gone for image 1"):
            next(samples)


class TestRefused:
    def test_sources_and_streams_stay(self) -> None:
        for read in (source_of([(picture(), 1)]), source_of(Flowing([]))):
            assert source_of(read) is read

    @pytest.mark.parametrize(
        ("dataset", "why"),
        [
            (DataLoader(Listed([1])), "gives batches: pass the data set that it loads, loader.dataset"),
            ("a/b.json", "is a path: read it with open_source"),
            (Path("a"), "is a path"),
            ({"a": 1}, "a dict is no data set"),
            (torch.zeros(3, 3, 8, 8), "a Tensor is no data set"),
            (np.zeros((3, 8, 8)), "a ndarray is no data set"),
            (7, "7 of type int is no data set"),
            (None, "None of type NoneType is no data set"),
            (Dataset(), "the Dataset has no length"),
        ],
        ids=lambda value: str(type(value)),
    )
    def test_what_is_no_data_set(self, dataset: Any, why: str) -> None:
        with pytest.raises(DataSetError) as error:
            source_of(dataset)
        assert why in str(error.value)

    def test_length_that_raises(self) -> None:
        class Endless(Listed):
            def __len__(self) -> int:
                raise NotImplementedError

        with pytest.raises(DataSetError, match="the Endless does not tell its length"):
            source_of(Endless([]))


def test_torchvisions_own_wrapper(tmp_path: Path) -> None:
    """`wrap_dataset_for_transforms_v2` of a COCO data set asks what the file says, by the file's category ids."""
    file, images = coco_data_set(tmp_path, 4, (60, 80))
    content = json.loads(file.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 4]
    for one in content["annotations"]:
        x, y, side, _ = one["bbox"]
        one["segmentation"] = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    file.write_text(json.dumps(content))
    wrapped = datasets.wrap_dataset_for_transforms_v2(
        datasets.CocoDetection(str(images), str(file)), target_keys=["image_id", "boxes", "labels", "iscrowd"]
    )
    read = source_of(wrapped)
    assert isinstance(read, Source)
    for index in range(3):
        found = read[index]
        assert found.about == {"image_id": str(index + 1)}
        for one in found.asked:
            wanted = np.zeros((60, 80), dtype=np.float32)
            for square in squares(index, (60, 80)):
                if square.cls + 1 == one.cls:
                    wanted[square.y0 : square.y1, square.x0 : square.x1] = 1
            assert one.region is not None
            np.testing.assert_array_equal(one.region.rasterise(60, 80), wanted)
    assert read[3].asked[0].region is None
