"""The blocks of a vision transformer: found in one recorded forward, with the grid that their tokens are.

A block is the outermost module around one call of attention whose output is the tokens that attend to each other. All
of the score must come through each block's output, so that it is the state of the model at that depth; and the cells of
one of them must be seen to stand for their places in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pytest_gradcam.cam.attention import Attention, Attentions, watched
from pytest_gradcam.cam.location import Location, Seen, reason
from pytest_gradcam.cam.model import Forward
from pytest_gradcam.cam.recording import Record, Recording, is_connected
from pytest_gradcam.cam.views import View, views_of
from pytest_gradcam.errors import TargetLayerError

MEND = 'name another method, "auto" for one'


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The blocks of a model.

    Attributes:
        names: dotted names, in order.
        modules: they.
        view: how the tokens that they give are a grid.
        shape: of what each gives for one image, with the batch.
        recording: the forward in which they were found.
        records: what each gave in it.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    view: View
    shape: tuple[int, ...]
    recording: Recording
    records: tuple[Record, ...]

    @property
    def tokens(self) -> int:
        """How many tokens attend to each other: the cells, and those that have no place in the image."""
        return _tokens_in(self.view)

    def check_all_comes_through(self, scores: Sequence[Tensor]) -> None:
        """Scores of the recorded output must be made of nothing but what each block gives.

        Raises:
            TargetLayerError: there is a way around one.
        """
        sources = self.recording.sources()
        for name, record in zip(self.names, self.records, strict=True):
            if any(is_connected(score, sources, [record.tensors[0]]) for score in scores):
                raise TargetLayerError(
                    f"the score reaches the image around {name!r} too, so that what it gives is not all that the model "
                    f"knows there, as its blocks must for LeGrad; {MEND}"
                )
            sources = [*sources, record.tensors[0]]


def blocks_of(forward: Forward, image: Tensor) -> Blocks:
    """The blocks of a model, for one image (1, C, H, W).

    Raises:
        TargetLayerError: it has no attention, or not such blocks.
    """
    seen = Attentions(cut=False)
    with watched(forward.module, seen):
        recording = Recording.of(forward, image)
    calls = [call for call in seen.calls if call.is_square]
    if not calls:
        around = f" that is square, but {_shown(seen.calls[0])}" if seen.calls else ""
        raise TargetLayerError(
            f"no attention{around} was seen in the forward of {forward.name}: LeGrad is of vision transformers whose "
            f"tokens attend to each other by scaled_dot_product_attention or a softmax; {MEND}"
        )
    length = max(call.shape[-1] for call in calls)
    calls = [call for call in calls if call.shape[-1] == length]
    size = (int(image.shape[2]), int(image.shape[3]))
    records = [_block_around(call, calls, recording, size) for call in calls]
    shapes = list(dict.fromkeys(tuple(record.tensors[0].shape) for record in records))
    if len(shapes) > 1:
        raise TargetLayerError(
            f"the blocks of {forward.name} give outputs of different shapes, {shapes[0]} and {shapes[1]}: LeGrad puts "
            f"what each gives in the place of what the last one gives; {MEND}"
        )
    view = _proven(forward, recording, records, _views(records[0], length, size))
    for call in seen.calls:
        if call not in calls and (call.is_named or call.is_square or call.shape[-1] >= view.cells):
            raise TargetLayerError(
                f"{forward.name} has attention besides that of its tokens to each other: {_shown(call)}, beside "
                f"{_shown(calls[0])}. LeGrad's map would leave it out; {MEND}"
            )
    names = tuple(record.name for record in records)
    modules = tuple(record.module for record in records)
    return Blocks(names, modules, view, shapes[0], recording, tuple(records))


def _block_around(call: Attention, calls: Sequence[Attention], recording: Recording, size: tuple[int, int]) -> Record:
    """The outermost module around one call of attention that gives its tokens.

    Raises:
        TargetLayerError: there is none.
    """
    records = {record.name: record for record in recording.records if record.calls == 1}
    for name in call.inside:
        record = records.get(name)
        if sum(name in other.inside for other in calls) == 1 and record and _views(record, call.shape[-1], size):
            return record
    raise TargetLayerError(
        f"{_shown(call)}, but no module around it, called once and with no other attention in it, gives "
        f"{call.shape[-1]} tokens that are a grid over the image, as where the tokens of a window attend to each "
        f"other: LeGrad is of attention over all tokens; {MEND}"
    )


def _views(record: Record, length: int, size: tuple[int, int]) -> list[View]:
    """The views of what a module gives first that have so many tokens."""
    if not record.tensors:
        return []
    shape = tuple(record.tensors[0].shape)
    return [v for v in views_of(shape, size) if shape[v.batch_axis] == 1 and _tokens_in(v) == length]


def _tokens_in(view: View) -> int:
    return view.prefix + view.cells + view.suffix


def _proven(forward: Forward, recording: Recording, records: Sequence[Record], views: Sequence[View]) -> View:
    """How the tokens are a grid: as the cells of the first block where that can be seen.

    Raises:
        TargetLayerError: it can be seen nowhere.
    """
    location = Location(forward, recording, not records[0].tensors[0].requires_grad)
    first: list[Seen] | None = None
    for record in records:
        part, seen = location.part(record, 0, views)
        if part is not None:
            return part.view
        first = seen if first is None else first
    raise TargetLayerError(f"the tokens of {records[0].name!r} ({views[0]}) give no map: {reason(first or [])}; {MEND}")


def _shown(call: Attention) -> str:
    queries, keys = call.shape[-2:]
    return f"attention of {queries} queries over {keys} keys in {call.where!r}"
