"""The folder of an audit: what was asked, the parts that are done, and the results. A kill loses one part.

`audit.json` says what is audited; `parts/` holds rows as they come, each file whole or not there; `results.parquet` is
made of them when all are done. Whoever opens a folder again goes on where it was left, if it is asked the same.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_gradcam.audit.rows import SCHEMA, schema
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.files import is_draft, lock_file, make_ignored, remove_drafts, write_whole

ABOUT: Final = "audit.json"
RESULTS: Final = "results.parquet"
PARTS: Final = "parts"
LOCK: Final = "audit.lock"
MADE_BY: Final = "gradcam audit"

_PART: Final = re.compile(r"part-(\d{8})\.parquet", re.ASCII)
_COMPRESSION: Final = "zstd"


class AuditError(SettingsError):
    """The folder of an audit cannot be used as it is."""


class Folder:
    """The folder of one audit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def results(self) -> Path:
        """The file of the results; there once the audit is done."""
        return self.path / RESULTS

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The folder, made where it is missing, for us alone.

        Raises:
            AuditError: another audit is at work in it, it cannot be made, or it holds something else.
        """
        try:
            make_ignored(self.path)
            others = {name for name in os.listdir(self.path) if not is_draft(name)} - {".gitignore", LOCK, PARTS}
            if others and not (self.path / ABOUT).exists():
                raise AuditError(
                    f"the folder {str(self.path)!r} holds something else: give another one, or an empty one"
                )
            (self.path / PARTS).mkdir(exist_ok=True)
            file = (self.path / LOCK).open("ab")
        except OSError as error:
            raise AuditError(f"the folder {str(self.path)!r} cannot be used: {error.strerror}") from error
        with file:
            if os.name == "posix" and not lock_file(file.fileno()):
                raise AuditError(f"another audit is at work in {str(self.path)!r}: wait for it, or give another folder")
            remove_drafts(self.path)
            remove_drafts(self.path / PARTS)
            yield

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Say what is audited, or see that it is what was audited here before.

        Args:
            asked: all that the rows depend on, as JSON values.

        Raises:
            AuditError: the folder holds an audit of something else.
        """
        held = self.about()
        if held is None:
            self._write({"made_by": MADE_BY, "schema": SCHEMA, "asked": asked})
            return
        before = held.get("asked", {})
        asked = json.loads(json.dumps(asked))
        differ = [name for name in {**before, **asked} if before.get(name) != asked.get(name)]
        if held.get("schema") != SCHEMA or differ:
            what = f"; another {', another '.join(differ)}" if differ else " of another version"
            raise AuditError(
                f"the folder {str(self.path)!r} holds an audit of something else{what}: give another folder, or remove "
                "it where it is wanted no more"
            )

    def about(self) -> dict[str, Any] | None:
        """What `audit.json` says; None where there is none.

        Raises:
            AuditError: it is none of ours.
        """
        path = self.path / ABOUT
        try:
            if path.is_symlink():
                raise ValueError("a link")
            held = json.loads(path.read_bytes())
            if not isinstance(held, dict) or held.get("made_by") != MADE_BY:
                raise ValueError("of something else")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise AuditError(f"{str(path)!r} was not written by gradcam audit ({error}): give another folder") from None
        return held

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Add to what `audit.json` says."""
        self._write({**(self.about() or {}), **facts})

    def _write(self, held: Mapping[str, Any]) -> None:
        write_whole(self.path / ABOUT, json.dumps(held, indent=1, allow_nan=False).encode("ascii"))

    def done(self) -> set[int]:
        """Numbers of the parts that are done."""
        found = (_PART.fullmatch(entry.name) for entry in os.scandir(self.path / PARTS))
        return {int(match[1]) for match in found if match is not None}

    def keep(self, number: int, rows: pa.Table) -> None:
        """Keep the rows of a part; at the next instant they are on the disk, or the part is not done.

        Raises:
            OSError: they cannot be written.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression=_COMPRESSION)
        write_whole(self._part(number), sink.getvalue().to_pybytes())

    def finish(self, numbers: Sequence[int], metrics: Sequence[str]) -> None:
        """Make the results of the parts, and remove these; copies are told as such.

        Args:
            numbers: of all parts, in order.
            metrics: registered names.

        Raises:
            AuditError: a part cannot be read.
        """
        draft = self.path / f"{RESULTS}.draft"
        seen: set[bytes] = set()
        with pq.ParquetWriter(draft, schema(metrics), compression=_COMPRESSION) as writer:
            for number in numbers:
                try:
                    part = pq.read_table(self._part(number), schema=schema(metrics))
                except (OSError, pa.ArrowException) as error:
                    raise AuditError(
                        f"{str(self._part(number))!r} cannot be read ({error}): remove it, and run the audit again"
                    ) from error
                writer.write_table(_told_apart(part, seen))
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, self.results)
        self.clear()

    def clear(self) -> None:
        """Remove the parts, which are in the results."""
        for number in self.done():
            with suppress(OSError):
                self._part(number).unlink()

    def _part(self, number: int) -> Path:
        return self.path / PARTS / f"part-{number:08}.parquet"


def _told_apart(part: pa.Table, seen: set[bytes]) -> pa.Table:
    """The rows, with the status of those whose picture was asked the same before."""
    digests, classes = part["digest"].to_pylist(), part["cls"].to_pylist()
    statuses, reasons = part["status"].to_pylist(), part["reason"].to_pylist()
    changed = False
    for i, (digest, cls) in enumerate(zip(digests, classes, strict=True)):
        if not digest or statuses[i] == "not explained":
            continue
        key = f"{digest} {cls}".encode()
        if key in seen:
            changed = True
            statuses[i], reasons[i] = "copy", "the same picture was asked the same before: it tells nothing new"
        seen.add(key)
    if not changed:
        return part
    for name, values in (("status", statuses), ("reason", reasons)):
        place = part.schema.get_field_index(name)
        part = part.set_column(place, part.schema.field(name), pa.array(values, pa.string()))
    return part
