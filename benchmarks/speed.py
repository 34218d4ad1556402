"""How long a CAM takes, as a multiple of the plain forward: all contenders in one process, interleaved.

    python -m benchmarks.speed [--threads N] [--rounds N] [--only resnet18-1] [--clock cpu] [--json FILE]

Prints a Markdown table. `test_speed.py` shows the same contenders to pytest-benchmark.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, PLAIN, TASKS, Call, Contender, Job, Task, check

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGES = ("torch", "timm", "torchcam", "captum", "grad-cam")


@dataclass(frozen=True, slots=True)
class Ratios:
    """What one contender took on one task, as multiples of the plain forward of the same round.

    Attributes:
        task: key of the task.
        contender: name of the contender.
        median: median over the rounds.
        low: their lower quartile.
        high: their upper quartile.
        rounds: how many there were.
        milliseconds: the contender's own median.
    """

    task: str
    contender: str
    median: float
    low: float
    high: float
    rounds: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How to time.

    Attributes:
        rounds: rounds that count.
        slow_rounds: rounds in which a contender takes part that runs a forward for each of many classes.
        warm_up: rounds before them, which do not count.
        calls: calls in a row when it is a contender's turn; the fastest counts, so neither what the one before it left
            in the caches nor another process that came in between is charged to it.
        clock: `wall`, or `cpu`: the process's own time on all threads, which other processes hardly change.
    """

    rounds: int
    slow_rounds: int
    warm_up: int
    calls: int
    clock: str


def measure(task: Task, contenders: Sequence[Contender], plan: Plan, device: torch.device) -> list[Ratios]:
    """Time the contenders, round robin, on one task; the first must be the plain forward.

    Raises:
        AssertionError: a contender does not give our maps.
    """
    job = Job.of(task, device)
    for contender in contenders:
        check(job, contender)
    calls = {contender: contender.prepare(job) for contender in contenders}
    gc.collect()
    gc.freeze()  # what stands now is not looked through again before every turn
    times: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    ratios: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    for number in range(-plan.warm_up, plan.rounds):
        order = _order(contenders, number)
        slow = [c for c in order if task.many and c.repeats_forward]
        # A slow contender has been warmed up by its check: its call is hundreds of forwards.
        turns = [c for c in order if c not in slow or 0 <= number < plan.slow_rounds]
        taken = {c: _fastest(job, calls[c], 1 if c in slow else plan.calls, plan.clock) for c in turns}
        if number >= 0:
            for contender, seconds in taken.items():
                times[contender].append(seconds)
                ratios[contender].append(seconds / taken[contenders[0]])
    gc.unfreeze()
    return [_ratios(task, contender, ratios[contender], times[contender]) for contender in contenders]


def _order(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Rotated by one in each round, and every second round backwards, so that nobody always follows the same one."""
    start = number % len(contenders)
    order = [*contenders[start:], *contenders[:start]]
    return order[::-1] if number % 2 else order


def _fastest(job: Job, call: Call, calls: int, clock: str) -> float:
    now = CLOCKS[clock]
    fastest = math.inf
    gc.collect()
    gc.disable()
    try:
        for _ in range(calls):
            _wait(job)
            started = now()
            result = call()
            _wait(job)
            fastest = min(fastest, now() - started)
            del result
    finally:
        gc.enable()
    for parameter in job.model.parameters():  # `.backward()` leaves gradients that the next one would carry along
        parameter.grad = None
    return fastest


def _wait(job: Job) -> None:
    if job.inputs.device.type == "cuda":
        torch.cuda.synchronize(job.inputs.device)


def _ratios(task: Task, contender: Contender, ratios: list[float], times: list[float]) -> Ratios:
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratios[0],) * 3
    return Ratios(task.key, contender.name, median, low, high, len(ratios), 1e3 * statistics.median(times))


def table(results: Sequence[Ratios], contenders: Sequence[Contender]) -> str:
    """The results as a Markdown table, a row for each task, a column for each contender."""
    found = {(result.task, result.contender): result for result in results}
    others = [contender.name for contender in contenders if contender != PLAIN]
    lines = [
        "| task | plain forward | " + " | ".join(others) + " |",
        "|---|--:|" + "--:|" * len(others),
    ]
    for task in TASKS:
        if (task.key, PLAIN.name) in found:
            cells = [_cell(found[task.key, name]) for name in others]
            milliseconds = found[task.key, PLAIN.name].milliseconds
            lines.append(f"| {task.title} | {milliseconds:.1f} ms | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(result: Ratios) -> str:
    digits = 2 if result.median < 10 else 0
    median = f"{result.median:.{digits}f}"
    return median if result.rounds == 1 else f"{median} ({result.low:.{digits}f}–{result.high:.{digits}f})"


def machine(device: torch.device) -> dict[str, Any]:
    """What a reader needs to place the figures, and nothing that names this machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": f"{device.type}, {name}", "cores": os.cpu_count(), "versions": versions}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    names = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[task.key for task in TASKS], help="task; may be repeated")
    parser.add_argument("--contender", action="append", choices=names, help="column; may be repeated; default: all")
    parser.add_argument("--rounds", type=int, default=20, help="rounds that count (default: %(default)s)")
    parser.add_argument(
        "--slow-rounds", type=int, default=3, help="for a forward for each class (default: %(default)s)"
    )
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that do not count (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=3, help="calls in a turn, fastest counts (default: %(default)s)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="torch.set_num_threads; default: torch's own choice")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    asked = parser.parse_args(arguments)
    if min(asked.rounds, asked.slow_rounds, asked.calls) < 1:
        parser.error("--rounds, --slow-rounds and --calls must be at least 1")
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    plan = Plan(asked.rounds, asked.slow_rounds, asked.warm_up, asked.calls, asked.clock)
    contenders = choose(asked.contender)
    about = machine(device) | {"threads": torch.get_num_threads()} | asdict(plan)
    print(", ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    results: list[Ratios] = []
    for task in TASKS:
        if asked.only is None or task.key in asked.only:
            results += measure(task, contenders, plan, device)
    print(table(results, contenders))
    if asked.json is not None:
        document = {"about": about, "results": [asdict(result) for result in results]}
        asked.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def choose(names: Sequence[str] | None) -> list[Contender]:
    """The contenders of these names (all for None) that are installed, the plain forward first; says which are not."""
    wanted = [c for c in CONTENDERS if c == PLAIN or names is None or c.name in names]
    for contender in wanted:
        if contender.missing:
            print(f"left out: {contender.missing}")
    return [contender for contender in wanted if not contender.missing]


if __name__ == "__main__":
    main()
