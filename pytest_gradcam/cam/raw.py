"""The raw CAM of a captured forward: a method applied to activations and gradients, and what of it is only rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_gradcam.cam.captured import Captured
from pytest_gradcam.cam.methods import fuse, fuse_layers
from pytest_gradcam.cam.running import Run
from pytest_gradcam.errors import NonFiniteError

Raw = npt.NDArray[np.float64]

# Evidence below this share of what was added up is rounding. Each float32 operation carries 6e-8; where terms cancel
# exactly, as tokens and their gradients before a layer norm do, up to 3e-6 was seen to be left; of evidence, 1e-3.
ROUNDING = 5e-6
# In half precision, each term was rounded before it was added: this many steps of its type are rounding.
STEPS = 1.0
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Rounding lies below this multiple of that share of the product of the norms of activations and gradients.
SUSPICIOUS = 10.0


def raw_cams(run: Run, captured: Sequence[Captured], gradients: Sequence[Sequence[Tensor]]) -> Raw:
    """Raw CAMs, (M, h, w), of all layers; what is only rounding is zero.

    Args:
        run: the model that was run.
        captured: its forwards.
        gradients: for each forward and each of its grids M rows of its leaf's shape; a leaf has M rows, or one that
            serves all.

    Raises:
        NonFiniteError: activations, gradients or their products are NaN or infinite.
    """
    by_layer: dict[str, list[Raw]] = {}
    for each, found in zip(captured, gradients, strict=True):
        for i, (leaf, g) in enumerate(zip(each.tail.leaves, found, strict=True)):
            by_layer.setdefault(each.names[i], []).append(_raw_cams_of_part(run, each, i, leaf.detach(), g))
    grid = grid_of(captured)
    raws = [parts[0] if len(parts) == 1 else fuse(parts, grid) for parts in by_layer.values()]
    return raws[0] if len(raws) == 1 else fuse_layers(raws, grid)


def grid_of(captured: Sequence[Captured]) -> tuple[int, int]:
    """(h, w) of the map: that of the finest grid."""
    return max(each.grid[0] for each in captured), max(each.grid[1] for each in captured)


def _raw_cams_of_part(run: Run, captured: Captured, part: int, activations: Tensor, gradients: Tensor) -> Raw:
    view, is_scale_free = captured.views[part], captured.scale_free[part]
    method = captured.method(run.options.method)
    a, g = view(activations), view(gradients)
    if a.dtype.itemsize < 4:
        a, g = a.float(), g.float()
    with torch.autocast(a.device.type, enabled=False):  # a region of the user's casts no matrix product of ours
        raw = method.raw(a, g)
    raws = checked(raw, {"activations": activations, "gradients": gradients}, f"layer {captured.names[part]!r}")
    if is_scale_free and method.name == "hirescam":
        return np.zeros_like(raws)  # what there is is rounding
    if method.bound is None:
        return raws
    # Where positive and negative terms cancel, what is left is rounding, and dividing by its maximum would make a
    # full-strength map of it. The norms bound any sum of products; only what lies far below them is looked at closely.
    rounding = max(ROUNDING, STEPS * torch.finfo(coarsest(run, activations)).eps)
    suspects = np.arange(len(raws))
    if method.is_sum:
        norms = (a.flatten(1).norm(dim=1) * g.flatten(1).norm(dim=1)).cpu().numpy()
        suspects = np.flatnonzero(raws.max(axis=(1, 2)) <= SUSPICIOUS * rounding * norms)
    for i in suspects:
        terms = method.bound(a[i : i + 1] if len(a) > 1 else a, g[i : i + 1])
        if raws[i].max() <= rounding * float(terms.max()):
            raws[i] = np.minimum(raws[i], 0.0)
    return raws


def checked(raw: Tensor, made_of: dict[str, Tensor], where: str) -> Raw:
    """Raw CAMs on the host, in float64.

    Raises:
        NonFiniteError: they are NaN or infinite, or beyond float32.
    """
    raws: Raw = raw.detach().cpu().numpy().astype(np.float64)
    if not (np.abs(raws) <= FLOAT32_MAX).all():
        what = next((name for name, part in made_of.items() if not bool(part.isfinite().all())), "products")
        raise NonFiniteError(
            f"the {what} of {where} are NaN or infinite: no map can be made of them. "
            "In half precision, try the model in float32"
        )
    return raws


def coarsest(run: Run, activations: Tensor) -> torch.dtype:
    """The floating type in which the forward's tail was computed: the leaf's, or the user's autocast region's."""
    kind = run.device.type
    cast = [torch.get_autocast_dtype(kind)] if torch.is_autocast_enabled(kind) else []
    return max([activations.dtype, *cast], key=lambda dtype: torch.finfo(dtype).eps)
