"""VocSource: Pascal's boxes in the words of regions, and XML files that are broken or hostile."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from pytest_gradcam.audit.data.sample import Asked, DataSetError, SampleError, Source
from pytest_gradcam.audit.data.voc import VocSource
from pytest_gradcam.regions import Region
from tests.audit.data.generated import squares, voc_data_set

LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))


def thing(name: str | None = "cat", box: tuple[object, ...] = (11, 6, 20, 15), extra: str = "") -> str:
    edges = "".join(
        f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    named = "" if name is None else f"<name>{name}</name>"
    return f"<object>{named}{extra}<bndbox>{edges}</bndbox></object>"


def annotation(*objects: str, file: str = "a.jpg", size: str = "<width>60</width><height>40</height>") -> str:
    return f"<annotation><filename>{file}</filename><size>{size}</size>{''.join(objects)}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "JPEGImages" / "a.jpg")
    return tmp_path


def source(root: Path, text: str | bytes) -> VocSource:
    content = text if isinstance(text, bytes) else text.encode()
    (root / "Annotations" / "a.xml").write_bytes(content)
    return VocSource(root)


class TestRegions:
    def test_generated_boxes_come_back(self, tmp_path: Path) -> None:
        """Every class of every picture covers exactly its squares, and pickles."""
        read = pickle.loads(pickle.dumps(VocSource(voc_data_set(tmp_path, 5, (60, 80), classes=3))))
        assert isinstance(read, Source)
        assert read.categories == ("colour00", "colour01", "colour02")
        for index in range(5):
            for one in read[index].asked:
                wanted = np.zeros((60, 80), dtype=np.float32)
                for square in squares(index, (60, 80), 3):
                    if square.cls == one.cls:
                        wanted[square.y0 : square.y1, square.x0 : square.x1] = 1
                assert one.region is not None
                np.testing.assert_array_equal(one.region.rasterise(60, 80), wanted)

    @given(x0=st.integers(1, 60), y0=st.integers(1, 40), x1=st.integers(1, 60), y1=st.integers(1, 40), data=st.data())
    def test_boxes_are_one_based_and_closed(
        self, tmp_path_factory: pytest.TempPathFactory, x0: int, y0: int, x1: int, y1: int, data: st.DataObject
    ) -> None:
        """The pixels that Pascal counts, columns xmin to xmax and rows ymin to ymax, written out."""
        (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
        root = tmp_path_factory.mktemp("voc")
        Image.new("RGB", (60, 40)).save(root / "a.jpg")
        (root / "a.xml").write_text(annotation(thing(box=(x0, y0, x1, y1))))
        (one,) = VocSource(root)[0].asked
        wanted = [[x0 <= column <= x1 and y0 <= row <= y1 for column in range(1, 61)] for row in range(1, 41)]
        assert one.region is not None
        np.testing.assert_array_equal(one.region.rasterise(40, 60), np.array(wanted))

    def test_difficult_objects_are_noted(self, root: Path) -> None:
        """They are part of the region, and make a slice."""
        hard = thing(box=(1, 1, 2, 2), extra="<difficult>1</difficult>")
        sample = source(root, annotation(thing(), hard))[0]
        assert sample.asked == (
            Asked(
                0,
                Region.of([(10, 5, 20, 15), (0, 0, 2, 2)]),
                notes=("a difficult object is part of the region",),
            ),
        )
        assert sample.about == {"difficult": "some"}

    def test_parts_of_an_object_are_not_objects(self, root: Path) -> None:
        """VOC's `part` has a box of its own."""
        part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
        read = source(root, annotation(thing(extra=part)))
        assert read.categories == ("cat",)
        assert read[0].asked == (Asked(0, Region.box(10, 5, 20, 15)),)

    def test_no_object_asks_nothing(self, root: Path) -> None:
        assert source(root, annotation())[0].asked == ()

    def test_size_of_zero_states_none(self, root: Path) -> None:
        """Programs that did not open the picture write it."""
        zero = "<width>0</width><height>0</height>"
        assert source(root, annotation(thing(), size=zero))[0].asked[0].region == Region.box(10, 5, 20, 15)

    def test_list_decides_which_and_in_what_order(self, root: Path) -> None:
        """A list for one class has a number behind each name."""
        for name in ("a", "b", "c"):
            Image.new("RGB", (60, 40)).save(root / "JPEGImages" / f"{name}.jpg")
            (root / "Annotations" / f"{name}.xml").write_text(annotation(thing(name), file=f"{name}.jpg"))
        (root / "list.txt").write_text("c  1\n\na -1\nnone\n")
        read = VocSource(root, split=root / "list.txt")
        assert [read.key(index) for index in range(3)] == ["c.jpg", "a.jpg", "none"]
        assert read.categories == ("a", "c")
        with pytest.raises(SampleError, match="there is no XML file of this name"):
            read[2]

    def test_fingerprint_is_of_the_content(self, root: Path) -> None:
        first = source(root, annotation(thing())).fingerprint
        assert source(root, annotation(thing())).fingerprint == first
        assert source(root, annotation(thing("dog"))).fingerprint != first


class TestNames:
    def test_stem_finds_the_picture(self, root: Path) -> None:
        """As VOC has it; programs write other names inside."""
        assert source(root, annotation(thing(), file="old"))[0].key == "a.jpg"

    def test_file_name_where_the_stem_finds_none(self, root: Path) -> None:
        (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "b.jpg")
        assert source(root, annotation(thing(), file="b.jpg"))[0].key == "b.jpg"

    def test_both_names_are_there(self, root: Path) -> None:
        Image.new("RGB", (60, 40)).save(root / "JPEGImages" / "b.jpg")
        with pytest.raises(SampleError, match=r"say that they are of 'b.jpg', and both"):
            source(root, annotation(thing(), file="b.jpg"))[0]

    def test_two_pictures_of_one_stem(self, root: Path) -> None:
        """The file name tells which, if it names one of them."""
        Image.new("RGB", (60, 40)).save(root / "JPEGImages" / "a.png")
        assert source(root, annotation(thing(), file="a.png"))[0].key == "a.png"
        with pytest.raises(SampleError, match=r"2 pictures of the name 'a': a\.jpg, a\.png"):
            source(root, annotation(thing(), file="a"))[0]

    @pytest.mark.parametrize("file", ["../a.jpg", "/etc/hostname", "C:\\a.jpg", "..\\a.jpg"])
    def test_names_that_lead_out(self, root: Path, file: str) -> None:
        (root / "JPEGImages" / "a.jpg").rename(root / "a.jpg")
        with pytest.raises(SampleError, match="leads out of the folder"):
            source(root, annotation(thing(), file=file))[0]


class TestBroken:
    @pytest.mark.parametrize(
        ("box", "why"),
        [
            ((20, 6, 11, 15), "inside out: xmin=20, ymin=6, xmax=11, ymax=15"),
            ((11, "six", 20, 15), "its ymin is 'six': it must be a number"),
            ((11, "", 20, 15), "its ymin is ''"),
            ((11, "nan", 20, 15), "holds nan"),
            ((70, 6, 80, 15), "lies outside the image"),
        ],
        ids=str,
    )
    def test_box(self, root: Path, box: tuple[object, ...], why: str) -> None:
        """The region of its class is unknown; the other class keeps its own."""
        cat, dog = source(root, annotation(thing(), thing(box=box), thing("dog")))[0].asked
        assert cat.region is None
        assert cat.why.startswith("object 1: ")
        assert why in cat.why
        assert dog.region == Region.box(10, 5, 20, 15)

    def test_object_without_name_may_be_any(self, root: Path) -> None:
        cat, dog = source(root, annotation(thing(None), thing(), thing("dog")))[0].asked
        assert (cat.why, dog.why) == ("object 0: it has no name",) * 2
        assert cat.region is dog.region is None

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "cannot be read"),
            ("<annotation>", "cannot be read"),
            ("<other/>", "holds 'other', and not an annotation"),
            ("<a>" * 10**5, "cannot be read"),
            (f"<!DOCTYPE annotation [<!ENTITY a0 'ha'>{LAUGHS}]><annotation>&a9;</annotation>", "DOCTYPE"),
            ("<!DOCTYPE a SYSTEM 'file:///etc/hostname'><annotation/>", "DOCTYPE"),
            ("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a []><annotation/>".encode("utf-16"), "DOCTYPE"),
            ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "cannot be read"),
            (b"<annotation>\xff</annotation>", "cannot be read"),
            (b"<annotation>" + b" " * 2**24 + b"</annotation>", "more than 16 MiB"),
            (annotation(thing(), size="<width>61</width><height>40</height>"), "is 60 wide and 40 high"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_file(self, root: Path, text: str | bytes, why: str) -> None:
        """It is said of its picture alone, whose key is known."""
        read = source(root, text)
        assert read.key(0) == "a.jpg"
        with pytest.raises(SampleError, match=why):
            read[0]

    def test_picture_that_is_missing(self, root: Path) -> None:
        (root / "JPEGImages" / "a.jpg").unlink()
        read = source(root, annotation(thing(), file="a.jpg"))
        with pytest.raises(SampleError, match=r"there is no picture 'a.jpg'"):
            read[0]

    def test_no_annotations(self, root: Path) -> None:
        with pytest.raises(DataSetError, match="there are no XML files in"):
            VocSource(root)

    @pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
    def test_list_that_cannot_be_used(self, root: Path, content: bytes | None) -> None:
        (root / "Annotations" / "a.xml").write_text(annotation())
        if content is not None:
            (root / "list.txt").write_bytes(content)
        with pytest.raises(DataSetError, match="the list of images"):
            VocSource(root, split=root / "list.txt")
