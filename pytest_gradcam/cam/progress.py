"""A progress bar for explanations that take many forwards: on a terminal, once a second has passed, else nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 1.0  # seconds; what is done sooner needs no bar


def progress(steps: Iterable[T], count: int, what: str) -> Iterable[T]:
    """The steps, counted for a person who waits; on the error stream, and gone when they are done.

    Args:
        steps: what is gone through.
        count: how many there are.
        what: what they do, in a word or two.
    """
    from tqdm import tqdm  # only methods that take long pay for it

    # `None`: not where the stream is no terminal, as in a log or under pytest's capture.
    bar: Iterable[T] = tqdm(steps, total=count, desc=what, leave=False, disable=None, delay=PATIENCE)
    return bar
