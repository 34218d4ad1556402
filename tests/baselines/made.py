"""Baselines made by hand, and made at random: what the tests of this folder store, break and compare."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from pytest_gradcam.baselines import format
from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.names import CheckName

Floats = npt.NDArray[np.float32]


def cam_of(raw: Floats) -> Floats:
    """ReLU, divided by its maximum."""
    positive = np.maximum(raw, np.float32(0))
    return np.asarray(positive / positive.max())


def baseline(seed: int = 0, grid: tuple[int, int] = (7, 7), **changes: Any) -> Baseline:
    """A baseline of a picture, signed, whose largest value is 3 at the first cell."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=grid).astype(np.float32)
    raw[0, 0] = 3.0
    made = Baseline(
        check=CheckName("test_cats.py", "TestCat.test_reads[tabby]", "ears"),
        raw=raw,
        cam=cam_of(raw),
        glance=np.random.default_rng([1, seed]).normal(size=(3, 4, 4)).astype(np.float32),
        method="gradcam",
        layer="layer4.1",
        layers=("layer4.1",),
        view="NCHW {}×{}".format(*grid),
        cls=281,
        label="tabby, tabby cat",
        score=8.5,
        probability=0.75,
        predicted=281,
        size=(224, 200),
        image="picture:0123456789abcdef0123456789abcdef",
        transform="Compose~0123456789ab",
        engine="hooks",
        device="cpu",
        versions={"torch": "2.14.1", "timm": "1.0.31", "pytest-gradcam": "0.1.0"},
    )
    return replace(made, **changes)


def with_raw(before: Baseline, raw: npt.NDArray[Any]) -> Baseline:
    """The same with another map."""
    values = np.asarray(raw, np.float32)
    return replace(before, raw=values, cam=cam_of(values))


def opened(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file says about its map, and its maps."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    return json.loads(metadata["gradcam"]), dict(load(data))


def signed(about: dict[str, Any], tensors: dict[str, Any]) -> bytes:
    """A file of these with the digest that it then has, as whoever knows the format can write it."""
    about = {name: value for name, value in about.items() if name != "digest"}
    about["digest"] = format._digest(about, tensors)
    return bytes(save(tensors, metadata={"gradcam": json.dumps(about)}))


def same(a: Baseline, b: Baseline) -> bool:
    """Whether two baselines are equal, maps bit by bit."""
    maps = ("raw", "cam", "glance")
    others = [name for name in Baseline.__slots__ if name not in maps]
    return all(getattr(a, name) == getattr(b, name) for name in others) and all(
        (getattr(a, name).dtype, getattr(a, name).shape) == (getattr(b, name).dtype, getattr(b, name).shape)
        and getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in maps
    )


STEERING = [chr(code) for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
# What any text field may hold: every script, no characters that steer a terminal.
texts = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=STEERING),
    max_size=20,
)
values = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    """Any baseline that could have been made."""
    grid = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    raw = draw(arrays.arrays(np.float32, grid, elements=values))
    raw.flat[draw(st.integers(0, raw.size - 1))] = draw(st.floats(2.0**-100, 2.0**100, width=32))
    size = draw(st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
    glance = (draw(st.integers(1, 4)), 4, 4)
    classes = st.none() | st.integers(0, 10**6)
    return Baseline(
        check=CheckName(draw(texts), draw(texts), draw(texts)),
        raw=raw,
        cam=cam_of(raw),
        glance=draw(arrays.arrays(np.float32, glance, elements=values)),
        method=draw(texts),
        layer=draw(texts),
        layers=tuple(draw(st.lists(texts, max_size=3))),
        view=draw(texts),
        cls=draw(classes),
        label=draw(st.none() | texts),
        score=draw(st.floats(allow_nan=False, allow_infinity=False)),
        probability=draw(st.none() | st.floats(0, 1)),
        predicted=draw(classes),
        size=size,
        image=draw(st.sampled_from(["picture", "tensor"]))
        + ":"
        + draw(st.text("0123456789abcdef", min_size=32, max_size=32)),
        transform=draw(texts),
        engine=draw(texts),
        device=draw(texts),
        versions=draw(st.dictionaries(texts, texts, max_size=3)),
    )
