"""From blocks to rows: maps made in batches, each held against its region. What cannot be measured says why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_gradcam.assertions.asking import class_name
from pytest_gradcam.assertions.attention import BARELY_ABOVE_CHANCE, place_of
from pytest_gradcam.audit.preparing import LONGEST, Block, Part, Ready, refuse_fatal
from pytest_gradcam.audit.rows import Row, Status
from pytest_gradcam.cam.explain import explain_inputs_often
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import said_by
from pytest_gradcam.metrics import METRICS
from pytest_gradcam.verdicts import Place


def measure(block: Block, model: ModelLike, options: Options, metrics: Sequence[str]) -> list[Row]:
    """The rows of a block, in the order of the data set.

    Args:
        block: consecutive images.
        model: as for `explain`.
        options: how to compute.
        metrics: registered names.
    """
    found = [row for part in block.parts for row in _rows(part, model, options, metrics)]
    return sorted([*block.refused, *found], key=lambda row: (row.index, row.place))


def _rows(part: Part, model: ModelLike, options: Options, metrics: Sequence[str]) -> Iterator[Row]:
    for ready, mask, made in zip(part.rows, part.masks, _maps(part, model, options), strict=True):
        yield _row(ready, mask.numpy(), made, metrics)


def _maps(part: Part, model: ModelLike, options: Options) -> Sequence[Explanation | Exception]:
    """A map for each row, or what was raised."""
    try:
        return explained(part, model, options)
    except Exception as error:  # of ours, or what the user's model raises
        if len(part.rows) == 1:
            refuse_fatal(error)
            return [error]
    # One at a time then: it is one picture's fault perhaps, or memory is short.
    return [_maps(part.row(place), model, options)[0] for place in range(len(part.rows))]


def explained(part: Part, model: ModelLike, options: Options) -> list[Explanation]:
    """The maps of a part, from one forward of its images, also of those with several classes.

    Raises:
        Exception: of ours, or what the model raises.
    """
    rounds: list[list[ClassLike]] = []
    where: list[tuple[int, int]] = []
    asked = [0] * len(part.inputs)
    for ready, image in zip(part.rows, part.images, strict=True):
        number = asked[image]
        if number == len(rounds):
            # What an image is not asked in a round, it is asked again, and nobody looks at the answer.
            rounds.append([None] * len(part.inputs) if number == 0 else list(rounds[0]))
        rounds[number][image] = ready.cls
        where.append((number, image))
        asked[image] += 1
    made = explain_inputs_often(model, part.inputs, rounds, [_unseen] * len(part.inputs), options)
    return [made[number][image] for number, image in where]


def _unseen() -> npt.NDArray[np.uint8]:
    """Rows hold no pictures."""
    return np.zeros((1, 1, 3), np.uint8)


def _row(ready: Ready, mask: npt.NDArray[np.float32], made: Explanation | Exception, metrics: Sequence[str]) -> Row:
    about: dict[str, Any] = {"notes": ready.notes, "about": ready.about, "digest": ready.digest}
    row = Row(
        ready.index,
        ready.place,
        ready.key,
        "not explained",
        asked=ready.cls,
        cls=ready.cls,
        frame=ready.frame,
        region=str(ready.region)[:LONGEST],
        size=(mask.shape[0], mask.shape[1]),
        **about,
    )
    if isinstance(made, Exception):
        return replace(row, reason=" ".join(said_by(made).split())[:LONGEST])
    row = replace(
        row,
        cls=made.cls,
        label=None if made.label is None else made.label[:LONGEST],
        predicted=made.predicted,
        predicted_label=None if made.predicted_label is None else made.predicted_label[:LONGEST],
        predicted_probability=made.predicted_probability,
        probability=made.probability,
        score=made.score,
        evidence=made.evidence,
        layer=made.layer,
        method=made.method,
        grid=made.grid,
        raw=made.raw.ravel().tolist(),
    )
    place = place_of(made, ready.region, mask, ready.frame)
    row = replace(row, chance=place.chance, filled=place.filled)
    if made.evidence <= 0:
        return replace(row, status="no evidence", reason=f"nothing at {made.layer} speaks for {class_name(made)}")
    if place.filled < BARELY_ABOVE_CHANCE * place.chance:
        h, w = made.grid
        said = (
            f"{ready.region.noun} cannot be told from the rest on the {h}×{w} grid of {made.layer}: a map that fills "
            f"it has energy {place.filled:.2g}, a uniform one {place.chance:.2g}"
        )
        return replace(row, status="unusable region", reason=said)
    values, status, reason = _values(made, mask, metrics, place)
    return replace(
        row,
        status=status,
        reason=reason,
        energy=place.energy,
        peak=place.peak,
        peak_distance=place.peak_distance,
        values=values,
    )


def _values(
    made: Explanation, mask: npt.NDArray[np.float32], metrics: Sequence[str], place: Place
) -> tuple[dict[str, float], Status, str]:
    values: dict[str, float] = {}
    try:
        for name in metrics:
            if name == "calibrated_energy":  # of three numbers that are at hand
                values[name] = (place.energy - place.chance) / (place.filled - place.chance)
            elif name != "energy":
                values[name] = METRICS[name].measure(made.cam, mask, made.grid)
    except ValueError as error:
        return {}, "unusable region", str(error)[:LONGEST]
    return values, "measured", ""
