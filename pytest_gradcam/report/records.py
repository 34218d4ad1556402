"""A verdict as a record: plain JSON values that ride on a test report, and its overlay on the disk."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_gradcam.files import make_ignored
from pytest_gradcam.report.beside import colour_beside, compared, plain_beside
from pytest_gradcam.report.maps import colour_map, mask_of, plain_map
from pytest_gradcam.report.names import artifact_name
from pytest_gradcam.report.overlay import is_overlay, save_overlay
from pytest_gradcam.verdicts import Verdict


def recorder(
    nodeid: str, folder: Path, keep: Callable[[dict[str, Any], Verdict], None], shown: Callable[[Path], str]
) -> Callable[[Verdict], str | None]:
    """What a `Gradcam` calls with every verdict of one test: it keeps a record, and draws the verdicts that failed.

    The overlays that an earlier run left for this test are removed: a picture that is there belongs to this run.
    What is no overlay of ours is left alone, and the overlay written beside it. A folder made here is ignored by git.

    Args:
        nodeid: pytest's id of the test.
        folder: where overlays are written.
        keep: is given the record of each verdict, and the verdict.
        shown: how a path is spelt for a person.

    Returns:
        A function of a verdict; it returns where the overlay was written, or why it was not, and None for a verdict
        that passed. It raises nothing: a disk that is full must not hide what the model did.
    """
    _remove_overlays(nodeid, folder)
    free = (path for path in _overlays(nodeid, folder) if not os.path.lexists(path) or is_overlay(path))

    def record(verdict: Verdict) -> str | None:
        values = {**to_record(verdict, nodeid), "folder": shown(folder), "overlay": None}
        keep(values, verdict)
        if verdict.passed or not verdict.shown:
            return None
        path = next(free)
        try:
            make_ignored(folder)
            save_overlay(verdict, path)
        except (OSError, ValueError) as error:  # ValueError: a name that the file system's encoding cannot say
            return f"not written: {getattr(error, 'strerror', None) or error} ({shown(path)})"
        values["overlay"] = shown(path)
        return shown(path)

    return record


def to_record(verdict: Verdict, nodeid: str) -> dict[str, Any]:
    """The verdict as plain JSON values; one that failed brings its maps, each in plain characters and in colour."""
    values: dict[str, Any] = {**verdict.to_json(), "nodeid": nodeid, "maps": []}
    if not verdict.passed:
        truecolor = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
        pair = compared(verdict)
        if pair is not None:
            before, after, titles, mask = pair
            image = verdict.shown[1].explanation.image
            coloured = colour_beside(before, after, image, titles, mask, truecolor=truecolor)
            values["maps"].append({"plain": plain_beside(*pair), "colour": coloured})
        for sight in verdict.shown if pair is None else ():
            cam, image, mask = sight.explanation.cam, sight.explanation.image, mask_of(sight)
            coloured = colour_map(image, cam, mask, truecolor=truecolor)
            values["maps"].append({"plain": plain_map(cam, mask), "colour": coloured})
    # A numpy scalar would not cross from an xdist worker.
    plain: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _overlays(nodeid: str, folder: Path) -> Iterator[Path]:
    """Paths of the overlays of a test: the first has its name, the next ones end in -2, -3 and so on."""
    stem = artifact_name(nodeid)
    for number in itertools.count(1):
        yield folder / f"{stem}{'' if number == 1 else f'-{number}'}.png"


def _remove_overlays(nodeid: str, folder: Path) -> None:
    for path in _overlays(nodeid, folder):
        if not os.path.lexists(path):  # the first that is not there ends the row
            return
        if is_overlay(path):
            with suppress(OSError):  # one that cannot be removed will be written over
                path.unlink()
