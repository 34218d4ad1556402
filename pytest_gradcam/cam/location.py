"""Which of its possible views a layer's cells bear out: the locality probe, put to the recordings of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.layers import Part
from pytest_gradcam.cam.locality import FOLLOWS, LOCAL, MAX_DISPLACEMENT, Places, changed, noisy, probed, redrawn
from pytest_gradcam.cam.model import Forward
from pytest_gradcam.cam.recording import Record, Recording
from pytest_gradcam.cam.views import View, views_of
from pytest_gradcam.errors import TargetLayerError

NOT_LOCAL = "its cells do not stand for their places in the image"
UNSEEN = "that its cells stand for their places in the image cannot be shown: those probed do not depend on it"

CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.PixelShuffle,
    nn.Upsample,
)
# Exact types: timm derives channels-first normalisations from LayerNorm.
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


Seen: TypeAlias = tuple[View, Places]


class Location:
    """Where the cells of a recorded forward's layers lie, asked of its own image and, where that says nothing, of more.

    Those take two forwards at most.
    """

    def __init__(
        self, forward: Forward, recording: Recording, is_cut_off: bool, another: Recording | None = None
    ) -> None:
        """Ask of a recording.

        Args:
            forward: the model.
            recording: of the image.
            is_cut_off: whether its layers cannot be differentiated back to the image.
            another: of the image under noise, where there is one already.
        """
        self._forward = forward
        self._another = another
        self._recording = recording
        self._is_cut_off = is_cut_off
        self._index = {id(record): index for index, record in enumerate(recording.records)}
        self._others: list[Recording] | None = None

    def part(self, record: Record, place: int, views: Sequence[View]) -> tuple[Part | None, list[Seen]]:
        """A layer's output under the view that its cells bear out, if any does; and what was seen of each view."""
        proven: list[tuple[float, Part]] = []
        seen: list[Seen] = []
        for view in views:
            places = self._places(record, place, view)
            if places is None:
                continue
            seen.append((view, places))
            if places.are_proven:
                proven.append((places.share, _part(record, place, view, places)))
                if places.are_exact:
                    break
        return (max(proven, key=lambda found: found[0])[1] if proven else None), seen

    def unproven(
        self, record: Record, place: int, views: Sequence[View], seen: Sequence[Seen], *, named: bool
    ) -> Part | None:
        """The output of a convolution, of whose order there is no doubt where nothing that was seen contradicts it."""
        grids = [view for view in views if view.kind == "nchw"]
        if not grids or not self._is_convolutional(record, place):
            return None
        found = next((places for view, places in seen if view == grids[0]), None)
        if found is not None and (found.contradict or (not named and found.are_elsewhere)):
            return None
        return _part(record, place, grids[0], found)

    def _is_convolutional(self, record: Record, place: int) -> bool:
        """Whether the last module in or before the layer that knows where its channels are has them first."""
        shape = record.tensors[place].shape
        for other in reversed(self._recording.records[: self._index[id(record)] + 1]):
            if any(tensor.shape == shape for tensor in other.tensors):
                if isinstance(other.module, CHANNELS_FIRST):
                    return True
                if type(other.module) in CHANNELS_LAST:
                    return False
        return False

    def _places(self, record: Record, place: int, view: View) -> Places | None:
        tensor = record.tensors[place]
        if self._is_cut_off:
            others = self._tensors(record, place, view)
            return changed(tensor, others[0][0], view) if others else None
        own = (tensor, self._recording.inputs)
        found = probed([own], view)
        if found is not None and (found.are_enough or found.contradict):
            return found
        return probed([own, *self._tensors(record, place, view)], view)

    def _tensors(self, record: Record, place: int, view: View) -> list[tuple[Tensor, Tensor]]:
        """The same output in the other recordings, each with its inputs."""
        index, found = self._index[id(record)], []
        for other in self._other_recordings():
            # A forward that takes another way with another picture says nothing of this one.
            there = other.records[index] if len(other.records) > index else None
            if there is not None and there.name == record.name and len(there.tensors) > place:
                tensor = other.records[index].tensors[place]
                is_alike = view.of_one(tensor) == view.of_one(record.tensors[place])
                if is_alike and tensor.shape[view.batch_axis] == len(other.inputs):
                    found.append((tensor, other.inputs))
        return found

    def _other_recordings(self) -> list[Recording]:
        """Of the image under noise, since at a closed ReLU the image alone shows nothing; or of it redrawn in parts."""
        if self._others is None:
            image = self._recording.inputs.detach()
            if self._is_cut_off:
                self._others = [Recording.of(self._forward, redrawn(image))]
            else:
                first = self._another or Recording.of(self._forward, noisy(image, 1))
                self._others = [first, Recording.of(self._forward, noisy(image, -1))]
        return self._others


def _part(record: Record, place: int, view: View, places: Places | None) -> Part:
    return Part(place, view, view.of_one(record.tensors[place]), places)


def reason(seen: Sequence[Seen]) -> str:
    """Why a layer is refused of whose views this was seen."""
    ordered = [places for _, places in seen if not places.are_elsewhere]
    if not seen or not any(places.are_enough or places.contradict for _, places in seen):
        return UNSEEN
    if ordered and (distance := min(places.displacement for places in ordered)) > MAX_DISPLACEMENT:
        return f"{NOT_LOCAL} (they are up to {distance:.1f} cells from them, as over a crop or a padded image)"
    if ordered:
        best = max(ordered, key=lambda places: places.follows)
        return (
            f"{NOT_LOCAL} (locality {best.locality:.2f}, needs {LOCAL:.2f}; they follow them with a correlation of "
            f"{best.follows:.2f}, needs {FOLLOWS:.2f})"
        )
    times = min(places.elsewhere for _, places in seen)
    return f"{NOT_LOCAL} (one depends on another place {min(times, 99.0):.1f} times as much as on its own)"


def prove_features(features: Callable[[Tensor], Any], inputs: Tensor) -> Part:
    """How the features of a pair (features, head), which has no names, are a grid.

    Args:
        features: inputs → one tensor.
        inputs: (N, C, H, W); the first image is used.

    Raises:
        TargetLayerError: they are no grid over the image.
    """
    size = (int(inputs.shape[2]), int(inputs.shape[3]))
    image = inputs[:1].detach()
    outputs: list[tuple[Tensor, Tensor]] = []
    for picture in (image, noisy(image, 1), noisy(image, -1)):
        leaf = picture.clone().requires_grad_()
        with torch.enable_grad():
            outputs.append((features(leaf.clone()), leaf))
        views = _views_of_features(outputs[0][0], size)
        if outputs[0][0].requires_grad:
            found = [(probed(outputs, view), view) for view in views]
        else:  # what the features are made of is cut off
            with torch.no_grad():
                after = features(redrawn(image))
            found = [(changed(outputs[0][0], after, view), view) for view in views]
        seen = [(view, places) for places, view in found if places is not None]
        proven = [(view, places) for view, places in seen if places.are_proven]
        if proven:
            view, places = max(proven, key=lambda found: found[1].share)
            return Part(0, view, view.of_one(outputs[0][0]), places)
    # Four dimensions are torch's own order, and it is the user's own cut: taken where nothing speaks against it.
    if views[0].kind == "nchw" and not any(places.contradict for view, places in seen if view is views[0]):
        return Part(0, views[0], views[0].of_one(outputs[0][0]), None)
    raise TargetLayerError(f"the features of the pair (features, head) give no map: {reason(seen)}")


def _views_of_features(output: Tensor, size: tuple[int, int]) -> list[View]:
    shape = tuple(output.shape)
    views = [view for view in views_of(shape, size) if shape[view.batch_axis] == 1]
    if not views and views_of((1, *shape[1:]), size):
        raise folded("features", shape[0], 1)
    if not views:
        raise TargetLayerError(
            f"the features of the pair (features, head) have no spatial grid: their shape is {shape} for an "
            f"input of {size[0]}×{size[1]} pixels; cut before pooling"
        )
    return views


def folded(name: str, rows: int, images: int) -> TargetLayerError:
    """The error for a layer whose rows are no images."""
    return TargetLayerError(
        f"layer {name!r} gives {rows} rows for {images} images: crops, windows or frames are folded into its batch, "
        "and no row is a whole image; name another layer"
    )
