"""What `gradcam compare` does: loads two models, compares their maps of a folder, tells and writes what it found."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_gradcam import __version__
from pytest_gradcam.assertions.asking import BATCH, Asking
from pytest_gradcam.baselines.compare import FLOORS
from pytest_gradcam.comparison.folder import file_name, pictures_in
from pytest_gradcam.comparison.rows import Row, Side, rows_of
from pytest_gradcam.comparison.table import Told, count_line, lines_of
from pytest_gradcam.errors import GradcamError, ModelError, SettingsError, TransformError
from pytest_gradcam.files import make_ignored, write_whole
from pytest_gradcam.loading import load_model, load_object
from pytest_gradcam.report.lines import printable, tell
from pytest_gradcam.report.overlay import is_overlay, picture, save_figure
from pytest_gradcam.settings import Settings
from pytest_gradcam.transforms import declared_transform
from pytest_gradcam.verdicts import Sight, Verdict

SCHEMA: Final = 1
REPORT: Final = "compare.json"
MADE_BY: Final = "gradcam compare"
TITLES: Final = ("model A", "model B")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model as the command line gives it.

    Attributes:
        model: a timm architecture, or `module:factory`.
        checkpoint: file of its weights; None: those that timm offers, or the factory's.
        transform: `module:callable`, picture → model input; None: what the model declares.
    """

    model: str
    checkpoint: str | None = None
    transform: str | None = None

    def __str__(self) -> str:
        return self.model + (f", {self.checkpoint}" if self.checkpoint is not None else "")


def run(
    models: Sequence[Mapping[str, str]],
    images: Path,
    *,
    cls: int | None,
    method: str,
    layer: str | None,
    out: Path,
    top: int,
    floor: str,
) -> int:
    """Compare, print the table, write the report.

    Args:
        models: two, each the fields of `Wanted`.
        images: folder of the pictures.
        cls: class whose maps are compared; None: for each picture what the first model predicts.
        method: as for `explain`.
        layer: as for `explain`, for both models; None: found in the first, and the second is read there too.
        out: folder of the report.
        top: how many rows are shown, and have a picture of their own.
        floor: name of the least correlation.

    Returns:
        0 where all pictures are at the floor or above, 1 where some are not, or could not be compared, 2 where the
        models or the pictures cannot be had, or the report cannot be written.
    """
    try:
        wanted = [Wanted(**each) for each in models]
        pictures = pictures_in(images)
        _check_folder(out)
        first, second = (_side(*each, method, layer) for each in zip(TITLES, wanted, strict=True))
        if first.model is second.model:
            raise ModelError(
                f"{wanted[0].model} and {wanted[1].model} give the same object: it looks where it looks. Give a "
                "factory that makes a new model at each call, or each a --checkpoint"
            )
        found = _Found(top, FLOORS[floor].pearson)
        for row in rows_of(first, second, pictures, cls):
            found.add(row)
        told = found.told()
        _write(found, told, wanted, out, floor)
    except GradcamError as error:
        for line in str(error).splitlines():
            tell(f"gradcam compare: {line}", sys.stderr)
        return 2
    except OSError as error:
        tell(f"gradcam compare: the report cannot be written: {error}", sys.stderr)
        return 2
    for title, each in zip(TITLES, wanted, strict=True):
        tell(f"{title}  {each}", sys.stdout)
    for line in lines_of(told):
        tell(line, sys.stdout)
    tell(count_line(told, floor), sys.stdout)
    tell(f"report: {out / REPORT}", sys.stdout)
    return 0 if told.is_good else 1


class _Found:
    """The rows as they come; the maps are kept of the worst alone."""

    def __init__(self, top: int, floor: float) -> None:
        self._top = top
        self._floor = floor
        self._worst: list[Row] = []
        self._without: list[Row] = []
        self._notes: dict[str, None] = {}
        self._read: dict[str, None] = {}
        self._correlations: list[float] = []
        self._counts: Counter[str] = Counter()
        self.records: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        self.records.append(row.to_json())
        self._counts[row.status] += 1
        self._counts["changed"] += row.is_changed
        if row.maps is not None:
            self._worst.append(row)
            self._read.setdefault(f"{row.maps[0].layer} ({row.maps[0].method})")
            if len(self._worst) > 2 * self._top + BATCH:
                self._worst = self._sorted()
        if row.status == "compared":
            self._correlations.append(row.pearson)
            for line in row.reason.splitlines():
                self._notes.setdefault(line)
        elif len(self._without) < self._top:
            self._without.append(Row(row.name, row.status, row.reason))

    def _sorted(self) -> list[Row]:
        return sorted(self._worst, key=lambda row: row.rank)[: self._top]

    def told(self) -> Told:
        return Told(
            worst=self._sorted(),
            without=self._without,
            notes=list(self._notes),
            read=list(self._read),
            counts=self._counts,
            count=len(self.records),
            below=sum(value < self._floor for value in self._correlations),
            median=statistics.median(self._correlations) if self._correlations else None,
            floor=self._floor,
        )


def _side(title: str, wanted: Wanted, method: str, layer: str | None) -> Side:
    try:
        transform = None if wanted.transform is None else load_object(wanted.transform)
        if transform is not None and not callable(transform):
            raise SettingsError(f"{wanted.transform} is a {type(transform).__name__}: a transform is a callable")
        model = load_model(wanted.model, wanted.checkpoint)
        if transform is None:
            declared_transform(model)
        settings = Settings(method=method, layer=layer, transform=transform)
    except TransformError as error:
        mend = f"on the command line, with --transform module:callable after --model {wanted.model}"
        raise TransformError(f"{title}: {error}; {mend}") from error
    except GradcamError as error:
        raise type(error)(f"{title}: {error}") from error
    return Side(title, model, Asking("gradcam compare", settings))


def _check_folder(out: Path) -> None:
    """Make the folder of the report, before an hour's work is done for it.

    Raises:
        SettingsError: it cannot be made, or nothing can be written in it.
    """
    try:
        make_ignored(out)
    except OSError as error:
        raise SettingsError(f"the folder {str(out)!r} cannot be made ({error.strerror}): give another --out") from error
    if not os.access(out, os.W_OK):
        raise SettingsError(f"nothing can be written in {str(out)!r}: give another --out")
    report = out / REPORT
    if os.path.lexists(report) and not _is_ours(report):
        raise SettingsError(f"{str(report)!r} was not written by gradcam compare: give another --out")


def _is_ours(report: Path) -> bool:
    """Whether a report is one of an earlier run, and no file of the user's that happens to bear its name."""
    try:
        if report.is_symlink() or not report.is_file():
            return False
        return bool(json.loads(report.read_bytes()).get("made_by") == MADE_BY)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _write(found: _Found, told: Told, wanted: Sequence[Wanted], out: Path, floor: str) -> None:
    """Write the pictures, and then the report that names them; those of an earlier report are removed.

    Raises:
        OSError: one of them cannot be written.
    """
    earlier = _earlier(out)
    files = {row.name: file_name(row.name) for row in told.worst}
    for row in told.worst:
        save_figure(picture(_verdict(row, told.floor)), out / files[row.name])
    report = {
        "made_by": MADE_BY,
        "schema": SCHEMA,
        "version": __version__,
        "models": [
            {"title": title, "name": each.model, "checkpoint": each.checkpoint, "transform": each.transform}
            for title, each in zip(TITLES, wanted, strict=True)
        ],
        "floor": {"name": floor, "pearson": told.floor},
        "passed": told.is_good,
        "counts": {
            **{status: told.counts[status] for status in ("compared", "no evidence", "not explained", "unreadable")},
            "below": told.below,
            "changed predictions": told.counts["changed"],
        },
        "median": told.median,
        "images": [{**record, "picture": files.get(record["file"])} for record in found.records],
    }
    write_whole(out / REPORT, json.dumps(report, indent=1, allow_nan=False).encode("ascii"))
    for name in earlier - set(files.values()):
        with suppress(OSError):
            (out / name).unlink()


def _earlier(out: Path) -> set[str]:
    """The pictures of an earlier report in this folder; of what it names, only what is ours and in the folder."""
    try:
        report = json.loads((out / REPORT).read_bytes())
        names = [image["picture"] for image in report["images"]] if report["schema"] == SCHEMA else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or none of ours
        return set()
    return {
        name
        for name in names
        if isinstance(name, str) and name.endswith(".png") and Path(name).name == name and is_overlay(out / name)
    }


def _verdict(row: Row, floor: float) -> Verdict:
    """A row as what is drawn: two maps of one picture beside each other, and their difference."""
    assert row.maps is not None  # only rows with maps are among the worst
    said = f"Pearson {row.pearson:.3f}" if row.status == "compared" else row.reason.partition("\n")[0]
    return Verdict(
        assertion="gradcam compare",
        outcome="passed" if row.pearson >= floor else "failed",
        metric="pearson",
        value=row.pearson,
        values=(row.pearson,),
        chance=0.0,
        threshold=floor,
        at_most=False,
        interval=None,
        confidence=None,
        sights=tuple(Sight(each, title=title) for each, title in zip(row.maps, TITLES, strict=True)),
        worst=0,
        message=f"{printable(row.name)}: {printable(said)}",
        compared=True,
    )
