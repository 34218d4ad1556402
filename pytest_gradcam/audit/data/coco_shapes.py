"""What one annotation of a COCO file covers: https://cocodataset.org/#format-data. Knows the file no further."""

from __future__ import annotations

import warnings
from array import array
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pytest_gradcam.audit.data.clipping import fitted_box, fitted_polygon
from pytest_gradcam.audit.data.pictures import shown, whole
from pytest_gradcam.audit.data.sample import DataSetError
from pytest_gradcam.errors import RegionError
from pytest_gradcam.shapes import Mask, Shape

_ONE_AT_A_TIME: Final = Lock()  # of two threads that change the filters of warnings, one restores the wrong ones
_CROWD: Final = "a crowd (iscrowd) is part of the region"


@dataclass(frozen=True, slots=True)
class Unusable:
    """What a JSON file has in the place of numbers, as messages show it."""

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask as run lengths: `size` must be (height, width), `counts` numbers or COCO's compressed text."""

    size: object
    counts: object


@dataclass(frozen=True, slots=True)
class Annotation:
    """An object of a COCO file as it stands there, packed.

    Attributes:
        name: for messages.
        category: place of its category; None where the file names none such.
        bbox: must be (x, y, width, height).
        segmentation: must be polygons or `RunLengths`; None or no polygon where there is only the bbox.
        is_crowd: whether it is many objects.
        fault: what is wrong with it whatever it covers.
        note: what a person should know of it.
    """

    name: str
    category: int | None
    bbox: object
    segmentation: object
    is_crowd: bool = False
    fault: str = ""
    note: str = ""


def packed(entry: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its boxes and segmentations as arrays, which take a quarter of the memory."""
    if "bbox" in entry:
        entry["bbox"] = _packed(entry["bbox"])
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        entry["segmentation"] = tuple(map(_packed, segmentation))
    elif isinstance(segmentation, dict):
        entry["segmentation"] = RunLengths(
            _packed(segmentation.get("size"), "q"), _packed(segmentation.get("counts"), "q")
        )
    return entry


def _packed(value: object, code: Literal["d", "q"] = "d") -> object:
    if not isinstance(value, (list, dict)):
        return value
    try:
        return array(code, value)
    except (TypeError, OverflowError):  # what is among the numbers is said when the image is asked for
        return Unusable(shown(value))


def shapes_of(annotation: Annotation, frame: tuple[int, int]) -> tuple[list[Shape], list[str]]:
    """What an annotation covers, and what a person should know of that.

    A box counts only where there is no segmentation.

    Args:
        annotation: of the image.
        frame: (height, width) of the image.

    Raises:
        RegionError: it cannot be told, or is none of the image.
        DataSetError: pycocotools is needed, and not installed.
    """
    if annotation.fault:
        raise RegionError(annotation.fault)
    notes = [annotation.note, _CROWD if annotation.is_crowd else ""]
    segmentation = annotation.segmentation
    if segmentation is None or segmentation == ():
        box, note = fitted_box(_corners(annotation.bbox), frame)
        return [box], [*notes, note]
    if isinstance(segmentation, RunLengths):
        return [_mask(segmentation, frame)], notes
    if not isinstance(segmentation, tuple):
        raise RegionError(
            f"its segmentation is {shown(segmentation)}: it must be a list of polygons, or an object with size and "
            "counts"
        )
    fitted = [fitted_polygon(_points(polygon), frame) for polygon in segmentation]
    return [polygon for polygon, _ in fitted], notes + [note for _, note in fitted]


def _corners(bbox: object) -> tuple[float, float, float, float]:
    if bbox is None:
        raise RegionError("it has neither a segmentation nor a bbox")
    if not isinstance(bbox, array) or len(bbox) != 4:
        raise RegionError(f"its bbox is {_written(bbox)}: it must be 4 numbers, [x, y, width, height]")
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        raise RegionError(f"its bbox [x, y, width, height] is {_written(bbox)}: width and height must be above 0")
    return x, y, x + width, y + height


def _points(polygon: object) -> npt.NDArray[np.float64]:
    if not isinstance(polygon, array) or len(polygon) % 2 or len(polygon) < 6:
        raise RegionError(
            f"a polygon of its segmentation is {_written(polygon)}: it must be an even number of numbers, at least 6, "
            "[x, y, x, y, …]"
        )
    return np.array(polygon).reshape(-1, 2)


def _mask(segmentation: RunLengths, frame: tuple[int, int]) -> Mask:
    """The mask of run lengths, which go down the columns, drawn by pycocotools.

    They are counted before: it reads and writes beyond its memory where they do not fill the image (2.0.11 crashes).
    """
    height, width = frame
    size, counts = segmentation.size, segmentation.counts
    if not isinstance(size, array) or tuple(size) != frame:
        raise RegionError(
            f"its segmentation has the size {_written(size)}, and must have that of the image, [{height}, {width}]"
        )
    runs = _runs_of_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, (array, list)) or any(run < 0 for run in runs):
        raise _no_runs(counts)
    if sum(runs) != height * width:
        raise RegionError(
            f"the run lengths of its segmentation fill {sum(runs)} pixels, and the image has {height * width}"
        )
    tools = _pycocotools()
    if isinstance(counts, str):
        coded = {"size": [height, width], "counts": counts}
    else:
        coded = tools.frPyObjects({"size": [height, width], "counts": list(runs)}, height, width)
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy 2, of how pycocotools 2.0.11 makes its array
        drawn = tools.decode(coded)
    return Mask.of(np.asarray(drawn, dtype=np.uint8))


def _runs_of_text(text: str) -> list[int]:
    """Run lengths of COCO's compressed text, 5 bits a character, as `rleFrString` of its maskApi.c reads them."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise _no_runs(text)
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))  # from the fourth on they are differences
        value = shift = 0
    if shift:
        raise _no_runs(text)
    return runs


def _no_runs(counts: object) -> RegionError:
    return RegionError(f"its segmentation has for its counts {_written(counts)}: they are no run lengths")


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise DataSetError(
            f"COCO's run lengths are read with pycocotools, which cannot be imported ({error}): "
            'pip install "pytest-gradcam[audit]"'
        ) from error
    return mask


def _written(value: object) -> str:
    """Numbers as they stood in the file, more or less."""
    if not isinstance(value, array):
        return shown(value)
    return shown([number if whole(number) is None else whole(number) for number in value[:40]])
