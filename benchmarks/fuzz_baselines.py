"""Bytes that are nearly a baseline, thrown at its reader: it gives a baseline or a `BaselineError`, nothing else.

    python -m benchmarks.fuzz_baselines [100000] [--seed 0]

Each input is a valid file with some bytes flipped, inserted, removed, repeated or taken from another file, or with
something else in its header, in its metadata or in its maps; of the last ones half have lengths and digests that are
right again, as somebody who knows the format would write them. What is accepted must be the baseline that was changed,
bit by bit, where the digest was left as it was; and else one that can be written, read again, and compared.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from pytest_gradcam.baselines import format
from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.compare import compare, limits
from pytest_gradcam.baselines.names import CheckName
from pytest_gradcam.errors import BaselineError

NUMBERS = (0, 1, -1, 7, 255, 2**31, 2**53, 2**64 - 1, -(2**63), 10**400, 0.5, -0.0, 1e308, 1e-320, float("nan"))
TEXTS = ("", "x", "../x", "\0", "\x1b[31m", "\u202e", "\ud800", "é", "CON", "a" * 20_000, "picture:" + "0" * 32)
DTYPES = ("F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X")


def baselines() -> list[bytes]:
    """Valid files: of several grids, numbers of channels, kinds of images; the last two wait to be approved."""
    made = []
    for seed, (grid, channels, size) in enumerate(
        [
            ((7, 7), 3, (224, 224)),
            ((1, 2), 1, (2, 3)),
            ((3, 5), 4, (64, 96)),
            ((2, 2), 3, (8, 8)),
            ((14, 14), 3, (9, 9)),
        ]
    ):
        rng = np.random.default_rng(seed)
        raw = rng.normal(size=grid).astype(np.float32)
        raw.flat[0] = 2.0
        positive = np.maximum(raw, 0)
        of_callable = seed == 2
        baseline = Baseline(
            check=CheckName("test_cats.py", f"TestCat.test_reads[{seed}]", "left" if seed % 2 else ""),
            raw=raw,
            cam=positive / positive.max(),
            glance=rng.normal(size=(channels, 4, 4)).astype(np.float32),
            method="gradcam",
            layer="layer4.1",
            layers=("layer4.1",) if seed else ("layer3", "layer4"),
            view="NCHW {}×{}".format(*grid),
            cls=None if of_callable else 3,
            label=None if of_callable else "tabby, tabby cat",
            score=1.25,
            probability=None if of_callable else 0.5,
            predicted=None if of_callable else 2,
            size=size,
            image=("tensor:" if seed % 2 else "picture:") + f"{seed:032x}",
            transform="" if seed % 2 else "Compose~0123456789ab",
            engine="hooks",
            device="cpu",
            versions={"torch": "2.14.1", "timm": "1.0.31"},
        )
        received = format.Received("tests/__gradcam__/a.safetensors", "tests/a.py::b", "0" * 64, preview=True)
        made.append(format.dumps(baseline, received if seed > 2 else None))
    return made


def some(data: bytes, rng: random.Random) -> int:
    """A place in the data; half of the time near its start, where the header is."""
    return rng.randrange(min(len(data), 64) if rng.random() < 0.3 else len(data)) if data else 0


def flip(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Some bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        changed[some(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A run of bytes with random, repeated or telling ones."""
    at, length = some(data, rng), rng.choice((1, 2, 4, 8, 32, 300))
    new = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length, b'{"[' * length, b"<<<<<<< HEAD\n"))
    return data[:at] + new + data[at + len(new) :]


def insert(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Bytes, or some of its own once more."""
    at, start = some(data, rng), some(data, rng)
    new = rng.choice((rng.randbytes(rng.randrange(1, 64)), data[start : start + rng.randrange(1, 400)], b"[" * 5000))
    return data[:at] + new + data[at:]


def remove(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A run of bytes, or all from there on."""
    at = some(data, rng)
    return data[:at] + (b"" if rng.random() < 0.4 else data[at + rng.randrange(1, 200) :])


def splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The start of one file and the end of another, or the header of one over the maps of another."""
    other = rng.choice(others)
    if rng.random() < 0.5:
        return data[: some(data, rng)] + other[some(other, rng) :]
    return data[: _maps_start(data)] + other[_maps_start(other) :]


def _maps_start(data: bytes) -> int:
    return int(8 + struct.unpack("<Q", data[:8])[0])


def wrong_length(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Another length of the header."""
    (length,) = struct.unpack("<Q", data[:8])
    near = rng.randrange(-9, 9)
    wrong = rng.choice((0, 1, length + near, length // 2, len(data) - 8, len(data), 2**20, 2**32, 2**63, 2**64 - 1))
    return struct.pack("<Q", max(0, wrong)) + data[8:]


def rewrite_header(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Something else in the header, whose length is right again."""
    start = _maps_start(data)
    header = json.loads(data[8:start])
    name = rng.choice(list(header))
    part = header[name]
    if rng.random() < 0.2:
        header[name] = value(rng)
    elif rng.random() < 0.2:
        header.pop(name)
    elif rng.random() < 0.2:
        header[rng.choice(("raw", "cam", "extra", "", "\x1b[2J"))] = part
    elif name == "__metadata__":
        part[rng.choice((*part, "extra"))] = value(rng)
    else:
        key = rng.choice(("dtype", "shape", "data_offsets", "extra"))
        part[key] = {
            "dtype": lambda: rng.choice(DTYPES),
            "shape": lambda: [rng.choice((0, 1, 2, 7, 49, 2**32, 2**63, -1)) for _ in range(rng.randrange(5))],
            "data_offsets": lambda: sorted(rng.choice((0, 4, 196, 392, 2**40, 2**64)) for _ in range(2)),
            "extra": lambda: value(rng),
        }[key]()
    written = json.dumps(header).encode()
    if rng.random() < 0.2:  # a key twice
        again = json.dumps({name: header.get(name, part)})[1:-1].encode()
        written = written[:-1] + b", " + again + b"}"
    return struct.pack("<Q", len(written)) + written + data[start:]


def rewrite_metadata(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Something else in our metadata; half of the time with the digest that it then has."""
    about, tensors, metadata = opened(data)
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice(list(about))
        choice = rng.random()
        if choice < 0.15:
            about.pop(key)
        elif choice < 0.25:
            about[rng.choice(("extra", "Class", ""))] = value(rng)
        elif choice < 0.5 and isinstance(about[key], list | dict) and about[key]:
            inside = about[key]
            place = rng.choice(list(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
            inside[place] = value(rng)
        elif isinstance(about[key], int | float) and choice < 0.7:
            about[key] = rng.choice(NUMBERS)
        else:
            about[key] = value(rng)
    return closed(about, tensors, metadata, sign=rng.random() < 0.7)


def rewrite_maps(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Other values, types and shapes of the maps; half of the time with the digest that they then have."""
    about, tensors, metadata = opened(data)
    name = rng.choice(list(tensors))
    values = tensors[name]
    choice = rng.randrange(7)
    if choice == 0:
        values = values.copy()
        values.flat[rng.randrange(values.size)] = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0))
    elif choice == 1:
        values = values * np.float32(rng.choice((-1.0, 0.0, 1e-30, 1e30)))
    elif choice == 2:
        values = values.astype(rng.choice((np.float64, np.float16, np.int32, np.uint8)))
    elif choice == 3:
        values = np.ascontiguousarray(values.reshape(-1) if rng.random() < 0.5 else values.T)
    elif choice == 4:
        values = values[..., : rng.randrange(values.shape[-1] + 1)].copy()
    elif choice == 5:
        tensors = {key: each * np.float32(3e38) for key, each in tensors.items()}
        values = tensors[name]
    else:
        values = np.full(
            rng.choice(((0, 0), (1, 1), (7, 7), (3, 4, 4), (500, 500))), rng.choice((0, 1, -1)), np.float32
        )
    tensors[name] = values
    if name == "raw" and rng.random() < 0.7 and values.ndim == 2 and values.size:
        about["grid"] = list(values.shape)
        with np.errstate(all="ignore"):
            tensors["cam"] = (np.maximum(values, 0) / values.max()).astype(np.float32)
    return closed(about, tensors, metadata, sign=rng.random() < 0.7)


def opened(data: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Our metadata, the maps, and all metadata."""
    metadata = json.loads(data[8 : _maps_start(data)])["__metadata__"]
    return json.loads(metadata["gradcam"]), dict(load(data)), metadata


def closed(about: dict[str, Any], tensors: dict[str, Any], metadata: dict[str, str], *, sign: bool) -> bytes:
    """A file of these, with the digest that it then has if that can be made."""
    if sign:
        about.pop("digest", None)
        try:
            about["digest"] = format._digest(about, tensors)
        except (KeyError, ValueError, RecursionError):
            about["digest"] = "0" * 32
    return bytes(save(tensors, metadata={**metadata, "gradcam": json.dumps(about)}))


def value(rng: random.Random) -> Any:
    """A value of any type that JSON has."""
    choice = rng.randrange(8)
    if choice < 2:
        return rng.choice(NUMBERS)
    if choice < 4:
        return rng.choice(TEXTS)
    if choice == 4:
        return rng.choice((None, True, False))
    if choice == 5:
        return [rng.choice(NUMBERS + TEXTS) for _ in range(rng.choice((0, 1, 2, 3, 1500)))]
    if choice == 6:
        return {str(rng.choice(TEXTS)).encode("utf-8", "replace").decode(): rng.choice(NUMBERS)}
    nested: Any = 0
    for _ in range(rng.choice((3, 100, 900))):
        nested = [nested]
    return nested


SIGNED = (rewrite_metadata, rewrite_maps)
MUTATIONS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    flip,
    overwrite,
    insert,
    remove,
    splice,
    wrong_length,
    rewrite_header,
    *SIGNED,
    *SIGNED,
)


def judge(data: bytes, original: Baseline, is_signed: bool) -> str:
    """What the reader made of it: `refused`, `the same`, `another`.

    Raises:
        Exception: it did what it must not.
    """
    try:
        format.loads_received(data)
    except BaselineError as error:
        if len(str(error)) > 2000 or not str(error).isprintable():
            raise AssertionError(f"an error that floods or steers a terminal: {str(error)[:300]!r}") from None
    try:
        found = format.loads(data)
    except BaselineError:
        return "refused"
    written = format.dumps(found)
    assert format.dumps(format.loads(written)) == written, "it is not the same when it was written and read again"
    compare(original, found, limits("retrained"))
    compare(found, found, limits("same_weights"))
    if written == format.dumps(original):
        return "the same"
    assert is_signed, "it was changed, and not refused"
    return "another"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, throw, print; 1 where anything happened that must not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz_baselines", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that did what they must not")
    options = parser.parse_args(arguments)
    warnings.simplefilter("error")
    rng, valid = random.Random(options.seed), baselines()
    originals = [format.loads(data) for data in valid]
    counts: Counter[tuple[str, str]] = Counter()
    wrong, started = 0, time.monotonic()
    for number in range(options.inputs):
        which = rng.randrange(len(valid))
        mutation = rng.choice(MUTATIONS)
        with np.errstate(all="ignore"):
            data = mutation(valid[which], valid, rng)
        signed = mutation in SIGNED
        if rng.random() < 0.15:
            data = rng.choice(MUTATIONS[:4])(data, valid, rng) if data else data
        splices = mutation is splice  # may give another valid file whole
        try:
            outcome = judge(data, originals[which], signed or splices)
        except BaseException as error:  # PanicException of pyo3 is none of Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong, outcome = wrong + 1, f"WRONG {type(error).__name__}"
            if wrong <= 10:
                traceback.print_exc(limit=-4)
            if options.keep is not None:
                (options.keep / f"{number}.bin").write_bytes(data)
        counts[mutation.__name__, outcome] += 1
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:<18} {outcome:<24} {count:>7}")
    by_outcome: Counter[str] = Counter()
    for (_, outcome), count in counts.items():
        by_outcome[outcome] += count
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(by_outcome.items()))
    print(f"{options.inputs} inputs in {time.monotonic() - started:.0f} s: {told}")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
