"""The public `explain`, `explain_batch` and `explain_classes`: pictures and tensors in, maps and warnings out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

import pytest_gradcam
from pytest_gradcam import (
    ClassError,
    ImageError,
    SettingsError,
    TransformError,
    ZeroEvidenceWarning,
    explain,
    explain_batch,
    explain_classes,
)
from tests.models import apart, coloured, picture, reads_colours, small


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def as_pixels(x: Tensor) -> npt.NDArray[np.uint8]:
    return np.asarray((255 * x[0]).round().byte().permute(1, 2, 0).numpy(), np.uint8)


PIXELS = as_pixels(picture(32, 40))


def saved(folder: Path) -> Path:
    Image.fromarray(PIXELS).save(folder / "picture.png")
    return folder / "picture.png"


KINDS: dict[str, Callable[[Path], Any]] = {
    "path": saved,
    "path as text": lambda folder: str(saved(folder)),
    "PIL image": lambda folder: Image.fromarray(PIXELS),
    "array": lambda folder: PIXELS,
}


class TestImages:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_every_kind_give_the_map_of_their_tensor(self, kind: str, tmp_path: Path) -> None:
        model, image, x = small(), KINDS[kind](tmp_path), to_tensor(Image.fromarray(PIXELS))
        expected = explain(model, x, 1)
        found = [
            explain(model, image, 1, transform=to_tensor),
            *explain_batch(model, [image, image], 1, transform=to_tensor),
            *explain_classes(model, image, [1], transform=to_tensor),
        ]
        for got in found:
            assert apart(got.raw, expected.raw) <= 1e-5
            assert got.cam.shape == (32, 40)
            assert np.array_equal(got.image, PIXELS)

    @pytest.mark.parametrize("shape", [(3, 32, 40), (1, 3, 32, 40)])
    def test_tensors_come_with_or_without_a_batch_dimension(self, shape: tuple[int, ...]) -> None:
        x = picture(32, 40)
        got = explain(small(), x.view(shape), 1)
        assert np.array_equal(got.raw, explain(small(), x, 1).raw)
        assert np.array_equal(got.image, as_pixels(x))

    def test_grey_pictures_are_shown_in_three_channels(self) -> None:
        x = picture(32, 40, channels=1)
        got = explain(small(channels=1), x, 1)
        assert np.array_equal(got.image, np.repeat((255 * x[0, 0]).round().byte().numpy()[..., None], 3, axis=2))

    def test_mixed_kinds_make_one_batch(self, tmp_path: Path) -> None:
        images = [make(tmp_path) for make in KINDS.values()]
        got = explain_batch(small(), images, [0, 1, 2, 3], transform=to_tensor)
        assert [explanation.cls for explanation in got] == [0, 1, 2, 3]

    def test_a_list_of_tensors_is_a_batch(self) -> None:
        x = picture(32, 40, count=3)
        together = explain_batch(small(), x, 1)
        for images in (list(x), [image[None] for image in x], tuple(x)):
            for a, b in zip(explain_batch(small(), images, 1), together, strict=True):
                assert np.array_equal(a.raw, b.raw)

    def test_arrays_stacked_in_one_array_are_a_batch(self) -> None:
        got = explain_batch(small(), np.stack([PIXELS, PIXELS[::-1]]), 1, transform=to_tensor)  # type: ignore[arg-type]
        assert [np.array_equal(a.image, b) for a, b in zip(got, [PIXELS, PIXELS[::-1]], strict=True)] == [True, True]

    def test_a_picture_for_a_model_that_declares_no_transform_is_refused(self) -> None:
        for call in (lambda: explain(small(), PIXELS, 1), lambda: explain_batch(small(), [PIXELS], 1)):
            with pytest.raises(TransformError, match="transform"):
                call()


class TestBatches:
    def test_of_different_sizes_are_refused(self) -> None:
        with pytest.raises(ImageError) as raised:
            explain_batch(small(), [picture(32, 40), picture(32, 32)], 1)
        assert str(raised.value) == (
            "the images come to different sizes (3, 32, 32), (3, 32, 40): a batch needs one; explain them one at a time"
        )

    @pytest.mark.parametrize("images", [[], torch.zeros(0, 3, 32, 32)])
    def test_that_are_empty_are_refused(self, images: Any) -> None:
        with pytest.raises(ImageError, match=r"^there are no images: the batch is empty$"):
            explain_batch(small(), images, 1)

    def test_of_one_image_without_its_dimension_are_refused(self) -> None:
        with pytest.raises(ImageError, match=r"the batch has shape \(3, 32, 40\): pass \(N, C, H, W\), or a list"):
            explain_batch(small(), picture(32, 40)[0], 1)

    @pytest.mark.parametrize(
        "images",
        [PIXELS, "cat.png", Path("cat.png"), Image.fromarray(PIXELS), None, 3, b"bytes"],
        ids=lambda v: type(v).__name__,
    )
    def test_that_are_no_list_are_refused(self, images: Any) -> None:
        """A path is no list of letters."""
        with pytest.raises(
            ImageError, match=r"^the batch (is a \w+: pass a list of images|has shape \(32, 40, 3\): pass)"
        ):
            explain_batch(small(), images, 1, transform=to_tensor)
        with pytest.raises(ImageError, match=r"^the batch (is a|has shape)"):
            explain_batch(small(), images)

    def test_may_be_an_iterator(self) -> None:
        images: Any = (image for image in picture(32, 40, count=2))
        assert len(explain_batch(small(), images, 1)) == 2

    def test_of_many_images_go_to_explain_batch(self) -> None:
        for call in (explain, explain_classes):
            with pytest.raises(ImageError, match="explain_batch"):
                call(small(), picture(32, 32, count=2))

    def test_four_images_with_one_class_are_refused(self) -> None:
        with pytest.raises(ClassError) as raised:
            explain_batch(small(), picture(32, 32, count=4), [3])
        assert str(raised.value) == "1 classes for 4 images: pass one for each image, or None"


class TestClasses:
    @pytest.mark.parametrize(
        "classes", [[2, 0], (2, 0), torch.tensor([2, 0]), range(2, -1, -2), ["c", "a"], np.array([2, 0])]
    )
    def test_may_be_any_sequence(self, classes: Any) -> None:
        got = explain_classes(small(), picture(32, 32), classes, labels=list("abcd"))
        assert [explanation.cls for explanation in got] == [2, 0]

    def test_are_all_of_them_unasked(self) -> None:
        assert [e.cls for e in explain_classes(small(), picture(32, 32))] == [0, 1, 2, 3]

    @pytest.mark.parametrize("classes", [2, "cat", torch.tensor(2), {1, 2}])
    def test_that_are_no_list_are_refused(self, classes: Any) -> None:
        with pytest.raises(ClassError, match="pass a list of classes, or None for all"):
            explain_classes(small(), picture(32, 32), classes)


@pytest.mark.parametrize("labels", ["abcd", 4, {"a", "b", "c", "d"}, ["a", "b", "c", 3]])
def test_labels_that_are_no_list_of_names_are_refused(labels: Any) -> None:
    """A word of four letters is no four names."""
    calls: list[Callable[..., object]] = [explain, explain_batch, explain_classes]
    for call in calls:
        with pytest.raises(SettingsError, match="give a list of strings, in the order of the classes"):
            call(small(), picture(32, 32), labels=labels)


class TestTheWarning:
    """Zero evidence is a finding: said once, at the caller's own line."""

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda m, x: explain(m, x, 2), "speaks for class 2; the map is zero"),
            (lambda m, x: explain(m, x, lambda output: output[0, 2]), "speaks for the score; the map is zero"),
            (explain_classes, "speaks for class 1, class 2; the map is zero"),
            (lambda m, x: explain_batch(m, torch.cat([x, x]), [0, 2]), "speaks for class 2; the map is zero"),
        ],
        ids=["explain", "callable", "classes", "batch"],
    )
    def test_points_to_the_callers_line(self, call: Callable[[Any, Tensor], object], text: str) -> None:
        with pytest.warns(ZeroEvidenceWarning) as caught:
            call(reads_colours(), coloured((0, (0, 0, 16, 16))))
        (warning,) = caught
        assert warning.filename == __file__
        assert str(warning.message) == f"no evidence: nothing at reads {text}"

    def test_is_not_given_where_there_is_evidence(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            explain(reads_colours(), coloured((0, (0, 0, 16, 16))), 0)

    def test_is_not_given_by_assertions_that_raise_instead(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(pytest_gradcam.ZeroEvidenceError):
                pytest_gradcam.assert_attention_in_region(
                    reads_colours(), coloured((0, (0, 0, 16, 16))), (0, 0, 16, 16), 2
                )


def test_the_pictures_of_a_batch_are_those_that_were_explained() -> None:
    """What the user does to the tensor afterwards changes no picture, though they are drawn when somebody looks."""
    x = torch.cat([picture(32, 32), picture(32, 32).flip(-1)])
    before = [explain(small(), image, 1).image for image in x]
    found = explain_batch(small(), x, 1)
    x.zero_()
    for got, image in zip(found, before, strict=True):
        assert np.array_equal(got.image, image)
