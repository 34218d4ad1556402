"""open_source: what lies at a path decides how it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pytest_gradcam.audit.data.coco import CocoSource
from pytest_gradcam.audit.data.folder import FolderSource
from pytest_gradcam.audit.data.opening import open_source
from pytest_gradcam.audit.data.sample import DataSetError
from pytest_gradcam.audit.data.table import TableSource
from pytest_gradcam.audit.data.voc import VocSource
from tests.audit.data.generated import coco_data_set, mask_data_set, table_data_set, voc_data_set

SIZE = (30, 40)


def test_coco(tmp_path: Path) -> None:
    """With its folder of pictures, or found beside it."""
    file, images = coco_data_set(tmp_path, 2, SIZE)
    for read in (open_source(file, images), open_source(str(file))):
        assert isinstance(read, CocoSource)
        assert read[1].image == images / "000001.jpg"


@pytest.mark.parametrize("layout", ["val2017", "images/val2017", "images", "annotations"])
def test_coco_as_it_is_unpacked(tmp_path: Path, layout: str) -> None:
    """annotations/instances_val2017.json, and the pictures where the usual tools put them."""
    file, images = coco_data_set(tmp_path / "made", 2, SIZE)
    (tmp_path / "annotations").mkdir()
    file.rename(tmp_path / "annotations" / "instances_val2017.json")
    target = tmp_path / layout
    target.parent.mkdir(exist_ok=True)
    if layout == "annotations":
        for picture in images.iterdir():
            picture.rename(target / picture.name)
    else:
        images.rename(target)
    read = open_source(tmp_path / "annotations" / "instances_val2017.json")
    assert read[1].image == target / "000001.jpg"


def test_coco_whose_pictures_are_nowhere(tmp_path: Path) -> None:
    file, images = coco_data_set(tmp_path, 2, SIZE)
    images.rename(tmp_path / "elsewhere")
    with pytest.raises(DataSetError, match="say in which folder they are"):
        open_source(file)


def test_table(tmp_path: Path) -> None:
    file, images = table_data_set(tmp_path, 2, SIZE)
    for read in (open_source(file, images), open_source(file)):
        assert isinstance(read, TableSource)
        assert read[1].image == images / "000001.jpg"


def test_voc(tmp_path: Path) -> None:
    """The folder, its annotations, one of its lists, or XML files beside their pictures."""
    root = voc_data_set(tmp_path / "VOC2012", 3, SIZE)
    for path, keys in {
        root: ["000000.jpg", "000001.jpg", "000002.jpg"],
        root / "Annotations": ["000000.jpg", "000001.jpg", "000002.jpg"],
        root / "ImageSets" / "Main" / "val.txt": ["000000.jpg", "000002.jpg"],
    }.items():
        read = open_source(path)
        assert isinstance(read, VocSource)
        assert [read.key(index) for index in range(len(read))] == keys
        assert read[0].image == root / "JPEGImages" / "000000.jpg"
    for picture in (root / "JPEGImages").iterdir():
        picture.rename(root / "Annotations" / picture.name)
    (root / "JPEGImages").rmdir()
    assert open_source(root / "Annotations")[2].image == root / "Annotations" / "000002.jpg"


def test_images_and_masks(tmp_path: Path) -> None:
    """In one folder; or, with the pictures elsewhere, the folder of masks or what it is in."""
    root = mask_data_set(tmp_path, 3, SIZE)
    for read in (
        open_source(root),
        open_source(root, root / "images"),
        open_source(root / "masks", root / "images"),
    ):
        assert isinstance(read, FolderSource)
        assert read[0].asked[0].region is not None


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("none", "there is no "),
        ("none.json", "there is no "),
        ("a\0b", "there is no "),
        ("https://example.org/a.json", "there is no "),
        ("empty", "holds no data set that is read: a data set is a COCO file"),
        ("notes.txt", "is of no kind that is read: a data set is a COCO file"),
        ("picture.jpg", "is of no kind that is read"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str) -> None:
    """With what is served."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.jpg")
    with pytest.raises(DataSetError, match=why):
        open_source(path)
