"""How paths and characters are written for a person: from where they look, and with what their terminal can draw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter  # public only as the type of what pytest hands over


def spelt(path: Path, base: Path) -> str:
    """The path as seen from `base`, with forward slashes; absolute where it lies far from there."""
    try:
        relative = Path(os.path.relpath(path, base))
    except ValueError:  # another drive
        return path.as_posix()
    return (path if relative.parts[:3] == ("..",) * 3 else relative).as_posix()


def draws(tw: TerminalWriter) -> bool:
    """Whether the stream can be written the characters that maps and bars are made of."""
    encoding = getattr(getattr(tw, "_file", None), "encoding", None) or "utf-8"
    try:
        "│▀░·×".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
