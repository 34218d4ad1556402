"""Which scalar is explained: from the class that was asked for, and a model's output, to scores and their names."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor

from pytest_gradcam.cam.model import logits_of
from pytest_gradcam.errors import ClassError, NonFiniteError, SettingsError

# Behind a softmax, 1 - p loses all its digits below this: float32 resolves 6e-8 next to 1.
CERTAIN = 1e-5

Score: TypeAlias = Callable[[Any], Tensor]
ClassLike: TypeAlias = SupportsIndex | str | Score | None


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of one score, in plain numbers; `cls` and what follows from it are None for a callable."""

    score: float
    cls: int | None
    probability: float | None
    predicted: int | None
    predicted_probability: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The sum of the images' scores, to be differentiated, and the facts of each.

    In eval mode no image's score depends on another image, so the gradient of the sum holds every image's own.

    Attributes:
        root: the sum itself, or logits (N, K).
        weights: where `root` are logits, the one-hot rows whose product with them the sum is; else None. Autograd takes
            them as they are, which spares it the indexing.
        facts: one for each image.
        certain: images whose "logits" look like probabilities, and whose class has all of them: behind a softmax the
            gradient of that is rounding.
    """

    root: Tensor
    weights: Tensor | None
    facts: list[Fact]
    certain: list[int]


def scores_of_batch(
    output: Any,
    classes: Sequence[ClassLike],
    labels: Sequence[str] | None,
    *,
    rows: Callable[[Tensor, Sequence[int]], Tensor] | None = None,
) -> Scores:
    """The scores of a batch's images.

    Args:
        output: the model's output for N images.
        classes: N classes.
        labels: class names, by index.
        rows: (logits (N, K), N indices) → (N, K): what is differentiated for an index; None for its logit.

    Raises:
        ClassError: a class is not one of the model's, or a callable gives no scalar.
        NonFiniteError: a score or logit is not finite.
    """
    if rows is not None and any(callable(cls) for cls in classes):
        raise ClassError("this method compares a class with others, and cls is a callable: pass a class index or label")
    if all(callable(cls) for cls in classes):
        scores = [call_score(cls, image_of(output, i, len(classes))) for i, cls in enumerate(classes) if callable(cls)]
        facts = [Fact(float(score.detach()), None, None, None, None) for score in scores]
        return Scores(torch.stack(scores).sum(), None, facts, [])
    logits = logits_of(output)
    held = checked_rows(logits, len(classes))
    check_labels(labels, logits.shape[1])
    asked = [
        None if callable(cls) else index_of(cls, logits.shape[1], labels, predicted_of(row) if cls is None else 0)
        for cls, row in zip(classes, held, strict=True)
    ]
    own = {i: call_score(cls, image_of(output, i, len(classes))) for i, cls in enumerate(classes) if callable(cls)}
    weights = torch.zeros_like(logits)
    indices = {i: index for i, index in enumerate(asked) if index is not None}
    if indices:
        weights[list(indices)] = rows_of(logits[list(indices)], list(indices.values()), rows)
    values = [float(own[i].detach()) if index is None else float(held[i, index]) for i, index in enumerate(asked)]
    facts = facts_of(values, asked, held)
    step = torch.finfo(logits.dtype).eps
    certain = [i for i, index in enumerate(asked) if index is not None and is_certain(held[i], index, step)]
    if own:
        return Scores(sum(own.values(), (logits * weights).sum()), None, facts, certain)
    return Scores(logits, weights, facts, certain)


def rows_of(logits: Tensor, indices: Sequence[int], rows: Callable[[Tensor, Sequence[int]], Tensor] | None) -> Tensor:
    """(N, K): what each score is of its image's logits (N, K); one-hot where `rows` says nothing else."""
    if rows is not None:
        return rows(logits.detach(), indices)
    one_hot = torch.zeros_like(logits, requires_grad=False)
    one_hot[range(len(indices)), list(indices)] = 1
    return one_hot


def is_certain(row: npt.NDArray[np.floating], index: int, step: float) -> bool:
    """Whether a row of "logits" looks like probabilities, or their logarithms, with all of them in one class.

    Args:
        row: (K,) values.
        index: the class that is asked for.
        step: relative step of the type that the row was computed in.
    """
    near = max(CERTAIN, 2 * step)
    if len(row) < 2:
        return False
    if row[index] > 1 - near and row.min() >= 0 and abs(row.sum() - 1) < near * len(row) ** 0.5:
        return True
    return bool(row.max() <= 0 and row[index] > -near and abs(float(np.exp(row).sum()) - 1) < near * len(row) ** 0.5)


def classes_of(output: Any, classes: Sequence[ClassLike] | None, labels: Sequence[str] | None) -> list[int | Score]:
    """The class indices and callables asked of one image; all classes for None.

    Raises:
        ClassError: a class is not one of the model's.
        NonFiniteError: a logit is not finite.
    """
    if classes is not None and all(callable(cls) for cls in classes):
        return [cls for cls in classes if callable(cls)]
    rows = checked_rows(logits_of(output), 1)
    count = rows.shape[1]
    check_labels(labels, count)
    if classes is None:
        return list(range(count))
    return [
        cls if callable(cls) else index_of(cls, count, labels, predicted_of(rows[0]) if cls is None else 0)
        for cls in classes
    ]


def predicted_of(row: npt.NDArray[np.floating]) -> int:
    """The class of the largest logit.

    Raises:
        ClassError: there is one logit, and it says no: then no class is predicted that has a score.
    """
    if len(row) == 1 and row[0] < 0:
        raise ClassError(
            f"the model has one logit, and it is {row[0]:.4g}: it speaks against class 0, so there is no predicted "
            "class. Judge the answer no with cls=lambda output: -output[0, 0], or class 0 with cls=0"
        )
    return int(row.argmax())


def index_of(cls: object, count: int, labels: Sequence[str] | None, predicted: int) -> int:
    """The index that an index, a label or None (the predicted class) stands for.

    Raises:
        ClassError: out of range, unknown, or of another kind.
    """
    if cls is None:
        return predicted
    if isinstance(cls, str) and labels is None and count == 1:
        raise ClassError(
            f"class {cls!r} is a label, but the model has one logit and no labels: its answer yes is class 0, its "
            "answer no is cls=lambda output: -output[0, 0]"
        )
    if isinstance(cls, str):
        return _index_of_label(cls, count, labels)
    if isinstance(cls, bool) or (isinstance(cls, Tensor) and cls.dtype == torch.bool):
        raise ClassError(f"cls is {cls!r}: pass a class index, a label, a callable or None")
    try:
        index = operator.index(cls)  # type: ignore[arg-type]  # what is no index raises TypeError
    except TypeError:
        raise ClassError(
            f"cls is {cls!r} of type {type(cls).__name__}: pass a class index, a label, a callable or None"
        ) from None
    if not 0 <= index < count:
        no = "; its answer no is cls=lambda output: -output[0, 0]"
        classes = f"1 class (0){no}" if count == 1 else f"{count} classes (0..{count - 1})"
        raise ClassError(f"class {index} is out of range: the model has {classes}")
    return index


def _index_of_label(label: str, count: int, labels: Sequence[str] | None) -> int:
    if labels is None:
        raise ClassError(
            f"class {label!r} is a label, but neither the model nor the settings name its {count} classes: "
            "pass the class index, or labels=[…]"
        )
    found = [index for index, name in enumerate(labels) if name == label]
    if len(found) == 1:
        return found[0]
    if found:
        raise ClassError(f"label {label!r} names the classes {found}: pass the index of the one that is meant")
    close = difflib.get_close_matches(label, labels, n=3)
    hint = f"; did you mean {', '.join(map(repr, close))}?" if close else f"; it has {', '.join(map(repr, labels[:8]))}"
    raise ClassError(f"the model has no class {label!r}{hint}")


def call_score(score: Score, output: Any) -> Tensor:
    """The scalar that the user's callable makes of an output.

    Raises:
        ClassError: it is no scalar tensor.
        NonFiniteError: it is not finite.
    """
    value = score(output)
    if not isinstance(value, Tensor) or value.numel() != 1:
        seen = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ClassError(f"the cls callable returned {seen}: it must return a scalar tensor made from the output")
    if not value.is_floating_point():
        raise ClassError(f"the cls callable returned a tensor of {value.dtype}: it must return a floating one")
    value = value.reshape(())
    if not bool(torch.isfinite(value)):
        raise NonFiniteError(f"the cls callable returned {float(value.detach())}: the score must be finite")
    return value


def facts_of(
    scores: Sequence[float], asked: Sequence[int | None], logits: npt.NDArray[np.floating] | None
) -> list[Fact]:
    """The facts of scores that belong to the rows of `logits`, (N, K); one row serves all scores of one image."""
    if logits is None:
        return [Fact(score, None, None, None, None) for score in scores]
    # Two lines here, since scipy's softmax takes longer than everything else that is done with one image's logits.
    odds = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    if logits.shape[1] == 1:  # one logit is a yes or no; softmax would call it certain
        probabilities = special.expit(logits.astype(np.float64))
    predicted = logits.argmax(axis=1)
    facts = []
    for place, (score, cls) in enumerate(zip(scores, asked, strict=True)):
        row = place if len(logits) == len(scores) else 0
        if cls is None:
            facts.append(Fact(score, None, None, None, None))
        else:
            best = int(predicted[row])
            facts.append(Fact(score, cls, float(probabilities[row, cls]), best, float(probabilities[row, best])))
    return facts


def count_of(output: Any) -> int | None:
    """How many classes the model's output has; None where it has no logits."""
    try:
        return logits_of(output).shape[1]
    except ClassError:
        return None


def check_labels(labels: Sequence[str] | None, count: int) -> None:
    """Raises SettingsError where the user's labels are not one for each class."""
    if labels is not None and len(labels) != count:
        raise SettingsError(f"labels has {len(labels)} names, the model has {count} classes: give one for each")


def checked_rows(logits: Tensor, count: int) -> npt.NDArray[np.floating]:
    """The logits as an array on the host, (N, K): one transfer, from which all that is not differentiated is read.

    Raises:
        ClassError: they are not of N images.
        NonFiniteError: one is NaN or infinite.
    """
    if logits.shape[0] != count:
        raise ClassError(f"the model gave {logits.shape[0]} rows of logits for {count} images")
    held = logits.detach().cpu()
    rows: npt.NDArray[np.floating] = (held.float() if held.dtype.itemsize < 4 else held).numpy()
    if not np.isfinite(rows).all():
        raise NonFiniteError("the model's logits are not finite (NaN or infinity): no score can be explained")
    return rows


def image_of(output: Any, index: int, count: int) -> Any:
    """The part of a batch's output that belongs to one image, as the model would give it for a batch of one."""
    if count == 1:
        return output
    if isinstance(output, Tensor):
        if output.ndim == 0 or output.shape[0] != count:
            raise ClassError(
                f"the model's output has a tensor of shape {tuple(output.shape)} for {count} images: it cannot be "
                "divided among them; explain the images one at a time"
            )
        return output[index : index + 1]
    if isinstance(output, Mapping):
        kind: Callable[[Any], Any] = type(output)  # its own: a model's output may be read by attribute too
        return kind({key: image_of(value, index, count) for key, value in output.items()})
    if isinstance(output, list) and len(output) == count and not any(isinstance(part, Tensor) for part in output):
        return [output[index]]  # one entry for each image, as detectors have it
    if isinstance(output, list | tuple):
        parts = [image_of(value, index, count) for value in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    raise ClassError(
        f"the model's output holds a {type(output).__name__}, which cannot be divided among {count} images; "
        "explain the images one at a time"
    )
