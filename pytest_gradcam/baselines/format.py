"""Baselines as bytes: a safetensors file with the maps, and what they were made from as JSON in its metadata.

No pickle: reading runs nothing. Whatever the bytes are, reading them gives a baseline that could have been written, or
a `BaselineError` that says why it does not. The documented layout is in docs/baselines.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.glance import SIDE
from pytest_gradcam.baselines.names import CheckName
from pytest_gradcam.errors import BaselineError

SCHEMA: Final = 1
# More than any map that we would write, and little enough to be read without a thought.
MOST_BYTES: Final = 64 * 2**20
_MOST_HEADER: Final = 2**20
_KEY: Final = "gradcam"
_RECEIVED: Final = "received"
_TENSORS: Final = ("cam", "glance", "raw")
_LFS: Final = b"version https://git-lfs"
_CONFLICT: Final = b"<<<<<<<"
# More than anybody needs, and little enough to be shown, counted and compared.
_LONGEST_TEXT: Final = 10_000
_MOST_TEXTS: Final = 1_000
_MOST_PIXELS: Final = 2**20
_MOST_CLASSES: Final = 2**31
_IMAGE: Final = re.compile(r"(picture|tensor):[0-9a-f]{32}")
# Characters that steer a terminal, turn the reading direction round, or that no file can hold.
_STEERING: Final = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Floats = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """What a received file says besides its map: what approving it would do.

    Attributes:
        target: path of the baseline from pytest's rootdir, with `/`.
        id: of the check, for a person: the test's node id, and the check's name after `@`.
        replaces: digest of the baseline's bytes that it was compared with; empty where there was none.
        preview: whether a picture is to lie beside the baseline.
    """

    target: str
    id: str
    replaces: str
    preview: bool


def dumps(baseline: Baseline, received: Received | None = None) -> bytes:
    """The bytes of a baseline's file, the same at every call.

    Args:
        baseline: what is stored.
        received: for a file that waits to be approved.

    Raises:
        BaselineError: it has something that `loads` would refuse.
    """
    tensors = {name: np.ascontiguousarray(getattr(baseline, name), np.float32) for name in _TENSORS}
    about = _about(baseline)
    _checked(about, tensors)
    about["digest"] = _digest(about, tensors)
    metadata = {_KEY: _json(about)}
    if received is not None:
        metadata[_RECEIVED] = _json({name: getattr(received, name) for name in Received.__slots__})
    return save(tensors, metadata=metadata)


def loads(data: bytes) -> Baseline:
    """The baseline that the bytes of a file hold.

    Raises:
        BaselineError: they are no baseline, of a schema that this version does not know, cut off, or were changed.
    """
    about = _metadata(data, _KEY)
    schema = about.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise BaselineError(f"it has schema {_short(schema)}, which is none")
    if schema > SCHEMA:
        raise BaselineError(
            f"it has schema {_short(schema)}, and this version reads {SCHEMA}: it was written by a newer one. Upgrade "
            "pytest-gradcam"
        )
    tensors = _tensors(data)
    try:
        matches = about.pop("digest", None) == _digest(about, tensors)
    except RecursionError:  # brackets that can just be read are too deep to be written
        matches = False
    if not matches:
        raise BaselineError("its digest does not match: it was changed after it was written")
    return _checked(about, tensors)


def loads_received(data: bytes) -> tuple[Baseline, Received]:
    """The map that waits to be approved, and what approving it would do.

    Raises:
        BaselineError: as for `loads`, or it is no received file.
    """
    baseline, about = loads(data), _metadata(data, _RECEIVED)
    try:
        received = Received(
            _text(about["target"]), _text(about["id"]), _text(about["replaces"]), _is(bool, about["preview"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BaselineError(f"its metadata is not what a received file has: {_said(error)}") from None
    return baseline, received


def digest_of(data: bytes) -> str:
    """What tells a file's bytes from any others."""
    return hashlib.sha256(data).hexdigest()


def _about(baseline: Baseline) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "module": baseline.check.module,
        "test": baseline.check.test,
        "name": baseline.check.name,
        "method": baseline.method,
        "layer": baseline.layer,
        "layers": list(baseline.layers),
        "grid": list(baseline.grid),
        "view": baseline.view,
        "class": baseline.cls,
        "label": None if baseline.label is None else _steady(baseline.label),
        "score": baseline.score,
        "probability": baseline.probability,
        "predicted": baseline.predicted,
        "size": list(baseline.size),
        "image": baseline.image,
        "transform": baseline.transform,
        "engine": baseline.engine,
        "device": baseline.device,
        "versions": dict(baseline.versions),
    }


def _checked(about: Mapping[str, Any], tensors: Mapping[str, Floats]) -> Baseline:
    """The baseline that this is of, if we would have written it."""
    try:
        baseline = _baseline(about, tensors)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BaselineError(f"its metadata is not what a baseline has: {_said(error)}") from None
    _check(baseline)
    return baseline


def _baseline(about: Mapping[str, Any], tensors: Mapping[str, Floats]) -> Baseline:
    left = dict(about)
    left.pop("schema")
    grid = [_is(int, each) for each in left.pop("grid")]
    if grid != list(tensors["raw"].shape):
        raise ValueError(f"grid {_short(grid)} is not that of its map, {list(tensors['raw'].shape)}")
    height, width = (_count(each, 1, _MOST_PIXELS) for each in left.pop("size"))
    layers, versions = _is(list, left.pop("layers")), _is(dict, left.pop("versions"))
    if max(len(layers), len(versions)) > _MOST_TEXTS:
        raise ValueError(f"{len(layers)} layers and {len(versions)} versions are too many")
    baseline = Baseline(
        check=CheckName(_text(left.pop("module")), _text(left.pop("test")), _text(left.pop("name"))),
        raw=tensors["raw"],
        cam=tensors["cam"],
        glance=tensors["glance"],
        method=_text(left.pop("method")),
        layer=_text(left.pop("layer")),
        layers=tuple(map(_text, layers)),
        view=_text(left.pop("view")),
        cls=_or_none(_class, left.pop("class")),
        label=_or_none(_text, left.pop("label")),
        score=_number(left.pop("score")),
        probability=_or_none(_number, left.pop("probability")),
        predicted=_or_none(_class, left.pop("predicted")),
        size=(height, width),
        image=_text(left.pop("image")),
        transform=_text(left.pop("transform")),
        engine=_text(left.pop("engine")),
        device=_text(left.pop("device")),
        versions={_text(name): _text(each) for name, each in versions.items()},
    )
    if left:
        raise ValueError(f"it has {_short(sorted(left))}, which no baseline has")
    return baseline


def _metadata(data: bytes, key: str) -> dict[str, Any]:
    """One of the JSON objects in the file's metadata."""
    if len(data) > MOST_BYTES:
        raise BaselineError(f"it has {len(data)} bytes, more than the {MOST_BYTES} of any baseline")
    if data.startswith(_LFS):
        raise BaselineError("it is a pointer of Git LFS, not the file: run `git lfs pull`")
    if data.startswith(_CONFLICT):
        raise BaselineError("it holds the marks of a merge conflict: take one side whole, with `git checkout`")
    if len(data) < 8:
        raise BaselineError(f"it has {len(data)} bytes: it is cut off, or no baseline")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(len(data) - 8, _MOST_HEADER):
        raise BaselineError("it is cut off, or no safetensors file")
    header = _object(data[8 : 8 + length], "its header")
    metadata = header.get("__metadata__")
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise BaselineError("it is a safetensors file of somebody else's: there is nothing of ours in its metadata")
    return _object(text, "its metadata")


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, a key twice, or brackets without end
        raise BaselineError(f"{what} is no JSON: it is cut off, or no baseline") from None
    if not isinstance(found, dict):
        raise BaselineError(f"{what} is no JSON object: it is no baseline")
    return found


def _tensors(data: bytes) -> dict[str, Floats]:
    try:
        found = {name: dict(about) for name, about in deserialize(data)}  # type: ignore[no-untyped-call]  # no stubs
    except SafetensorError as error:
        raise BaselineError(f"it is cut off, or no safetensors file: {_short(str(error))}") from None
    if sorted(found) != sorted(_TENSORS):
        raise BaselineError(f"it holds {_short(sorted(found)) if found else 'nothing'}, and not {', '.join(_TENSORS)}")
    tensors = {}
    for name, about in found.items():
        shape, wanted = tuple(about["shape"]), 3 if name == "glance" else 2
        if about["dtype"] != "F32" or len(shape) != wanted or 0 in shape:
            raise BaselineError(
                f"its {name} is {about['dtype']} {list(shape)}: it must be F32 with {wanted} dimensions"
            )
        tensors[name] = np.frombuffer(about["data"], "<f4").reshape(shape).astype(np.float32)
    return tensors


def _check(baseline: Baseline) -> None:
    """Refuse maps that we would not have written: whatever is compared with them would mean nothing."""
    raw, cam = baseline.raw, baseline.cam
    if not all(np.isfinite(each).all() for each in (raw, cam, baseline.glance)):
        raise BaselineError("it has values that are NaN or infinite")
    if raw.max() <= 0:
        raise BaselineError("its map has no evidence")
    if raw.shape != cam.shape or np.abs(np.maximum(raw, 0.0) / raw.max() - cam).max() > 1e-5:
        raise BaselineError("its CAM is not that of its raw CAM")
    if baseline.glance.shape[1:] != (SIDE, SIDE):
        raise BaselineError(f"its glance is {baseline.glance.shape[1:]}: it must be {(SIDE, SIDE)}")
    if not all(map(math.isfinite, (baseline.score, baseline.probability or 0.0))):
        raise BaselineError("its score is not finite")
    if not 0.0 <= (baseline.probability or 0.0) <= 1.0 + 1e-3:  # half precision rounds
        raise BaselineError(f"its probability is {baseline.probability:g}")
    if not _IMAGE.fullmatch(baseline.image):
        raise BaselineError(f"its image is {_short(baseline.image)}, which is no digest of one")


def _short(value: object) -> str:
    """A value that may be anything in a few characters, none of which steers a terminal."""
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def _said(error: Exception) -> str:
    return f"there is no {_short(error.args[0])}" if isinstance(error, KeyError) else str(error)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _digest(about: Mapping[str, Any], tensors: Mapping[str, Floats]) -> str:
    digest = hashlib.sha256(_json(about).encode())
    for name in _TENSORS:
        digest.update(f"{name}{tensors[name].shape}".encode())
        digest.update(tensors[name].astype("<f4").tobytes())
    return digest.hexdigest()[:32]


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _is(kind: Callable[..., Any], value: Any) -> Any:
    """The value, if it is of that very type: `True` is no number here."""
    if type(value) is not kind:
        raise TypeError(f"{_short(value)} is no {getattr(kind, '__name__', kind)}")
    return value


def _or_none(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)


def _count(value: Any, least: int, most: int) -> int:
    count: int = _is(int, value)
    if not least <= count <= most:
        raise ValueError(f"{_short(count)} is not between {least} and {most}")
    return count


def _class(value: Any) -> int:
    return _count(value, 0, _MOST_CLASSES)


def _text(value: Any) -> str:
    text: str = _is(str, value)
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"{text[:20]!r}… has {len(text)} characters, more than {_LONGEST_TEXT}")
    if _steady(text) != text:
        raise ValueError(f"{_short(text)} has characters that steer a terminal")
    return text


def _steady(text: str) -> str:
    """The text with characters that steer a terminal spelt out."""
    if text.isprintable() and text.isascii():  # as nearly all are: at once
        return text
    return "".join(
        each.encode("unicode_escape").decode("ascii")
        if unicodedata.category(each) in ("Cc", "Cs") or each in _STEERING
        else each
        for each in text
    )


def _number(value: Any) -> float:
    return float(value if type(value) is int else _is(float, value))
