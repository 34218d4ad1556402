"""The picture that waits beside a received file: taken only if it is one that we have written, byte for byte.

It is never decoded: a file that somebody else made may claim any number of pixels, and hide anything behind them.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final

from pytest_gradcam.baselines.received.foreign import read_at_most
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.report.overlay import is_overlay

MOST_BYTES: Final = 32 * 2**20
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# What Pillow writes of an RGB picture with our mark, and no more: no text or profile of somebody else's.
_CHUNKS: Final = (b"IHDR", b"tEXt", b"IDAT", b"IEND")
_MARK: Final = b"Software\0pytest-gradcam"


def picture_at(path: Path) -> bytes:
    """The bytes of a picture of ours.

    Raises:
        BaselineError: there is none, or it is not one that we have written.
    """
    data = read_at_most(path, MOST_BYTES, "picture of ours")
    why = _flaw(data)
    if why:
        raise BaselineError(f"{path} is no picture of ours: {why}")
    return data


def may_be_replaced(path: Path) -> bool:
    """Whether a picture may be written there: over nothing, or over one of ours."""
    return not os.path.lexists(path) or is_overlay(path)


def _flaw(data: bytes) -> str:
    """What tells the bytes from a picture of ours; empty where nothing does."""
    if not data.startswith(_SIGNATURE):
        return "it is no PNG file"
    at = len(_SIGNATURE)
    kinds: list[bytes] = []
    while kinds[-1:] != [b"IEND"]:
        head = data[at : at + 8]
        if len(head) < 8:
            return "it is cut off"
        length, kind = struct.unpack(">I4s", head)
        body, check = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if len(check) < 4:
            return "it is cut off"
        if zlib.crc32(kind + body) != int.from_bytes(check, "big"):
            return "it was changed after it was written"
        if kind not in _CHUNKS:
            return f"it holds a chunk {kind!r}, which ours have not"
        if kind == b"tEXt" and body != _MARK:
            return "it bears another mark"
        kinds.append(kind)
        at += 12 + length
    if b"tEXt" not in kinds:
        return "it bears no mark of ours"
    return "" if at == len(data) else "there is more behind its end"
