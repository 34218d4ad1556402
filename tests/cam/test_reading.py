"""How what follows a grid reads it, and which method `auto` takes for that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_gradcam import explain
from pytest_gradcam.cam.reading import is_scale_free, is_uneven
from pytest_gradcam.cam.stacks import keeps_places
from pytest_gradcam.cam.views import View

GRID = View("nchw", (4, 4))
TOKENS = View("tokens", (4, 4))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_mean_over_the_grid_reads_evenly_and_a_flat_head_does_not() -> None:
    assert not is_uneven(drawn(6)[None, :, None, None].expand(1, 6, 4, 4), GRID)
    assert is_uneven(drawn(1, 6, 4, 4), GRID)


def test_cells_that_a_relu_has_closed_say_nothing() -> None:
    open_ = (drawn(1, 6, 4, 4, seed=1) > 0).float()
    assert not is_uneven(drawn(6)[None, :, None, None] * open_, GRID)


def test_a_norm_of_each_token_is_free_of_scale_and_a_sum_is_not() -> None:
    tokens = drawn(1, 16, 8).requires_grad_()
    (behind_a_norm,) = torch.autograd.grad((nn.functional.layer_norm(tokens, (8,)) * drawn(8)).sum(), tokens)
    assert is_scale_free(tokens, behind_a_norm, TOKENS)
    assert not is_scale_free(tokens, drawn(8).expand(1, 16, 8), TOKENS)


@pytest.mark.parametrize(("head", "method"), [("pooled", "grad-cam"), ("flat", "hirescam")])
def test_auto_takes_what_is_right_for_the_head(head: str, method: str) -> None:
    torch.manual_seed(0)
    pooled: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    end = pooled if head == "pooled" else [nn.Flatten(), nn.Linear(8 * 64, 3)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), *end).eval()
    x = drawn(1, 3, 32, 32).abs()
    assert explain(model, x).method == method
    assert explain(model, x, method="grad-cam").method == "grad-cam"


def test_tokens_that_stay_are_told_from_tokens_that_are_permuted() -> None:
    """Every token sees all others, as in a trained block, and keeps what it was."""
    tokens = drawn(1, 16, 8).requires_grad_()
    mixed = tokens + 0.5 * tokens.mean(dim=1, keepdim=True) + drawn(1, 16, 8, seed=2)
    assert keeps_places(mixed, tokens, TOKENS)
    assert not keeps_places(mixed[:, torch.randperm(16, generator=torch.Generator().manual_seed(3))], tokens, TOKENS)
    assert not keeps_places(mixed.flip(1), tokens, TOKENS)
    assert not keeps_places(mixed.mean(dim=1, keepdim=True).expand(1, 16, 8), tokens, TOKENS)
    assert not keeps_places(mixed, drawn(1, 16, 8).requires_grad_(), TOKENS)
