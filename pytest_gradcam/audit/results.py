"""The rows of an audit as columns, read from its folder; nothing is held that was not asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pytest_gradcam.audit.judging import Columns
from pytest_gradcam.audit.store import AuditError

BATCH = 1024


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of the rows, in the order of the data set.

    Args:
        path: of the results.
        columns: names; None for all of them.

    Raises:
        AuditError: the file cannot be read, or lacks a column.
    """
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise AuditError(f"the results {str(path)!r} cannot be read: {error}") from error


def in_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The same, some rows at a time: of a large data set, the maps alone fill the memory.

    Raises:
        AuditError: as for `read`.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise AuditError(f"the results {str(path)!r} cannot be read: {error}") from error


def columns_of(path: Path, metric: str) -> Columns:
    """The columns that decisions are made of.

    Args:
        path: of the results.
        metric: that is judged.

    Raises:
        AuditError: the file cannot be read, or the metric was not measured.
    """
    known = pq.read_schema(path).names
    if metric not in known:
        raise AuditError(f"{metric!r} was not measured in the audit {str(path.parent)!r}: audit again with it")
    rows = read(path, ["index", "status", metric, "chance", "filled", "cls", "label", "about"])
    return Columns(
        index=rows["index"].to_numpy(),
        status=texts(rows["status"]),
        value=numbers(rows[metric]),
        chance=numbers(rows["chance"]),
        filled=numbers(rows["filled"]),
        cls=class_names(rows),
        about=_about(rows["about"]),
    )


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column of numbers; NaN where there is none."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def texts(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    """A column of texts; "" where there is none."""
    return np.asarray(column.fill_null("").to_numpy(zero_copy_only=False), np.str_)


def class_names(rows: pa.Table) -> npt.NDArray[np.str_]:
    """The class of each row, for a person: its label, else its index, else ""."""
    labels, classes = rows["label"].to_pylist(), rows["cls"].to_pylist()
    names = {cls: label for label, cls in zip(labels, classes, strict=True) if label is not None}
    return np.asarray(["" if cls is None else names.get(cls, str(cls)) for cls in classes], np.str_)


def _about(column: pa.ChunkedArray) -> dict[str, npt.NDArray[np.str_]]:
    found: dict[str, list[str]] = {}
    for place, pairs in enumerate(column.to_pylist()):
        for name, text in pairs or ():
            if name not in found:
                found[name] = [""] * len(column)
            found[name][place] = text
    return {name: np.asarray(held, np.str_) for name, held in sorted(found.items())}
