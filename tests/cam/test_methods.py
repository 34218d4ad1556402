"""Each method against its paper's formula, written as loops; and the registry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_gradcam import SettingsError
from pytest_gradcam.cam.methods import METHODS, check, choose, grad_cam, hirescam
from pytest_gradcam.cam.views import View
from tests.models import Floats, grad_cam_of, hirescam_of

FORMULAS: dict[str, Callable[[Tensor, Tensor], Floats]] = {"grad-cam": grad_cam_of, "hirescam": hirescam_of}


def drawn(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, 3, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FORMULAS)
class TestFormulas:
    @pytest.mark.parametrize("count", [1, 3])
    def test_of_a_batch(self, name: str, count: int) -> None:
        a, g = drawn(count, 0), drawn(count, 1)
        raw = METHODS[name].raw(a, g)
        assert raw.shape == (count, 3, 5)
        for n in range(count):
            assert np.allclose(raw[n], FORMULAS[name](a[n : n + 1], g[n : n + 1]), rtol=1e-5, atol=1e-6)

    def test_of_many_classes_of_one_image(self, name: str) -> None:
        """Activations (1, C, h, w) serve all rows of the gradients."""
        a, g = drawn(1, 2), drawn(4, 3)
        raw = METHODS[name].raw(a, g)
        assert raw.shape == (4, 3, 5)
        for n in range(4):
            assert np.allclose(raw[n], FORMULAS[name](a, g[n : n + 1]), rtol=1e-5, atol=1e-6)

    def test_the_raw_cam_is_signed(self, name: str) -> None:
        a, g = drawn(1, 4), drawn(1, 5)
        raw = METHODS[name].raw(a, g)
        assert raw.min() < 0 < raw.max()
        assert torch.equal(METHODS[name].raw(a, -g), -raw)


def test_by_hand() -> None:
    """Two channels on a grid of 1×2: α is (0.5, -1), HiResCAM takes each cell's own gradient."""
    a = torch.tensor([[[[2.0, 4.0]], [[1.0, 3.0]]]])
    g = torch.tensor([[[[1.0, 0.0]], [[-2.0, 0.0]]]])
    assert grad_cam(a, g).tolist() == [[[2 * 0.5 - 1 * 1, 4 * 0.5 - 3 * 1]]]
    assert hirescam(a, g).tolist() == [[[2 * 1 - 1 * 2, 0.0]]]


KNOWN = ", ".join(["auto", *METHODS])


class TestTheRegistry:
    @pytest.mark.parametrize(
        ("view", "name"),
        [
            (View("nchw", (7, 7)), "grad-cam"),
            (View("nhwc", (7, 7)), "grad-cam"),
            (View("tokens", (7, 7), 1), "hirescam"),
            (View("channels-first tokens", (7, 7)), "hirescam"),
        ],
    )
    def test_auto_depends_on_the_grid(self, view: View, name: str) -> None:
        assert choose("auto", view) is METHODS[name]

    @pytest.mark.parametrize("name", METHODS)
    def test_a_name_stands_for_itself_on_every_grid(self, name: str) -> None:
        for view in (View("nchw", (7, 7)), View("tokens", (7, 7))):
            assert choose(name, view) is METHODS[name]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("gradcam", f"unknown method 'gradcam': the methods are {KNOWN}; did you mean 'grad-cam'?"),
            ("HiResCAM", f"unknown method 'HiResCAM': the methods are {KNOWN}; did you mean 'hirescam'?"),
            ("xyz", f"unknown method 'xyz': the methods are {KNOWN}"),
            (None, f"unknown method None: the methods are {KNOWN}"),
            (["grad-cam"], f"unknown method ['grad-cam']: the methods are {KNOWN}"),
        ],
    )
    def test_an_unknown_name_is_refused(self, name: object, message: str) -> None:
        with pytest.raises(SettingsError) as raised:
            check(name)
        assert str(raised.value).startswith(message)
