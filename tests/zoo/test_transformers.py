"""Image classifiers of `transformers`, of every kind of grid: each gives a map, unconfigured, in the right place.

All are built small, from their configurations, with random weights. Of the architectures that the library lists for
image classification these are left out: Dinat (needs a package of its own), ImageGPT (reads a sequence of colours),
Perceiver (reads latents, which have no place), ShieldGemma 2 (reads text beside the image).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

from pytest_gradcam import Explanation, explain, explain_batch, explain_classes
from tests.models import Floats, calibrated, picture, seeded

# Of the seven classes some have no evidence: their raw maps are compared all the same.
pytestmark = pytest.mark.filterwarnings("ignore::pytest_gradcam.ZeroEvidenceWarning")

CLASSES = 7


def from_transformers(name: str, head: str = "ForImageClassification", **keywords: Any) -> Any:
    """The classifier of an architecture, from the keywords of its configuration."""
    config = getattr(transformers, f"{name}Config")(**keywords, num_labels=CLASSES)
    return getattr(transformers, f"{name}{head}")(config)


VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 8,
}
WITH_MLP: dict[str, Any] = {**VIT, "intermediate_size": 64}
# Windows of 4 × 4 tokens on grids of 32, 16 and 8: in every second block they are shifted.
SWIN: dict[str, Any] = {
    "image_size": 128,
    "embed_dim": 12,
    "depths": [2, 2, 2],
    "num_heads": [1, 2, 4],
    "window_size": 4,
}
WIDTHS: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
PYRAMID: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 2], "num_attention_heads": [1, 2, 3, 4]}
LEVIT: dict[str, Any] = {
    "image_size": 256,
    "hidden_sizes": [32, 48, 64],
    "num_attention_heads": [2, 3, 4],
    "depths": [1, 1, 2],
    "key_dim": [8, 8, 8],
}
TEXTNET: dict[str, Any] = {
    "image_size": 256,
    "stem_out_channels": 8,
    "hidden_sizes": [8, 8, 16, 24, 32],
    "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]],
    "conv_layer_strides": [[2], [2], [2], [2]],
}
HGNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 24, 32, 48],
    "depths": [1, 1, 1, 1],
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 24, 32],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [16, 24, 32, 48],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
}
# What the last block gathers the class token from: around it goes only the class token itself.
FIRST_NORM_OF_THE_LAST = r"(layers|encoder\.layer)\.3\.layernorm_before"

# How the model is built, the size of its input, the grid, and the layer expected (a pattern) where there is no doubt.
Case = tuple[Callable[[], Any], tuple[int, int], tuple[int, int], str]
CASES: dict[str, Case] = {
    "ViT": (lambda: from_transformers("ViT", **WITH_MLP), (64, 64), (8, 8), rf"vit\.{FIRST_NORM_OF_THE_LAST}"),
    "ViT, not square": (
        lambda: from_transformers("ViT", **{**WITH_MLP, "image_size": [48, 64]}),
        (48, 64),
        (6, 8),
        rf"vit\.{FIRST_NORM_OF_THE_LAST}",
    ),
    "ViT-MSN": (lambda: from_transformers("ViTMSN", **WITH_MLP), (64, 64), (8, 8), rf"vit\.{FIRST_NORM_OF_THE_LAST}"),
    "DeiT": (lambda: from_transformers("DeiT", **WITH_MLP), (64, 64), (8, 8), rf"deit\.{FIRST_NORM_OF_THE_LAST}"),
    "DeiT with teacher": (
        lambda: from_transformers("DeiT", "ForImageClassificationWithTeacher", **WITH_MLP),
        (64, 64),
        (8, 8),
        rf"deit\.{FIRST_NORM_OF_THE_LAST}",
    ),
    "BEiT": (
        lambda: from_transformers("Beit", **WITH_MLP, use_relative_position_bias=True),
        (64, 64),
        (8, 8),
        r"beit(\.((layers|encoder\.layer)\.3|layernorm|encoder))?",
    ),
    "BEiT with class token": (
        lambda: from_transformers("Beit", **WITH_MLP, use_mean_pooling=False, use_shared_relative_position_bias=True),
        (64, 64),
        (8, 8),
        rf"beit\.{FIRST_NORM_OF_THE_LAST}",
    ),
    "Data2Vec": (
        lambda: from_transformers("Data2VecVision", **WITH_MLP),
        (64, 64),
        (8, 8),
        r"data2vec_vision(\.(encoder(\.layer\.3)?|layernorm))?",
    ),
    "I-JEPA": (lambda: from_transformers("IJepa", **WITH_MLP), (64, 64), (8, 8), r"ijepa(\.layernorm)?"),
    "DINOv2": (lambda: from_transformers("Dinov2", **VIT, mlp_ratio=2), (64, 64), (8, 8), r".*"),
    "DINOv2 with registers": (
        lambda: from_transformers("Dinov2WithRegisters", **VIT, mlp_ratio=2),
        (64, 64),
        (8, 8),
        r".*",
    ),
    "CLIP": (
        lambda: from_transformers("CLIP", vision_config=WITH_MLP),
        (64, 64),
        (8, 8),
        r"vision_model(\.encoder(\.layers\.3)?)?",
    ),
    "MetaCLIP 2": (
        lambda: from_transformers("MetaClip2", vision_config=WITH_MLP),
        (64, 64),
        (8, 8),
        r"vision_model(\.encoder(\.layers\.3)?)?",
    ),
    "SigLIP": (
        lambda: from_transformers("Siglip", vision_config=WITH_MLP, text_config={"bos_token_id": 0, "eos_token_id": 1}),
        (64, 64),
        (8, 8),
        r"vision_model(\.post_layernorm)?",
    ),
    "Swin": (lambda: from_transformers("Swin", **SWIN), (128, 128), (8, 8), r"swin(\.layernorm)?"),
    "Swin, not square": (
        lambda: from_transformers("Swin", **{**SWIN, "image_size": [96, 128]}),
        (96, 128),
        (6, 8),
        r"swin(\.layernorm)?",
    ),
    "Swin, as many channels as tokens": (
        lambda: from_transformers("Swin", **{**SWIN, "embed_dim": 16}),
        (128, 128),
        (8, 8),
        r"swin(\.layernorm)?",
    ),
    "Swin V2": (lambda: from_transformers("Swinv2", **SWIN), (128, 128), (8, 8), r"swinv2(\.layernorm)?"),
    "Donut-Swin": (lambda: from_transformers("DonutSwin", **SWIN), (128, 128), (8, 8), r"donut.*"),
    "Hiera": (
        lambda: from_transformers("Hiera", image_size=[256, 256], embed_dim=8, depths=[1, 1, 1, 1]),
        (256, 256),
        (8, 8),
        r"hiera.*",
    ),
    "FocalNet": (
        lambda: from_transformers("FocalNet", image_size=256, embed_dim=8, **WIDTHS),
        (256, 256),
        (8, 8),
        r"focalnet(\.layernorm)?",
    ),
    "PVT": (
        lambda: from_transformers("Pvt", image_size=256, sequence_reduction_ratios=[8, 4, 2, 1], **PYRAMID),
        (256, 256),
        (8, 8),
        r"pvt\.encoder\.block\.3\.1\.layer_norm_1",
    ),
    "PVT v2": (lambda: from_transformers("PvtV2", image_size=256, **PYRAMID), (256, 256), (8, 8), r"pvt_v2.*"),
    "SegFormer": (lambda: from_transformers("Segformer", **PYRAMID), (192, 256), (6, 8), r"segformer.*"),
    "CvT with class token": (
        lambda: from_transformers("Cvt", embed_dim=[8, 16, 32], num_heads=[1, 2, 4], depth=[1, 2, 3]),
        (128, 128),
        (8, 8),
        r"cvt\.encoder\.stages\.2\.layers\.2\.layernorm_before",
    ),
    "LeViT": (lambda: from_transformers("Levit", **LEVIT), (256, 256), (4, 4), r"levit.*"),
    "LeViT with teacher": (
        lambda: from_transformers("Levit", "ForImageClassificationWithTeacher", **LEVIT),
        (256, 256),
        (4, 4),
        r"levit.*",
    ),
    "MobileViT": (
        lambda: from_transformers(
            "MobileViT", image_size=256, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32]
        ),
        (256, 256),
        (8, 8),
        r"mobilevit\.conv_1x1_exp|mobilevit",
    ),
    "MobileViT V2": (
        lambda: from_transformers("MobileViTV2", image_size=256, width_multiplier=0.25),
        (256, 256),
        (8, 8),
        r"mobilevitv2.*",
    ),
    "SwiftFormer": (
        lambda: from_transformers("SwiftFormer", embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
        (256, 256),
        (8, 8),
        r"norm",
    ),
    "PoolFormer": (lambda: from_transformers("PoolFormer", **WIDTHS), (256, 256), (8, 8), r"norm"),
    "ConvNeXt": (lambda: from_transformers("ConvNext", **WIDTHS), (256, 256), (8, 8), r"convnext.*"),
    "ConvNeXt V2": (lambda: from_transformers("ConvNextV2", **WIDTHS), (192, 256), (6, 8), r"convnextv2.*"),
    "ResNet": (
        lambda: from_transformers("ResNet", embedding_size=8, layer_type="basic", **WIDTHS),
        (192, 256),
        (6, 8),
        r"resnet.*",
    ),
    "RegNet": (
        lambda: from_transformers("RegNet", embedding_size=8, groups_width=8, **WIDTHS),
        (256, 256),
        (8, 8),
        r"regnet.*",
    ),
    "BiT": (lambda: from_transformers("Bit", embedding_size=8, num_groups=4, **WIDTHS), (256, 256), (8, 8), r"bit.*"),
    "EfficientNet": (
        lambda: from_transformers("EfficientNet", width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320),
        (256, 256),
        (8, 8),
        r"efficientnet.*",
    ),
    "MobileNet V1": (
        lambda: from_transformers("MobileNetV1", depth_multiplier=0.25),
        (256, 256),
        (8, 8),
        r"mobilenet_v1.*",
    ),
    "MobileNet V2": (
        lambda: from_transformers("MobileNetV2", depth_multiplier=0.35),
        (256, 256),
        (8, 8),
        r"mobilenet_v2.*",
    ),
    "TextNet": (lambda: from_transformers("TextNet", **TEXTNET), (256, 256), (8, 8), r"textnet.*"),
    "HGNet V2": (lambda: from_transformers("HGNetV2", **HGNET), (256, 256), (8, 8), r"encoder.*"),
    "PP-LCNet": (lambda: from_transformers("PPLCNet", scale=0.25, class_expand=64), (256, 256), (8, 8), r"encoder.*"),
    "timm, wrapped": (
        lambda: from_transformers("TimmWrapper", architecture="test_resnet"),
        (256, 256),
        (8, 8),
        r"timm_model\.layer4",
    ),
}


def built(case: str) -> tuple[Any, Tensor]:
    build, (height, width), _, _ = CASES[case]
    return as_if_trained(build(), picture(height, width, count=4, seed=2)), picture(height, width)


def as_if_trained(model: Any, inputs: Tensor) -> Any:
    """The same model with weights that keep what it sees in its place, as training does; its own hardly look at it.

    Blocks of half the weight change what flows past them without replacing it, and attention that has learned biases
    for distances prefers what is near (LeViT's resampling has no other way to keep a place).
    """
    seeded(model)
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1 or isinstance(module, nn.BatchNorm1d):  # which LeViT has behind each linear layer
                    parameter.mul_(0.5)
            if hasattr(module, "attention_bias_idxs"):
                module.attention_biases[:, module.attention_bias_idxs] = -4 * distances(module.attention_bias_idxs)
    return calibrated(model, inputs)


def distances(pairs: Tensor) -> Tensor:
    """Between the cells of a grid and those of the same or a coarser one, (coarse cells, cells), in cells."""
    coarse, fine = (math.isqrt(count) for count in pairs.shape)
    ends = torch.cartesian_prod(*[torch.arange(fine, dtype=torch.float32)] * 2)
    starts = torch.cartesian_prod(*[torch.arange(coarse, dtype=torch.float32)] * 2) * math.ceil(fine / coarse)
    return torch.cdist(starts, ends)


def maps_of(model: nn.Module, x: Tensor, **keywords: Any) -> Floats:
    """The raw maps of all classes, (K, h, w)."""
    found: list[Explanation] = explain_classes(model, x, **keywords)
    return np.stack([each.raw for each in found]).astype(np.float64)


def centres_of_change(
    model: nn.Module, x: Tensor, redraws: int = 2, **keywords: Any
) -> dict[tuple[bool, bool], npt.NDArray[np.float64]]:
    """Where the maps change when a window in each quarter of the image is drawn anew, by (lower?, right?).

    Each is the centroid (y, x) of the absolute change, summed over classes, which count the same, and redraws; in
    shares of the grid's sides.
    """
    height, width = x.shape[-2:]
    before = maps_of(model, x, **keywords)
    _, h, w = before.shape
    centres = {}
    for lower in (False, True):
        for right in (False, True):
            top, left = lower * height // 2 + height // 16, right * width // 2 + width // 16
            window = (..., slice(top, top + 3 * height // 8), slice(left, left + 3 * width // 8))
            change = np.zeros((h, w))
            for seed in range(redraws):
                redrawn = x.clone()
                redrawn[window] = picture(height, width, seed=10 + seed)[window]
                each = np.abs(maps_of(model, redrawn, **keywords) - before)
                change += (each / each.sum(axis=(1, 2), keepdims=True)).sum(axis=0)
            y_of, x_of = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
            centres[lower, right] = np.array([change.sum(axis=1) @ y_of, change.sum(axis=0) @ x_of]) / change.sum()
    return centres


def assert_in_place(centres: dict[tuple[bool, bool], npt.NDArray[np.float64]]) -> None:
    """The change of each quarter lies on its side of the middle of all four, from top to bottom and left to right."""
    middle = np.mean(list(centres.values()), axis=0)
    assert {quarter: tuple(centre > middle) for quarter, centre in centres.items()} == {
        quarter: quarter for quarter in centres
    }


@pytest.mark.parametrize("case", CASES)
def test_the_predicted_class_has_a_map_in_the_right_place(case: str) -> None:
    model, x = built(case)
    *_, grid, layer = CASES[case]
    got = explain(model, x)
    assert got.grid == grid
    assert re.fullmatch(layer, got.layers[-1])
    with torch.no_grad():
        logits: Tensor = next(iter(model(x).values()))
    assert got.cls == got.predicted == int(logits.argmax())
    assert got.evidence > 0
    assert np.abs(got.raw).max() > 0
    assert_in_place(centres_of_change(model, x))


def as_patches(x: Tensor, side: int = 8) -> Tensor:
    """(N, C, H, W) → (N, patches, pixels of a patch), row by row, each pixel with its channels."""
    patches = x.unfold(2, side, side).unfold(3, side, side)  # (N, C, h, w, side, side)
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def test_a_model_that_takes_patches_is_called_through_forward() -> None:
    """SigLIP 2 is given patches of images of any aspect, a mask and the shapes of the grids."""
    model = from_transformers(
        "Siglip2",
        vision_config={**{key: WITH_MLP[key] for key in WITH_MLP if key != "image_size"}, "num_patches": 64},
        text_config={"bos_token_id": 0, "eos_token_id": 1},
    )
    x = picture(48, 64)

    def call(model: Any, x: Tensor) -> Any:
        patches = as_patches(x)
        shapes = torch.tensor([[x.shape[2] // 8, x.shape[3] // 8]] * len(x))
        return model(patches, torch.ones(patches.shape[:2], dtype=torch.long), shapes)

    seeded(model)
    got = explain(model, x, forward=call)
    assert got.grid == (6, 8)
    assert got.evidence > 0
    assert_in_place(centres_of_change(model, x, forward=call))


def default_vit(seed: int) -> Any:
    """Six blocks with a class token, as the library initialises them."""
    torch.manual_seed(seed)
    return from_transformers(
        "ViT",
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=64,
        patch_size=8,
    ).eval()


def default_timm_vit() -> Any:
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=10).eval()


@pytest.mark.parametrize(
    ("build", "side", "grid", "layer"),
    [
        *[
            pytest.param(
                lambda seed=seed: default_vit(seed),
                64,
                (8, 8),
                r"vit\.(layers|encoder\.layer)\.5\.layernorm_before",
                id=f"{seed}",
            )
            for seed in range(4)
        ],
        pytest.param(default_timm_vit, 224, (14, 14), r"blocks\.11\.norm1", id="timm"),
    ],
)
def test_a_class_token_has_evidence_on_nearly_every_image(
    build: Callable[[], Any], side: int, grid: tuple[int, int], layer: str
) -> None:
    """On at least 19 of 20; the last block of such a model, which other tools take, gives a map of zeros."""
    model = build()
    images = torch.randn(20, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = explain_batch(model, images)
    assert {each.grid for each in found} == {grid}
    assert all(re.fullmatch(layer, each.layers[-1]) for each in found)
    with torch.no_grad():
        output = model(images)
    logits = output if isinstance(output, Tensor) else output.logits
    assert [each.cls for each in found] == logits.argmax(dim=1).tolist()
    assert sum(each.evidence > 0 for each in found) >= 19
