"""Finding the target layer, and checking one that the user names.

From one recorded forward: the last layer whose output is a grid over the image, on whose cells the score depends
(`dependence.py`), around which the image does not reach the score, and whose cells stand for their places
(`location.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pytest_gradcam.cam.capture import run_hooked
from pytest_gradcam.cam.dependence import Dependence, Question
from pytest_gradcam.cam.layers import Part, Target, are_alike, children_of
from pytest_gradcam.cam.locality import noisy
from pytest_gradcam.cam.location import Location, reason
from pytest_gradcam.cam.model import Forward
from pytest_gradcam.cam.reading import is_scale_free, is_uneven
from pytest_gradcam.cam.recording import Record, Recording, are_equal, check_same, is_connected
from pytest_gradcam.cam.stacks import keeps_places
from pytest_gradcam.cam.views import View, views_of
from pytest_gradcam.errors import TargetLayerError

# Of a grid beside prefix tokens, at least this share of the cells must carry some of the score: behind a readout of the
# class token and of a few others, a map would show those few.
MIN_SHARE_OF_CELLS = 0.25
# How many layers are probed, each by gradients through the whole model, before the search gives up.
MAX_PROBES = 24
# How many layers an error lists.
LISTED = 5

NO_GRADIENT = "the score does not depend on it (zero gradient)"
ONLY_PREFIX = "the score does not depend on its cells: its gradient is in the prefix tokens"
AROUND = "the score reaches the image around it too, through another branch"
# How many layers are looked at, by gradients of what lies behind them.
MAX_LAYERS = 600


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What became of one layer.

    Attributes:
        name: dotted name.
        shape: of the first tensor in its output that could be a grid.
        view: how it is, or would be, read.
        target: the layer as a target, where it is one, or could be one if nothing better is found.
        why: why it is none.
        is_probed: whether its cells were asked for their places.
    """

    name: str
    shape: tuple[int, ...]
    view: str
    target: Target | None = None
    why: str = ""
    is_probed: bool = False


def targets_of(
    forward: Forward, inputs: Tensor, name: str | None, question: Question, *, with_blocks: bool = False
) -> tuple[Target, ...]:
    """The target layer of a model for inputs of this shape; before it, those of the blocks before.

    Args:
        forward: the model, in eval mode.
        inputs: (N, C, H, W); the first image is used.
        name: dotted name of the layer, or None to find it.
        question: the score that is asked for.
        with_blocks: whether a layer of tokens is asked for in all blocks.

    Raises:
        TargetLayerError: there is none, or the named one gives no map.
        ModelError: the model answers the same input differently twice.
    """
    search = Search(forward, inputs[:1], question)
    target = search.found() if name is None else search.named(name)
    search.check_answer(target)
    return search.in_all_blocks(target) if with_blocks else (target,)


class Search:
    """One search through the layers of a model, and the forwards that it takes: one, and up to three more."""

    def __init__(self, forward: Forward, inputs: Tensor, question: Question) -> None:
        """Record a forward for one image, (1, C, H, W), of a model in eval mode."""
        self._forward = forward
        self._question = question
        self._inputs = inputs
        size = (int(inputs.shape[2]), int(inputs.shape[3]))
        recording, self._is_cut_off, another = self._recorded(size)
        self._recording = recording
        self._location = Location(forward, recording, self._is_cut_off, another)
        self._candidates = [
            (record, grids) for record in reversed(recording.records) if (grids := _possible_grids(record, size))
        ]
        tensors = [record.tensors[place] for record, grids in self._candidates for place in grids]
        self._dependence = Dependence(recording, question, tensors) if tensors else None

    def _recorded(self, size: tuple[int, int]) -> tuple[Recording, bool, Recording | None]:
        """A recording; whether its graph does not begin at the image; and that of another image, if one was made."""
        recording = Recording.of(self._forward, self._inputs)
        lost = [
            record
            for record in recording.records
            if _possible_grids(record, size) and not any(tensor.requires_grad for tensor in record.tensors)
        ]
        if not lost:
            return recording, False, None
        # Grids without a graph. Some are constants, embeddings of places say. Those that change with the image were cut
        # off by the forward, and what lies behind them is a model still.
        another = Recording.of(self._forward, noisy(self._inputs, 1))
        index = {id(record): i for i, record in enumerate(recording.records)}
        cut_off = set()
        for record in lost:
            other = another.records[index[id(record)]] if len(another.records) > index[id(record)] else record
            if not are_equal(record.tensors, other.tensors):
                cut_off.add(record.name)
        if not cut_off:
            return recording, False, another
        anew = Recording.of(self._forward, self._inputs, anew=cut_off)
        check_same(self._forward, recording.output, anew.output)
        if not is_connected(self._question.whole(anew.output), anew.starts, []):
            return recording, False, another  # the score does not depend on what was cut off
        return anew, True, None

    def check_answer(self, target: Target) -> None:
        """Run the model once more, cut at the target: it must answer as it did when it was recorded.

        Raises:
            ModelError: it answers differently.
        """
        if not self._is_cut_off:  # then it was recorded twice, and compared
            tail = run_hooked(self._forward, [target.site], self._inputs)
            check_same(self._forward, self._recording.output, tail.output)

    def found(self) -> Target:
        """The last layer that is a target.

        Raises:
            TargetLayerError: there is none.
        """
        return self.chosen(self.judgements())

    def chosen(self, judgements: Iterable[Judgement]) -> Target:
        """The target among judgements, which are made only as far as it takes.

        Raises:
            TargetLayerError: there is none.
        """
        unproven: Target | None = None
        others: list[Judgement] = []
        for judgement in judgements:
            if not judgement.why:
                return _certain(judgement)
            others.append(judgement)
            unproven = unproven or judgement.target
        if unproven is None:
            raise self._none_found(others)
        return unproven

    def judgements(self) -> Iterator[Judgement]:
        """What becomes of each layer that could be a grid, the last one first; of many of one shape, of a few."""
        probed = 0
        left = [(record, grids) for record, grids in self._candidates if not record.passes_through][:MAX_LAYERS]
        while left and probed < MAX_PROBES:
            record, grids = left.pop(0)
            judgement = self._judge(record, grids)
            yield judgement
            if judgement.why and judgement.is_probed:
                probed += 1
                kept = self._worth_trying([other for other, _ in left], record)
                left = [(other, grids) for other, grids in left if id(other) in kept]

    def _worth_trying(self, left: Sequence[Record], failed: Record) -> set[int]:
        """Which layers are left to be judged after one was probed in vain, by id: of those of its shape, only a few.

        The earlier a layer, the less its cells have seen of the image: of the layers before, ever longer steps back are
        taken. Of the names, those are left that a person would write.
        """

        def is_like(record: Record) -> bool:
            return [t.shape for t in record.tensors] == [t.shape for t in failed.tensors]

        steps: list[Record] = []
        for record in left:
            if is_like(record) and record.calls == 1 and not self._has_way_around(record):
                later = steps[-1] if steps else failed
                if not are_equal(record.tensors, later.tensors):  # else a container, and its last child
                    steps.append(record)
        depth = min((record.name.count(".") for record in steps), default=0) + 1
        steps = [record for record in steps if record.name.count(".") <= depth]
        kept = [steps[2**power - 1] for power in range(len(steps).bit_length())] + steps[-1:]
        return {id(record) for record in [*kept, *(record for record in left if not is_like(record))]}

    def _has_way_around(self, record: Record) -> bool:
        return self._dependence is None or self._dependence.has_way_around(record)

    def _judge(
        self, record: Record, grids: dict[int, list[View]], *, named: bool = False, trusted: Part | None = None
    ) -> Judgement:
        assert self._dependence is not None  # there is a grid, so there was a tensor to ask of
        shape = tuple(record.tensors[next(iter(grids))].shape)
        shown = " and ".join(str(views[0]) for views in grids.values())

        def refused(why: str, target: Target | None = None, *, is_probed: bool = False) -> Judgement:
            return Judgement(record.name, shape, shown, target, why, is_probed=is_probed)

        if record.calls > 1:
            return refused(f"called {record.calls} times in a forward")
        # Those of all classes: where all of it comes through a layer, so does each class, and a class that has no
        # gradient there has none before. That nothing speaks for it is a finding, and no reason to look further.
        gradients = self._dependence.gradients(record, grids)
        reached = {place: gradient for place, gradient in gradients.items() if bool(gradient.any())}
        if not reached and (named or self._question.is_callable):
            reached = gradients  # zero, with a path to it, is a finding
        if not reached:
            return refused(NO_GRADIENT)
        readable = {place: grids[place] for place in reached}
        if not named:
            readable = {
                place: self._carrying(record.tensors[place], views, reached[place]) for place, views in readable.items()
            }
            readable = {place: views for place, views in readable.items() if views}
        if not readable:
            return refused(ONLY_PREFIX)
        if not named and self._dependence.is_bypassed(record, readable):
            return refused(AROUND)
        parts, why = ((trusted,), "") if trusted is not None else self._parts(record, readable, named=named)
        if parts is None:
            return refused(why, is_probed=True)
        parts = tuple(
            replace(
                part,
                is_scale_free=is_scale_free(record.tensors[part.place], reached[part.place], part.view),
                is_uneven=not named and is_uneven(reached[part.place], part.view),
            )
            for part in parts
        )
        target = Target(record.name, record.module, parts, self._norms_behind(record))
        if why:
            return refused(why, target, is_probed=True)
        read = [part.view(reached[part.place]) for part in parts]
        if any(bool(g.any()) for g in reached.values()) and not any(bool(cells.any()) for cells in read):
            return refused(ONLY_PREFIX, is_probed=True)
        return Judgement(record.name, shape, target.view, target, is_probed=True)

    def _carrying(self, tensor: Tensor, views: Sequence[View], gradient: Tensor) -> list[View]:
        """The views under which the cells carry the score; beside prefix tokens, enough of them."""
        if not bool(gradient.any()):
            return list(views)
        if any(view.is_partial and not bool(view(gradient).any()) for view in views):
            return []  # all of it is in the tokens that one view leaves out: a readout of the class token
        asked = None
        if self._dependence is not None and any(view.is_partial for view in views):
            # Each class may read a cell of its own, a maximum over tokens say, and all of them many.
            asked = self._dependence.of_asked(tensor)
        return [
            view
            for view in views
            if bool(view(gradient).any())
            and (not view.is_partial or _share(view(gradient if asked is None else asked)) >= MIN_SHARE_OF_CELLS)
        ]

    def _parts(
        self, record: Record, readable: dict[int, list[View]], *, named: bool
    ) -> tuple[tuple[Part, ...] | None, str]:
        """The grids of a layer's output; why there are none, or why they are taken only where there is no better."""
        parts, why = [], ""
        for place, views in readable.items():
            part, seen = self._location.part(record, place, views)
            if part is None:
                # Its cells may see all of the image, and then the map says little: that is for those to decide who name
                # the layer. Unasked, it is taken only where no layer is proven, as of a few closed ReLUs.
                part = self._location.unproven(record, place, views, seen, named=named)
                why = "" if named else reason(seen)
            if part is None:
                return None, reason(seen)
            parts.append(part)
        return tuple(parts), why

    def _norms_behind(self, record: Record) -> tuple[nn.Module, ...]:
        records = self._recording.records
        later = records[next(i for i, other in enumerate(records) if other is record) :]
        return tuple(other.module for other in later if isinstance(other.module, nn.modules.batchnorm._NormBase))

    def in_all_blocks(self, target: Target) -> tuple[Target, ...]:
        """A grid of tokens, and the same layer of the other blocks: those that hold the same tokens as a proven one."""
        part = target.parts[0]
        if len(target.parts) > 1 or "tokens" not in part.view.kind:
            return (target,)
        own = next(record for record, _ in self._candidates if record.name == target.name)
        last, anchor, proven = own, target, [own]
        for record, grids in self._candidates:
            if record is own:
                break
            later = None if record.passes_through else self._in_stack(record, grids, part, proven, named=False)
            if later is not None:
                last, anchor = record, later
                break
        if anchor.parts[0].is_scale_free:
            return (target,)
        # A container of blocks gives what its last block gives, and that is the one that has others before it.
        same = [record for record, _ in self._candidates if are_equal(record.tensors, last.tensors)]
        start = 1 + max(i for i, (record, _) in enumerate(self._candidates) if record in same)
        found: list[Target] = []
        for record, grids in self._candidates[start:]:  # from the last to the first
            if any(are_equal(record.tensors, other.tensors) for other in proven[:-1]):
                continue  # what a block ends with is there by the block's name already
            if any(are_alike(record.name, s.name) and type(record.module) is type(s.module) for s in same):
                earlier = self._in_stack(record, grids, part, proven, named=True)
                if earlier is not None:
                    found.insert(0, earlier)
        return (*found, anchor)

    def _in_stack(
        self, record: Record, grids: dict[int, list[View]], part: Part, proven: list[Record], *, named: bool
    ) -> Target | None:
        """A layer read as one that is proven, if it is itself, or holds the same tokens; else None."""
        of_one = part.view.of_one
        fits = [p for p, views in grids.items() if part.view in views and of_one(record.tensors[p]) == part.shape]
        if len(fits) != 1:
            return None
        tensor, trusted = record.tensors[fits[0]], replace(part, place=fits[0], proof=None)
        alone = self._judge(record, {fits[0]: [part.view]}, named=named)
        if alone.why and not any(
            keeps_places(tensor, other.tensors[part.place], part.view)
            or keeps_places(other.tensors[part.place], tensor, part.view)
            for other in proven
            if len(other.tensors) > part.place and of_one(other.tensors[part.place]) == part.shape
        ):
            return None
        target = self._judge(record, {fits[0]: [part.view]}, named=named, trusted=trusted).target
        if target is not None and not target.parts[0].is_scale_free:
            proven.insert(0, record)
            return target
        return None

    def named(self, name: str) -> Target:
        """The layer of this name, checked.

        Raises:
            TargetLayerError: it is not called once, is no grid, or the score does not depend on it.
        """
        records = [record for record in self._recording.records if record.name == name]
        if not records:
            raise TargetLayerError(
                f"layer {name!r} is not called in the forward of {self._forward.name}; name a layer that is"
            )
        record = records[-1]
        if record.calls > 1:
            raise TargetLayerError(
                f"layer {name!r} is called {record.calls} times in a forward: which of its outputs the map should be "
                "read from is not determined; name a layer around it"
            )
        if not record.tensors:
            raise TargetLayerError(f"layer {name!r} gives no tensor; name another layer")
        grids = next((grids for other, grids in self._candidates if other is record), None)
        if grids is None:
            height, width = self._inputs.shape[2:]
            raise TargetLayerError(
                f"layer {name!r} has no spatial grid: its output has shape {tuple(record.tensors[0].shape)} for an "
                f"input of {height}×{width} pixels; name a layer that lies before pooling"
            )
        judgement = self._judge(record, grids, named=True)
        if not judgement.why:
            return _certain(judgement)
        if judgement.why == NO_GRADIENT:
            self._question.explain_silence()
            raise TargetLayerError(
                f"the score does not depend on layer {name!r}; name a layer that lies before the score"
            )
        if judgement.why == ONLY_PREFIX:
            raise TargetLayerError(
                f"the score does not depend on the cells of layer {name!r} ({judgement.view}): all of its gradient is "
                "in the prefix tokens, as after a class-token readout; name an earlier layer"
            )
        raise TargetLayerError(f"layer {name!r} ({judgement.view}) gives no map: {judgement.why}; name another layer")

    def _none_found(self, others: Sequence[Judgement]) -> TargetLayerError:
        model, children = self._forward.name, children_of(self._forward.module)
        if not others:
            return TargetLayerError(
                f"no layer of {model} gives a grid over the image, so there is no map of where it looks: its children "
                f"are {children}"
            )
        self._question.explain_silence()
        # The reasons that say most: a layer on which the score does not depend at all is far from being one.
        once = list({other.name: other for other in others}.values())
        telling = ([other for other in once if other.why != NO_GRADIENT] or once)[:LISTED]
        name, view = max(len(other.name) for other in telling), max(len(other.view) for other in telling)
        lines = "".join(f"\n  {other.name:<{name}}   {other.view:<{view}}   {other.why}" for other in telling)
        return TargetLayerError(
            f"no layer of {model} was found that gives a map for this score. Nearest:{lines}\n"
            f'Name one with layer="…"; the children of the model are {children}'
        )


def _certain(judgement: Judgement) -> Target:
    assert judgement.target is not None  # there is no reason against it
    return judgement.target


def _possible_grids(record: Record, size: tuple[int, int]) -> dict[int, list[View]]:
    """The tensors of a layer's output that could be grids, by place, and their possible views."""
    found = {}
    for place, tensor in enumerate(record.tensors):
        # More rows than images are crops, windows or frames.
        views = [view for view in views_of(tuple(tensor.shape), size) if tensor.shape[view.batch_axis] == 1]
        if views:
            found[place] = views
    return found


def _share(cells: Tensor) -> float:
    """Which share of the cells has a gradient, (1, C, h, w)."""
    return float((cells.abs().sum(dim=1) > 0).float().mean())
