"""A second model read as the first was: at the layers that were found in it, by the method that was chosen for it.

Left to itself, `auto` may find other layers in a model whose weights differ a little, and then maps differ though the
models look at the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from pytest_gradcam.assertions.asking import Asking, naming
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.model import unwrap
from pytest_gradcam.cam.running import ModelLike, Options
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.errors import TargetLayerError
from pytest_gradcam.images import Prepared
from pytest_gradcam.verdicts import Fact


@dataclass(frozen=True, slots=True, eq=False)
class SecondMap:
    """A map of the second model.

    Attributes:
        explanation: the map.
        why: why it was read at layers of its own, `which …`; empty where it was read as the first was.
    """

    explanation: Explanation
    why: str = ""

    def facts(self, first: Explanation) -> tuple[Fact, ...]:
        """What is to be said of where both were read."""
        if not self.why:
            return ()
        a, b = (f"at {each.layer} ({each.method})" for each in (first, self.explanation))
        return (("layers", f"model A was read {a}, model B {b}, {self.why}"),)


def explain_as(
    asking: Asking,
    model_a: ModelLike,
    model_b: ModelLike,
    prepared: Sequence[Prepared],
    classes: Sequence[ClassLike],
    first: Sequence[Explanation],
) -> list[SecondMap]:
    """A map of the second model for each image.

    Where the settings name a layer, or the method reads none, they hold for both models. Where the second model has no
    layers of those names, or none that can be read, it is read as the settings alone say.

    Args:
        asking: the settings that hold.
        model_a: the first model.
        model_b: the second model.
        prepared: the images, made ready for the second model.
        classes: one for each.
        first: the first model's maps of them.

    Raises:
        GradcamError: as for `explain`.
    """
    readings: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for i, each in enumerate(first):
        readings.setdefault((each.layers, each.method), []).append(i)
    if len(readings) == 1:
        return _explain(asking, model_a, model_b, prepared, classes, first[0])
    found = []
    for i, each in enumerate(first):  # of several sizes, perhaps: one at a time, so that errors name the image
        with naming(i):
            found += _explain(asking, model_a, model_b, [prepared[i]], [classes[i]], each)
    return found


def _explain(
    asking: Asking,
    model_a: ModelLike,
    model_b: ModelLike,
    prepared: Sequence[Prepared],
    classes: Sequence[ClassLike],
    first: Explanation,
) -> list[SecondMap]:
    options, why = _options(asking.options, model_a, model_b, first)
    if options is not None:
        try:
            return [SecondMap(each) for each in asking.explain(model_b, prepared, classes, options=options)]
        except TargetLayerError as error:
            why = f"which cannot be read as model A was: {str(error).partition(chr(10))[0]}"
    return [SecondMap(each, why) for each in asking.explain(model_b, prepared, classes)]


def _options(
    options: Options, model_a: ModelLike, model_b: ModelLike, first: Explanation
) -> tuple[Options | None, str]:
    """How the second model is read as the first was; None where it is not, and why, if anything is to be said of it."""
    asked = options.layer
    several = asked if isinstance(asked, list | tuple) else [asked]
    # Names hold for both models; a module is a part of the first alone, and its name stands for it in the second.
    is_named = asked is not None and not any(isinstance(each, nn.Module) for each in several)
    if is_named or not first.layers or isinstance(model_a, tuple) or isinstance(model_b, tuple):
        return None, ""
    names = {name for name, _ in unwrap(model_b).named_modules()}
    missing = [layer for layer in first.layers if layer not in names]
    if missing:
        return None, f"which has no layer {missing[0]!r}"
    layer = first.layers[0] if len(first.layers) == 1 else list(first.layers)
    return replace(options, layer=layer, method=first.method if options.method == "auto" else options.method), ""
