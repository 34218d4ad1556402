"""The local engine: parts computed in this process, images loaded ahead by others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pytest_gradcam.audit.work import Work


def compute(work: Work, numbers: Sequence[int], workers: int) -> Iterator[tuple[int, pa.Table, int]]:
    """Parts with their rows, and how many images they have, in order.

    Args:
        work: the audit's.
        numbers: of the parts that are wanted.
        workers: processes that load images.
    """
    if numbers:
        placed = work.placed()
        placed.begin()
        yield from placed.computed(numbers, workers)


def stream(work: Work, done: set[int]) -> Iterator[tuple[int, pa.Table | None, int]]:
    """The same of a stream; those that are done have no rows."""
    yield from work.placed().streamed(done)
