"""CAM methods: their registry, the pure functions (activations, gradients) → raw CAM of two, and how grids are fused.

A function takes `activations` and `gradients` as float (N, C, h, w) after the spatial view and returns the raw CAM,
(N, h, w): signed, on the grid, unnormalised. Activations of one image serve gradients of many classes: there they are
(1, C, h, w).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_gradcam.cam.attention import legrad
from pytest_gradcam.cam.blackbox import occlusion, rise
from pytest_gradcam.cam.finer import finer_rows
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
from pytest_gradcam.cam.perturbation import ablation_cam, score_cam
from pytest_gradcam.cam.views import View
from pytest_gradcam.errors import SettingsError

GradientMethod: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Rows: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor]
Kind: TypeAlias = Literal["gradients", "perturbation", "inputs", "own", "attention"]


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A way to make a raw CAM.

    Attributes:
        name: registered name.
        kind: what it is made of; `explain` has one way for each kind.
        raw: of `gradients`: (activations, gradients) → raw CAM. Of `perturbation`, which needs forwards from the layer
            on, and of `inputs`, which only needs forwards: what makes a raw CAM of what these found. Of `attention`:
            (d(score)/d(attention) of a block, (N, heads, T, T)) → what each token is worth, (N, T).
        bound: (activations, gradients) → the magnitudes that were added up at each cell, (N, h, w), against which
            rounding is told from evidence; None where no terms cancel.
        is_sum: whether the map is a sum of products of activations and gradients, or their means, which the product
            of their norms bounds.
        rows: (logits (N, K), N class indices) → (N, K), d(score)/d(logits) of the score that is explained; None for
            the class's own logit.
    """

    name: str
    kind: Kind
    raw: Callable[..., Tensor]
    bound: GradientMethod | None = None
    rows: Rows | None = None
    is_sum: bool = True


def _of_magnitudes(method: GradientMethod) -> GradientMethod:
    return lambda activations, gradients: method(activations.abs(), gradients.abs())


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by the mean of their gradient over the grid (Selvaraju et al., 2017, eq. 1, 2)."""
    weights = gradients.mean(dim=(2, 3))  # (N, C)
    if activations.shape[0] == 1:  # one image: a single matrix product, also for many classes
        return (weights @ activations[0].flatten(1)).view(-1, *activations.shape[2:])
    return torch.einsum("nc,nchw->nhw", weights, activations)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Activations weighted by their gradient cell by cell, summed over channels (Draelos & Carin, 2020, eq. 8)."""
    return (activations * gradients).sum(dim=1)


def fuse(raws: Sequence[npt.NDArray[np.float64]], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """One raw CAM of those of several grids over the same image, (M, h_i, w_i) each → (M, h, w).

    A raw CAM says for each cell what it contributes to the score. On a finer grid, what a coarse cell contributes is
    shared out among the cells that it covers, and contributions to the same place add up.
    """
    h, w = grid
    total = np.zeros((len(raws[0]), h, w))
    for raw in raws:
        share = raw.shape[1] * raw.shape[2] / (h * w)
        for i, each in enumerate(raw):
            total[i] += share * cv2.resize(each, (w, h), interpolation=cv2.INTER_LINEAR)
    return total


def fuse_layers(raws: Sequence[npt.NDArray[np.float64]], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """One raw CAM of those of several layers, each of which explains the score, (M, h_i, w_i) each → (M, h, w).

    The mean over the layers of what speaks for the score at each place; where no layer has anything that does, of what
    speaks against it. (Means of signed maps, in which one layer takes back what another says, told models apart less
    well: docs/power.md.)
    """
    positive = fuse([np.maximum(raw, 0.0) for raw in raws], grid) / len(raws)
    signed = fuse(raws, grid) / len(raws)
    return np.where(positive > 0.0, positive, np.minimum(signed, 0.0))


_ALL = (
    Method("grad-cam", "gradients", grad_cam, bound=_of_magnitudes(grad_cam)),
    Method("hirescam", "gradients", hirescam, bound=_of_magnitudes(hirescam)),
    Method("grad-cam++", "gradients", grad_cam_plus_plus, bound=grad_cam_plus_plus_terms, is_sum=False),
    Method("xgrad-cam", "gradients", xgrad_cam, bound=xgrad_cam_terms, is_sum=False),
    Method("layercam", "gradients", layer_cam, bound=_of_magnitudes(layer_cam)),
    Method("eigencam", "gradients", eigen_cam),
    Method("eigengrad-cam", "gradients", eigen_grad_cam, bound=eigen_grad_cam_terms),
    Method("finer-cam", "gradients", grad_cam, bound=_of_magnitudes(grad_cam), rows=finer_rows),
    Method("score-cam", "perturbation", score_cam),
    Method("ablation-cam", "perturbation", ablation_cam),
    Method("occlusion", "inputs", occlusion),
    Method("rise", "inputs", rise),
    Method("legrad", "attention", legrad),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def choose(name: object, view: View, *, is_scale_free: bool = False, is_uneven: bool = False) -> Method:
    """The method that `name` stands for on this view; `auto` depends on the kind of grid, and on what reads it.

    Where what follows reads all places alike, as a mean over the grid does, Grad-CAM and HiResCAM are one. Where it
    does not, the mean of a channel's gradient says little of any one cell. So `auto` is HiResCAM on token grids and on
    those that are read unevenly; but where what follows takes no notice of the scale of a cell, HiResCAM is zero, and
    `auto` is Grad-CAM.

    Raises:
        SettingsError: no method of that name.
    """
    if name == "auto":
        # Measured (benchmarks.power.candidates): on small vision transformers Grad-CAM tells a model that reads a patch
        # from one that reads the object hardly better than chance (AUROC .55); behind a flat head, it leaves a third of
        # the maps without evidence.
        name = "hirescam" if ("tokens" in view.kind or is_uneven) and not is_scale_free else "grad-cam"
    return METHODS[check(name)]


def kind_of(method: object) -> Kind:
    """The kind of a method, by its registered name, `auto`, or the callable that it is."""
    if isinstance(method, str):
        return "gradients" if method == "auto" else METHODS[method].kind
    return "own"


def check(name: Any) -> str:
    """The name, if it is `auto` or registered.

    Raises:
        SettingsError: it is neither.
    """
    known = ["auto", *METHODS]
    if not isinstance(name, str) or name not in known:
        close = difflib.get_close_matches(str(name).lower(), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SettingsError(f"unknown method {name!r}: the methods are {', '.join(known)}{hint}")
    return name
