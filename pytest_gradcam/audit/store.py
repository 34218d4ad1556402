"""The folder of an audit: what was asked, the parts that are done, and the results. A kill loses one part.

`audit.json` says what is audited; `parts/` holds rows as they come, each file whole or not there; `results.parquet` is
made of them when all are done. Whoever opens a folder again goes on where it was left, if it is asked the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_gradcam.audit.rows import SCHEMA, schema
from pytest_gradcam.errors import SettingsError
from pytest_gradcam.files import is_draft, lock_file, make_ignored, remove_drafts, replaced_whole, write_whole

ABOUT: Final = "audit.json"
RESULTS: Final = "results.parquet"
PARTS: Final = "parts"
LOCK: Final = "audit.lock"
MADE_BY: Final = "gradcam audit"

_PART: Final = re.compile(r"part-(\d{8})\.parquet", re.ASCII)
_COMPRESSION: Final = "zstd"
# In the metadata of a part: a digest of what it was asked.
_ASKED: Final = b"gradcam.asked"
# Seconds to wait for the lock: processes that loaded images for an audit that was killed hold it until they notice.
_PATIENCE: Final = 10.0


class AuditError(SettingsError):
    """The folder of an audit cannot be used as it is."""


class Folder:
    """The folder of one audit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._asked = b""

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
        where = str(self.path)
        try:
            make_ignored(self.path)
            others = {name for name in os.listdir(self.path) if not is_draft(name)} - {".gitignore", LOCK}
            if others and ABOUT not in others:
                raise AuditError(f"the folder {where!r} holds something else: give another one, or an empty one")
            if (self.path / PARTS).is_symlink() or (self.path / LOCK).is_symlink():
                raise AuditError(f"the folder {where!r} has links to other places in it: give another one")
            file = (self.path / LOCK).open("ab")
        except OSError as error:
            raise AuditError(f"the folder {where!r} cannot be used: {error.strerror}") from error
        with file:
            if not _locked(file.fileno()):
                raise AuditError(f"another audit is at work in {where!r}: wait for it, or give another folder")
            remove_drafts(self.path)
            yield

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Say what is audited, or see that it is what was audited here before.

        Args:
            asked: all that the rows depend on, as JSON values.

        Raises:
            AuditError: the folder holds an audit of something else.
        """
        self._asked = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest().encode()
        held = self.about()
        if held is None:  # first of all that is written: what is in the folder without it is somebody else's
            self._write({"made_by": MADE_BY, "schema": SCHEMA, "asked": asked})
        (self.path / PARTS).mkdir(exist_ok=True)
        remove_drafts(self.path / PARTS)
        if held is None:
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
        """Numbers of the parts that are done, of what is asked now; others are there no more afterwards."""
        found = set()
        for number, path in self._parts():
            try:
                of = pq.read_schema(path).metadata or {}
            except (OSError, pa.ArrowException):
                of = {}
            if of.get(_ASKED) == self._asked:
                found.add(number)
            else:
                path.unlink()
        return found

    def keep(self, number: int, rows: pa.Table) -> None:
        """Keep the rows of a part; at the next instant they are on the disk, or the part is not done.

        Raises:
            OSError: they cannot be written.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata({_ASKED: self._asked}), sink, compression=_COMPRESSION)
        write_whole(self._part(number), sink.getvalue().to_pybytes())

    def rows_of(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part that is done.

        Raises:
            AuditError: they cannot be read.
        """
        path = self._part(number)
        try:
            return pq.read_table(path, columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException) as error:
            raise AuditError(f"{str(path)!r} cannot be read ({error}): remove it, and run the audit again") from error

    def finish(self, parts: Mapping[int, range], metrics: Sequence[str]) -> None:
        """Make the results of the parts; copies are told as such.

        Args:
            parts: for each part, in order, which images it has.
            metrics: registered names.

        Raises:
            AuditError: a part cannot be read, or has rows of other images than it should.
        """
        wanted = schema(metrics)
        seen: set[bytes] = set()
        with replaced_whole(self.results) as file, pq.ParquetWriter(file, wanted, compression=_COMPRESSION) as writer:
            for number, images in parts.items():
                part = self.rows_of(number).replace_schema_metadata(None)
                if part.schema != wanted or not _is_of(part, images):
                    path = self._part(number)
                    raise AuditError(
                        f"{str(path)!r} holds other rows than it should: remove it, and run the audit again"
                    )
                writer.write_table(_told_apart(part, seen))

    def clear(self) -> None:
        """Remove the parts, which are in the results."""
        for _, path in self._parts():
            with suppress(OSError):
                path.unlink()

    def _parts(self) -> list[tuple[int, Path]]:
        names = ((_PART.fullmatch(name), name) for name in os.listdir(self.path / PARTS))
        return sorted((int(match[1]), self.path / PARTS / name) for match, name in names if match is not None)

    def _part(self, number: int) -> Path:
        return self.path / PARTS / f"part-{number:08}.parquet"


def _is_of(part: pa.Table, images: range) -> bool:
    """Whether a part has rows of each of its images, each row once, in order."""
    indices, places = part["index"].to_pylist(), part["place"].to_pylist()
    keys = list(zip(indices, places, strict=True))
    return sorted(set(indices)) == list(images) and keys == sorted(set(keys))


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


def _locked(descriptor: int) -> bool:
    until = time.monotonic() + _PATIENCE
    while os.name == "posix" and not lock_file(descriptor):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
