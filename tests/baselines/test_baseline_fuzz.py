"""Any bytes, and any change of a valid file, give the documented error or the baseline as it was: nothing else.

A hundred thousand inputs more, with digests recomputed, are thrown by `benchmarks/fuzz_baselines.py`.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from pytest_gradcam.baselines.format import Received, dumps, loads, loads_received
from pytest_gradcam.errors import BaselineError
from tests.baselines.made import baseline, same

VALID = [
    dumps(baseline()),
    dumps(baseline(1, (2, 3), check=baseline().check, label=None), Received("a", "b", "", False)),
]
ORIGINALS = [loads(data) for data in VALID]
# Warnings are errors too: a test run with -W error must see the documented one.
pytestmark = pytest.mark.filterwarnings("error")
many = settings(max_examples=1500, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])


def either(data: bytes) -> None:
    """The bytes are refused as documented, or are one of the valid files as it was."""
    for read in (loads, lambda data: loads_received(data)[0]):
        try:
            found = read(data)
        except BaselineError as error:
            assert type(error) is BaselineError
            assert str(error).isprintable() and len(str(error)) < 1000
        else:
            assert any(same(found, original) for original in ORIGINALS)


@many
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    either(data)


@many
@given(st.binary(max_size=300), st.binary(max_size=50))
def test_any_header(text: bytes, maps: bytes) -> None:
    either(struct.pack("<Q", len(text)) + text + maps)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A valid file after one to four changes: bytes overwritten, inserted, removed, or taken from the other file."""
    data = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)) | st.just(len(data)))
        other = draw(st.sampled_from(VALID))
        at = draw(st.integers(0, len(other)))
        new = draw(st.binary(max_size=20) | st.just(other[at : at + 60]) | st.just(other[at:]) | st.just(b"[" * 3000))
        data = data[:start] + new + data[end:]
    return data


@many
@given(changed())
def test_any_change_of_a_valid_file(data: bytes) -> None:
    either(data)


@many
@given(st.sampled_from(VALID), st.data())
def test_any_byte(data: bytes, drawn: st.DataObject) -> None:
    place, byte = drawn.draw(st.integers(0, len(data) - 1)), drawn.draw(st.integers(0, 255))
    either(data[:place] + bytes([byte]) + data[place + 1 :])


@settings(max_examples=300)
@given(st.sampled_from(VALID), st.integers(0, 2**64 - 1) | st.integers(0, 3000))
def test_any_length_of_the_header(data: bytes, length: int) -> None:
    either(struct.pack("<Q", length) + data[8:])
