"""FolderSource: pictures and masks of the same names."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pytest_gradcam.audit.data.folder import FolderSource
from pytest_gradcam.audit.data.sample import Asked, DataSetError, SampleError, Source
from pytest_gradcam.regions import Region
from tests.audit.data.generated import class_name, mask_data_set, squares

FLAGS = np.zeros((40, 60), dtype=bool)
FLAGS[5:15, 10:30] = True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.jpg")
    return tmp_path


def source(root: Path, mask: Image.Image | None = None, name: str = "a.png") -> FolderSource:
    if mask is not None:
        mask.save(root / "masks" / name)
    return FolderSource(root / "images", root / "masks")


def image(array: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(array)


def test_generated_masks_come_back(tmp_path: Path) -> None:
    """The class is the folder, the region every square of that class; and it pickles."""
    mask_data_set(tmp_path, 8, (60, 80), classes=3)
    read = pickle.loads(pickle.dumps(FolderSource(tmp_path / "images", tmp_path / "masks")))
    assert isinstance(read, Source)
    assert len(read) == 8
    assert [read.key(index) for index in range(8)] == sorted(read.key(index) for index in range(8))
    for index in range(8):
        sample = read[index]
        name, _, file = sample.key.partition("/")
        (one,) = sample.asked
        assert one.cls is not None
        assert read.categories is not None
        assert read.categories[one.cls] == name
        wanted = np.zeros((60, 80), dtype=bool)
        for square in squares(int(file[:6]), (60, 80), 3):
            if class_name(square.cls) == name:
                wanted[square.y0 : square.y1, square.x0 : square.x1] = True
        assert one.region == Region.mask(wanted)


def palette() -> Image.Image:
    picture = Image.fromarray(FLAGS.astype(np.uint8) * 3)
    picture.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 200, 10, 10])
    return picture


@pytest.mark.parametrize(
    "mask",
    [
        image(FLAGS.astype(np.uint8)),
        image(FLAGS.astype(np.uint8) * 255),
        image(FLAGS.astype(np.uint8) * 7),
        image(np.repeat(FLAGS.astype(np.uint8)[..., None] * 255, 3, axis=2)),
        image(FLAGS.astype(np.uint8) * 255).convert("1"),
        palette(),
        Image.fromarray(FLAGS.astype(np.uint16) * 1000),
    ],
    ids=["0 1", "0 255", "0 7", "RGB", "one bit", "palette", "16 bit"],
)
def test_masks_in_every_form(root: Path, mask: Image.Image) -> None:
    """Without a folder of the class, the predicted class is asked for."""
    read = source(root, mask)
    assert read.categories is None
    assert read[0].asked == (Asked(None, Region.mask(FLAGS)),)


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (image(np.arange(2400, dtype=np.uint8).reshape(40, 60) % 5), "holds 0, 1, 2, 3, 4: it must be 0 outside"),
        (image(FLAGS.T.astype(np.uint8)), "is 40 wide and 60 high, and its picture is 60 wide and 40 high"),
        (image(np.stack([FLAGS.astype(np.uint8) * value for value in (9, 8, 7)], axis=2)), "has mode RGB"),
        (Image.new("RGBA", (60, 40)), "has mode RGBA"),
    ],
    ids=["many values", "transposed", "colours", "alpha"],
)
def test_masks_that_cannot_be_used(root: Path, mask: Image.Image, why: str) -> None:
    read = source(root, mask)
    with pytest.raises(SampleError, match=why):
        read[0]


def test_mask_of_zeros_says_so(root: Path) -> None:
    (one,) = source(root, Image.new("L", (60, 40)))[0].asked
    assert (one.region, one.why) == (None, "the mask 'a.png' is 0 everywhere: it marks nothing")


def test_mask_that_is_missing_says_so(root: Path) -> None:
    (one,) = source(root)[0].asked
    assert one.region is None
    assert one.why.startswith("there is no mask of the name 'a' in ")


def test_two_masks_of_one_name_say_so(root: Path) -> None:
    source(root, image(FLAGS.astype(np.uint8)))
    (one,) = source(root, image(FLAGS.astype(np.uint8)), "a.bmp")[0].asked
    assert one.why.startswith("there are 2 masks of the name 'a'")


def test_mask_that_is_no_picture(root: Path) -> None:
    (root / "masks" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    read = source(root)
    with pytest.raises(SampleError, match=r"the mask 'a\.png' cannot be read"):
        read[0]


def test_picture_that_is_none(root: Path) -> None:
    (root / "images" / "a.jpg").write_text("text")
    read = source(root, image(FLAGS.astype(np.uint8)))
    with pytest.raises(SampleError, match=r"the picture 'a\.jpg' cannot be opened"):
        read[0]


def test_hidden_files_and_circles_are_left_out(root: Path) -> None:
    """What systems hide is no picture; a link to a folder above would have no end."""
    (root / "images" / "._a.jpg").write_text("")
    (root / "images" / ".cache").mkdir()
    (root / "images" / ".cache" / "b.jpg").write_text("")
    (root / "images" / "sub").mkdir()
    (root / "images" / "sub" / "up").symlink_to(root / "images", target_is_directory=True)
    read = source(root)
    assert [read.key(index) for index in range(len(read))] == ["a.jpg"]


def test_folder_that_is_a_link_is_read(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Classes may lie on other disks."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (60, 40)).save(elsewhere / "b.jpg")
    (root / "images" / "cat").symlink_to(elsewhere, target_is_directory=True)
    read = source(root)
    assert [(read.key(index), read[index].asked[0].cls) for index in range(2)] == [("a.jpg", None), ("cat/b.jpg", 0)]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_no_text(root: Path) -> None:
    """Bytes that are no UTF-8, newlines and escapes: keys can be written down, and are the names where they can be."""
    for name in (b"\xff.jpg", b"new\nline.jpg", b"\x1b[31m.jpg"):
        Image.new("RGB", (60, 40)).save(os.fsdecode(os.fsencode(root / "images") + b"/" + name))
    read = source(root)
    found = [read.key(index) for index in range(len(read))]
    assert found == ["\x1b[31m.jpg", "a.jpg", "new\nline.jpg", "\\udcff.jpg"]
    for index in range(len(read)):
        read[index].asked[0].why.encode()


def test_fingerprint_is_of_names_and_sizes(root: Path) -> None:
    first = source(root).fingerprint
    assert source(root).fingerprint == first
    assert source(root, image(FLAGS.astype(np.uint8))).fingerprint != first


@pytest.mark.parametrize("part", ["images", "masks"])
def test_folder_that_is_missing(root: Path, part: str) -> None:
    for file in (root / part).iterdir():
        file.unlink()
    (root / part).rmdir()
    with pytest.raises(DataSetError, match=f"{part}' does not exist"):
        source(root)


def test_folder_without_pictures(root: Path) -> None:
    (root / "images" / "a.jpg").unlink()
    with pytest.raises(DataSetError, match="there are no pictures in"):
        source(root)
