"""Our methods against the released packages: one map where a package has the paper right; where it has not, why.

Skipped where a package is not installed: `pip install torchcam captum grad-cam`. Each computes its own activations and
gradients; its raw map is divided by its maximum as ours is, since min-max normalisation is theirs alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam.cam.finer import finer_rows, finer_score
from pytest_gradcam.cam.gradient_methods import (
    eigen_cam,
    eigen_grad_cam,
    grad_cam_plus_plus,
    layer_cam,
    xgrad_cam,
)
from pytest_gradcam.cam.methods import grad_cam, hirescam
from tests.cam import twins
from tests.models import Floats, picture, reference, seeded, small

RIGHT = 2e-6


def residual() -> nn.Module:
    """A ResNet with one block in each stage."""
    from torchvision.models.resnet import BasicBlock, ResNet

    model: nn.Module = seeded(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5))
    return model


NETS = {"small": (small, "relu2", 48), "residual": (residual, "layer3", 64)}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[nn.Module, str, Tensor]:
    build, layer, size = NETS[request.param]
    return build(), layer, picture(size, size)


def shape_of(raw: Tensor | Floats) -> Floats:
    """ReLU, divided by the maximum."""
    positive = np.maximum(np.asarray(raw, np.float64), 0)
    return positive / positive.max() if positive.any() else positive


def apart(ours: Tensor | Floats, theirs: Tensor | Floats) -> float:
    """Largest difference of the two CAMs on the grid, both in [0, 1]."""
    assert ours.shape == theirs.shape
    return float(np.abs(shape_of(ours) - shape_of(theirs)).max())


def alike(ours: Tensor | Floats, theirs: Tensor | Floats) -> float:
    """Correlation of the two raw maps."""
    return float(np.corrcoef(np.ravel(ours), np.ravel(theirs))[0, 1])


def by_torchcam(name: str, model: nn.Module, layer: str, x: Tensor, c: int) -> Floats:
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed: pip install torchcam")
    with getattr(methods, name)(model, layer) as extractor:
        raw: Floats = extractor(c, model(x), normalized=False)[0][0].detach().numpy()
    return raw


def by_grad_cam(name: str, model: nn.Module, layer: str, x: Tensor, c: int) -> Floats:
    """Its raw map on the grid, from the activations and gradients that it captured itself."""
    package = needs_grad_cam()
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    with getattr(package, name)(model=model, target_layers=[model.get_submodule(layer)]) as cam:
        cam(x, [targets.ClassifierOutputTarget(c)])
        held = cam.activations_and_grads
        a = held.activations[0].detach().numpy()
        g = held.gradients[0].detach().numpy() if held.gradients else a
        raw: Floats = cam.get_cam_image(x, None, None, a, g, False)[0]
    return raw


def needs_grad_cam() -> Any:
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed: pip install grad-cam")


@pytest.mark.parametrize("c", range(4))
class TestWhereAPeerIsRight:
    """Its epsilons, 1e-8 and 1e-7, are small against activations of ordinary size."""

    @pytest.mark.parametrize(
        ("name", "method"), [("GradCAM", grad_cam), ("XGradCAM", xgrad_cam), ("LayerCAM", layer_cam)]
    )
    def test_torchcam(self, net: tuple[nn.Module, str, Tensor], c: int, name: str, method: Any) -> None:
        theirs = by_torchcam(name, *net, c)
        ours = method(*reference(net[0], net[2], net[1], c))[0]
        assert apart(ours, theirs) < RIGHT

    @pytest.mark.parametrize(
        ("name", "method"),
        [("GradCAM", grad_cam), ("HiResCAM", hirescam), ("XGradCAM", xgrad_cam), ("LayerCAM", layer_cam)],
    )
    def test_grad_cam(self, net: tuple[nn.Module, str, Tensor], c: int, name: str, method: Any) -> None:
        theirs = by_grad_cam(name, *net, c)
        ours = method(*reference(net[0], net[2], net[1], c))[0]
        assert apart(ours, theirs) < RIGHT

    def test_captum(self, net: tuple[nn.Module, str, Tensor], c: int) -> None:
        """Grad-CAM, and the products A·G, of which HiResCAM is the sum and Eigen-Grad-CAM the first component."""
        attr = pytest.importorskip("captum.attr", reason="captum is not installed: pip install captum")
        model, layer, x = net
        a, g = reference(model, x, layer, c)
        module = model.get_submodule(layer)
        assert apart(grad_cam(a, g)[0], attr.LayerGradCam(model, module).attribute(x, c)[0, 0].detach()) < RIGHT
        products = attr.LayerGradientXActivation(model, module).attribute(x, c)[0].detach()
        assert apart(hirescam(a, g)[0], products.sum(dim=0)) < RIGHT
        component = twins.eigen_grad_cam_of(products, torch.ones_like(products))
        assert apart(eigen_grad_cam(a, g)[0], component) < 10 * RIGHT

    def test_torchcam_of_finer_cam(self, net: tuple[nn.Module, str, Tensor], c: int) -> None:
        theirs = by_torchcam("FinerCAM", *net, c)
        a, g = reference(net[0], net[2], net[1], lambda output: finer_score(output, [c])[0])
        assert apart(grad_cam(a, g)[0], theirs) < RIGHT


class TestGradCamPlusPlus:
    @pytest.mark.parametrize("c", range(4))
    def test_torchcam_never_divides(self, net: tuple[nn.Module, str, Tensor], c: int) -> None:
        """`alpha[idx][mask].div_()` divides a copy: α stays G², and the weights are ΣReLU(G)³.

        On these nets its CAM is off by .11 to .45 of the maximum, and correlates with the paper's at .38 to .97.
        """
        theirs = by_torchcam("GradCAMpp", *net, c)
        a, g = reference(net[0], net[2], net[1], c)
        assert apart(twins.grad_cam_plus_plus_closed(a[0], g[0]), grad_cam_plus_plus(a, g)[0]) < RIGHT
        cubes = (g.double().relu() ** 3).sum(dim=(2, 3))
        assert apart((cubes[..., None, None] * a).sum(dim=1)[0], theirs) < RIGHT  # this is what it computes
        assert apart(grad_cam_plus_plus(a, g)[0], theirs) > 0.1

    @pytest.mark.parametrize("c", range(4))
    def test_the_epsilon_of_grad_cam_weighs_by_the_size_of_the_gradient(self, c: int) -> None:
        """1e-6 is added to 2 G² + ΣA G³, which after GAP over 144 cells is of that size itself.

        On this net its CAM is off by .017 to .19 of the maximum.
        """
        model, x = small(), picture(48, 48)
        theirs = by_grad_cam("GradCAMPlusPlus", model, "relu2", x, c)
        a, g = reference(model, x, "relu2", c)
        assert apart(grad_cam_plus_plus(a, g)[0], theirs) > 0.015
        # With gradients a thousand times as large, there is no difference: the formula is the paper's but for epsilon.
        package = needs_grad_cam()
        weights = package.GradCAMPlusPlus.get_cam_weights(None, None, None, None, a.numpy(), 1000 * g.numpy())
        large = (weights[..., None, None] * a.numpy()).sum(axis=1)[0]
        assert apart(grad_cam_plus_plus(a, 1000 * g)[0], large) < 1e-4

    def test_by_hand_two_channels_with_gradients_that_differ_tenfold(self) -> None:
        """G is 1e-4 and 1e-3 and ΣA is 1: α is 1/2 in both but for 1e-4, and the weights are 1 : 10.

        grad-cam's are 1 : 340, since its α are .0098 and .333; torchcam's, ΣReLU(G)³, are 1 : 1000.
        """
        a, g = torch.ones(1, 2, 1, 1), torch.tensor([1e-4, 1e-3]).view(1, 2, 1, 1)
        alone = [float(grad_cam_plus_plus(a[:, k : k + 1], g[:, k : k + 1])) for k in range(2)]
        assert alone == pytest.approx([0.5e-4, 0.5e-3], rel=1e-3)
        package = needs_grad_cam()
        theirs = package.GradCAMPlusPlus.get_cam_weights(None, None, None, None, a.numpy(), g.numpy())[0]
        assert (theirs / g.numpy().ravel()).tolist() == pytest.approx([0.0098, 0.333], rel=0.01)
        assert theirs[1] / theirs[0] == pytest.approx(340, rel=0.01)


class TestEigenCam:
    def test_grad_cam_centres_the_channels(self, net: tuple[nn.Module, str, Tensor]) -> None:
        """The paper decomposes the activations; grad-cam, their differences from each channel's mean.

        Of activations ≥ 0 the first component is ≥ 0; what is left after centring is negative on 38 to 46% of
        the grid, which its ReLU then deletes. Its CAM is off by .79 of the maximum and more.
        """
        theirs = by_grad_cam("EigenCAM", *net, 0)
        a, g = reference(net[0], net[2], net[1], 0)
        ours = eigen_cam(a, g)
        assert apart(ours[0], twins.eigen_cam_of(a[0])) < RIGHT
        centred = twins.eigen_cam_of(a[0] - a[0].mean(dim=(1, 2), keepdim=True))
        assert abs(alike(centred, theirs)) > 0.99999  # this is what it computes, with one sign or the other
        assert apart(ours[0], theirs) > 0.7
        assert ours.min() >= -RIGHT * ours.max()
        assert 0.3 < (theirs < 0).mean() < 0.5

    def test_grad_cam_leaves_the_sign_to_chance(self) -> None:
        """The same channels in another order: a component has no order, and yet some orders turn its map over."""
        needs_grad_cam()
        projection = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
        a, g = reference(small(), picture(48, 48), "relu2", 0)
        theirs, ours = [], []
        for seed in range(20):
            order = torch.randperm(a.shape[1], generator=torch.Generator().manual_seed(seed))
            theirs.append(projection.get_2d_projection(a[:, order].numpy())[0])
            ours.append(eigen_cam(a[:, order], g)[0])
        signs = [round(alike(theirs[0], other), 3) for other in theirs]
        assert set(signs) == {-1.0, 1.0}
        assert max(apart(ours[0], other) for other in ours) < RIGHT

    def test_grad_cam_may_show_what_speaks_against_the_class(self) -> None:
        """Eigen-Grad-CAM of a ResNet: for classes 0, 2 and 3 its map is ours turned over (−.998 and below)."""
        model, x = residual(), picture(64, 64)
        found = []
        for c in range(4):
            a, g = reference(model, x, "layer3", c)
            ours = eigen_grad_cam(a, g)[0]
            assert (ours * hirescam(a, g)[0]).sum() > 0
            found.append(alike(ours, by_grad_cam("EigenGradCAM", model, "layer3", x, c)))
        assert min(np.abs(found)) > 0.998
        assert min(found) < 0 < max(found)


class TestFinerCam:
    def score(self, logits: Tensor, references: list[int], alpha: float = 1.0) -> Tensor:
        needs_grad_cam()
        targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
        score: Tensor = targets.FinerWeightedTarget(0, references, alpha)(logits)
        return score

    def rows(self, values: list[float]) -> list[float]:
        logits = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(self.score(logits, [1, 2, 3]), logits)
        rows: list[float] = found.tolist()
        return rows

    def test_of_one_reference_grad_cam_is_right(self) -> None:
        logits = torch.tensor([5.0, 4.0, 1.0, 0.0], dtype=torch.float64)
        assert float(self.score(logits, [1])) == pytest.approx(float(finer_score(logits[None], [0], 1.0, 1)))

    def test_grad_cam_differentiates_its_weights(self) -> None:
        """Logits 5, 4, 1, 0: classes 2 and 3 are to be held against class 0, and are counted for it, at .08 and .05.

        d(Σ w_d y_d)/dy_e is w_e (1 + y_e − Σ w_d y_d), which is negative for a reference 1 below the mean of them.
        """
        theirs = self.rows([5.0, 4.0, 1.0, 0.0])
        assert theirs == pytest.approx([1, -1.132, 0.084, 0.048], abs=2e-3)
        ours = finer_rows(torch.tensor([[5.0, 4.0, 1.0, 0.0]]), [0], alpha=1.0)
        assert ours[0].tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])

    def test_of_a_class_sure_of_itself_grad_cam_turns_the_map_over(self) -> None:
        """Logits 30, 0, -1, -2: the weights' sum, 1.4e-13, is far below the 1e-9 added to it, and falls as y_c grows.

        So the score falls too: what speaks for the class counts against it.
        """
        theirs = self.rows([30.0, 0.0, -1.0, -2.0])
        assert theirs[0] < -1e-3
        assert finer_rows(torch.tensor([[30.0, 0.0, -1.0, -2.0]]), [0])[0, 0] == 1
