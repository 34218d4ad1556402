"""Lines of terminal output, after they were written: the plain map swapped for the coloured one, Unicode for ASCII.

Strings in, strings out; standard library only, for it runs where the report is shown and not where it was made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TextIO

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_RESET: Final = "\x1b[0m"
_ASCII: Final = str.maketrans(
    {**dict.fromkeys("│╵╷", "|"), **dict.fromkeys("─╶╴", "-"), **dict.fromkeys("┌┐└┘├┤┬┴┼", "+")}
    | {**dict.fromkeys("▐▌▋▊▉█", "#"), **dict.fromkeys("░▏▎▍", ".")}
    | {"×": "x", "·": "-", "…": "...", "≤": "<="}
)


def recolour(text: str, plain: Sequence[str], coloured: Sequence[str]) -> str:
    """The text with every run of lines that ends in the lines of `plain` replaced by `coloured`, indent kept.

    Args:
        text: what pytest wrote, with or without colour codes of its own.
        plain: the lines of a plain map.
        coloured: the lines that take their place.
    """
    if not plain:
        return text
    lines = text.split("\n")
    bare = [_ESCAPE.sub("", line) for line in lines]
    done: list[str] = []
    at = 0
    while at < len(lines):
        block = bare[at : at + len(plain)]
        if len(block) == len(plain) and all(map(str.endswith, block, plain)):
            indent = lines[at][: lines[at].index(plain[0])]
            reset = _RESET if _ESCAPE.search(indent) else ""
            done += [f"{indent}{reset}{line}" for line in coloured]
            at += len(plain)
        else:
            done.append(lines[at])
            at += 1
    return "\n".join(done)


def printable(text: str) -> str:
    r"""The text with characters that could steer a terminal spelt out: names of files and tests are data.

    Letters of any script stay; control, format and private characters and line breaks become `\x1b` and the like.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def in_ascii(text: str) -> str:
    """The text with its drawing characters spelt in ASCII, for a stream that knows nothing else."""
    return text.translate(_ASCII)


def tell(line: str, stream: TextIO) -> None:
    """Print a line; what would steer the terminal, or what it cannot write, is spelt out."""
    encoding = stream.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding), file=stream)
