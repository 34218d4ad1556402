"""Peak memory of a batch with CAMs, as a multiple of the plain forward's: every measurement in a process of its own.

    python -m benchmarks.memory [--model resnet50] [--batch 32] [--rounds 5] [--device cuda] [--json FILE]

Two measures that do not depend on each other. `resident`: how far the process's peak resident memory rises above what
is resident once model and inputs are loaded. `allocated`: how far torch's allocator rises above that, by the profiler's
record of every allocation (on CUDA, by the allocator's own peak). The first counts what numpy and OpenCV hold too; the
second is not blurred by what the C library keeps for later.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, PLAIN, Call, Contender, Job, Task
from benchmarks.speed import choose, machine

MEASURES = ("resident", "allocated")
MIB = 2**20
# glibc raises the size from which freed blocks go back to the system as it goes along, so that resident memory depends
# on the history of the process: runs of the same forward differed by 20%. With the size fixed, they differ by less than
# 1%. Where there is no glibc, nothing reads this.
HAND_BACK = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}


def peak(job: Job, contender: Contender, measure: str) -> float:
    """MiB by which one call rises above the state before it; the first call in this process, as a CI run makes it."""
    call = contender.prepare(job)
    gc.collect()
    if measure == "resident":
        return _resident_peak(call)
    if job.inputs.device.type == "cuda":
        return _cuda_peak(call, job.inputs.device)
    return _allocated_peak(call)


def _resident_peak(call: Call) -> float:
    _forget_peak()
    before = _status("VmRSS") or _peak_since_start()
    result = call()
    after = _status("VmHWM") or _peak_since_start()
    del result
    return (after - before) / MIB


def _forget_peak() -> None:
    """Let Linux start the peak anew: importing torch and building the model have one of their own."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # elsewhere the peak since the start of the process must do
        pass


def _status(field: str) -> int | None:
    """Bytes, from Linux's account of this process; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _peak_since_start() -> int:
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def _allocated_peak(call: Call) -> float:
    """The largest running sum of the allocations and releases that the profiler saw during the call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    del result
    recorded = profile.profiler
    assert recorded is not None and recorded.kineto_results is not None
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest / MIB


def _cuda_peak(call: Call, device: torch.device) -> float:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    after = torch.cuda.max_memory_allocated(device)
    del result
    return (after - before) / MIB


def measure_all(
    contenders: Sequence[Contender], asked: argparse.Namespace, measures: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """MiB by measure and contender, one for each round; the contenders alternate."""
    found: dict[str, dict[str, list[float]]] = {m: {c.name: [] for c in contenders} for m in measures}
    for _ in range(asked.rounds):
        for contender in contenders:
            for measure in measures:
                found[measure][contender.name].append(_in_new_process(contender, asked, measure))
    return found


def _in_new_process(contender: Contender, asked: argparse.Namespace, measure: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", "--model", asked.model, "--batch", str(asked.batch)]
    command += ["--device", asked.device, "--child", contender.name, measure]
    if asked.threads is not None:
        command += ["--threads", str(asked.threads)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | HAND_BACK,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{contender.name} ended with status {done.returncode}:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Medians in MiB, and as multiples of the plain forward's, as a Markdown table."""
    measures = list(found)
    lines = ["| | " + " | ".join(f"{m}, MiB | ÷ plain" for m in measures) + " |", "|---|" + "--:|--:|" * len(measures)]
    for name in found[measures[0]]:
        cells = []
        for measure in measures:
            median = statistics.median(found[measure][name])
            cells.append(f"{median:.0f} | {median / statistics.median(found[measure][PLAIN.name]):.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    names = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="resnet50", help="timm's name, of one with a layer4 (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="processes for each figure (default: %(default)s)")
    parser.add_argument("--contender", action="append", choices=names, help="row; may be repeated; default: all")
    parser.add_argument("--threads", type=int, help="torch.set_num_threads; default: torch's own choice")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--child", nargs=2, metavar=("CONTENDER", "MEASURE"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if min(asked.rounds, asked.batch) < 1:
        parser.error("--rounds and --batch must be at least 1")
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    if asked.child is not None:
        name, measure = asked.child
        task = Task("memory", "memory", asked.model, asked.batch)
        print(peak(Job.of(task, device), next(c for c in CONTENDERS if c.name == name), measure))
        return
    about: dict[str, Any] = machine(device) | {"model": asked.model, "batch": asked.batch, "rounds": asked.rounds}
    print(", ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    measures = ("allocated",) if device.type == "cuda" else MEASURES
    found = measure_all(choose(asked.contender), asked, measures)
    print(table(found))
    if asked.json is not None:
        document = {"about": about, "MiB": found}
        asked.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
