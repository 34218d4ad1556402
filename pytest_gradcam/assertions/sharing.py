"""The work that the tests of one session share: pictures made ready, regions carried, maps, each found by its content.

A hit is what computing it anew would give. What decides a result is read at each use (`fingerprint`); what cannot be
read is computed anew. Errors are never kept.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from torch import Tensor, nn

from pytest_gradcam.assertions.contents import digest, digest_of_tensors
from pytest_gradcam.assertions.fingerprint import fingerprint
from pytest_gradcam.assertions.libraries import Unreadable
from pytest_gradcam.assertions.surroundings import of_pictures, surroundings
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.model import unwrap
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import GradcamError
from pytest_gradcam.images import Look, Prepared, carry_region, prepare
from pytest_gradcam.pictures import load
from pytest_gradcam.regions import Region
from pytest_gradcam.transforms import Transform, declared_transform

# A picture of 500×375 made ready takes 4 MB, a map 1 kB. Apart, so that many pictures do not drive out the maps that
# were computed ahead for them.
MOST_OF_PICTURES = 192 * 2**20
MOST_OF_MAPS = 64 * 2**20
# What an entry takes besides its arrays.
OVERHEAD = 1024
# States of models that are told apart; what is written down of one takes some 200 kB.
MOST_STATES = 64
# Images made ready whose regions may be asked for next: those of one assertion are made ready and carried in turn.
MOST_LATELY = 4

Mask = npt.NDArray[np.float32]
Compute = Callable[[list[int]], list[Explanation]]


class Kept:
    """Values by key, of which those asked for longest ago go first once they take too many bytes together."""

    def __init__(self, most: int) -> None:
        """Keep up to `most` bytes."""
        self.most = most
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: object, size: int) -> None:
        """Keep a value of `size` bytes; one that is too large alone is not kept."""
        size += OVERHEAD
        with self._lock:
            if (before := self._entries.pop(key, None)) is not None:
                self.bytes -= before[1]
            if size > self.most:
                return
            self._entries[key] = (value, size)
            self.bytes += size
            while self.bytes > self.most:
                self.bytes -= self._entries.popitem(last=False)[1][1]


class Shared:
    """What the tests of one session share."""

    def __init__(self, pictures: int = MOST_OF_PICTURES, maps: int = MOST_OF_MAPS) -> None:
        """Share.

        Args:
            pictures: bytes that pictures and regions may take.
            maps: bytes that maps may take.
        """
        self.pictures = Kept(pictures)
        self.maps = Kept(maps)
        self._states = Kept(MOST_STATES * OVERHEAD)
        self._lately: deque[tuple[Prepared, Hashable]] = deque(maxlen=MOST_LATELY)

    def prepare(self, model: object, image: object, transform: Transform | None) -> Prepared:
        """As `images.prepare`; a picture that was made ready by an equal transform is not made ready again.

        Raises:
            GradcamError: as for `images.prepare`.
        """
        try:
            if isinstance(image, Tensor):  # nothing to load and nothing to transform
                raise Unreadable
            chosen = declared_transform(model) if transform is None else transform
            key = ("picture", _content(image), fingerprint(chosen), surroundings(), of_pictures())
        except (Unreadable, GradcamError, OSError):  # the plain way says what is wrong, if anything is
            return prepare(image, model=model, transform=transform)
        found = self.pictures.get(key)
        if found is None:
            made = prepare(image, model=model, transform=chosen)
            found = replace(made, tensor=made.tensor.clone(), look=partial(_copied, made.look), transform=None)
            self.pictures.put(key, found, _size(made))
        kept: Prepared = found
        # The transform of this call, since the other may have changed; a copy of what somebody could write to.
        given = replace(kept, tensor=kept.tensor.clone(), transform=chosen)
        self._lately.append((given, key))
        return given

    def carry(self, region: Region, prepared: Prepared) -> Mask:
        """As `images.carry_region`.

        Raises:
            GradcamError: as for `images.carry_region`.
        """
        picture = next((key for one, key in tuple(self._lately) if one is prepared), None)
        if picture is None:
            return carry_region(region, prepared)
        key = ("region", region, picture)
        found: Mask | None = self.pictures.get(key)
        if found is None:
            found = carry_region(region, prepared)
            self.pictures.put(key, found.copy(), found.nbytes)
            return found
        return found.copy()

    def explain(
        self,
        model: ModelLike,
        prepared: Sequence[Prepared],
        classes: Sequence[ClassLike],
        options: Options,
        compute: Callable[[], list[Explanation]],
    ) -> list[Explanation]:
        """The maps of images that go through the model together.

        Images that went together are found together only: a batch rounds otherwise than an image alone.

        Args:
            model: as for `explain`.
            prepared: the images, of one size.
            classes: one for each.
            options: how to compute.
            compute: computes the maps.
        """
        keys = self._keys(model, prepared, classes, options)
        if keys is None:
            return compute()
        if len(prepared) > 1:
            keys = [(*keys, i) for i in range(len(prepared))]
        found = [self.maps.get(key) for key in keys]
        if all(one is not None for one in found):
            return [_given(one, image) for one, image in zip(found, prepared, strict=True)]
        made = compute()
        self._keep(keys, made)
        return made

    def compute_ahead(
        self,
        model: ModelLike,
        prepared: Sequence[Prepared],
        classes: Sequence[ClassLike],
        options: Options,
        compute: Compute,
    ) -> None:
        """Compute the maps of images that will be asked for one by one, those that are not there yet.

        Args:
            model: as for `explain`.
            prepared: the images, of any sizes.
            classes: one for each.
            options: how to compute.
            compute: indices of images → their maps.
        """
        keys = self._keys(model, prepared, classes, options)
        if keys is None:
            return  # what cannot be found again is not worth computing
        missing = [i for i, key in enumerate(keys) if self.maps.get(key) is None]
        if missing:
            self._keep([keys[i] for i in missing], compute(missing))

    def _keys(
        self, model: ModelLike, prepared: Sequence[Prepared], classes: Sequence[ClassLike], options: Options
    ) -> list[Hashable] | None:
        """Where the maps of images alone are kept; None where something that decides them cannot be read."""
        if not isinstance(model, nn.Module) or not _is_named(classes, options):
            return None
        try:
            read = fingerprint(unwrap(model), options.method, options.layer, options.engine, options.labels)
            state = self._state((read, str(options.device), surroundings()))
            return [
                (state, _of_input(one.tensor), fingerprint(cls)) for one, cls in zip(prepared, classes, strict=True)
            ]
        except (Unreadable, GradcamError, TypeError):  # whoever computes the map says what is wrong with the model
            return None

    def _state(self, read: Hashable) -> object:
        """One small object for one state of a model, so that not every key holds all that was read."""
        state = self._states.get(read)
        if state is None:
            state = object()
            self._states.put(read, state, 0)
        return state

    def _keep(self, keys: Sequence[Hashable], made: Sequence[Explanation]) -> None:
        for key, one in zip(keys, made, strict=True):
            # Its arrays belong to whoever asked; what makes its picture would keep the picture in memory.
            self.maps.put(key, replace(one, raw=one.raw.copy(), look=_nothing), one.raw.nbytes)


def _is_named(classes: Sequence[ClassLike], options: Options) -> bool:
    """Whether all that is asked for is said by numbers and names: what a callable does is said by neither."""
    layers = options.layer if isinstance(options.layer, list | tuple) else [options.layer]
    return (
        isinstance(options.method, str)
        and options.forward is None
        and all(layer is None or isinstance(layer, str) for layer in layers)
        and not any(callable(cls) for cls in classes)
    )


def _of_input(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, digest_of_tensors([tensor])


def _content(image: object) -> Hashable:
    """What a picture is, whatever it is called.

    Raises:
        OSError: no such file.
        GradcamError: it cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            held = np.frombuffer(file.read(), np.uint8)
        return "file", digest(held), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    return "pixels", digest(load(image))


def _given(kept: Explanation, prepared: Prepared) -> Explanation:
    """A kept map for whoever asks: arrays of their own, and the picture that they gave."""
    return replace(kept, raw=kept.raw.copy(), look=prepared.look)


def _copied(look: Look) -> npt.NDArray[np.uint8]:
    return look().copy()


def _nothing() -> npt.NDArray[np.uint8]:
    raise AssertionError("a kept map has no picture: it is given the one of whoever asks")


def _size(made: Prepared) -> int:
    """Bytes that an image made ready takes, the picture of what the model saw among them."""
    held = made.tensor.nbytes + (made.picture.nbytes if made.picture is not None else 0)
    held += 3 * made.tensor.shape[2] * made.tensor.shape[3]
    if made.probe is not None:
        held += made.probe.black.nbytes + made.probe.span.nbytes + made.probe.reacts.nbytes
    return held
