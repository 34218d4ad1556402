"""Finer-CAM: what tells a class from those most like it, as a score that any gradient method can explain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pytest_gradcam.errors import ClassError, SettingsError

# Of the authors' own script, where it compares with several classes: https://github.com/Imageomics/Finer-CAM
ALPHA = 0.6
REFERENCES = 3


def finer_score(logits: Tensor, classes: Sequence[int], alpha: float = ALPHA, references: int = REFERENCES) -> Tensor:
    """Mean of y_c − α y_d over the classes d most like c (Zhang et al., CVPR 2025), as a scalar for each image, (N,).

    See `finer_rows`, of which this is the product with the logits.
    """
    return (logits * finer_rows(logits, classes, alpha, references)).sum(dim=1)


def finer_rows(logits: Tensor, classes: Sequence[int], alpha: float = ALPHA, references: int = REFERENCES) -> Tensor:
    """d(finer score)/d(logits), (N, K): 1 at the class, −α/T at each of the T classes most like it, else 0.

    Most like a class are those whose logits are nearest its own, above or below; of equals, those with lower indices.
    All count alike, as in the paper. (Weights of softmax, as in grad-cam's `FinerWeightedTarget`, would be part of
    what is differentiated, and of a class sure of itself, divide by next to nothing.)

    Args:
        logits: (N, K), K ≥ 2.
        classes: N indices.
        alpha: strength of the comparison; 0 explains the class alone.
        references: T, of which no more than K − 1 are taken.

    Raises:
        ClassError: the model has one class, which has no others to be compared with; an index is out of range, or
            their number is not N.
        SettingsError: fewer than one reference.
    """
    count, known = logits.shape
    if known < 2:
        raise ClassError("Finer-CAM compares a class with the others, and the model has 1 class: choose another method")
    if references < 1:
        raise SettingsError(f"references is {references}: Finer-CAM compares a class with 1 other or more")
    if len(classes) != count:
        raise ClassError(f"{len(classes)} classes for {count} rows of logits: pass one for each")
    wrong = [c for c in classes if not 0 <= c < known]
    if wrong:
        raise ClassError(f"class {wrong[0]} is out of range: the model has {known} classes (0..{known - 1})")
    own = torch.tensor(list(classes), device=logits.device)[:, None]
    values = logits.detach()
    distances = (
        (values - values.gather(1, own)).abs().scatter(1, own, -1.0)
    )  # itself before all others, also equal ones
    nearest = distances.argsort(dim=1, stable=True)[:, 1 : references + 1]
    rows = torch.zeros_like(values).scatter(1, nearest, -alpha / nearest.shape[1])
    return rows.scatter(1, own, 1.0)
