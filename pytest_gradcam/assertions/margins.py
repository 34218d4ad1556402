"""By how much a class is predicted: the score that is followed while parts of a picture are taken away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pytest_gradcam.cam.forwards import score_inputs
from pytest_gradcam.cam.model import logits_of
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import Score
from pytest_gradcam.errors import ModelError

Floats = npt.NDArray[np.float64]

# Rows of numbers that sum to one up to this are probabilities, if all of them do.
_SUMS_TO_ONE = 1e-4
# The runner-up's probability below which a softmax has no digits left to show by how much a margin falls.
SATURATED = 1e-12


def called_only(options: Options) -> Options:
    """Options under which a model is called, and neither hooked nor differentiated: any callable will do."""
    return replace(options, method="occlusion", layer=None)


def follow(model: ModelLike, inputs: Tensor, score: int | Score, options: Options) -> Floats:
    """The margin of a class in each of many inputs, or what the user's callable gives for it, (N,).

    Args:
        model: as for `explain`, or any callable, inputs → scores.
        inputs: (N, C, H, W), versions of one picture.
        score: index of the class, or a callable, output → scalar tensor.
        options: how the model is called.

    Raises:
        GradcamError: as for `explain`.
    """
    if callable(score):
        return np.array([fact.score for fact in score_inputs(model, inputs, score, options)])
    rows: list[Floats] = []

    def keep(output: Any) -> Tensor:
        row = logits_of(output)[0].detach().cpu().double()
        rows.append(row.numpy())
        return row.sum()

    score_inputs(model, inputs, keep, options)
    return margins(np.stack(rows), score)


def margins(logits: Floats, cls: int) -> Floats:
    """By how much the logit of a class exceeds that of the runner-up; a single logit exceeds 0.

    A probability would hide what is lost: at .999 a margin may halve, and nothing is seen. The margin is 0 where the
    prediction changes. It knows nothing of a constant added to all logits, and in shares nothing of their scale. Of
    probabilities, their logarithms are taken.

    Args:
        logits: (N, K).
        cls: index of the class.

    Returns:
        (N,).

    Raises:
        ModelError: they are probabilities, and the first row has all of them in the class.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    if logits.min() >= 0.0 and (np.abs(logits.sum(axis=1) - 1.0) < _SUMS_TO_ONE).all():
        others = np.delete(logits, cls, axis=1).max(axis=1)
        if others[0] < SATURATED:
            raise ModelError(
                f"the model's output are probabilities, and that of class {cls} is {logits[0, cls]:.9g}: a saturated "
                "softmax does not tell what a change costs. Pass the model without its softmax"
            )
        logits = np.log(np.maximum(logits, np.finfo(np.float32).tiny))
    found: Floats = logits[:, cls] - np.delete(logits, cls, axis=1).max(axis=1)
    return found
