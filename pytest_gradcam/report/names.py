"""Names of the files that belong to a test: from a pytest node id to a relative path. Touches no file system.

A plain id keeps its spelling. One whose spelling a file system might change, fold or refuse (capitals, other scripts,
`<>:"|?*`, `CON`, trailing dots, long names) is spelt safely and gets a hash of the id at its end, after a `~`, which no
plain name holds. So no two tests share a path, on any file system, and nobody has to ask the disk.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

LONGEST: Final = 120  # bytes of UTF-8 in one component; leaves room for a suffix under every file system's 255

_FORBIDDEN = re.compile(r'[<>:"|?*\\/~]')
# CON, NUL, COM1 and their kin are devices on Windows, whatever follows the first dot.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL
)
# The ids that keep their spelling: the `.py` file tells where folders end and names begin, so `/` may stand for both.
_PLAIN = re.compile(
    r"(?P<folders>([a-z0-9_][a-z0-9_.-]*/)*)(?P<module>[a-z0-9_][a-z0-9_-]*\.py)"
    r"(?P<classes>(::[a-z0-9_]+)*)::(?P<leaf>[a-z0-9_]+(\[[a-z0-9_.,=+@ \[\]-]*\])?)",
    re.ASCII,
)


def artifact_name(nodeid: str) -> str:
    """Relative path, without suffix, of the files that belong to a test, with `/` between its components.

    Two ids never give the same path, also where case is ignored and Unicode is normalised; no component is longer than
    120 bytes, reserved, `..` or empty. The last component never ends in `-` and digits, so that `-2` may be added.

    Args:
        nodeid: pytest's id of the test, such as `tests/test_demo.py::test_reads_the_object[cup-017]`.
    """
    plain = _PLAIN.fullmatch(nodeid)
    if plain is not None:
        parts = nodeid.replace("::", "/").split("/")
        if all(safe_component(part) == part for part in parts) and ".py/" not in plain["folders"]:
            return "/".join(parts)
    spelt = unicodedata.normalize("NFC", nodeid)
    # A parameter may hold anything, `::` and `/` too: from the first bracket of the name on, all is one component.
    path, separator, names = spelt.partition("::")
    head, bracket, parameters = names.partition("[")
    parts = [*path.split("/"), *(head.split("::") if separator else [])]
    parts[-1] += bracket + parameters
    digest = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    # A folder called `test_x.png` would stand where the overlay of a plain `test_x` belongs.
    folders = [safe_component(re.sub(r"\.(?!py$)", "_", part)) for part in parts[:-1]]
    return "/".join([*folders, cut(safe_component(parts[-1]), LONGEST - len(digest) - 1) + "~" + digest])


def safe_component(component: str) -> str:
    """The component as every file system takes it; unchanged where it already is."""
    text = _FORBIDDEN.sub("_", component)
    text = "".join("_" if unicodedata.category(character)[0] == "C" else character for character in text)
    if _DEVICE.fullmatch(text):
        text = "_" + text
    return cut(text, LONGEST).rstrip(". ") or "_"


def cut(text: str, longest: int) -> str:
    """At most `longest` bytes of UTF-8, whole characters only."""
    return text.encode("utf-8")[:longest].decode("utf-8", "ignore")
