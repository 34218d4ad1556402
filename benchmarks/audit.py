"""What an audit costs: throughput beside plain inference, memory by the number of images, scaling by actors.

    python -m benchmarks.audit throughput [--images 2000] [--workers 0] [--clock cpu]
    python -m benchmarks.audit memory [--images 1000 20000] [--rounds 3]
    python -m benchmarks.audit scaling [--images 1024] [--actors 1 2] [--rounds 3]

Throughput: timm's ResNet-18 at 224 px over generated COCO photos of 640×480 with one to three boxes. Part by part, in
turn and in changing order: the audit (load, explain, measure, write the part down); the plain loop, a forward under
`torch.inference_mode` over the same `DataLoader`; and the same over a `DataLoader` that loads and transforms pictures
alone, without regions. What comes before the first part and after the last one is timed apart. `cpu` is the time of the
process, which a busy machine blurs less, and which says nothing with workers.

Memory (Linux): peak resident memory of a process of its own that audits small pictures (64 px) with a small model, from
its start to its report.

Scaling: the ray engine with actors of one processor each. `steady` counts from the moment when each actor has given
back its first part, `whole` is all of the audit, with starting ray, its actors, and the report.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.memory import HAND_BACK
from benchmarks.speed import machine
from pytest_gradcam import Settings
from pytest_gradcam.audit import run
from pytest_gradcam.audit.data.coco import CocoSource
from pytest_gradcam.audit.engines import ray as ray_engine
from pytest_gradcam.audit.store import Folder
from pytest_gradcam.audit.work import Work
from tests.audit.data.generated import coco_data_set

CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}
CLASSES: Final = 2
MIB: Final = 2**20
SMALL: Final = 64  # pixels
# An audit in a process of its own, which imports no more than an audit does; prints its peak, also at the steps before.
CHILD: Final = """
import json, sys, time
from pytest_gradcam.audit import run
from pytest_gradcam.audit.store import Folder
from tests.audit.broken import to_input

def note(name):
    with open("/proc/self/status") as file:  # ru_maxrss starts from that of the parent
        (peak,) = (line for line in file if line.startswith("VmHWM"))
    steps[name] = round(int(peak.split()[1]) / 1024, 1)

def noted(self, *arguments):
    note("parts")
    finish(self, *arguments)
    note("results")

steps, finish, started = {}, Folder.finish, time.monotonic()
Folder.finish = noted
note("start")
folder, out = sys.argv[1:]
run.audit(reader(), folder + "/objects.json", images=folder + "/images", out=out, transform=to_input, device="cpu", progress=False)
note("peak")
print(json.dumps(steps | {"seconds": round(time.monotonic() - started)}))
"""  # noqa: E501
AUDIT, PLAIN, BARE = "audit", "plain, same loader", "plain, pictures alone"


class Pictures(Dataset[Tensor]):
    """The pictures of a work, as model input, and nothing else."""

    def __init__(self, work: Work) -> None:
        assert isinstance(work.source, CocoSource)
        self.paths = [work.source[index].image for index in range(len(work.source))]
        self.transform: Any = work.preparer.transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as picture:
            tensor: Tensor = self.transform(picture.convert("RGB"))
        return tensor


def resnet18() -> torch.nn.Module:
    """ResNet-18 with random weights."""
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model("resnet18", num_classes=CLASSES).eval()
    return model


def work_of(data: Path, images: Path, model: torch.nn.Module, batch_size: int) -> Work:
    """What `audit` computes of a COCO file."""
    settings = Settings().with_(device="cpu")
    return run._work(run._opened(data, images), model, settings, ("calibrated_energy",), None, batch_size, None)


def throughput(asked: argparse.Namespace) -> None:
    """Print images per second, and ratios."""
    now, model = CLOCKS[asked.clock], resnet18()
    with tempfile.TemporaryDirectory() as name:
        data, images = coco_data_set(Path(name), asked.images)
        work = work_of(data, images, model, asked.batch)
        pictures, out = Pictures(work), Path(name) / "out"
        started = now()
        work.begin()
        begun = now() - started
        folder = Folder(out)
        with folder.taken():
            folder.begin(run._asked(work, None))
            found = _in_turn(work, pictures, folder, asked, now)
        started = now()
        run.audit(model, data, images=images, out=out, batch_size=asked.batch, device="cpu", progress=False)
        finished = now() - started
    totals = {name: sum(times) for name, times in found.items()}
    whole = totals[AUDIT] + begun + finished
    print(
        f"| {asked.workers} workers, {asked.clock} clock | images/s | audit's rate ÷ it | by chunk |\n|---|--:|--:|--:|"
    )
    for name, total in totals.items():
        ratios = sorted(plain / mine for plain, mine in zip(found[name], found[AUDIT], strict=True))
        spread = f"{ratios[len(ratios) // 4]:.3f} to {ratios[3 * len(ratios) // 4]:.3f}"
        print(f"| {name} | {asked.images / total:.1f} | {total / totals[AUDIT]:.3f} | {spread} |")
    print(
        f"the first image {begun:.2f} s, reading the file, results and report {finished:.2f} s; with these the audit "
        f"does {asked.images / whole:.1f} images/s, {totals[PLAIN] / whole:.3f} and {totals[BARE] / whole:.3f} × the "
        "plain loops"
    )


def _in_turn(
    work: Work, pictures: Pictures, folder: Folder, asked: argparse.Namespace, now: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each chunk, by contender."""

    def audit(numbers: Sequence[int]) -> None:
        for number, rows, _ in work.computed(numbers, asked.workers):
            folder.keep(number, rows)

    @torch.inference_mode()
    def plain(numbers: Sequence[int]) -> None:
        for block in work.loader(numbers, asked.workers):
            for part in block.parts:
                work.model(part.inputs)  # type: ignore[operator]  # a module

    @torch.inference_mode()
    def bare(numbers: Sequence[int]) -> None:
        indices = [i for n in numbers for i in range(n * work.part_size, n * work.part_size + work.images(n))]
        batches = [indices[start : start + work.batch_size] for start in range(0, len(indices), work.batch_size)]
        for inputs in DataLoader(pictures, batch_sampler=batches, num_workers=asked.workers):
            work.model(inputs)  # type: ignore[operator]

    contenders = {AUDIT: audit, PLAIN: plain, BARE: bare}
    for call in contenders.values():
        call([0])  # warms up
    found: dict[str, list[float]] = {name: [] for name in contenders}
    parts = list(work.parts())
    chunk = asked.chunk or (4 if asked.workers else 1)
    for turn, start in enumerate(range(0, len(parts), chunk)):
        order = [*contenders][turn % 3 :] + [*contenders][: turn % 3]
        for name in order if turn % 2 else order[::-1]:
            started = now()
            contenders[name](parts[start : start + chunk])
            found[name].append(now() - started)
    return found


def memory(asked: argparse.Namespace) -> None:
    """Print peaks, and their ratio."""
    peaks: dict[int, list[float]] = {count: [] for count in asked.images}
    with tempfile.TemporaryDirectory() as name:
        for count in asked.images:
            coco_data_set(Path(name) / str(count), count, size=(SMALL, SMALL))
        for _ in range(asked.rounds):
            for count in asked.images:
                peaks[count].append(_peak(Path(name) / str(count), asked))
    print("| images | peak, MiB | ÷ first |\n|--:|--:|--:|")
    first = statistics.median(peaks[asked.images[0]])
    for count, found in peaks.items():
        shown = ", ".join(f"{each:.0f}" for each in found)
        print(f"| {count} | {shown} | {statistics.median(found) / first:.3f} |")


def _peak(folder: Path, asked: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", CHILD, str(folder), out]
        environment = os.environ | (HAND_BACK if asked.hand_back else {})
        root = Path(__file__).parent.parent
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"{folder.name} images: {told}", flush=True)
    peak: float = told["peak"]
    return peak


def to_input(picture: Image.Image) -> Tensor:
    """A picture as the small model takes it."""
    pixels = np.asarray(picture.resize((SMALL, SMALL)), np.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255.0))


def scaling(asked: argparse.Namespace) -> None:
    """Print images per second of each number of actors, and ratios."""
    model = resnet18()
    found: dict[int, dict[str, list[float]]] = {each: {"steady": [], "whole": []} for each in asked.actors}
    with tempfile.TemporaryDirectory() as name:
        data, images = coco_data_set(Path(name) / "data", asked.images)
        for turn in range(asked.rounds):
            for actors in asked.actors if turn % 2 == 0 else asked.actors[::-1]:
                out = Path(name) / f"{turn}-{actors}"
                steady, whole = _scaled(model, data, images, out, actors, asked)
                print(f"{actors} actors: steady {steady:.1f}, whole {whole:.1f} images/s", flush=True)
                found[actors]["steady"].append(steady)
                found[actors]["whole"].append(whole)
    first = found[asked.actors[0]]
    print("| actors | steady, images/s | ÷ first | whole, images/s | ÷ first |\n|--:|--:|--:|--:|--:|")
    for actors, rates in found.items():
        cells = []
        for kind in ("steady", "whole"):
            ratio = statistics.median(a / b for a, b in zip(rates[kind], first[kind], strict=True))
            cells.append(f"{statistics.median(rates[kind]):.1f} | {ratio:.2f}")
        print(f"| {actors} | {' | '.join(cells)} |")


def _scaled(
    model: torch.nn.Module, data: Path, images: Path, out: Path, actors: int, asked: argparse.Namespace
) -> tuple[float, float]:
    """Images per second, steady and of the whole audit."""
    arrived: list[tuple[float, int]] = []
    compute = ray_engine.compute

    def timed(*arguments: Any, **keywords: Any) -> Any:
        for number, rows, count in compute(*arguments, **keywords):
            arrived.append((time.perf_counter(), count))
            yield number, rows, count

    ray_engine.compute = timed
    started = time.perf_counter()
    try:
        cluster = {"actors": actors, "cpus": 1}
        keywords: dict[str, Any] = {"batch_size": asked.batch, "device": "cpu", "progress": False}
        run.audit(model, data, images=images, out=out, engine="ray", cluster=cluster, **keywords)
    finally:
        ray_engine.compute = compute
    whole = asked.images / (time.perf_counter() - started)
    steady = sum(count for _, count in arrived[actors:]) / (arrived[-1][0] - arrived[actors - 1][0])
    return steady, whole


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=(__doc__ or "").partition("\n")[0])
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("throughput")
    one.add_argument("--images", type=int, default=2000)
    one.add_argument("--workers", type=int, default=0)
    one.add_argument("--chunk", type=int, help="parts in a turn (default: 1, with workers 4)")
    one.add_argument("--clock", choices=list(CLOCKS), default="wall", help="default: %(default)s")
    one.set_defaults(call=throughput)
    one = parts.add_parser("memory")
    one.add_argument("--images", type=int, nargs="+", default=[1000, 20000])
    one.add_argument("--rounds", type=int, default=3, help="processes for each figure (default: %(default)s)")
    one.add_argument("--hand-back", action="store_true", help="glibc gives freed memory back at once")
    one.set_defaults(call=memory)
    one = parts.add_parser("scaling")
    one.add_argument("--images", type=int, default=1024)
    one.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(call=scaling)
    for each in parts.choices.values():
        each.add_argument("--batch", type=int, default=32, help="images at a time (default: %(default)s)")
        each.add_argument("--threads", type=int, help="torch.set_num_threads; default: torch's own choice")
    asked = parser.parse_args(arguments)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    logging.getLogger("ray").setLevel(logging.ERROR)
    about = machine(torch.device("cpu")) | {"threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    print(", ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    asked.call(asked)


if __name__ == "__main__":
    main()
