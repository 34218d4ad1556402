"""Attention in a forward: every call of it seen, with its probabilities as tensors that take gradients.

Whatever module calls it, attention is computed by `scaled_dot_product_attention` or by a softmax over keys: both are
met where torch dispatches functions, so no architecture is known here by name. And what gradients
by them say of each token. The blocks that attention is in are found in `blocks.py`, the maps are made in `legrad.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SOFTMAXES = {functional.softmax, torch.softmax, torch.special.softmax, Tensor.softmax}


def legrad(gradients: Tensor) -> Tensor:
    """What each token is worth to a score, (N, T): the mean over heads and queries of the gradients' positive part.

    Bousselham et al., 2024 (arXiv 2404.03214), section 3, of one layer.

    Args:
        gradients: of the scores by attention, (N, heads, queries, keys).
    """
    return gradients.clamp(min=0.0).mean(dim=(1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One call of attention, or of a softmax that could be one.

    Attributes:
        shape: of its probabilities: (…, queries, keys).
        inside: dotted names of the modules that were being called, the outermost first.
        leaf: the probabilities of one image, (1, heads, queries, keys), from which what follows was computed; None
            where they were only looked at, or are not square.
        is_named: whether it was called by the name of attention; a softmax over a last axis may be anything.
    """

    shape: tuple[int, ...]
    inside: tuple[str, ...]
    leaf: Tensor | None
    is_named: bool

    @property
    def is_square(self) -> bool:
        """Whether there are as many queries as keys, as where tokens attend to each other."""
        return self.shape[-1] == self.shape[-2]

    @property
    def where(self) -> str:
        """The innermost module, for messages."""
        return self.inside[-1] if self.inside else "the model's own forward"


class Attentions(TorchFunctionMode):
    """While it is entered, attention is computed step by step, and every call is kept.

    Attributes:
        calls: in order.
        inside: dotted names of the modules being called, the outermost first; see `watched`.
    """

    def __init__(self, *, cut: bool) -> None:
        """See attention in the forward of one image.

        Args:
            cut: whether what follows square attention is computed from a leaf, so that it can be differentiated by it.
        """
        super().__init__()
        self.calls: list[Attention] = []
        self.inside: list[str] = []
        self._cut = cut

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What torch calls in the place of its functions."""
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            with self:  # torch leaves the mode for what it calls in there
                return _multi_head_attention_forward(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attended(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAXES and result.ndim > 2:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if dim in (-1, result.ndim - 1):
                return self._seen(result, is_named=False)
        return result

    def _attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The same as torch documents of `scaled_dot_product_attention`, by its formula."""
        if enable_gqa:
            key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
        logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            logits = logits + attn_mask
        probabilities = logits.softmax(-1)
        if attn_mask is not None:  # a query that may attend to nothing gets nothing
            probabilities = probabilities.masked_fill((logits == float("-inf")).all(-1, keepdim=True), 0.0)
        probabilities = self._seen(probabilities, is_named=True)
        return functional.dropout(probabilities, dropout_p) @ value

    def _seen(self, probabilities: Tensor, *, is_named: bool) -> Tensor:
        shape, leaf = tuple(probabilities.shape), None
        if self._cut and shape[-1] == shape[-2] and not torch.is_inference_mode_enabled():
            torch.set_grad_enabled(True)  # also in a part that the forward runs under no_grad
            leaf = probabilities.detach().reshape(1, -1, *shape[-2:]).clone().requires_grad_()
            probabilities = leaf.reshape(shape)
        self.calls.append(Attention(shape, tuple(self.inside), leaf, is_named))
        return probabilities


# Its first lines hand it to the mode over and over. This is torch's own function, the same code, without them.
_multi_head_attention_forward: Callable[..., Any] = FunctionType(
    functional.multi_head_attention_forward.__code__,
    {**vars(functional), "has_torch_function": lambda _: False},
    argdefs=functional.multi_head_attention_forward.__defaults__,
)


@contextmanager
def watched(module: nn.Module, seen: Attentions) -> Iterator[None]:
    """Attention in the forwards of this model is kept, with the names of the modules that it is in."""

    def before(name: str) -> Callable[..., None]:
        return lambda *_: seen.inside.append(name)

    def after(*_: Any) -> None:
        seen.inside.pop()

    handles = []
    grad = torch.is_grad_enabled()
    try:
        for name, m in module.named_modules():
            if name:
                handles.append(m.register_forward_pre_hook(before(name)))
                handles.append(m.register_forward_hook(after))
        with seen:
            yield
    finally:
        for handle in handles:
            handle.remove()
        torch.set_grad_enabled(grad)
