"""Files that somebody else may have placed, such as those of a CI artifact: found and read without trusting them.

No link is followed, nothing waits for the other end of a pipe, nothing larger than was allowed comes into memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_gradcam.errors import BaselineError


def entries_below(
    folder: Path, problems: list[BaselineError], enter: Callable[[str], bool] = lambda name: True
) -> Iterator[os.DirEntry[str]]:
    """All that lies in a folder and those below it, folders aside and links included, in no order.

    Args:
        folder: where to look; one that is missing is empty.
        problems: is told of folders that cannot be listed.
        enter: whether to look into a folder of that name.
    """
    # A list and not a recursion: whoever placed the folders may have nested thousands.
    todo = [str(folder)]
    while todo:
        current = todo.pop()
        try:
            entries = list(os.scandir(current))
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(BaselineError(f"{current} cannot be listed: {error.strerror or error}"))
            continue
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry
            elif enter(entry.name):
                todo.append(entry.path)


def read_at_most(path: Path, most: int, what: str) -> bytes:
    """The bytes of a plain file that is no link.

    Args:
        path: of the file.
        most: bytes that it may have.
        what: it should be, for a person.

    Raises:
        BaselineError: there is none, it is no plain file, too large, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        if path.is_symlink():
            raise BaselineError(f"{path} is no {what}: it is a link")
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BaselineError(f"{path} is no {what}: it is no plain file")
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, BaselineError):
            raise
        raise BaselineError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > most:
        raise BaselineError(f"{path} is no {what}: it has more than {most} bytes")
    return data
