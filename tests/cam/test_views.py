"""Which shapes are grids over an image, the likeliest reading first, and how each is read cell by cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pytest_gradcam.cam.views import View, views_of

SQUARE, WIDE = (224, 224), (160, 240)


class TestTheLikeliestView:
    """Known outputs of published architectures, and of odd sizes."""

    @pytest.mark.parametrize(
        ("shape", "size", "view"),
        [
            pytest.param((1, 512, 7, 7), SQUARE, View("nchw", (7, 7)), id="ResNet"),
            pytest.param((1, 3, 224, 224), SQUARE, View("nchw", (224, 224)), id="as fine as the image"),
            pytest.param((1, 16, 5, 9), (150, 270), View("nchw", (5, 9)), id="not square"),
            pytest.param((1, 16, 28, 14), SQUARE, View("nchw", (28, 14)), id="strides that differ"),
            pytest.param((1, 7, 7, 7), SQUARE, View("nchw", (7, 7)), id="as many channels as cells in a row"),
            pytest.param((1, 8, 1, 4), (64, 256), View("nchw", (1, 4)), id="one row of four cells"),
            pytest.param((1, 7, 7, 96), SQUARE, View("nhwc", (7, 7)), id="Swin"),
            pytest.param((1, 56, 56, 96), SQUARE, View("nhwc", (56, 56)), id="Swin's first stage"),
            pytest.param((1, 10, 15, 32), WIDE, View("nhwc", (10, 15)), id="Swin, not square"),
            pytest.param((1, 196, 192), SQUARE, View("tokens", (14, 14)), id="mixer"),
            pytest.param((1, 197, 192), SQUARE, View("tokens", (14, 14), 1), id="ViT with a class token"),
            pytest.param((1, 198, 192), SQUARE, View("tokens", (14, 14), 2), id="DeiT, distilled"),
            pytest.param((1, 201, 192), SQUARE, View("tokens", (14, 14), 5), id="ViT with four registers"),
            pytest.param((1, 151, 192), WIDE, View("tokens", (10, 15), 1), id="ViT, not square"),
            pytest.param((1, 151, 192), (240, 160), View("tokens", (15, 10), 1), id="ViT, not square, upright"),
            pytest.param((1, 48, 32), (100, 130), View("tokens", (6, 8)), id="patches of 16, a border left over"),
            pytest.param((1, 192, 49), SQUARE, View("channels-first tokens", (7, 7)), id="channels before tokens"),
        ],
    )
    def test_of_known_outputs(self, shape: tuple[int, ...], size: tuple[int, int], view: View) -> None:
        assert views_of(shape, size)[0] == view

    @pytest.mark.parametrize(
        ("shape", "size"),
        [
            pytest.param((1, 1000), SQUARE, id="logits"),
            pytest.param((1, 512, 1, 1), SQUARE, id="pooled"),
            pytest.param((1, 512, 1, 3), SQUARE, id="three cells"),
            pytest.param((1, 8, 300, 300), SQUARE, id="finer than the image"),
            pytest.param((1, 1, 192), SQUARE, id="one token"),
            pytest.param((1, 3, 30), SQUARE, id="no number of tokens that is a grid"),
            pytest.param((1, 4, 8, 7, 7), SQUARE, id="video"),
            pytest.param((), SQUARE, id="a scalar"),
        ],
    )
    def test_of_what_is_no_grid(self, shape: tuple[int, ...], size: tuple[int, int]) -> None:
        assert views_of(shape, size) == []

    def test_what_a_shape_leaves_open_is_proposed_both_ways(self) -> None:
        """8 channels of 8×2 cells and 8×8 cells of 2 channels have the same shape."""
        assert views_of((1, 8, 8, 2), (64, 64)) == [View("nhwc", (8, 8)), View("nchw", (8, 2))]
        assert views_of((1, 8, 8, 8), (64, 64)) == [View("nchw", (8, 8)), View("nhwc", (8, 8))]
        assert views_of((1, 26, 3), (64, 64))[:2] == [View("tokens", (5, 5), 1), View("tokens", (5, 5), 0, 1)]


def numbered(*shape: int) -> Tensor:
    return torch.arange(float(torch.tensor(shape).prod())).view(shape)


class TestReading:
    """Cell (i, j) of channel c is the value that the layout puts there."""

    @pytest.mark.parametrize(
        ("view", "output", "at"),
        [
            (View("nchw", (2, 3)), numbered(2, 5, 2, 3), lambda x, n, c, i, j: x[n, c, i, j]),
            (View("nhwc", (2, 3)), numbered(2, 2, 3, 5), lambda x, n, c, i, j: x[n, i, j, c]),
            (View("tokens", (2, 3)), numbered(2, 6, 5), lambda x, n, c, i, j: x[n, 3 * i + j, c]),
            (View("tokens", (2, 3), 4), numbered(2, 10, 5), lambda x, n, c, i, j: x[n, 4 + 3 * i + j, c]),
            (View("tokens", (2, 3), 0, 4), numbered(2, 10, 5), lambda x, n, c, i, j: x[n, 3 * i + j, c]),
            (View("channels-first tokens", (2, 3)), numbered(2, 5, 6), lambda x, n, c, i, j: x[n, c, 3 * i + j]),
        ],
        ids=lambda value: str(value) if isinstance(value, View) else "",
    )
    def test_cell_by_cell(self, view: View, output: Tensor, at: object) -> None:
        assert callable(at)
        read = view(output)
        assert read.shape == (2, 5, 2, 3)
        for n in range(2):
            for c in range(5):
                for i in range(2):
                    for j in range(3):
                        assert read[n, c, i, j] == at(output, n, c, i, j)

    @pytest.mark.parametrize("kind", ["tokens", "nhwc"])
    def test_a_gradient_goes_back_to_its_place(self, kind: str) -> None:
        shape = (1, 7, 5) if kind == "tokens" else (1, 2, 3, 5)
        output = torch.zeros(shape, requires_grad=True)
        value = View(kind, (2, 3), int(kind == "tokens"))(output)[0, 4, 1, 2]
        (gradient,) = torch.autograd.grad([value], [output])
        assert gradient.nonzero().tolist() == [[0, 6, 4] if kind == "tokens" else [0, 1, 2, 4]]


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (View("nchw", (7, 9)), "nchw 7×9"),
        (View("nhwc", (7, 9)), "nhwc 7×9"),
        (View("tokens", (14, 14), 1), "tokens 1+14×14"),
        (View("tokens", (14, 14), 0, 1), "tokens 14×14+1"),
        (View("channels-first tokens", (7, 7)), "channels-first tokens 7×7"),
    ],
)
def test_a_view_says_what_it_is(view: View, text: str) -> None:
    assert str(view) == text
