"""TableSource: a CSV file with a box in each row, as people and programs write them."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from pytest_gradcam.audit.data.sample import Asked, DataSetError, SampleError, Source
from pytest_gradcam.audit.data.table import TableSource
from pytest_gradcam.errors import GradcamError
from pytest_gradcam.regions import Region
from tests.audit.data.generated import squares, table_data_set

HEADER = "image,x0,y0,x1,y1,class\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    for name in ("a.jpg", "b.jpg", "with, comma.jpg"):
        Image.new("RGB", (60, 40)).save(folder / name)
    return folder


def source(folder: Path, text: str | bytes) -> TableSource:
    (folder / "boxes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return TableSource(folder / "boxes.csv")


class TestRegions:
    def test_generated_boxes_come_back(self, tmp_path: Path) -> None:
        """Every class of every picture covers exactly its squares, and pickles."""
        file, images = table_data_set(tmp_path, 6, (60, 80), classes=3)
        read = pickle.loads(pickle.dumps(TableSource(file, images)))
        assert isinstance(read, Source)
        assert read.categories == ("colour00", "colour01", "colour02")
        for index in range(6):
            sample = read[index]
            assert sample.about == {"light": ("day", "night")[index % 2]}
            assert [one.cls for one in sample.asked] == sorted({one.cls for one in squares(index, (60, 80), 3)})
            for one in sample.asked:
                wanted = np.zeros((60, 80), dtype=np.float32)
                for square in squares(index, (60, 80), 3):
                    if square.cls == one.cls:
                        wanted[square.y0 : square.y1, square.x0 : square.x1] = 1
                assert one.region is not None
                np.testing.assert_array_equal(one.region.rasterise(60, 80), wanted)

    @pytest.mark.parametrize(
        ("header", "row"),
        [
            ("image,x0,y0,x1,y1", "a.jpg,10,5,20,15"),
            ("image,xmin,ymin,xmax,ymax", "a.jpg,10,5,20,15"),
            ("image,x,y,width,height", "a.jpg,10,5,10,10"),
            ("y1,x1,IMAGE, y0 ,X0", "15,20,a.jpg,5,10"),
            ("image,width,height,xmin,ymin,xmax,ymax", "a.jpg,60,40,10,5,20,15"),
            ('"image","x0","y0","x1","y1"', '"a.jpg","10","5.0","2e1",15'),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n", ""])
    def test_columns(self, folder: Path, header: str, row: str, end: str) -> None:
        """Without classes, the box is asked of the predicted class."""
        read = source(folder, f"\ufeff{header}\n{row}{end}")
        assert read.categories is None
        assert read[0].asked == (Asked(None, Region.box(10, 5, 20, 15)),)

    def test_rows_of_an_image_and_class_are_united(self, folder: Path) -> None:
        """Wherever they stand; images are in the order that they first come in."""
        rows = "b.jpg,1,1,9,9,cat\na.jpg,1,1,5,5,dog\n./b.jpg,20,20,25,25,cat\nb.jpg,2,2,3,3,ant\n"
        read = source(folder, HEADER + rows)
        assert read.categories == ("ant", "cat", "dog")
        assert [read.key(index) for index in range(len(read))] == ["b.jpg", "a.jpg"]
        assert read[0].asked == (
            Asked(0, Region.box(2, 2, 3, 3)),
            Asked(1, Region.of([(1, 1, 9, 9), (20, 20, 25, 25)])),
        )

    def test_whole_numbers_are_the_models_classes(self, folder: Path) -> None:
        read = source(folder, HEADER + "a.jpg,1,1,9,9,281\na.jpg,1,1,5,5,7\n")
        assert read.categories is None
        assert [one.cls for one in read[0].asked] == [7, 281]

    def test_one_name_among_numbers_makes_all_names(self, folder: Path) -> None:
        assert source(folder, HEADER + "a.jpg,1,1,9,9,281\na.jpg,1,1,5,5,cat\n").categories == ("281", "cat")

    def test_row_without_class_and_box_says_there_is_nothing(self, folder: Path) -> None:
        assert source(folder, HEADER + "a.jpg,,,,,\n")[0].asked == ()

    def test_box_that_sticks_out_is_clipped_with_a_note(self, folder: Path) -> None:
        (one,) = source(folder, HEADER + "a.jpg,-9,-9,10,10,cat\n")[0].asked
        assert one.region == Region.box(0, 0, 10, 10)
        assert "was clipped to the image" in one.notes[0]

    def test_about_has_what_all_rows_of_an_image_agree_in(self, folder: Path) -> None:
        header = "image,x0,y0,x1,y1,Camera,score,empty\n"
        read = source(folder, header + "a.jpg,1,1,9,9,north,0.5,\na.jpg,1,1,5,5,north,0.7,\n")
        assert read[0].about == {"Camera": "north"}

    @given(
        rows=st.lists(
            st.tuples(
                st.sampled_from(["a.jpg", "b.jpg", "with, comma.jpg"]),
                st.integers(0, 50),
                st.integers(0, 30),
                st.integers(1, 9),
                st.integers(1, 9),
                st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def test_what_csv_writes_is_read(self, folder: Path, rows: list[tuple[str, int, int, int, int, str]]) -> None:
        """Any names of classes, quoted where need be: the union of each image and class is that of its rows."""
        text = io.StringIO()
        csv.writer(text).writerows([("image", "x", "y", "width", "height", "class"), *rows])
        read = source(folder, text.getvalue())
        truth: dict[tuple[str, object], np.ndarray] = {}
        for name, x, y, width, height, label in rows:
            cls = int(label) if read.categories is None else read.categories.index(label)
            drawn = truth.setdefault((name, cls), np.zeros((40, 60), dtype=bool))
            drawn[y : y + height, x : x + width] = True
        found = {(read.key(index), one.cls): one.region for index in range(len(read)) for one in read[index].asked}
        assert found.keys() == truth.keys()
        for key, region in found.items():
            assert region is not None
            np.testing.assert_array_equal(region.rasterise(40, 60), truth[key])


class TestBroken:
    @pytest.mark.parametrize(
        ("row", "why"),
        [
            ("a.jpg,1,1,9,x,cat", "line 3: its box is '1, 1, 9, x': it must be 4 numbers"),
            ("a.jpg,1,1,,9,cat", "line 3: its box is '1, 1, , 9'"),
            ("a.jpg,,,,,cat", "line 3: its box is ', , , '"),
            ("a.jpg,9,1,1,9,cat", "line 3: the box (9, 1, 1, 9) is inside out"),
            ("a.jpg,1,1,1,9,cat", "without area"),
            ("a.jpg,nan,1,5,9,cat", "holds nan"),
            ("a.jpg,1,1,inf,9,cat", "holds inf"),
            ("a.jpg,70,1,90,9,cat", "lies outside the image"),
            ("a.jpg,0.1,0.1,0.5,0.5,cat", "look like fractions"),
            ("a.jpg,1,1,9,9", "line 3: it has 5 values for 6 columns"),
            ("a.jpg,1,1,9,9,cat,7", "line 3: it has 7 values for 6 columns"),
            ("a.jpg,1,1,9,9,", "line 3: it names no class"),
        ],
    )
    def test_row(self, folder: Path, row: str, why: str) -> None:
        """Its line is named, and its class's region is not made smaller in silence."""
        for text in (f"a.jpg,1,1,9,9,cat\n{row}\n", f"b.jpg,1,1,9,9,cat\n{row}\na.jpg,1,1,9,9,cat\n"):
            read = source(folder, HEADER + text)
            (one,) = read[len(read) - 1].asked
            assert (one.cls, one.region) == (0, None)
            assert why in one.why

    def test_row_that_may_be_of_any_class(self, folder: Path) -> None:
        cat, dog = source(folder, HEADER + "a.jpg,1,1,9,9,\na.jpg,1,1,9,9,cat\na.jpg,1,1,9,9,dog\n")[0].asked
        assert cat.why == dog.why == "line 2: it names no class"

    def test_row_without_an_image_is_recorded(self, folder: Path) -> None:
        """So that what it was to say is not lost."""
        read = source(folder, HEADER + "a.jpg,1,1,9,9,cat\n\n,1,1,9,9,cat\n")
        assert [read.key(index) for index in range(2)] == ["a.jpg", "line 4"]
        with pytest.raises(SampleError, match="line 4 of the table names no image"):
            read[1]

    @pytest.mark.parametrize("name", ["../a.jpg", "/etc/hostname", "C:a.jpg", "none.jpg", "x" * 5000])
    def test_image(self, folder: Path, name: str) -> None:
        with pytest.raises(SampleError, match=r"leads out of the folder|there is no picture"):
            source(folder, HEADER + f"{name},1,1,9,9,cat\n")[0]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "is empty"),
            ("\n \n", "is empty"),
            (HEADER, "has no rows"),
            ("a.jpg,1,1,9,9\n", "has the columns 'a.jpg,1,1,9,9': the first line names the columns"),
            ("image,x0,y0,x1\n", "the first line names the columns"),
            ("x0,y0,x1,y1\n", "the first line names the columns"),
            ("image,x0,y0,x1,y1,xmin,ymin,xmax,ymax\n", "the first line names the columns"),
            ("image,x0,y0,x1,y1,class,label\n", "the first line names the columns"),
            ("image,image,x0,y0,x1,y1\n", "two columns 'image'"),
            ("image;x0;y0;x1;y1\n", "separated by semicolons"),
            (HEADER + 'a.jpg,1,1,9,9,cat\na.jpg,1,1,9,9,"cat\n', "in line 3"),
            (HEADER + 'a.jpg,1,1,9,9,"cat"s\n', "in line 2"),
            (HEADER.encode() + b"a.jpg,1,1,9,9,\xff\n", "not UTF-8 in line 2"),
            (HEADER.encode("utf-16"), "not UTF-8 in line 1"),
            (HEADER + "x" * 200_000 + ",1,1,9,9,cat\n", "in line 2"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_table(self, folder: Path, text: str | bytes, why: str) -> None:
        with pytest.raises(DataSetError, match=why):
            source(folder, text)

    def test_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataSetError, match="cannot be read"):
            TableSource(tmp_path / "none.csv")
        with pytest.raises(DataSetError, match="cannot be read"):
            TableSource("a\0.csv")

    def test_folder_that_is_missing(self, folder: Path) -> None:
        source(folder, HEADER + "a.jpg,1,1,9,9,cat\n")
        with pytest.raises(DataSetError, match=r"folder of images '.*none' does not exist"):
            TableSource(folder / "boxes.csv", folder / "none")

    @given(content=st.binary(max_size=80) | st.text(alphabet='a.jpg,"\n\r019-e x\0', max_size=120).map(str.encode))
    def test_any_bytes_raise_only_our_errors(self, folder: Path, content: bytes) -> None:
        for start in (b"", HEADER.encode()):
            try:
                read = source(folder, start + content)
                for index in range(len(read)):
                    read.key(index)
                    read[index]
            except GradcamError:
                pass

    def test_fingerprint_is_of_the_content(self, folder: Path) -> None:
        first = source(folder, HEADER + "a.jpg,1,1,9,9,cat\n").fingerprint
        assert source(folder, HEADER + "a.jpg,1,1,9,8,cat\n").fingerprint != first
        assert source(folder, HEADER + "a.jpg,1,1,9,9,cat\n").fingerprint == first
