"""What the commands about baselines say: lines that every stream takes, and errors in one line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pytest_gradcam.errors import GradcamError
from pytest_gradcam.report.lines import in_ascii, printable

INTERRUPTED: Final = 130  # as a shell has it
_GONE: Final = 141


def say(line: str = "", *, end: str = "\n") -> None:
    """Write a line of our own, in which all that comes from files is printable; in ASCII where that is all there is."""
    try:
        sys.stdout.write(line + end)
    except UnicodeEncodeError:
        sys.stdout.write(in_ascii(line).encode("ascii", "backslashreplace").decode("ascii") + end)


def complain(error: GradcamError) -> None:
    """Write an error, its kind first, in one line."""
    sys.stdout.flush()  # where both streams are one, what was said first stands first
    print(f"{type(error).__name__}: {printable(str(error))}", file=sys.stderr, flush=True)


def counted(count: Mapping[str, int], kinds: Sequence[str]) -> str:
    """`2 approved, 1 left`: of each kind how many, those aside of which there are none."""
    return ", ".join(f"{count[kind]} {kind}" for kind in kinds if count[kind]) or "nothing was done"


def floored(correlation: float) -> str:
    """A correlation with four digits, cut and not rounded: one below .999 must not look like .999."""
    return f"{math.floor(correlation * 1e4) / 1e4:.4f}"


def ending_well(command: Callable[[], int], *, failed: int = 1) -> int:
    """The exit code of a command, whichever way it ends.

    Args:
        command: what is to be done.
        failed: the code for an error of ours.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except GradcamError as error:
        complain(error)
        return failed
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our lines has seen enough; nor may the interpreter flush them at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _GONE
