"""Which class of the model a category of a data set is: by name where both have names, else by place, where it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from pytest_gradcam.cam.captured import labels_for
from pytest_gradcam.cam.model import logits_of
from pytest_gradcam.cam.running import ModelLike, Options, ready
from pytest_gradcam.errors import ClassError, SettingsError, said_by

# For each category the model's class, by index or label.
Categories: TypeAlias = Mapping[str, "int | str"]

LISTED = 5


def classes_of(
    categories: Sequence[str], asked: Categories | None, model: ModelLike, inputs: Tensor, options: Options
) -> tuple[list[int], list[str] | None]:
    """The model's class for each category, and the names of all classes where the categories give them.

    Args:
        categories: names, in the data set's order.
        asked: for each of them the model's class; None: by name where the model's are known, and the categories are
            among them; else by place, where the model has as many classes as there are categories.
        model: as for `explain`.
        inputs: (1, C, H, W), any model input: the model is asked how many classes it has.
        options: how the model is called, and labels.

    Raises:
        SettingsError: which class is meant cannot be told.
    """
    count, labels = _known(model, inputs, options)
    if asked is not None:
        return _asked(categories, asked, count, labels), None
    if labels is not None:
        places = {name: place for place, name in enumerate(labels)}
        _refuse_ambiguous(categories, labels)
        missing = [name for name in categories if name not in places]
        if not missing:
            return [places[name] for name in categories], None
        why = f"the model's labels lack {_listed(missing)}"
    elif count == len(categories):
        return list(range(count)), list(categories)
    else:
        why = f"the model has {count} classes without names, the data set {len(categories)}: {_listed(categories)}"
    raise SettingsError(
        f"which class of the model a category is cannot be told: {why}. Pass labels=…, the model's class names, or "
        "categories={name: class, …}"
    )


def _known(model: ModelLike, inputs: Tensor, options: Options) -> tuple[int, Sequence[str] | None]:
    with ready(model, inputs, options) as run:
        output = run.call(run.inputs)
        try:
            return int(logits_of(output).shape[1]), labels_for(run, output)
        except ClassError as error:
            raise SettingsError(f"how many classes the model has cannot be told: {said_by(error)}") from error


def _asked(categories: Sequence[str], asked: Categories, count: int, labels: Sequence[str] | None) -> list[int]:
    found = []
    for name in categories:
        if name not in asked:
            raise SettingsError(
                f"categories lacks {name!r}: give the model's class for each of {_listed(categories)}, also for those "
                "that are not asked about"
            )
        cls = asked[name]
        if isinstance(cls, str):
            if labels is None or cls not in labels:
                known = "the model has no labels" if labels is None else f"it is none of the model's {len(labels)}"
                raise SettingsError(f"categories has {cls!r} for {name!r}: {known}")
            _refuse_ambiguous([cls], labels)
            cls = list(labels).index(cls)
        if isinstance(cls, bool) or not isinstance(cls, int) or not 0 <= cls < count:
            raise SettingsError(f"categories has {cls!r} for {name!r}: the model has {count} classes (0..{count - 1})")
        found.append(cls)
    return found


def _refuse_ambiguous(names: Sequence[str], labels: Sequence[str]) -> None:
    """ImageNet has two cranes, a bird and a machine."""
    counts = Counter(labels)
    several = [name for name in names if counts[name] > 1]
    if several:
        raise SettingsError(
            f"of the model's labels, {counts[several[0]]} are {several[0]!r}: which is meant cannot be told. Pass "
            "categories={name: class index, …}"
        )


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(map(repr, names[:LISTED])) + (f" and {rest} more" if rest > 0 else "")
