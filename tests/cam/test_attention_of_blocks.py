"""Attention of several libraries, seen where torch dispatches it: the model's own numbers, and maps made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_gradcam import explain
from pytest_gradcam.cam.attention import Attentions, watched
from tests.cam.legrad_twin import CLASSES, EQUAL, SIZE, ViT, legrad_of, raw_of
from tests.cam.test_sequence_first import Encoder
from tests.models import Floats, apart, picture, seeded


def timm_vit(**keywords: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    found: nn.Module = seeded(timm.models.VisionTransformer(**size, **keywords))
    return found


def unfused(model: Any) -> nn.Module:
    """The same model, whose attention is computed step by step by its own code."""
    for m in model.modules():
        if hasattr(m, "fused_attn"):
            m.fused_attn = False
    found: nn.Module = model
    return found


def torchvision_vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    found: nn.Module = seeded(models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES))
    return found


def transformers_vit(kind: str, attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{kind}Config")(**size, intermediate_size=32, num_labels=CLASSES)
    config._attn_implementation = attention
    found: nn.Module = seeded(getattr(transformers, f"{kind}ForImageClassification")(config))
    return found


def encoder(batch_first: bool) -> nn.Module:
    return Encoder(batch_first=batch_first)


def beit(fused: bool) -> nn.Module:
    timm = pytest.importorskip("timm")
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    model = seeded(timm.models.beit.Beit(**size, use_shared_rel_pos_bias=True, init_values=None))
    found: nn.Module = model if fused else unfused(model)
    return found


FUSED_AND_NOT: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "timm": lambda: (timm_vit(), unfused(timm_vit())),
    "timm, registers and mean": lambda: (
        timm_vit(reg_tokens=3, class_token=False, global_pool="avg"),
        unfused(timm_vit(reg_tokens=3, class_token=False, global_pool="avg")),
    ),
    "timm BEiT, biased by places": lambda: (beit(fused=True), beit(fused=False)),
    "transformers ViT": lambda: (transformers_vit("ViT", "sdpa"), transformers_vit("ViT", "eager")),
    "transformers DeiT": lambda: (transformers_vit("DeiT", "sdpa"), transformers_vit("DeiT", "eager")),
}


def by_hooks(model: Any, x: Tensor, cls: int, blocks: list[str], softmaxes: list[nn.Module], prefix: int) -> Floats:
    """LeGrad of timm's own unfused attention, kept by hooks on its dropout, whose input the probabilities are."""
    attention: list[Tensor] = []
    states: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _m, _i, out: attention.append(out)) for m in softmaxes]
    handles += [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out: states.append(out)) for name in blocks
    ]
    model(x)
    for handle in handles:
        handle.remove()
    total = np.zeros(attention[0].shape[-1])
    for a, z in zip(attention, states, strict=True):
        logits = model.forward_head(model.norm(z))
        (gradient,) = torch.autograd.grad(logits[0, cls], a, retain_graph=True)
        total += gradient[0].clamp(min=0).mean((0, 1)).double().numpy() / len(states)
    side = math.isqrt(len(total) - prefix)
    return np.asarray(total[prefix:].reshape(side, side))


class TestOtherPeoplesAttention:
    def test_of_timm_is_what_its_own_attention_says(self) -> None:
        model, x = timm_vit(), picture(32, 32)
        twin: Any = unfused(timm_vit())
        dropouts = [block.attn.attn_drop for block in twin.blocks]
        for cls in range(CLASSES):
            assert apart(raw_of(model, x, cls), by_hooks(twin, x, cls, ["blocks.0", "blocks.1"], dropouts, 1)) <= EQUAL

    @pytest.mark.parametrize("make", FUSED_AND_NOT.values(), ids=FUSED_AND_NOT)
    def test_is_the_same_fused_or_not(self, make: Callable[[], tuple[nn.Module, nn.Module]]) -> None:
        fused, plain = make()
        one, other = (explain(model, picture(32, 32), 1, method="legrad") for model in (fused, plain))
        assert one.layer == other.layer
        assert one.layer.endswith("(2 attentions)")
        assert (one.grid, other.grid) == ((4, 4), (4, 4))
        assert one.evidence > 0
        assert apart(one.raw, other.raw) <= EQUAL

    def test_of_torchvision_is_that_of_the_same_weights_in_timm(self) -> None:
        """`nn.MultiheadAttention`, against timm's own."""
        model: Any = torchvision_vit()
        twin: Any = timm_vit(norm_layer=nn.LayerNorm)
        ours = model.state_dict()
        with torch.no_grad():
            twin.cls_token.copy_(ours["class_token"])
            twin.pos_embed.copy_(ours["encoder.pos_embedding"])
            pairs = [(twin.patch_embed.proj, model.conv_proj), (twin.norm, model.encoder.ln)]
            pairs.append((twin.head, model.heads.head))
            for block, layer in zip(twin.blocks, model.encoder.layers, strict=True):
                block.attn.qkv.weight.copy_(layer.self_attention.in_proj_weight)
                block.attn.qkv.bias.copy_(layer.self_attention.in_proj_bias)
                pairs += [(block.attn.proj, layer.self_attention.out_proj), (block.norm1, layer.ln_1)]
                pairs += [(block.norm2, layer.ln_2)]
                narrow = [m for m in layer.mlp if isinstance(m, nn.Linear)]
                block.mlp.fc1, block.mlp.fc2 = narrow
            for to, of in pairs:
                to.load_state_dict(of.state_dict())
            for m in (*twin.modules(), *model.modules()):
                if isinstance(m, nn.LayerNorm):
                    m.eps = 1e-6
        x = picture(32, 32)
        assert torch.allclose(model(x), twin(x), atol=1e-5)
        got = explain(model, x, 2, method="legrad")
        assert got.layer == "encoder.layers.encoder_layer_0 … encoder.layers.encoder_layer_1 (2 attentions)"
        assert apart(got.raw, raw_of(twin, x, 2)) <= EQUAL

    def test_of_tokens_before_images_is_that_of_images_first(self) -> None:
        """`nn.TransformerEncoder` in both orders."""
        x = picture(*SIZE)
        assert apart(raw_of(encoder(batch_first=False), x, 1), raw_of(encoder(batch_first=True), x, 1)) <= EQUAL

    def test_under_no_grad_of_the_models_own(self) -> None:
        class Frozen(ViT):
            def tokens(self, x: Tensor) -> Tensor:
                with torch.no_grad():
                    return super().tokens(x)

            def forward(self, x: Tensor) -> Tensor:
                with torch.no_grad():
                    z = self.tokens(x)
                    for block in self.blocks:
                        z = block(z)
                return self.tail(z)

        x = picture(*SIZE)
        assert apart(raw_of(Frozen(), x, 0), legrad_of(ViT(), x, 0)) <= EQUAL


ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "causal": {"is_causal": True},
    "bool mask": {"attn_mask": torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) > 0.3},
    "float mask": {"attn_mask": torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))},
    "a query that attends to nothing": {"attn_mask": torch.arange(6)[:, None].expand(6, 6) != 2},
}


@pytest.mark.parametrize("keywords", ATTENTION.values(), ids=ATTENTION)
def test_attention_step_by_step_is_torchs(keywords: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 6, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    keywords = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in keywords.items()}
    expected = functional.scaled_dot_product_attention(q, k, v, **keywords)
    with Attentions(cut=False) as seen:
        got = functional.scaled_dot_product_attention(q, k, v, **keywords)
    assert [call.shape for call in seen.calls] == [(2, 3, 6, 6)]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_attention_of_grouped_queries_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, 6, 4, generator=generator)
    k, v = (torch.randn(1, 2, 6, 4, generator=generator) for _ in range(2))
    expected = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    with Attentions(cut=False):
        got = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm": timm_vit,
    "torchvision": torchvision_vit,
    "transformers": lambda: transformers_vit("ViT", "sdpa"),
    "BEiT": lambda: beit(fused=True),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
class TestTheModel:
    def test_gives_its_own_logits_while_its_attention_is_replaced(self, make: Callable[[], nn.Module]) -> None:
        model, x = make(), picture(32, 32)
        expected = model(x)
        seen = Attentions(cut=True)
        with watched(model, seen):
            got = model(x)
        expected, got = (getattr(output, "logits", output) for output in (expected, got))
        assert len(seen.calls) == 2
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)

    def test_is_left_untouched(self, make: Callable[[], nn.Module]) -> None:
        model = make().train()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        attributes = {name: set(vars(m)) for name, m in model.named_modules()}
        explain(model, picture(32, 32), 0, method="legrad")
        assert all(m.training for m in model.modules())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes
