"""What thousands of baselines cost beyond their maps: reading, comparing and judging them, and finding unused ones.

    python -m benchmarks.baselines [--rounds 3] [--count 7=10000,14=1000]

The maps are made beforehand; what is timed is `check` as a test asks it, from the digest of the picture to the verdict,
with a model that hands out its map for nothing. The baselines lie on the disk, a hundred to a module, read lately.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pytest_gradcam.assertions.asking import Asking
from pytest_gradcam.assertions.checking import judge_check
from pytest_gradcam.baselines.baseline import baseline_of
from pytest_gradcam.baselines.compare import compare, limits
from pytest_gradcam.baselines.format import dumps
from pytest_gradcam.baselines.names import FOLDER, CheckName
from pytest_gradcam.baselines.orphans import find
from pytest_gradcam.baselines.shelf import Shelf
from pytest_gradcam.baselines.store import read
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.images import Prepared, prepare
from pytest_gradcam.settings import Settings

IN_A_MODULE = 100
SIDE = 224
# The most that are judged of maps that differ. Of those that fail, each leaves a received file and a picture.
DIFFERENT, FAILING = 2000, 500


class Ready(Asking):
    """Asks for maps that are there already: the image is made ready, and the model is its own explanation."""

    def prepare(self, model: object, image: Any) -> Prepared:
        """The image."""
        found: Prepared = image
        return found

    def explain(self, model: Any, prepared: object, classes: object, *, options: object = None) -> list[Explanation]:
        """The model."""
        return [model]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of change.

    Attributes:
        name: for the table.
        floor: by which it is judged.
        change: the map of a model today, of the one that was stored.
        most: of so many baselines.
    """

    name: str
    floor: str
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    most: int = 10**9


def smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    """A map as models have: a few spots, above and below zero."""
    ys, xs = np.indices((side, side))
    values = 0.05 * rng.normal(size=(side, side))
    for sign in (1.0, 1.0, -0.5):
        y, x, width = rng.uniform((0, 0, 0.1), (1, 1, 0.3)) * side
        values += sign * rng.uniform(0.3, 1.0) * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * width**2))
    return values.astype(np.float32)


def noisy(raw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As the same weights give it on another processor."""
    return raw + np.float32(1e-3 * np.abs(raw).max()) * rng.normal(size=raw.shape).astype(np.float32)


def retrained(raw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With a correlation of .95."""
    first = raw.ravel() - raw.mean()
    other = smooth(rng, len(raw)).ravel()
    other = other - other.mean()
    other -= first * (other @ first) / (first @ first)
    other *= np.linalg.norm(first) / np.linalg.norm(other)
    return (0.95 * first + np.sqrt(1 - 0.95**2) * other + raw.mean()).reshape(raw.shape).astype(np.float32)


CASES = (
    Case("the same bits", "same_weights", lambda raw, rng: raw),
    Case("the same weights (noise of 1e-3)", "same_weights", noisy),
    Case("retrained (Pearson .95), floor `retrained`", "retrained", retrained, DIFFERENT),
    Case("retrained (Pearson .95), floor `same_weights`", "same_weights", retrained, FAILING),
    Case("another map", "same_weights", lambda raw, rng: smooth(rng, len(raw)), FAILING),
)


def tensor_of(picture: Any) -> torch.Tensor:
    """The picture in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def explanation_of(raw: np.ndarray) -> Explanation:
    """As a model gives it, of class 3."""
    return Explanation(
        raw=raw,
        evidence=float(np.maximum(raw, 0).sum()),
        cls=3,
        label=None,
        score=1.5,
        probability=0.5,
        predicted=3,
        predicted_label=None,
        predicted_probability=0.5,
        layer="layer4",
        grid=raw.shape,
        method="gradcam",
        engine="hooks",
        device="cpu",
        seconds=0.0,
        size=(SIDE, SIDE),
        look=lambda: np.zeros((SIDE, SIDE, 3), np.uint8),
        layers=("layer4",),
        view="NCHW {}×{}".format(*raw.shape),
    )


def check_names(count: int) -> list[CheckName]:
    """A hundred tests to a module."""
    return [CheckName(f"test_{i // IN_A_MODULE:03}.py", f"test_looks[{i % IN_A_MODULE}]") for i in range(count)]


def store(root: Path, names: Sequence[CheckName], raws: Sequence[np.ndarray], image: Prepared) -> None:
    """Write a project's baselines, and empty files for its modules."""
    for name, raw in zip(names, raws, strict=True):
        path = root / FOLDER / name.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dumps(baseline_of(name, explanation_of(raw), image)))
        (root / name.module).touch()


def judged(root: Path, names: Sequence[CheckName], maps: Sequence[np.ndarray], image: Prepared, floor: str) -> Counter:
    """Check each against its baseline; how many had which outcome."""
    asking = Ready("check", replace(Settings(), floor=floor))
    taken: dict[str, Any] = {}
    outcomes: Counter = Counter()
    for name, raw in zip(names, maps, strict=True):
        shelf = Shelf(
            beside=root,
            module=name.module,
            test=name.test,
            id=str(name),
            root=root,
            received=root / "received",
            update=None,
            previews=False,
            shown=str,
            tell=lambda event: None,
            taken=taken,
        )
        verdict = judge_check(asking, shelf, explanation_of(raw), image, 3, name=None, pearson=None, shift=None)
        outcomes[verdict.outcome] += 1
    return outcomes


def seconds(call: Callable[[], Any], rounds: int) -> tuple[float, float, Any]:
    """Medians of wall time and of the process's time, and what the last call returned."""
    walls, own = [], []
    for _ in range(rounds):
        gc.collect()
        started, busy = time.perf_counter(), time.process_time()
        answer = call()
        walls.append(time.perf_counter() - started)
        own.append(time.process_time() - busy)
    return statistics.median(walls), statistics.median(own), answer


def compare_all(root: Path, side: int, count: int, rounds: int) -> None:
    """Print a row for each case."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image = prepare(photo, transform=tensor_of)
    names, raws = check_names(count), [smooth(rng, side) for _ in range(count)]
    store(root, names, raws, image)
    for case in CASES:
        some = min(count, case.most)
        maps = [case.change(raw, rng) for raw in raws[:some]]
        call = lambda: judged(root, names[:some], maps, image, case.floor)  # noqa: B023, E731  # called at once
        wall, own, outcomes = seconds(call, rounds)
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
        print(f"| {side}×{side} | {some} | {case.name} | {wall:.2f} s | {own:.2f} s | {told} |", flush=True)
        pairs = [
            (before, replace(before, raw=raw, cam=np.maximum(raw, 0) / raw.max()))
            for name, raw in zip(names[:some], maps, strict=True)
            if (before := read(root / FOLDER / name.file)) is not None
        ]
        wanted = limits(case.floor)
        wall, own, _ = seconds(lambda: [compare(a, b, wanted) for a, b in pairs], rounds)  # noqa: B023  # called at once
        print(f"| | | of which comparing | {wall:.2f} s | {own:.2f} s | |", flush=True)
    wall, own, _ = seconds(lambda: [read(root / FOLDER / name.file) for name in names], rounds)
    print(f"| {side}×{side} | {count} | reading alone | {wall:.2f} s | {own:.2f} s | |", flush=True)


def find_unused(root: Path, count: int, rounds: int) -> None:
    """Print how long it takes to find none, and one in each module."""
    names = check_names(count)
    for what, unused in (("none unused", 0), ("one of each module unused", 1)):
        left = [name for name in names if not (unused and name.test == "test_looks[7]")]
        folders: dict[str, set[str]] = {}
        for name in left:
            folders.setdefault(str(root / FOLDER / name.folder), set()).add(name.test)
        used = {str(root / FOLDER / name.file) for name in left}
        ran = {(str(root / FOLDER / name.folder), name.test) for name in left}
        wall, own, found = seconds(lambda: find(folders, ran, used), rounds)  # noqa: B023  # called at once
        print(f"| | {count} | {what} | {wall:.2f} s | {own:.2f} s | {len(found)} found |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default: 3)")
    parser.add_argument("--count", default="7=10000,14=1000", help="side of the grid=baselines (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| grid | baselines | case | wall | own | outcomes |\n|---|--:|---|--:|--:|---|")
    for side, count in (map(int, pair.split("=")) for pair in options.count.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            compare_all(Path(folder), side, count, options.rounds)
            find_unused(Path(folder), count, options.rounds)


if __name__ == "__main__":
    main()
