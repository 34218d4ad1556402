"""Each method against its paper's formula, written as loops; what it does where the formula has no value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pytest_gradcam import ClassError, SettingsError
from pytest_gradcam.cam.finer import finer_rows, finer_score
from pytest_gradcam.cam.gradient_methods import (
    eigen_cam,
    eigen_grad_cam,
    eigen_grad_cam_terms,
    grad_cam_plus_plus,
    grad_cam_plus_plus_terms,
    layer_cam,
    xgrad_cam,
    xgrad_cam_terms,
)
from pytest_gradcam.cam.methods import hirescam
from pytest_gradcam.strategies import SmallModel
from tests.cam import twins
from tests.models import Floats, apart
from tests.properties.oracle import captured

METHODS = {
    "grad-cam++": (grad_cam_plus_plus, twins.grad_cam_plus_plus_closed),
    "xgrad-cam": (xgrad_cam, twins.xgrad_cam_of),
    "layer-cam": (layer_cam, twins.layer_cam_of),
    "eigen-cam": (eigen_cam, lambda a, _: twins.eigen_cam_of(a)),
    "eigen-grad-cam": (eigen_grad_cam, twins.eigen_grad_cam_of),
}
Twin = Callable[[Tensor, Tensor], Floats]
every = pytest.mark.parametrize(("method", "twin"), METHODS.values(), ids=METHODS)
# Fewer channels than cells, and more.
every_shape = pytest.mark.parametrize("shape", [(6, 3, 5), (24, 2, 4)], ids=["wide", "deep"])


def drawn(count: int, seed: int, shape: tuple[int, int, int] = (6, 3, 5)) -> tuple[Tensor, Tensor]:
    """Activations as after a ReLU, with a channel that is zero, and gradients of both signs, some of them zero."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(count, *shape, generator=generator, dtype=torch.float64).relu()
    g = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    a[:, 1], g[:, 2], g[..., 0] = 0, -g[:, 2].abs(), 0
    return a, g


@every
@every_shape
class TestFormulas:
    @pytest.mark.parametrize("count", [1, 3])
    def test_of_a_batch(
        self, method: Callable[[Tensor, Tensor], Tensor], twin: Twin, shape: tuple[int, int, int], count: int
    ) -> None:
        a, g = drawn(count, 0, shape)
        raw = method(a, g)
        assert raw.shape == (count, *shape[1:])
        for n in range(count):
            assert apart(raw[n].numpy(), twin(a[n], g[n])) < 1e-10

    def test_of_signed_activations(
        self, method: Callable[[Tensor, Tensor], Tensor], twin: Twin, shape: tuple[int, int, int]
    ) -> None:
        a, g = drawn(2, 1, shape)
        a = a - 0.3
        for n in range(2):
            assert apart(method(a, g)[n].numpy(), twin(a[n], g[n])) < 1e-10

    def test_of_many_classes_of_one_image(
        self, method: Callable[[Tensor, Tensor], Tensor], twin: Twin, shape: tuple[int, int, int]
    ) -> None:
        """Activations (1, C, h, w) serve all rows of the gradients."""
        a, g = drawn(1, 2, shape)[0], drawn(4, 3, shape)[1]
        raw = method(a, g)
        assert raw.shape == (4, *shape[1:])
        for n in range(4):
            assert apart(raw[n].numpy(), twin(a[0], g[n])) < 1e-10

    @pytest.mark.parametrize("size", [1e-20, 1e-8, 1.0, 1e8])
    def test_in_float32_of_any_size(
        self, method: Callable[[Tensor, Tensor], Tensor], twin: Twin, shape: tuple[int, int, int], size: float
    ) -> None:
        """Gradients whose squares and cubes float32 does not hold."""
        a, g = drawn(2, 4, shape)
        single = method(a.float(), (size * g).float())
        assert single.dtype == torch.float32
        for n in range(2):
            assert apart(single[n].numpy(), twin(a[n], size * g[n])) < 2e-6

    def test_of_nothing(
        self, method: Callable[[Tensor, Tensor], Tensor], twin: Twin, shape: tuple[int, int, int]
    ) -> None:
        """Zero activations: a map of zeros, not of 0/0."""
        a, g = drawn(2, 5, shape)
        a[0] = 0
        raw = method(a, g)
        assert not raw[0].any()
        assert apart(raw[1].numpy(), twin(a[1], g[1])) < 1e-10

    def test_what_is_not_finite_is_not_hidden(
        self, method: Callable[[Tensor, Tensor], Tensor], twin: Twin, shape: tuple[int, int, int]
    ) -> None:
        """And does not reach the other images of the batch."""
        for value in (float("nan"), float("inf")):
            a, g = drawn(2, 6, shape)
            a[0, 0, 1, 1] = value
            raw = method(a, g)
            assert not bool(raw[0].isfinite().all())
            assert apart(raw[1].numpy(), twin(a[1], g[1])) < 1e-10


class TestGradCamPlusPlus:
    @pytest.mark.parametrize("head", ["gap-linear", "gap-mlp", "flatten-mlp", "conv"])
    def test_is_what_the_derivatives_of_the_exponential_give(self, head: str) -> None:
        """Second and third derivatives of exp(S) by autograd; exp(S) itself is the factor that we leave out."""
        net = SmallModel(seed=3, size=(4, 5), channels=(3,), classes=3, head=head).build().double()
        x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        seen = 0
        for c in range(3):
            a, g = captured(net, x, c)
            raw = grad_cam_plus_plus(a, g)
            scores = net.head(a)[:, c].detach()
            for n in range(2):
                twin = twins.grad_cam_plus_plus_of(lambda cells, c=c: net.head(cells)[0, c], a[n])  # type: ignore[misc]
                exact = 1e-10 * twin.max()  # which is 0 where every channel speaks against the class
                np.testing.assert_allclose((raw[n] * scores[n].exp()).numpy(), twin, rtol=0, atol=exact)
                seen += bool(twin.any())
        assert seen >= 4

    def test_by_hand(self) -> None:
        """ΣA = 6, G = (1, -1): α is 1 / (2 + 1·6) in the first cell, and the second has no vote."""
        a, g = torch.tensor([[[[2.0, 4.0]]]]), torch.tensor([[[[1.0, -1.0]]]])
        assert grad_cam_plus_plus(a, g).tolist() == [[[2 / 8, 4 / 8]]]

    def test_in_the_pole_of_alpha_a_cell_is_left_out(self) -> None:
        """2 + G ΣA is 0 at G = 1 and ΣA = -2, for which the paper has no value; what is left is the cell of G = 0.5."""
        a, g = torch.tensor([[[[-3.0, 1.0]]]]), torch.tensor([[[[1.0, 0.5]]]])
        assert grad_cam_plus_plus(a, g).tolist() == [[[-3 * 0.5, 1 * 0.5]]]

    def test_near_the_pole_a_step_of_float32_is_the_whole_map(self) -> None:
        """Why it is for layers after a ReLU: with a negative sum, the map may be any, of any sign."""
        a = torch.tensor([[[[-3.0, 1.0]]]])
        below, above = (grad_cam_plus_plus(a, torch.tensor([[[[1.0 + d, 0.0]]]]))[0, 0, 1] for d in (-1e-6, 1e-6))
        assert below > 1e5
        assert above < -1e5


class TestXGradCam:
    def test_by_hand(self) -> None:
        """The first channel's gradient (1, 3) under activations (3, 1) has the mean 6/4; the second channel is zero."""
        a = torch.tensor([[[[3.0, 1.0]], [[0.0, 0.0]]]])
        g = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]])
        assert xgrad_cam(a, g).tolist() == [[[3 * 1.5, 1 * 1.5]]]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("mean", [0.0, 1.0, 10.0])
    def test_a_channel_that_adds_up_to_rounding_has_no_weight(self, dtype: torch.dtype, mean: float) -> None:
        """After an instance norm every channel does; divided by such a sum, it would drown the one that does not."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 9, 7, 7, generator=generator, dtype=dtype) + mean
        g = torch.randn(2, 9, 7, 7, generator=generator, dtype=dtype)
        a = functional.instance_norm(x)
        a[:, 4] = a[:, 4].relu()
        raw = xgrad_cam(a, g)
        assert torch.allclose(raw, xgrad_cam(a[:, 4:5], g[:, 4:5]), rtol=1e-5)
        naive = ((a * g).sum((2, 3)) / a.sum((2, 3)))[..., None, None] * a
        assert naive.sum(1).abs().nan_to_num(torch.inf).max() > 1e3 * raw.abs().max()  # 0/0 in some


class TestEigenCam:
    def test_takes_no_notice_of_the_gradient(self) -> None:
        a, g = drawn(2, 7)
        assert torch.equal(eigen_cam(a, g), eigen_cam(a, torch.zeros_like(g)))

    def test_after_a_relu_it_is_nowhere_negative(self) -> None:
        for seed in range(50):
            a, g = drawn(3, seed)
            raw = eigen_cam(a, g)
            assert raw.min() >= -1e-13 * raw.max()
            assert (raw.flatten(1).sum(1) > 0).all()

    def test_of_one_product_is_its_factor(self) -> None:
        """A matrix of rank one, u vᵀ: the projection is |v| u, and with all signs turned, the same."""
        u, v = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([3.0, 4.0])
        a = (v[:, None, None] * u)[None]
        assert torch.allclose(eigen_cam(a, a)[0], 5 * u)
        assert torch.allclose(eigen_cam(-a, a)[0], 5 * u)

    def test_where_nothing_tells_the_sign_there_is_no_map(self) -> None:
        """After an instance norm every channel adds up to zero, and with them every projection."""
        x = torch.randn(2, 9, 7, 7, generator=torch.Generator().manual_seed(0))
        assert not eigen_cam(functional.instance_norm(x), x).any()


class TestEigenGradCam:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @every_shape
    def test_agrees_with_hirescam(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        for seed in range(50):
            a, g = (part.to(dtype) for part in drawn(3, seed, shape))
            assert ((eigen_grad_cam(a, g) * hirescam(a, g)).sum(dim=(1, 2)) > 0).all()

    @every_shape
    def test_a_negated_score_negates_it_exactly(self, shape: tuple[int, int, int]) -> None:
        for seed in range(20):
            a, g = drawn(3, seed, shape)
            assert torch.equal(eigen_grad_cam(a, -g), -eigen_grad_cam(a, g))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_mirrored_channels_have_no_map(self, dtype: torch.dtype) -> None:
        """Each channel and its negative: HiResCAM is only rounding, and the component agrees with neither sign."""
        for seed in range(20):
            a, g = (part.to(dtype) for part in drawn(2, seed))
            mirrored = eigen_grad_cam(torch.cat([a, a * 3], dim=1), torch.cat([g, -g / 3], dim=1))
            assert not mirrored.any()


class TestTerms:
    """What is compared with rounding: what a method adds up in magnitude, cell by cell."""

    @pytest.mark.parametrize(
        ("method", "terms"),
        [
            (grad_cam_plus_plus, grad_cam_plus_plus_terms),
            (xgrad_cam, xgrad_cam_terms),
            (eigen_grad_cam, eigen_grad_cam_terms),
        ],
    )
    def test_bound_the_map_also_of_signed_activations(
        self, method: Callable[[Tensor, Tensor], Tensor], terms: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        for seed in range(50):
            a, g = drawn(3, seed)
            for shift in (0.0, 0.3):
                assert (terms(a - shift, g) >= method(a - shift, g).abs() * (1 - 1e-12)).all()

    def test_the_method_of_magnitudes_does_not_bound_signed_activations(self) -> None:
        """ΣA is near 0, where Σ|A| is not: by hand, 1 / 0.1 against 1 / 2.1, and 1 / 2 against 1 / 4."""
        a, g = torch.tensor([[[[1.1, -1.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
        assert xgrad_cam(a, g).max() > 15 * xgrad_cam(a.abs(), g.abs()).max()
        assert grad_cam_plus_plus(a, g).max() > 1.5 * grad_cam_plus_plus(a.abs(), g.abs()).max()

    @pytest.mark.parametrize("method", [grad_cam_plus_plus, xgrad_cam, layer_cam])
    def test_the_method_of_magnitudes_bounds_the_map_after_a_relu(
        self, method: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        for seed in range(50):
            a, g = drawn(3, seed)
            assert (method(a, g.abs()) >= method(a, g).abs() * (1 - 1e-12)).all()


class TestFinerScore:
    @pytest.mark.parametrize("count", [2, 3, 4, 9])
    @pytest.mark.parametrize("references", [1, 3, 20])
    @pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
    def test_is_the_mean_difference_to_the_nearest_others(self, count: int, references: int, alpha: float) -> None:
        logits = 3 * torch.randn(5, count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
        classes = [n % count for n in range(5)]
        scores = finer_score(logits, classes, alpha, references)
        twin = [twins.finer_score_of(logits[n].tolist(), classes[n], alpha, references) for n in range(5)]
        np.testing.assert_allclose(scores, twin, rtol=0, atol=1e-12)

    def test_its_gradient_are_its_rows(self) -> None:
        """The nearest of 2 are 1 and 3, above and below; nothing is differentiated of how they were chosen."""
        logits = torch.tensor([[9.0, 5.5, 5.0, 4.0, 2.0]], requires_grad=True)
        (found,) = torch.autograd.grad(finer_score(logits, [2], alpha=0.5, references=2).sum(), logits)
        assert found.tolist() == finer_rows(logits, [2], 0.5, 2).tolist() == [[0, -0.25, 1, -0.25, 0]]

    def test_of_two_classes_the_other_is_the_only_reference(self) -> None:
        assert finer_rows(torch.tensor([[1.0, 2.0]]), [0], alpha=1.0).tolist() == [[1, -1]]

    def test_of_equals_the_first_are_taken(self) -> None:
        assert finer_rows(torch.zeros(1, 5), [1], alpha=1.0, references=2).tolist() == [[-0.5, 1, -0.5, 0, 0]]

    def test_a_class_that_is_ruled_out_is_the_last_to_be_taken(self) -> None:
        logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
        assert finer_rows(logits, [2], alpha=1.0, references=1).tolist() == [[0, -1, 1, 0]]

    @pytest.mark.parametrize(
        ("count", "classes", "references", "error", "message"),
        [
            (1, [0], 3, ClassError, "compares a class with the others, and the model has 1 class"),
            (4, [4], 3, ClassError, "class 4 is out of range: the model has 4 classes"),
            (4, [-1], 3, ClassError, "class -1 is out of range"),
            (4, [0, 1], 3, ClassError, "2 classes for 1 rows of logits"),
            (4, [0], 0, SettingsError, "references is 0"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(
        self, count: int, classes: list[int], references: int, error: type[ValueError], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            finer_score(torch.zeros(1, count), classes, references=references)
        assert issubclass(error, ValueError)
