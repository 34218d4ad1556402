"""A verdict as properties of a test case in JUnit XML: flat scalars, that dashboards can read. A record in, pairs out.

Imports nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pytest_gradcam.report.lines import printable

# Property → field of the record.
_FIELDS: Final = {
    "assertion": "assertion",
    "outcome": "outcome",
    "metric": "metric",
    "value": "value",
    "threshold": "threshold",
    "chance": "chance",
    "class": "cls",
    "label": "label",
    "layer": "layer",
    "method": "method",
    "message": "message",
    "overlay": "overlay",
}


def properties(record: Mapping[str, Any], number: int = 1) -> list[tuple[str, str]]:
    """`gradcam_outcome`, `gradcam_value` and so on, as text that XML can hold; what a verdict has not is left out.

    Args:
        record: the verdict, as `records.recorder` keeps it.
        number: which verdict of its test it is; from 2 on the names end in it, `gradcam_value_2`.
    """
    suffix = "" if number == 1 else f"_{number}"
    return [
        (f"gradcam_{name}{suffix}", _text(record[field]))
        for name, field in _FIELDS.items()
        if record.get(field) is not None
    ]


def _text(value: object) -> str:
    """As text; what XML cannot hold, control characters and lone surrogates, is spelt out."""
    return repr(value) if isinstance(value, float) else printable(str(value))
