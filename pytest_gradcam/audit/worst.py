"""The few images that a report shows: which they are, and their overlays, for which they are read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pytest_gradcam.audit.data.sample import Source, Stream
from pytest_gradcam.audit.judging import Columns, Rule
from pytest_gradcam.audit.preparing import Preparer
from pytest_gradcam.audit.results import in_batches
from pytest_gradcam.images import carry_region
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.report.page.pictures import overlay_uri

WORST: Final = 24  # of all images
WORST_OF_GROUP: Final = 4
GREY: Final = 128  # where the image cannot be read again
MOST_BYTES: Final = 14_000_000  # of all pictures: the page has 20 MB for everything

_COLUMNS: Final = (
    *("index", "place", "image", "status", "cls", "label", "predicted", "predicted_label", "predicted_probability"),
    *("probability", "chance", "grid_height", "grid_width", "input_height", "input_width", "region", "raw"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One class in one image, read again.

    Attributes:
        image: uint8 (H, W, 3), what the model saw.
        mask: float32 (H, W) in [0, 1], the region in the input frame; None where there is none.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.float32] | None


# From an image's index, and the place of the class among those asked for in it; None where it cannot be read again.
Look: TypeAlias = Callable[[int, int], Seen | None]


def looking(source: Source | Stream, preparer: Preparer) -> Look:
    """How images of a data set are read again, by those who show them; of a stream, none can be.

    Args:
        source: the data set.
        preparer: makes its images ready.
    """

    def look(index: int, place: int) -> Seen | None:
        if not isinstance(source, Source):
            return None
        try:
            sample = source[index]
            prepared = preparer.prepared(sample.image)
            region = sample.asked[place].region
            return Seen(prepared.seen, None if region is None else carry_region(region, prepared))
        except Exception:  # of the user's own data set or transform; the numbers are there in any case
            return None

    return look


def worst_rows(columns: Columns, rule: Rule, count: int, inside: npt.NDArray[np.bool_] | None = None) -> list[int]:
    """Places of the rows that were measured and have the least of the metric, the worst first.

    Args:
        columns: the rows.
        rule: names the metric.
        count: at most so many.
        inside: which rows are meant; None for all.
    """
    usable = (columns.status == "measured") & np.isfinite(columns.value)
    rows = np.flatnonzero(usable if inside is None else usable & inside)
    values = columns.value[rows] if METRICS[rule.metric].higher_is_inside else -columns.value[rows]
    some = min(count, rows.size)
    if some == 0:
        return []
    # Only the few that are wanted are put in order; of equal values the first rows, whatever is equal to the last.
    bound = np.partition(values, some - 1)[some - 1]
    near = np.flatnonzero(values <= bound)
    return [int(rows[place]) for place in near[np.argsort(values[near], kind="stable")][:some]]


def facts_of(path: Path, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What is known of some rows, maps too; read some rows at a time.

    Args:
        path: of the results.
        rows: their places.

    Raises:
        AuditError: the results cannot be read.
    """
    wanted = np.unique(np.fromiter(rows, np.int64))
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for batch in in_batches(path, _COLUMNS):
        end = start + batch.num_rows
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
        if here.size:
            some = batch.take(pa.array(here - start)).to_pylist()
            found |= dict(zip(here.tolist(), some, strict=True))
        start = end
    return found


def overlays(facts: Mapping[int, Mapping[str, Any]], order: Sequence[int], look: Look | None) -> dict[int, str]:
    """The overlays of some rows as data URIs, as many as a page has room for.

    Args:
        facts: of each row, as `facts_of` gives them.
        order: the rows, the most wanted first.
        look: reads an image again; None: each map is drawn on plain grey.
    """
    found: dict[int, str] = {}
    room = MOST_BYTES
    for row in dict.fromkeys(order):
        known = facts[row]
        cam = cam_of(known)
        if cam is None or room <= 0:
            continue
        seen = None if look is None else look(known["index"], known["place"])
        size = (known["input_height"] or 1, known["input_width"] or 1)
        if seen is None:
            seen = Seen(np.full((*size, 3), GREY, np.uint8), None)
        found[row] = overlay_uri(seen.image, cam, seen.mask)
        room -= len(found[row])
    return found


def cam_of(known: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """The CAM of a row on its grid, float32 in [0, 1]; None where it has none, or no evidence."""
    if known["raw"] is None:
        return None
    raw = np.maximum(np.asarray(known["raw"], np.float32), 0.0)
    top = float(raw.max(initial=0.0))
    if top <= 0:
        return None
    return np.asarray(raw / np.float32(top), np.float32).reshape(known["grid_height"], known["grid_width"])
