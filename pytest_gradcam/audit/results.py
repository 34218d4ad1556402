"""The rows of an audit as columns, read from its folder; nothing is held that was not asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pytest_gradcam.audit.judging import CLASS, Columns, Texts
from pytest_gradcam.audit.store import AuditError

BATCH = 1024
# Of a model that is worth auditing, fewer predictions are of another class than was asked for.
MOST_OTHERS = 0.5


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


def columns_of(path: Path, metric: str, slices: Sequence[str] = ()) -> Columns:
    """The columns that decisions are made of.

    Args:
        path: of the results.
        metric: that is judged.
        slices: names of those that are read, besides the classes.

    Raises:
        AuditError: the file cannot be read, or the metric was not measured.
    """
    known = pq.read_schema(path).names
    if metric not in known:
        raise AuditError(f"{metric!r} was not measured in the audit {str(path.parent)!r}: audit again with it")
    rows = read(path, ["index", "status", metric, "chance", "filled", "cls", "label"])
    about, names = _about(path, len(rows), [name for name in dict.fromkeys(slices) if name != CLASS])
    return Columns(
        index=rows["index"].to_numpy(),
        status=texts(rows["status"]),
        value=numbers(rows[metric]),
        chance=numbers(rows["chance"]),
        filled=numbers(rows["filled"]),
        cls=class_names(rows),
        about=about,
        known=names,
    )


def remarks_of(path: Path) -> list[str]:
    """What a person should know of the rows, and what no verdict says: annotations that were mended, predictions.

    Raises:
        AuditError: as for `read`.
    """
    rows = read(path, ["notes", "asked", "predicted", "image"])
    said = []
    noted = np.flatnonzero(pc.not_equal(rows["notes"], "").to_numpy(zero_copy_only=False))
    if noted.size:
        first = int(noted[0])
        said.append(
            f"{noted.size} of {len(rows)} rows have notes; the first, of {rows['image'][first].as_py()}: "
            f"{rows['notes'][first].as_py()}"
        )
    other = pc.not_equal(rows["asked"], rows["predicted"]).drop_null()
    share = float(pc.mean(other.cast(pa.float64())).as_py() or 0.0)
    if share > MOST_OTHERS:
        said.append(
            f"the model predicts another class than was asked for in {share:.0%} of {len(other)} rows: see whether "
            "classes and transform are those of the model"
        )
    return said


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column of numbers; NaN where there is none."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def texts(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    """A column of texts; "" where there is none."""
    return np.asarray(column.fill_null("").to_numpy(zero_copy_only=False), np.str_)


def class_names(rows: pa.Table) -> Texts:
    """The class of each row, for a person: its label, with its index where two classes share it; else its index."""
    indices = np.asarray(rows["cls"].cast(pa.int64()).fill_null(-1).to_numpy(), np.int64)
    classes, codes = np.unique(indices, return_inverse=True)
    has_none = int(classes.size > 0 and classes[0] < 0)
    labelled = np.flatnonzero(rows["label"].is_valid().to_numpy())
    of, first = np.unique(indices[labelled], return_index=True)
    labels = dict(zip(of.tolist(), rows["label"].take(pa.array(labelled[first])).to_pylist(), strict=True))
    names = [labels.get(cls, str(cls)) for cls in classes[has_none:].tolist()]
    often = Counter(names)
    unique = [
        name if often[name] == 1 else f"{name} (class {cls})"
        for name, cls in zip(names, classes[has_none:].tolist(), strict=True)
    ]
    return Texts((codes - has_none).astype(np.int32), tuple(unique))


def _about(path: Path, count: int, slices: Sequence[str]) -> tuple[dict[str, Texts], tuple[str, ...]]:
    """The slices that are named, and the names of all."""
    codes = {name: np.full(count, -1, np.int32) for name in slices}
    places: dict[str, dict[str, int]] = {name: {} for name in slices}
    known: set[str] = set()
    start = 0
    for batch in in_batches(path, ["about"]):
        maps = batch.column(0)
        ends = maps.offsets.to_numpy()
        keys, values = (each.slice(ends[0], ends[-1] - ends[0]) for each in (maps.keys, maps.items))
        known |= set(pc.unique(keys).to_pylist())
        owner = start + np.repeat(np.arange(batch.num_rows), np.diff(ends))
        for name in slices:
            inside = pc.equal(keys, name)
            found = values.filter(inside).dictionary_encode()
            held = places[name]
            here = [held.setdefault(text, len(held)) if text else -1 for text in found.dictionary.to_pylist()]
            mine = owner[inside.to_numpy(zero_copy_only=False)]
            codes[name][mine] = np.asarray(here, np.int32)[found.indices.to_numpy()]
        start += batch.num_rows
    about = {name: Texts(codes[name], tuple(held)) for name, held in places.items()}
    return about, tuple(sorted(known))
