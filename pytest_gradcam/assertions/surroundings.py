"""What is set for the whole process, or put into libraries by somebody, and changes what models and pictures become.

Read anew at each use, as models are in `fingerprint`; what cannot be read with certainty is `Unreadable`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.modules import module as torchs_module

from pytest_gradcam.assertions.libraries import Unreadable, watch

_OF_MODELS = (builtins, torch, torch.functional, torch.nn.functional)


def surroundings() -> tuple[Any, ...]:
    """What is set for the whole process or thread and changes what models compute.

    Raises:
        Unreadable: something is hooked into every module or every operation.
    """
    if torchs_module._has_any_global_hook():  # type: ignore[no-untyped-call]  # torch's own lack
        raise Unreadable("global module hooks")
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        raise Unreadable("a mode that changes torch's functions")
    base = (watch(vars(Tensor), Tensor), *(watch(vars(module), vars(module)) for module in _OF_MODELS))
    cuda, cudnn, matmul = torch.backends.cuda, torch.backends.cudnn, torch.backends.cuda.matmul
    attention: tuple[Callable[[], bool], ...] = (
        cuda.flash_sdp_enabled,
        cuda.mem_efficient_sdp_enabled,
        cuda.math_sdp_enabled,
    )
    autocast = tuple((torch.is_autocast_enabled(place), torch.get_autocast_dtype(place)) for place in ("cpu", "cuda"))
    return (
        *base,
        sys.float_info.min / 2 == 0,  # torch.set_flush_denormal
        autocast,
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),  # sums are split by it, and rounded otherwise
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        (matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction),
        tuple(enabled() for enabled in attention),
    )


def of_pictures() -> tuple[Any, ...]:
    """What stands for the libraries that make pictures smaller and tensors of them.

    Raises:
        Unreadable: something of them was patched.
    """
    spaces = [vars(sys.modules[name]) for name in _OF_PICTURES if name in sys.modules]
    return (watch(vars(Image.Image), Image.Image), *(watch(space, space) for space in spaces))


_OF_PICTURES = (
    *("PIL.Image", "PIL.ImageOps", "torchvision.transforms.functional", "torchvision.transforms._functional_pil"),
    *("torchvision.transforms._functional_tensor", "torchvision.transforms.v2.functional", "timm.data.transforms"),
)
