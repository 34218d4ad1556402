"""Work: all that the rows of an audit depend on, as one value that can be sent to another machine; cut into parts.

A part is always the same images in the same batches, whoever computes it, so that a resumed audit, and one on many
machines, give the rows that a single run gives.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any, Final

import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import DataLoader

from pytest_gradcam.assertions.attention import place_of
from pytest_gradcam.audit.data.sample import DataSetError, SampleError, Source, Stream
from pytest_gradcam.audit.measuring import explained, measure
from pytest_gradcam.audit.preparing import Block, Items, One, Preparer, collate
from pytest_gradcam.audit.rows import Row, table
from pytest_gradcam.cam.explain import explain_inputs
from pytest_gradcam.cam.model import resolve_device, unwrap
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.untouched import Inventory
from pytest_gradcam.errors import ClassError, NonFiniteError
from pytest_gradcam.images import carry_region
from pytest_gradcam.verdicts import Sight

# Images of a part, about: what a kill costs, and what one worker of a cluster is given at a time.
PART: Final = 128
# Images that are looked at for one that the model can be tried on; and how many it is tried on.
TRIED: Final = 100
TRIED_BY_MODEL: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """An audit's rows, not computed yet.

    Attributes:
        source: the data set.
        preparer: makes its images ready.
        model: as for `explain`.
        options: how to compute.
        metrics: registered names.
        batch_size: images that go through the model together.
    """

    source: Source | Stream
    preparer: Preparer
    model: ModelLike
    options: Options
    metrics: tuple[str, ...]
    batch_size: int

    @property
    def blocks(self) -> int:
        """How many batches a part has."""
        return max(1, PART // self.batch_size)

    @property
    def part_size(self) -> int:
        """How many images a part has."""
        return self.blocks * self.batch_size

    def parts(self) -> range:
        """Numbers of all parts; of a stream, whose end is not known, there are none."""
        return range(-(-len(self.source) // self.part_size)) if isinstance(self.source, Source) else range(0)

    def indices(self, number: int) -> range:
        """Which images a part has."""
        assert isinstance(self.source, Source)
        first = number * self.part_size
        return range(first, min(first + self.part_size, len(self.source)))

    def images(self, number: int) -> int:
        """How many images a part has."""
        return len(self.indices(number))

    def loader(self, numbers: Sequence[int], workers: int) -> DataLoader[Block]:
        """The blocks of these parts, in order."""
        assert isinstance(self.source, Source)
        batches: list[list[int]] = []
        for number in numbers:
            first = number * self.part_size
            for start in range(first, first + self.images(number), self.batch_size):
                batches.append([*range(start, min(start + self.batch_size, len(self.source)))])
        items: Any = Items(self.source, self.preparer)
        # Without one of its own, the loader would draw from the user's generator.
        own = torch.Generator()
        return DataLoader(items, batch_sampler=batches, collate_fn=collate, num_workers=workers, generator=own)

    def measured(self, block: Block) -> list[Row]:
        """The rows of a block."""
        return measure(block, self.model, self.options, self.metrics)

    def sight(self, index: int, place: int) -> Sight | None:
        """One row as it is drawn: its map over what the model saw, and its region; None of a stream, which is gone.

        Raises:
            GradcamError: it cannot be explained.
        """
        if not isinstance(self.source, Source):
            return None
        sample = self.source[index]
        asked = self.preparer.mapped(sample.asked)[place]
        prepared = self.preparer.prepared(sample.image)
        (explanation,) = explain_inputs(self.model, prepared.tensor, [asked.cls], [prepared.look], self.options)
        if asked.region is None:
            return Sight(explanation)
        mask = carry_region(asked.region, prepared)
        return Sight(explanation, place_of(explanation, asked.region, mask, prepared.frame))

    def begin(self) -> None:
        """Explain the first image that can be, so that its layer is found, whoever computes which part.

        Raises:
            DataSetError: none of the first hundred images can be used.
            Exception: the model explains none of those that can: what it raises for the first of them.
        """
        if isinstance(self.source, Source):
            items = Items(self.source, self.preparer)
            attempt = Attempt(self)
            for index in range(min(len(items), TRIED)):
                if attempt.succeeds(items[index]):
                    return
            attempt.end()

    def computed(self, numbers: Sequence[int], workers: int = 0) -> Iterator[tuple[int, pa.Table, int]]:
        """Parts with their rows, and how many images they have, in order."""
        blocks = iter(self.loader(numbers, workers))
        for number in numbers:
            rows: list[Row] = []
            images = 0
            for _ in range(-(-self.images(number) // self.batch_size)):
                block = next(blocks)
                rows += self.measured(block)
                images += block.count
            yield number, table(rows, self.metrics), images

    def streamed(self, done: set[int]) -> Iterator[tuple[int, pa.Table | None, int]]:
        """As `computed`, of a stream; parts that are done have no rows, and are gone through only."""
        samples = iter(self.source)
        attempt = Attempt(self)
        index = number = 0
        while True:
            rows: list[Row] = []
            count = 0
            for _ in range(self.blocks):
                ones = []
                for sample in some(samples, self.batch_size):
                    if number not in done:
                        ones.append(self.preparer.one(index, str(index), functools.partial(given, sample)))
                    index += 1
                    count += 1
                any(attempt.succeeds(one) for one in ones)
                rows += self.measured(collate(ones)) if ones else []
            if count == 0:
                attempt.end()
                return
            yield number, None if number in done else table(rows, self.metrics), count
            number += 1

    def placed(self) -> Work:
        """The same with the model where it is computed, so that it is moved there once and not for each batch.

        A copy is moved: the user's model stays where and what it is.
        """
        model = self.model
        if not isinstance(model, nn.Module):
            return self
        module = unwrap(model)
        inventory = Inventory.of(module)
        device = resolve_device(self.options.device, inventory.places)
        if all(place == device for place in inventory.places):
            return self
        return replace(self, model=copy.deepcopy(module).to(device))


class Attempt:
    """The first images, until the model has explained one: an audit of a model that explains none is called off."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._is_over = False
        self._tried = 0
        self._raised: Exception | None = None
        self._refused = ""

    def succeeds(self, one: One) -> bool:
        """Whether the model has explained this image, or one before it.

        Raises:
            Exception: what the model raises, where it has explained none of several images.
        """
        if self._is_over:
            return True
        self._refused = self._refused or next((row.reason for row in one.refused), "")
        for part in collate([one]).parts:
            try:
                explained(part.row(0), self._work.model, self._work.options)
            except (ClassError, NonFiniteError):  # of this image alone
                self._is_over = True
            except Exception as error:  # of ours, or what the user's model raises
                self._raised = self._raised or error
                self._tried += 1
                if self._tried == TRIED_BY_MODEL:
                    raise self._raised from None
            else:
                self._is_over = True
        return self._is_over

    def end(self) -> None:
        """There are no more images to try.

        Raises:
            DataSetError: none can be used.
            Exception: as `succeeds`.
        """
        if self._is_over:
            return
        if self._raised is not None:
            raise self._raised
        if self._refused:
            raise DataSetError(f"none of the first images can be used; the first: {self._refused}")


def some(samples: Iterator[Any], count: int) -> Iterator[Any]:
    """The next samples of a stream; in the place of one that cannot be used, why.

    Raises:
        DataSetError: the stream is a generator, and ended with one that cannot be used: what follows will not be seen.
    """
    for _ in range(count):
        try:
            yield next(samples)
        except StopIteration:
            return
        except SampleError as error:  # this image alone: a stream goes on after it
            if isinstance(samples, GeneratorType):
                raise DataSetError(
                    f"the stream ended with an image that cannot be used ({error}): a generator gives nothing after it "
                    "raised. Make it an iterator that goes on, or pass a data set with a length"
                ) from error
            yield error


def given(sample: Any) -> Any:
    """A sample; or what is raised in its place."""
    if isinstance(sample, Exception):
        raise sample
    return sample
