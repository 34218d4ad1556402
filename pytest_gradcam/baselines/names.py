"""Whose a baseline is, and the file that it lies in. Touches no file system.

`test_cats.py`, class `TestCat`, test `test_reads[tabby]`, check `ears` →
`test_cats/TestCat.test_reads[tabby]@ears.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from pytest_gradcam.errors import BaselineError
from pytest_gradcam.report.names import LONGEST, cut, safe_component

FOLDER: Final = "__gradcam__"
SUFFIX: Final = ".safetensors"
AT: Final = "@"

# What keeps its spelling in a file name: `@` sets off the name of a check, `~` the digest of what was spelt otherwise.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+ \[\]-]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.,=+ -]*[A-Za-z0-9_+=-])?", re.ASCII)
_LONGEST_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class CheckName:
    """Whose a baseline is.

    Attributes:
        module: name of the file that the test stands in, `test_cats.py`.
        test: classes, function and parameters, `TestCat.test_reads[tabby]`.
        name: of the check, where the test has several.
    """

    module: str
    test: str
    name: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder of all baselines of the module, inside `__gradcam__`."""
        return folder_of(self.module)

    @property
    def stem(self) -> str:
        """Name of the file without its suffix; no two checks of a module share it, case aside."""
        named = f"{AT}{self.name}" if self.name else ""
        if _is_plain(self.test) and len(self.test) + len(named) <= LONGEST:
            return self.test + named
        digest = hashlib.sha256(json.dumps([self.test, self.name]).encode()).hexdigest()[:10]
        spelt = safe_component(unicodedata.normalize("NFC", self.test).replace(AT, "_"))
        return f"{cut(spelt, LONGEST - len(digest) - 1 - len(named))}~{digest}{named}"

    @property
    def file(self) -> str:
        """Path inside `__gradcam__`, with `/`."""
        return f"{self.folder}/{self.stem}{SUFFIX}"

    def __str__(self) -> str:
        return f"{self.module}::{self.test}" + (f"{AT}{self.name}" if self.name else "")


def folder_of(module: str) -> str:
    """Name of the folder of a test file's baselines: of `test_cats.py` `test_cats`, of others the whole name."""
    name = module.removesuffix(".py")
    # `cats.txt.py` and `cats` are not spelt as they are: `cats.txt` and `cats.py` have those names.
    is_alone = module.endswith(".py") != ("." in name)
    if is_alone and _is_plain(name) and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(module.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{cut(safe_component(name), LONGEST - len(digest) - 1)}~{digest}"


def checked_name(name: object) -> str:
    """The name of a check, as the user gave it.

    Raises:
        BaselineError: it is none that every file system takes as it is.
    """
    if name is None:
        return ""
    if isinstance(name, str) and len(name) > _LONGEST_NAME:
        raise BaselineError(f"name {name[:20]!r}… has {len(name)} characters: use {_LONGEST_NAME} at most")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or safe_component(name) != name:
        raise BaselineError(
            f"name {name!r} cannot name a baseline: it becomes part of a file's name. Use ASCII letters, digits, and "
            "_ - . , = + or blanks between them, such as 'left-ear'; CON, NUL and their kin are reserved"
        )
    return name


def _is_plain(text: str) -> bool:
    """Whether a text may be part of a file's name as it is."""
    return _PLAIN.fullmatch(text) is not None and safe_component(text) == text[:LONGEST]
