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
        whole: output → what must all come through the layer: a callable's score, or the logits of all classes, added
            up so that none cancels another.
        explain_silence: called where the score has no gradient; raises if it knows why.
        is_callable: whether it is a callable of the user's, which says nothing of classes.
    """

    asked: Callable[[Any], Tensor]
    whole: Callable[[Any], Tensor]
    explain_silence: Callable[[], None]
    is_callable: bool


# In half precision a gradient of 1 may underflow on its way; which of them are zero does not depend on their scale.
HALF_SCALE = 2.0**10


class Dependence:
    """What the score of a recorded forward depends on."""

    def __init__(self, recording: Recording, question: Question, tensors: Iterable[Tensor]) -> None:
        """Take the gradients of the score with respect to these tensors of the recording."""
        self._recording = recording
        self._tensors = list(tensors)
        self._whole = _scaled(question.whole(recording.output))
        self._gradients = self._taken(self._whole)
        self._question = question
        self._gradients_of_asked: dict[int, Tensor | None] | None = None
        self._index = {id(record): index for index, record in enumerate(recording.records)}
        self._ways_around: dict[tuple[int, ...], bool] = {}

    def gradients(self, record: Record, places: Iterable[int]) -> dict[int, Tensor]:
        """Gradients of the score by place in the layer's output, those to which there is a path.

        Where the score is that of a class, they are of all classes.
        """
        found = {place: self._gradients[id(record.tensors[place])] for place in places}
        return {place: gradient for place, gradient in found.items() if gradient is not None}

    def of_asked(self, tensor: Tensor) -> Tensor | None:
        """Gradient of the very score that was asked for, where it is not zero."""
        if self._gradients_of_asked is None:
            root = self._question.asked(self._recording.output)
            self._gradients_of_asked = self._taken(_scaled(root))
        found = self._gradients_of_asked[id(tensor)]
        return found if found is not None and bool(found.any()) else None

    def _taken(self, root: Tensor) -> dict[int, Tensor | None]:
        found = self._recording.gradients(root, self._tensors)
        return dict(zip(map(id, self._tensors), found, strict=True))

    def has_way_around(self, record: Record, places: Iterable[int] | None = None) -> bool:
        """Whether the graph has a path from score to image around a layer, whatever comes along it.

        Args:
            record: the layer.
            places: which of the tensors that it gives are in the way; None for all.
        """
        tensors = record.tensors if places is None else _walls(record, places)
        key = tuple(map(id, tensors))
        known = self._ways_around.get(key)
        if known is None:
            known = self._ways_around[key] = is_connected(self._whole, self._recording.sources(), tensors)
        return known

    def is_bypassed(self, record: Record, views: Mapping[int, Sequence[View]]) -> bool:
        """Whether the image reaches the score around a layer: then its map shows a part of the evidence, of any size.

        Args:
            record: the layer.
            views: how those of its tensors that are grids may be read, by place.
        """
        if not self.has_way_around(record, views):
            return False
        # There is a way; whether anything comes along it. A layer before, that everything goes through, stands for the
        # image: only what lies behind it need be differentiated.
        before = reversed(self._recording.records[: self._index[id(record)]])
        joint = next((other for other in before if other.tensors and not self.has_way_around(other)), None)
        sources = self._recording.sources() if joint is None else list(joint.tensors)
        found = self._recording.gradients_around(self._whole, sources, _walls(record, views))
        tokens = [view for view in views.get(0, ()) if view.is_partial]
        if joint is not None and tokens and _are_alike(record, joint):
            # The first norm of the block behind tokens: around it go prefix tokens, whose evidence no map of the tokens
            # shows either. The cells must all go through it.
            around = found[0]
            return around is not None and all(bool(view(around).any()) for view in tokens)
        return any(gradient is not None and bool(gradient.any()) for gradient in found)


def _walls(record: Record, places: Iterable[int]) -> list[Tensor]:
    """The grids of a layer's output, and beside them what is folded into the batch.

    The pixels of each patch (TNT) are no grid of the image: they go with the tokens that they are gathered in.
    """
    read = [record.tensors[place] for place in places]
    return read + [tensor for tensor in record.tensors if tensor.ndim > 1 and tensor.shape[0] > 1]


def _scaled(root: Tensor) -> Tensor:
    return root * HALF_SCALE if root.dtype.itemsize < 4 else root


def _are_alike(record: Record, joint: Record) -> bool:
    """Whether two layers give one tensor of one shape, as a norm and what it is of."""
    shapes = [[tensor.shape for tensor in each.tensors] for each in (record, joint)]
    return len(shapes[0]) == 1 and shapes[0] == shapes[1]


def _known(gradients: Mapping[int, Tensor | None], record: Record, places: Iterable[int]) -> dict[int, Tensor]:
    found = {place: gradients[id(record.tensors[place])] for place in places}
    return {place: gradient for place, gradient in found.items() if gradient is not None}
