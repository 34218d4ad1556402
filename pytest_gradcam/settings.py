"""Settings: what the assertions of one test are bound to, where each value may come from, and whether it is served.

Pure functions on plain values: this module reads no file and no command line, and imports neither pytest nor torch, so
that a wrong option stops a run before anything heavy is loaded.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from pytest_gradcam.errors import SettingsError

METHODS: Final = (
    *("auto", "grad-cam", "hirescam", "grad-cam++", "xgrad-cam", "layercam", "eigencam", "eigengrad-cam", "finer-cam"),
    *("score-cam", "ablation-cam", "occlusion", "rise", "legrad"),
)
METRICS: Final = ("calibrated_energy", "energy", "lift", "pointing_game", "rank_accuracy", "iou", "mass_outside")
ENGINES: Final = ("hooks", "split")
RULES: Final = ("auto", "mean", "rate")
INCONCLUSIVE: Final = ("error", "fail", "skip", "warn")
FLOORS: Final = ("same_weights", "retrained")
UPDATES: Final = ("new", "all", "prune")
ORPHANS: Final = ("report", "ignore", "fail")
REPORTS: Final = ("all", "failed", "none")
DEVICES: Final = ("auto", "cpu", "cuda", "cuda:<n>", "mps", "xpu", "xpu:<n>")

_DEVICE = re.compile(r"auto|(cpu|mps)(:0)?|(cuda|xpu)(:\d{1,4})?", re.ASCII)
_SPELLINGS: Final = {
    "ini": "gradcam_{name} in the ini file",
    "option": "--gradcam-{dashed}",
    "marker": "@pytest.mark.gradcam({name}=…)",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the assertions of one test are bound to; every value is checked when it is set.

    Attributes:
        method: name of a CAM method; `auto`: Grad-CAM on convolutional grids, HiResCAM on those that the head reads
            unevenly and on token grids, there in all blocks; or a callable (model, inputs, target) → map.
        engine: how activations and gradients are obtained, `hooks` or `split`.
        device: where maps are computed: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`, `xpu:1`.
        layer: the target layer: dotted name, module, or None: found and checked. Several, as a list or separated by
            commas, are fused.
        metric: what is measured and judged.
        threshold: value needed inside a region; None: the metric's own default.
        outside_threshold: value allowed by `assert_attention_outside_region`; None: the metric's own default.
        judge_by: how several images are judged together: by the `mean` of their values or the `rate` of those that pass
            alone; `auto` takes the rate where a value can only be 0 or 1.
        pass_rate: share of several images that must pass, where their rate is judged.
        confidence: of each bound of the interval of several images.
        inconclusive: what becomes of several images that cannot tell: `error`, `fail`, `skip` or `warn`.
        floor: how close a map must be to its baseline: `same_weights` or `retrained`.
        previews: whether a picture lies beside each baseline.
        output_dir: folder of the overlays, relative to pytest's rootdir.
        labels: the model's class names, in class order, so that a class may be asked for by name.
        transform: callable picture → model input tensor; None: what the model declares.
        forward: callable (model, inputs) → output, how the model is called; None: `model(inputs)`.
        cache: whether the tests of a session share the work on one model and image.

    Raises:
        SettingsError: a value that is not served; the message names it and the ones that are.
    """

    method: Any = "auto"
    engine: str = "hooks"
    device: str = "auto"
    layer: Any = None
    metric: str = "calibrated_energy"
    threshold: float | None = None
    outside_threshold: float | None = None
    judge_by: str = "auto"
    pass_rate: float = 0.8
    confidence: float = 0.95
    inconclusive: str = "error"
    floor: str = "same_weights"
    previews: bool = False
    output_dir: str = "gradcam-report"
    labels: tuple[str, ...] | None = None
    transform: Callable[..., Any] | None = None
    forward: Callable[..., Any] | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def with_(self, **keywords: Any) -> Settings:
        """These settings with some of them replaced.

        Raises:
            SettingsError: a keyword that is no setting, or a value that is not served.
        """
        for name in keywords:
            if name not in NAMES:
                raise SettingsError(f"unknown setting {name!r}: {choices(name, NAMES)}")
        return replace(self, **keywords)


def resolve(
    ini: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    marker: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from their sources, the later winning name by name: default < ini < command line < marker.

    Args:
        ini: values of the ini file by setting name, those that were given only.
        options: values of the command line by setting name, those that were given only.
        marker: keywords of the `gradcam` markers of one test, already merged, the nearest winning.

    Raises:
        SettingsError: a value or name that is not served; the message says which source it came from.
    """
    settings = Settings()
    for source, values in (("ini", ini), ("option", options), ("marker", marker)):
        for name, value in (values or {}).items():
            try:
                settings = settings.with_(**{name: value})
            except SettingsError as error:
                raise SettingsError(f"{spelling(source, name)}: {error}") from None
    return settings


def checked_choice(source: str, name: str, value: Any, known: tuple[str, ...]) -> str:
    """A value of the run as a whole, which no `Settings` hold.

    Raises:
        SettingsError: it is none of those that are served.
    """
    try:
        return _one_of(known)(name, value)
    except SettingsError as error:
        raise SettingsError(f"{spelling(source, name)}: {error}") from None


def check_keywords(operation: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a keyword that an operation does not take.

    Raises:
        SettingsError: names the keyword, the operation and the keywords that it takes.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            raise SettingsError(f"unknown keyword {name!r} of {operation}: {choices(name, known)}")


def spelling(source: str, name: str) -> str:
    """How a person writes the setting `name` in a source, `ini`, `option` or `marker`."""
    return _SPELLINGS[source].format(name=name, dashed=name.replace("_", "-"))


def _one_of(known: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise SettingsError(f"unknown {name} {value!r}: {choices(value, known)}")
        return value

    return check


def _method(name: str, value: Any) -> Any:
    return value if callable(value) else _one_of(METHODS)(name, value)


def _device(name: str, value: Any) -> str:
    text = str(value) if _is_torch_device(value) else value
    if not isinstance(text, str) or not _DEVICE.fullmatch(text):
        raise SettingsError(f"unknown {name} {text!r}: {choices(text, DEVICES)}")
    return text


def _is_torch_device(value: Any) -> bool:
    """Whether this is a `torch.device`, told by its name: a test that never gives one must not pay for torch here."""
    return (type(value).__module__, type(value).__qualname__) == ("torch", "device")


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        raise SettingsError(f"{name} is too large for a number: give one such as 0.15") from None
    except (TypeError, ValueError):
        raise SettingsError(f"{name} {value!r} is not a number: give one such as 0.15") from None
    if not math.isfinite(number):
        raise SettingsError(f"{name} {value!r} is not finite: give a number such as 0.15")
    return number


def _between(low: float, high: float) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        number = _number(name, value)
        if number is None or not low < number < high:
            raise SettingsError(f"{name} {value!r} is not between {low:g} and {high:g}: give a share such as 0.95")
        return number

    return check


def _layer(name: str, value: Any) -> Any:
    if isinstance(value, str) and "," in value:
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, (list, tuple)) and value and all(map(_is_layer, value)):
        return tuple(value)
    if value is None or _is_layer(value):
        return value
    raise SettingsError(
        f"{name} {value!r} is no layer: give the dotted name of a module, such as 'layer4.1', the module itself, or a "
        "list of them"
    )


def _is_layer(value: Any) -> bool:
    """Whether this may name a layer or be one; whether the model has it is found out by the model."""
    if isinstance(value, str):
        return bool(value.strip())
    return hasattr(value, "register_forward_hook")


def _yes_or_no(name: str, value: Any) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    found = value if isinstance(value, bool) else known.get(str(value).strip().lower())
    if found is None:
        raise SettingsError(f"{name} {value!r} is neither true nor false")
    return found


def _folder(name: str, value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise SettingsError(f"{name} {value!r} is no folder: give a path, relative to pytest's rootdir or absolute")
    return text


def checked_labels(name: str, value: Any) -> tuple[str, ...] | None:
    """Class names as a tuple, in class order.

    Raises:
        SettingsError: no list of strings, or one string that holds several names.
    """
    if value is None:
        return None
    if isinstance(value, Iterable) and not isinstance(value, (str, AbstractSet, Mapping)):  # these have no order
        labels = tuple(value)
        if len(labels) == 1 and isinstance(labels[0], str) and "," in labels[0]:
            raise SettingsError(
                f"{name} holds one name with commas in it, {labels[0]!r}: write one a line in the ini file, or pass a "
                "list of strings"
            )
        if labels and all(isinstance(label, str) for label in labels):
            return labels
    raise SettingsError(f"{name} {value!r} are no class names: give a list of strings, in the order of the classes")


def _callable(signature: str) -> Callable[[str, Any], Callable[..., Any] | None]:
    def check(name: str, value: Any) -> Callable[..., Any] | None:
        if value is not None and not callable(value):
            raise SettingsError(f"{name} {value!r} cannot be called: give a callable {signature}, or None")
        checked: Callable[..., Any] | None = value
        return checked

    return check


def choices(value: Any, known: Iterable[str]) -> str:
    """The values that are served, and the one that was probably meant."""
    from difflib import get_close_matches  # only a mistake pays for it

    known = list(known)
    text = f"known are {', '.join(known)}"
    squeezed = {re.sub(r"[-_ ]", "", choice): choice for choice in reversed(known) if "<" not in choice}
    close = get_close_matches(re.sub(r"[-_ ]", "", str(value)).lower(), squeezed, n=1, cutoff=0.7)
    return f"{text}; did you mean {squeezed[close[0]]!r}?" if close else text


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "method": _method,
    "engine": _one_of(ENGINES),
    "device": _device,
    "layer": _layer,
    "metric": _one_of(METRICS),
    "threshold": _number,
    "outside_threshold": _number,
    "judge_by": _one_of(RULES),
    "pass_rate": _between(0.0, 1.0),
    "confidence": _between(0.5, 1.0),
    "inconclusive": _one_of(INCONCLUSIVE),
    "floor": _one_of(FLOORS),
    "previews": _yes_or_no,
    "output_dir": _folder,
    "labels": checked_labels,
    "transform": _callable("picture → tensor"),
    "forward": _callable("(model, inputs) → output"),
    "cache": _yes_or_no,
}
NAMES: Final = tuple(field.name for field in fields(Settings))
# Those that no text can say: not for an ini file.
CALLABLES: Final = ("transform", "forward")
