"""Row: what an audit knows of one class in one image; and the columns that rows have in a Parquet file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, get_args

import pyarrow as pa

# Of a row: `measured`; or why it was not. `copy`: the same picture was asked the same before.
Status: TypeAlias = Literal[
    "measured", "unreadable", "no region", "unusable region", "no evidence", "not explained", "copy"
]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What is known of one class in one image; what is not known is None or empty.

    Attributes:
        index: of the image in the data set.
        place: which of the classes that are asked for in the image it is, from 0.
        image: key of the image.
        status: `measured`, or why it was not.
        reason: the same for a person; empty of what was measured.
        notes: what a person should know of it besides.
        asked: class index that was asked for; None where the data set names none.
        cls: class index that was explained: the one asked for, else the predicted one.
        label: its name, where known.
        predicted: class index with the largest logit.
        predicted_label: its name, where known.
        predicted_probability: of the predicted class.
        probability: of the class that was asked for.
        score: of that class.
        evidence: sum of the ReLU'd raw CAM.
        chance: energy of a uniform map: the share of the input frame that the region covers.
        filled: energy of a map that fills the region evenly on this grid.
        energy: share of the map's mass inside the region.
        peak: (x, y) of the map's maximum, in pixels of the input frame.
        peak_distance: pixels from there to the region; 0 inside.
        values: the metrics that were asked for, by name.
        frame: (height, width) of the image frame.
        size: (H, W) of the input frame.
        region: the region, for a person.
        layer: that was read.
        method: that was used.
        grid: (h, w) of the layer.
        digest: of the model input and the region in it, which tells copies.
        about: what slices can be made of.
        raw: the raw CAM, h·w values, row by row.
    """

    index: int
    place: int
    image: str
    status: Status
    reason: str = ""
    notes: str = ""
    asked: int | None = None
    cls: int | None = None
    label: str | None = None
    predicted: int | None = None
    predicted_label: str | None = None
    predicted_probability: float | None = None
    probability: float | None = None
    score: float | None = None
    evidence: float | None = None
    chance: float | None = None
    filled: float | None = None
    energy: float | None = None
    peak: tuple[int, int] | None = None
    peak_distance: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    frame: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    region: str = ""
    layer: str = ""
    method: str = ""
    grid: tuple[int, int] | None = None
    digest: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    raw: Sequence[float] | None = None


_PAIR_NAMES: Final = {
    "peak": ("peak_x", "peak_y"),
    "frame": ("height", "width"),
    "size": ("input_height", "input_width"),
    "grid": ("grid_height", "grid_width"),
}
_TYPES: Final[dict[str, pa.DataType]] = {
    "index": pa.int64(),
    "place": pa.int32(),
    "asked": pa.int64(),
    "cls": pa.int64(),
    "predicted": pa.int64(),
    "about": pa.map_(pa.string(), pa.string()),
    "raw": pa.list_(pa.float32()),
}
_TEXTS: Final = (
    *("image", "status", "reason", "notes", "label", "predicted_label", "region", "layer", "method", "digest"),
)


def schema(metrics: Sequence[str]) -> pa.Schema:
    """The columns of a file: those of `Row`, pairs as two, and one for each metric, by its name.

    Args:
        metrics: names of the metrics; `energy` is there in any case.
    """
    columns: list[tuple[str, pa.DataType]] = []
    for each in fields(Row):
        if each.name == "values":
            columns += [(name, pa.float64()) for name in metrics if name != "energy"]
        elif each.name in _PAIR_NAMES:
            columns += [(name, pa.int32()) for name in _PAIR_NAMES[each.name]]
        else:
            plain = pa.string() if each.name in _TEXTS else pa.float64()
            columns.append((each.name, _TYPES.get(each.name, plain)))
    return pa.schema(columns)


def table(rows: Sequence[Row], metrics: Sequence[str]) -> pa.Table:
    """Rows as a table with the columns of `schema`."""
    return pa.Table.from_pylist([_flat(row) for row in rows], schema=schema(metrics))


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for each in fields(Row):
        value = getattr(row, each.name)
        if each.name == "values":
            flat |= value
        elif each.name in _PAIR_NAMES:
            first, second = _PAIR_NAMES[each.name]
            flat[first], flat[second] = (None, None) if value is None else value
        elif each.name == "about":
            flat[each.name] = [(_sayable(str(name)), _sayable(str(text))) for name, text in value.items()]
        elif isinstance(value, str):
            flat[each.name] = _sayable(value)
        elif isinstance(value, float) and not math.isfinite(value):
            flat[each.name] = None
        else:
            flat[each.name] = value
    return flat


def _sayable(text: str) -> str:
    """Names of files and classes may hold half characters, which no file of text can."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
