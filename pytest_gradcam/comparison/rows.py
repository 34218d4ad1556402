"""Two models on pictures, one row for each: how alike their maps are, and where attention moved. Nothing is printed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from torch import nn

from pytest_gradcam.assertions.asking import BATCH, Asking, class_name
from pytest_gradcam.assertions.comparing import comparison, together
from pytest_gradcam.assertions.maps import differences
from pytest_gradcam.assertions.same_layers import SecondMap, explain_as
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.comparison.folder import Picture
from pytest_gradcam.errors import GradcamError, ImageError, said_by
from pytest_gradcam.images import Prepared
from pytest_gradcam.metrics.movement import Movement, movement
from pytest_gradcam.pictures import load

# Of a picture: what its maps were compared by; or why they were not: a model has no map of it, a model could not be
# run on it, or it could not be made into model input.
Status: TypeAlias = Literal["compared", "no evidence", "not explained", "unreadable"]
# A picture, made ready for the first and for the second model.
Ready: TypeAlias = tuple[Picture, Prepared, Prepared]

PEARSON: Final = comparison("pearson", None)
DISTANCE: Final = comparison("wasserstein", None)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two models.

    Attributes:
        title: what it is called.
        model: the model, in eval mode.
        asking: the settings that hold, with its own transform.
    """

    title: str
    model: nn.Module
    asking: Asking


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What became of one picture.

    Attributes:
        name: of its file, relative to the folder.
        status: whether its maps were compared, and if not, what was in the way.
        reason: why they were not; or, a line each, what was different in how they were made.
        pearson: correlation of the raw CAMs; NaN where they were not compared.
        distance: earth mover's distance, in cells of the finer grid; NaN where they were not compared.
        movement: where mass went; None where nothing moved or was compared.
        maps: of the first and the second model; None where there are none.
    """

    name: str
    status: Status
    reason: str = ""
    pearson: float = math.nan
    distance: float = math.nan
    movement: Movement | None = None
    maps: tuple[Explanation, Explanation] | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the models predict different classes."""
        return self.maps is not None and self.maps[0].predicted != self.maps[1].predicted

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Order of the rows, the worst first: without evidence, then by correlation."""
        return self.status == "compared", -1.0 if math.isnan(self.pearson) else self.pearson, self.name

    def to_json(self) -> dict[str, Any]:
        """Plain values: what is written into the report."""
        values: dict[str, Any] = {"file": self.name, "status": self.status, "reason": self.reason}
        if self.maps is not None:
            a, b = self.maps
            values |= {
                "class": a.cls,
                "label": a.label,
                "predicted": [a.predicted, b.predicted],
                "probability": [a.probability, b.probability],
                "evidence": [a.evidence, b.evidence],
                "layers": [list(a.layers), list(b.layers)],
                "methods": [a.method, b.method],
            }
        if self.status == "compared":
            values |= {"pearson": self.pearson, "distance": self.distance}
            moved = self.movement
            values["movement"] = moved and {
                "from": moved.source,
                "to": moved.target,
                "moved": moved.moved,
                "dx": moved.dx,
                "dy": moved.dy,
            }
        return values


def rows_of(first: Side, second: Side, pictures: Sequence[Picture], cls: int | None) -> Iterator[Row]:
    """A row for each picture, in their order; pictures of one size go through the models together.

    Args:
        first: the model that says which class is asked for, where none is given.
        second: what it is compared with.
        pictures: the files.
        cls: class whose maps are compared; None: for each picture what the first model predicts.

    Raises:
        GradcamError: of the first pictures that could be read, the models could be run on none.
    """
    has_explained = False
    for start in range(0, len(pictures), BATCH):
        rows = _rows(first, second, pictures[start : start + BATCH], cls)
        tried = [row for row in rows if row.status != "unreadable"]
        if not has_explained and tried and all(row.status == "not explained" for row in tried):
            raise GradcamError(tried[0].reason)
        has_explained = has_explained or bool(tried)
        yield from rows


def _rows(first: Side, second: Side, pictures: Sequence[Picture], cls: int | None) -> list[Row]:
    found: dict[str, Row] = {}
    ready: list[Ready] = []
    for picture in pictures:
        try:
            rgb = load(picture.path)
            ready.append((picture, _prepared(first, rgb), _prepared(second, rgb)))
        except ImageError as error:
            found[picture.name] = Row(picture.name, "unreadable", said_by(error))
        except Exception as error:  # the transform may be the user's own, and raise anything
            found[picture.name] = Row(picture.name, "not explained", said_by(error))
    try:
        rows = _compared(first, second, ready, cls) if ready else []
    except Exception:  # one at a time then: it is one picture's fault perhaps, or memory is short
        rows = [_alone(first, second, each, cls) for each in ready]
    found |= {row.name: row for row in rows}
    return [found[picture.name] for picture in pictures]


def _prepared(side: Side, rgb: object) -> Prepared:
    with _about(side):
        return side.asking.prepare(side.model, rgb)


def _alone(first: Side, second: Side, each: Ready, cls: int | None) -> Row:
    try:
        return _compared(first, second, [each], cls)[0]
    except Exception as error:  # of ours, or the model's own
        return Row(each[0].name, "not explained", said_by(error))


def _compared(first: Side, second: Side, ready: Sequence[Ready], cls: int | None) -> list[Row]:
    with _about(first):
        a = first.asking.explain(first.model, [each[1] for each in ready], [cls] * len(ready))
    with _about(second):
        classes = [each.cls for each in a]
        b = explain_as(second.asking, first.model, second.model, [each[2] for each in ready], classes, a)
    return [_row(first, second, ready[i][0].name, a[i], b[i]) for i in range(len(ready))]


@contextmanager
def _about(side: Side) -> Iterator[None]:
    """Whatever is raised inside says which model it is about."""
    try:
        yield
    except Exception as error:  # of ours, or what the user's model raises
        raise GradcamError(f"{side.title}: {said_by(error)}") from error


def _row(first: Side, second: Side, name: str, a: Explanation, found: SecondMap) -> Row:
    b = found.explanation
    without = [(side, each) for side, each in ((first, a), (second, b)) if each.evidence <= 0]
    if without:
        said = "; ".join(
            f"{side.title} has no evidence: nothing at {each.layer} ({each.method}) speaks for {class_name(each)}"
            for side, each in without
        )
        return Row(name, "no evidence", said, maps=(a, b))
    try:
        alike, apart = PEARSON.measure(a, b), DISTANCE.measure(a, b)
    except GradcamError as error:
        return Row(name, "no evidence", said_by(error), maps=(a, b))
    facts = (*differences(a, b), *found.facts(a))
    said = "\n".join(text for fact, text in facts if fact != "prediction")  # which has a column of its own
    return Row(name, "compared", said, alike, apart, movement(*together(a.raw, b.raw)), (a, b))
