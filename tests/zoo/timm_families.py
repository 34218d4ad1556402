"""The zoo: the smallest member of every family of architectures that timm has, with weights worth explaining.

What a family's grid is stands here as it follows from the architecture: how far it strides, and what its head reads.
Nothing here asks the package under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tests.zoo.redraw import Size, pictures

Grid = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Member:
    """The member that stands for its family.

    Attributes:
        name: timm's, of the architecture.
        grids: (h, w) of the layer that the score is read from; several where the score is read from several.
        classes: where the member has no classifier of its own: how many classes it is given.
        side: of the input in pixels, where the member's own is too slow.
    """

    name: str
    grids: tuple[Grid, ...]
    classes: int | None = None
    side: int | None = None


# By module of timm.models: the architecture with the fewest parameters; of several, the first by name that timm does
# not call deprecated. As of timm 1.0.31.
FAMILIES: dict[str, Member] = {
    "beit": Member("beit_base_patch16_224", ((14, 14),)),
    "byoanet": Member("halonet_h1", ((8, 8),)),
    "byobnet": Member("test_byobnet", ((5, 5),)),
    "cait": Member("cait_xxs24_224", ((14, 14),)),
    # coat: class tokens of three scales, read together; all of them see the image through the first scale.
    "coat": Member("coat_tiny", ((56, 56), (28, 28), (14, 14), (7, 7))),
    "convit": Member("convit_tiny", ((14, 14),)),
    "convmixer": Member("convmixer_768_32", ((32, 32),)),
    "convnext": Member("test_convnext", ((5, 5),)),
    "cpubone": Member("cpubone_nano", ((7, 7),)),
    # crossvit: class tokens of two branches, the image in patches of 12 and, scaled down, of 16.
    "crossvit": Member("crossvit_tiny_240", ((20, 20), (14, 14))),
    "csatv2": Member("csatv2", ((8, 8),)),
    "cspnet": Member("cs3darknet_focus_s", ((8, 8),)),
    "cspnext": Member("cspnext_tiny", ((7, 7),)),
    "davit": Member("davit_tiny", ((7, 7),)),
    # deepseek_vit: a forward takes 29 s at 546 × 546.
    "deepseek_vit": Member("deepseek_vit_412m", ((8, 8),), classes=10, side=112),
    "deit": Member("deit_tiny_patch16_224", ((14, 14),)),
    "densenet": Member("densenet121", ((7, 7),)),
    "dla": Member("dla46x_c", ((7, 7),)),
    "dpn": Member("dpn48b", ((7, 7),)),
    "edgenext": Member("edgenext_xx_small", ((8, 8),)),
    "efficientformer": Member("efficientformer_l1", ((7, 7),)),
    "efficientformer_v2": Member("efficientformerv2_s0", ((7, 7),)),
    "efficientnet": Member("test_efficientnet", ((5, 5),)),
    # efficientvim: hidden states of three stages and the last grid, read together.
    "efficientvim": Member("efficientvim_m1", ((14, 14), (7, 7), (4, 4))),
    "efficientvit_mit": Member("efficientvit_b0", ((7, 7),)),
    "efficientvit_msra": Member("efficientvit_m0", ((4, 4),)),
    "eva": Member("vit_tiny_patch16_dinov3_qkvb", ((16, 16),), classes=10),
    "fasternet": Member("fasternet_t0", ((7, 7),)),
    "fastvit": Member("fastvit_t8", ((8, 8),)),
    "focalnet": Member("focalnet_tiny_srf", ((7, 7),)),
    "gcvit": Member("gcvit_xxtiny", ((7, 7),)),
    # gemma4_vit: a forward takes 16 s at 768 × 768.
    "gemma4_vit": Member("gemma4_vit_167m", ((12, 12),), classes=10, side=192),
    "ghostnet": Member("ghostnet_050", ((7, 7),)),
    "hardcorenas": Member("hardcorenas_b", ((7, 7),)),
    "hgnet": Member("hgnetv2_b0", ((7, 7),)),
    "hiera": Member("hiera_tiny_224", ((7, 7),)),
    # hieradet_sam2: a forward takes 4 s at 896 × 896.
    "hieradet_sam2": Member("sam2_hiera_tiny", ((7, 7),), classes=10, side=224),
    "hrnet": Member("hrnet_w18_small", ((7, 7),)),
    "iformer": Member("iformer_t", ((7, 7),)),
    "inception_next": Member("inception_next_atto", ((7, 7),)),
    "inception_resnet_v2": Member("inception_resnet_v2", ((8, 8),)),
    "inception_v3": Member("inception_v3", ((8, 8),)),
    "inception_v4": Member("inception_v4", ((8, 8),)),
    "lcnetv2": Member("lcnetv2_small", ((7, 7),)),
    "levit": Member("levit_128s", ((4, 4),)),
    "lowformer": Member("lowformer_b0", ((7, 7),)),
    "mambaout": Member("test_mambaout", ((5, 5),)),
    "maxxvit": Member("test_coatnet", ((5, 5),)),
    "metaformer": Member("poolformerv2_s12", ((7, 7),)),
    "mlp_mixer": Member("gmlp_ti16_224", ((14, 14),)),
    "mobilenetv3": Member("mobilenetv3_small_050", ((7, 7),)),
    "mobilenetv5": Member("mobilenetv5_base", ((16, 16),)),
    "mobilevit": Member("mobilevit_xxs", ((8, 8),)),
    "mvitv2": Member("mvitv2_tiny", ((7, 7),)),
    # naflexvit: a forward takes 1.4 s and 50 GFLOPs at 384 × 384.
    "naflexvit": Member("naflexvit_base_patch16_parfac_gap", ((14, 14),), side=224),
    # nasnet, pnasnet: 25 GFLOPs, but at 224 × 224 a cell of their random weights sees nearly the whole picture.
    "nasnet": Member("nasnetalarge", ((11, 11),)),
    "nest": Member("nest_tiny", ((14, 14),)),
    "nextvit": Member("nextvit_small", ((7, 7),)),
    "nfnet": Member("test_nfnet", ((5, 5),)),
    "pit": Member("pit_ti_224", ((7, 7),)),
    "pnasnet": Member("pnasnet5large", ((11, 11),)),
    "pvt_v2": Member("pvt_v2_b0", ((7, 7),)),
    # qwen3_vit: a forward takes 8 s at 768 × 768.
    "qwen3_vit": Member("qwen3_vit_88m", ((14, 14),), classes=10, side=224),
    "rdnet": Member("rdnet_tiny", ((7, 7),)),
    "regnet": Member("regnetx_002", ((7, 7),)),
    "repghost": Member("repghostnet_050", ((7, 7),)),
    "repvit": Member("repvit_m1", ((7, 7),)),
    "res2net": Member("res2next50", ((7, 7),)),
    "resnest": Member("resnest14d", ((7, 7),)),
    "resnet": Member("test_resnet", ((5, 5),)),
    "resnetv2": Member("resnetv2_18", ((7, 7),)),
    "rexnet": Member("rexnet_100", ((7, 7),)),
    "selecsls": Member("selecsls42", ((4, 4),)),
    "senet": Member("legacy_seresnet18", ((7, 7),)),
    "sequencer": Member("sequencer2d_s", ((16, 16),)),
    "shvit": Member("shvit_s1", ((4, 4),)),
    "sknet": Member("skresnet18", ((7, 7),)),
    "starnet": Member("starnet_s050", ((7, 7),)),
    "swiftformer": Member("swiftformer_xs", ((7, 7),)),
    "swin_transformer": Member("swin_tiny_patch4_window7_224", ((7, 7),)),
    "swin_transformer_v2": Member("swinv2_tiny_window16_256", ((8, 8),)),
    "swin_transformer_v2_cr": Member("swinv2_cr_tiny_224", ((7, 7),)),
    "tiny_vit": Member("tiny_vit_5m_224", ((7, 7),)),
    "tnt": Member("tnt_s_legacy_patch16_224", ((14, 14),)),
    "tresnet": Member("tresnet_m", ((7, 7),)),
    "twins": Member("twins_svt_small", ((7, 7),)),
    # vgg: the last convolution's, and the pool's behind it.
    "vgg": Member("vgg11", ((14, 14), (7, 7))),
    "visformer": Member("visformer_tiny", ((7, 7),)),
    "vision_transformer": Member("test_vit", ((10, 10),)),
    "vision_transformer_hybrid": Member("vit_tiny_r_s16_p8_224", ((7, 7),)),
    "vision_transformer_relpos": Member("test_vit_relpos", ((10, 10),)),
    "vision_transformer_sam": Member("samvit_base_patch16_224", ((14, 14),)),
    "vitamin": Member("vitamin_small_224", ((14, 14),)),
    "volo": Member("volo_d1_224", ((14, 14),)),
    "vovnet": Member("ese_vovnet19b_slim_dw", ((7, 7),)),
    "xception": Member("legacy_xception", ((10, 10),)),
    "xception_aligned": Member("xception41p", ((10, 10),)),
    "xcit": Member("xcit_nano_12_p8_224", ((28, 28),)),
}

# Families that the split engine refuses, which it says: no cut of them runs as the model does.
CANNOT_BE_CUT: frozenset[str] = frozenset()
# Families for which no layer is found, and why that is right.
REFUSED: dict[str, str] = {}
# Families whose map does not follow the picture as closely as it should, with the figures.
FALLS_SHORT: dict[str, str] = {
    "beit": ".64 along the rows, .55 along the columns: the norm behind the pool moves the whole map",
    "convmixer": ".10 and .23: 32 wide convolutions with random weights keep no locality",
    "convnext": ".68 and .60, at the edge: the norm behind the pool moves the whole map",
    "cspnext": ".48 and .38: spatial pyramid pooling",
    "efficientformer_v2": ".59 and .57",
    "efficientvim": ".08 and .31: its heads read every stage, so only an early layer has all of the evidence, where "
    "Grad-CAM's mean over the grid says little; HiResCAM has .75 and .80 there",
    "efficientvit_mit": ".49 and .69: linear attention over the whole grid",
    "gemma4_vit": ".05 and .13: random weights keep no locality in any block",
    "inception_v4": ".33 and .18: random weights keep next to no locality at its last grid",
    "levit": ".46 and .30: attention without a residual between its stages",
}
# Families that take more than about ten seconds of a test run each, or much memory: under a marker.
HEAVY = frozenset(
    {
        *("beit", "byoanet", "coat", "convmixer", "deepseek_vit", "gemma4_vit", "inception_resnet_v2", "inception_v4"),
        *("mobilenetv5", "naflexvit", "nasnet", "pnasnet", "qwen3_vit", "vgg", "vision_transformer_sam", "volo"),
        *("xception", "xception_aligned"),
    }
)

# What fresh weights are worth depends on constants that training would move: 1e-6 before a residual branch, zero in its
# last norm, zero in the head. They leave a net without evidence, or one that is little more than its stem.
FAINT_SCALE = 1e-2
FAINT_WEIGHTS = 1e-3
# What timm itself draws most weights with.
DEVIATION = 0.02
# Pictures whose statistics the batch norms take. With 4, levels that differ from picture to picture were taken for
# outliers: the logits of another picture were 1000 times larger (HaloNet) than those of the 4; with 16, they are alike.
CALIBRATION = 16


def input_size(family: str) -> Size:
    """(C, H, W) of the input of a family's member."""
    member = FAMILIES[family]
    config = timm.get_pretrained_cfg(member.name)
    assert config is not None
    channels, height, width = config.input_size
    return (channels, height, width) if member.side is None else (channels, member.side, member.side)


def build(family: str, seed: int) -> nn.Module:
    """A family's member in eval mode, without pretrained weights: timm's own draw from the seed, woken.

    Torch's generator is left as it was.
    """
    member = FAMILIES[family]
    keywords: dict[str, Any] = {} if member.classes is None else {"num_classes": member.classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(member.name, pretrained=False, **keywords)
        wake(model)
        calibrate(model.eval(), pictures(CALIBRATION, input_size(family), torch.Generator().manual_seed(seed)))
    return model


def wake(model: nn.Module) -> None:
    """Change of timm's initial weights only what mutes a part of the net.

    - A layer scale, a constant of at most 0.01 (ConvNeXt, CaiT, …), is 1, as if the net had none: with weights as small
      as timm draws them its branches stay small.
    - A scale of zero, in the last norm of a residual branch (ResNet, RegNet, Swin V2, …) or a gain (NFNet), is what
      lets all such branches together weigh as much as what they are added to: one over the root of how many there are.
      At 1, random attention would smear each place over the whole grid (Swin V2, EfficientViT).
    - A matrix of at most 0.001 is drawn with timm's usual deviation: heads (Hiera, Sequencer, gMLP, BEiT) and gMLP's
      spatial gate.

    Biases, tables of biases and tokens that begin at zero stay there: what adds nothing mutes nothing.
    """
    faint: list[nn.Parameter] = []
    zero: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            largest = float(parameter.detach().abs().max()) if parameter.numel() else 1.0
            if (
                _is_scale(name, parameter)
                and largest <= FAINT_SCALE
                and bool((parameter == parameter.flatten()[0]).all())
            ):
                (faint if largest > 0 else zero).append(parameter)
            elif (
                name == "weight"
                and isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
                and largest <= FAINT_WEIGHTS
            ):
                matrices.append(parameter)
    for parameter in faint:
        nn.init.ones_(parameter)
    for parameter in zero:
        nn.init.constant_(parameter, len(zero) ** -0.5)
    for parameter in matrices:
        nn.init.normal_(parameter, 0.0, DEVIATION)


def _is_scale(name: str, parameter: Tensor) -> bool:
    """Whether it is a vector, whatever the axes of length 1 around it, that no name calls a bias or a token."""
    vector = 1 < parameter.numel() == max(parameter.shape)
    return vector and not any(word in name for word in ("bias", "token", "embed"))


def calibrate(model: nn.Module, inputs: Tensor) -> None:
    """Give the batch norms the statistics of these inputs, as training would.

    With fresh ones every layer changes the size of what passes through it, and with depth it is lost: the deviation of
    the logits was 1e-13 in LCNetV2 and 7e11 in Inception V3. Only the norms are in training mode, and see no dropout.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    with _averaging(norms), torch.no_grad():
        model(inputs)
    assert not model.training


@contextmanager
def _averaging(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean
        norm.reset_running_stats()
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def missing() -> list[str]:
    """The families of the installed timm that the zoo has no member of."""
    return [family for family in timm.list_modules() if family not in FAMILIES and timm.list_models(module=family)]


def present() -> list[str]:
    """The families of the zoo whose member the installed timm has: an older one lacks some."""
    return [family for family, member in FAMILIES.items() if timm.is_model(member.name)]
