"""What the installed plugin costs a pytest run that does not use it: whole runs with and without it, in turns.

    python benchmarks/startup.py --runs 21

The runs of a pair follow each other, so that what else the machine does falls on both. Judged is processor time, user
and system: on a busy machine wall time tells about the others. The cost is the median of the pairs' differences. Exits
with 1 where it is more than the limit. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = ("-p", "pytest_gradcam.plugin")


def milliseconds(folder: Path, *arguments: str) -> tuple[float, float]:
    """Processor and wall time of one run of pytest in its own process, without plugins but the ones named."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed plugin is compiled once, not in every run
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return 1000.0 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), 1000.0 * (end - start)


def main() -> int:
    """Measure and print; the exit code tells whether the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21, help="pairs of runs (21)")
    parser.add_argument("--limit", type=float, default=10.0, help="milliseconds that it may cost (10)")
    arguments = parser.parse_args()
    alone: list[tuple[float, float]] = []
    plugged: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_sums.py").write_text("def test_sum():\n    assert 1 + 1 == 2\n")
        for _ in range(2):  # bytecode and disk caches
            milliseconds(folder)
            milliseconds(folder, *PLUGIN)
        for turn in range(arguments.runs):
            order: list[tuple[list[tuple[float, float]], tuple[str, ...]]] = [(alone, ()), (plugged, PLUGIN)]
            for times, options in order if turn % 2 == 0 else reversed(order):
                times.append(milliseconds(folder, *options))
    cost = [statistics.median(b[kind] - a[kind] for a, b in zip(alone, plugged, strict=True)) for kind in (0, 1)]
    usual = [statistics.median(times[kind] for times in alone) for kind in (0, 1)]
    print(f"pytest alone    {usual[0]:7.1f} ms of processor time, {usual[1]:7.1f} ms of wall time")
    print(f"pytest-gradcam  {cost[0]:+7.1f} ms of processor time, {cost[1]:+7.1f} ms of wall time")
    print(f"ratio           {1 + cost[0] / usual[0]:7.3f} of {arguments.runs} pairs; limit {arguments.limit:g} ms")
    return int(cost[0] > arguments.limit)


if __name__ == "__main__":
    raise SystemExit(main())
