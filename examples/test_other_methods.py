"""Maps of other packages, and of your own, behind the same assertions: `method` may be any function.

It gets the model in eval mode, the input (1, C, H, W) and the class index, and gives a map (h, w), higher where it
matters more. What it leaves behind in the model is put back. Zero is "nothing here": a map that was min-max normalised
has no such place, so ask the package for the one before.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import AttentionError, Gradcam
from pytest_gradcam.demo.models import load_model
from pytest_gradcam.demo.pictures import Picture, held_out

PICTURES = list(held_out(3))
LAYER = "layer4"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_model("honest")


def torchcam_layer_cam(model: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """LayerCAM of torchcam."""
    methods = pytest.importorskip("torchcam.methods")
    with methods.LayerCAM(model, LAYER) as extractor:
        (cam,) = extractor(target, model(inputs), normalized=False)
    return torch.as_tensor(cam)


def grad_cam_plus_plus(model: nn.Module, inputs: Tensor, target: int) -> Any:
    """Grad-CAM++ of grad-cam; its `forward` resizes and normalises, `get_cam_image` does not."""
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    layer, wanted = model.get_submodule(LAYER), [targets.ClassifierOutputTarget(target)]
    with package.GradCAMPlusPlus(model, [layer]) as cam:
        cam(inputs, wanted)
        activations, gradients = (
            held[0].detach().numpy()
            for held in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        return cam.get_cam_image(inputs, layer, wanted, activations, gradients)


def captum_integrated_gradients(model: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """Integrated gradients of captum, added up over the colours and averaged over blocks of 8 × 8 pixels."""
    attr = pytest.importorskip("captum.attr")
    attributions: Tensor = attr.IntegratedGradients(model).attribute(inputs, target=target, n_steps=16)
    return nn.functional.avg_pool2d(attributions.sum(dim=1), 8)


def smooth_gradient(model: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """One of your own: gradient times input, averaged over noisy copies. Random numbers are the same in every call."""
    noisy = (inputs + 0.1 * torch.randn(8, *inputs.shape[1:])).requires_grad_()
    (gradient,) = torch.autograd.grad(model(noisy)[:, target].sum(), noisy)
    return nn.functional.avg_pool2d((gradient * noisy).sum(dim=1, keepdim=True).mean(dim=0), 8).detach()


METHODS = [torchcam_layer_cam, grad_cam_plus_plus, captum_integrated_gradients, smooth_gradient]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_reads_the_object(gradcam: Gradcam, model: nn.Module, picture: Picture, method: Any) -> None:
    verdict = gradcam.assert_attention_in_region(model, picture.image, picture.box, picture.label, method=method)
    assert verdict.passed


@pytest.mark.parametrize("method", ["score-cam", "ablation-cam", "occlusion", "rise"])
def test_reads_the_object_by_what_changes_the_score(gradcam: Gradcam, model: nn.Module, method: str) -> None:
    """Methods of ours that take no gradient."""
    picture = PICTURES[0]
    gradcam.assert_attention_in_region(model, picture.image, picture.box, picture.label, method=method)


def test_a_model_that_can_only_be_called(gradcam: Gradcam, model: nn.Module) -> None:
    """As a session of another runtime: `lambda x: session.run(None, {"input": x.numpy()})`."""
    picture = PICTURES[0]

    def call(inputs: Tensor) -> Any:
        return [model(inputs).detach().numpy()]

    gradcam.assert_attention_in_region(
        call, picture.image, picture.box, picture.cls, method="occlusion", transform=as_input
    )


def as_input(image: Any) -> Tensor:
    """What the demo's model takes: [-1, 1]; such a model declares no transform itself."""
    from torchvision.transforms.functional import to_tensor

    return torch.as_tensor(to_tensor(image)) * 2 - 1


@pytest.mark.parametrize("method", ["occlusion", "ablation-cam", smooth_gradient])
def test_the_stamp_reader_is_caught(gradcam: Gradcam, method: Any) -> None:
    picture = PICTURES[0]
    with pytest.raises(AttentionError):
        gradcam.assert_attention_in_region(
            load_model("shortcut"), picture.image, picture.box, picture.label, method=method
        )
