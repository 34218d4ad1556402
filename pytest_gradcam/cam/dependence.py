"""On which layers of a recorded forward a score depends, and which of them carry all of it.

All by gradients on the graph of the recording: no question here takes a forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pytest_gradcam.cam.recording import Record, Recording, is_connected
from pytest_gradcam.cam.views import View


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """The score that is asked for.

    Attributes:
        asked: output of one image → the score.
        any_class: output → the logits of all classes, added up so that none cancels another; None without logits.
        whole: output → what must all come through the layer: a callable's score, or the logits of all classes.
        explain_silence: called where the score has no gradient; raises if it knows why.
    """

    asked: Callable[[Any], Tensor]
    any_class: Callable[[Any], Tensor | None]
    whole: Callable[[Any], Tensor]
    explain_silence: Callable[[], None]


class Dependence:
    """What the score of a recorded forward depends on."""

    def __init__(self, recording: Recording, question: Question, tensors: Iterable[Tensor]) -> None:
        """Take the gradients of the score with respect to these tensors of the recording."""
        self._recording = recording
        self._question = question
        self._tensors = list(tensors)
        self._whole = question.whole(recording.output)
        asked = question.asked(recording.output)
        # A callable that reads nothing: what classes read is beside the point.
        self._is_constant = not asked.requires_grad
        self._gradients = self._of(asked)
        self._gradients_of_classes: dict[int, Tensor | None] | None = None
        self._index = {id(record): index for index, record in enumerate(recording.records)}
        self._ways_around: dict[int, bool] = {}

    def of_score(self, record: Record, places: Iterable[int]) -> dict[int, Tensor]:
        """Gradients of the score by place in the layer's output, those to which there is a path."""
        return _known(self._gradients, record, places)

    def of_classes(self, record: Record, places: Iterable[int]) -> dict[int, Tensor]:
        """The same for all classes at once, where the score is that of a class."""
        if self._is_constant:
            return {}
        if self._gradients_of_classes is None:
            self._gradients_of_classes = self._of(self._question.any_class(self._recording.output))
        return _known(self._gradients_of_classes, record, places)

    def _of(self, root: Tensor | None) -> dict[int, Tensor | None]:
        found = [None] * len(self._tensors) if root is None else self._recording.gradients(root, self._tensors)
        return dict(zip(map(id, self._tensors), found, strict=True))

    def has_way_around(self, record: Record) -> bool:
        """Whether the graph has a path from score to image around a layer, whatever comes along it."""
        known = self._ways_around.get(id(record))
        if known is None:
            known = is_connected(self._whole, self._recording.sources(), record.tensors)
            self._ways_around[id(record)] = known
        return known

    def is_bypassed(self, record: Record, views: Mapping[int, Sequence[View]]) -> bool:
        """Whether the image reaches the score around a layer: then its map shows a part of the evidence, of any size.

        Args:
            record: the layer.
            views: how its output may be read, by place.
        """
        if not self.has_way_around(record):
            return False
        # There is a way; whether anything comes along it. A layer before, that everything goes through, stands for the
        # image: only what lies behind it need be differentiated.
        before = reversed(self._recording.records[: self._index[id(record)]])
        joint = next((other for other in before if other.tensors and not self.has_way_around(other)), None)
        sources = self._recording.sources() if joint is None else list(joint.tensors)
        found = self._recording.gradients_around(self._whole, sources, record.tensors)
        tokens = next((view for view in views.get(0, ()) if view.is_partial), None)
        if joint is not None and tokens is not None and _are_alike(record, joint):
            # The first norm of the block behind tokens: around it go prefix tokens, whose evidence no map of the tokens
            # shows either. The cells must all go through it.
            return found[0] is not None and bool(tokens(found[0]).any())
        return any(gradient is not None and bool(gradient.any()) for gradient in found)


def _are_alike(record: Record, joint: Record) -> bool:
    """Whether two layers give one tensor of one shape, as a norm and what it is of."""
    shapes = [[tensor.shape for tensor in each.tensors] for each in (record, joint)]
    return len(shapes[0]) == 1 and shapes[0] == shapes[1]


def _known(gradients: Mapping[int, Tensor | None], record: Record, places: Iterable[int]) -> dict[int, Tensor]:
    found = {place: gradients[id(record.tensors[place])] for place in places}
    return {place: gradient for place, gradient in found.items() if gradient is not None}
