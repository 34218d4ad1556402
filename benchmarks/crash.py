"""Runs of `pytest --gradcam-update=all` that are killed at random moments: is any baseline lost or half written?

    python -m benchmarks.crash [200] [--tests 10] [--xdist 10] [--seed 0]

The project's model has other weights in every run, so every run rewrites all baselines. A run is a fork of this
process, which has imported all that pytest and torch need. It is killed with SIGKILL at a random moment: of the whole
run in half of them, and while baselines are written in the others. `--xdist` of the runs are processes of their own
with `-n 2`, whose whole group is killed. After each killed run every baseline must be there, load, and be the one from
before or the one of the run, bit by bit; other files must be untouched. The next run must leave no draft.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.format import loads
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.files import is_draft

CONFTEST = """
import os
import pytest, torch
from torch import nn

torch.set_num_threads(1)
SEED = int(os.environ["CRASH_SEED"])  # of the weights


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(SEED)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    model = nn.Sequential(nn.AvgPool2d(8), *layers).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.2 * (parameter.ndim > 1))
    return model


@pytest.fixture
def image():
    return torch.rand(3, 56, 56, generator=torch.Generator().manual_seed(1))
"""

TEST = """
import pytest


@pytest.mark.gradcam(layer="2")  # the search would take longer than all the rest
@pytest.mark.parametrize("cls", range({tests}))
def test_looks(gradcam, model, image, cls):
    gradcam.check(model, image, cls % 3, name="one")
    gradcam.check(model, image, (cls + 1) % 3, name="two")
"""

# What takes most of the time of a short run.
WITHOUT = ("cacheprovider", "benchmark", "hypothesispytest", "unraisableexception", "threadexception")
BASELINES = "__gradcam__/test_looks"
OTHERS = (
    "__gradcam__/test_other/test_x.safetensors",
    "__gradcam__/test_looks/notes.txt",
    "__gradcam__/test_looks/mine.tmp",
)


class Killed(Exception):
    """What a killed run has left is not what it must leave."""


def project(root: Path, tests: int) -> None:
    """A project of two baselines to a test, and files beside them that are none of the run's business."""
    (root / "conftest.py").write_text(CONFTEST)
    (root / "test_looks.py").write_text(TEST.format(tests=tests))
    (root / "test_other.py").write_text("def test_x():\n    pass\n")
    (root / "pytest.ini").write_text("[pytest]\ngradcam_previews = false\n")
    for other in OTHERS:
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).write_bytes(b"not to be touched")


def start(root: Path, seed: int, *options: str) -> int:
    """Start a run that rewrites all baselines, in a process group of its own; returns its process id."""
    without = [f"-pno:{name}" for name in WITHOUT]
    given = ["-q", "--assert=plain", *without, "--gradcam-update=all", "test_looks.py", *options]
    if options:
        environment = {**os.environ, "CRASH_SEED": str(seed), "OMP_NUM_THREADS": "1"}
        quiet = subprocess.DEVNULL
        command = [sys.executable, "-m", "pytest", *given]
        started = subprocess.Popen(
            command, cwd=root, env=environment, start_new_session=True, stdout=quiet, stderr=quiet
        )
        started.returncode = 0  # waited for by `ended` and not by its destructor
        return started.pid
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        os.chdir(root)
        os.environ["CRASH_SEED"] = str(seed)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        status = int(pytest.main(given))
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    """Wait for a process; its exit status, negative where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def files(root: Path) -> dict[str, bytes]:
    """All baselines of the module, by name."""
    return {path.name: path.read_bytes() for path in (root / BASELINES).glob("*.safetensors")}


def drafts(root: Path) -> list[str]:
    """All drafts below a folder."""
    return sorted(str(path) for path in root.rglob("*") if is_draft(path.name))


def whole(root: Path, seed: int, *options: str) -> tuple[dict[str, bytes], float]:
    """A run that nobody kills; the baselines that it leaves, and how long it took.

    Raises:
        Killed: it failed, or left a draft.
    """
    began = time.monotonic()
    status = ended(start(root, seed, *options))
    took = time.monotonic() - began
    if status != 0:
        raise Killed(f"a run that was not killed ended with {status}")
    if drafts(root):
        raise Killed(f"a run left {drafts(root)}")
    return files(root), took


def wait_for_change(root: Path, before: dict[str, tuple[int, int]], longest: float) -> None:
    """Until a baseline is another file, or a draft is there."""
    until = time.monotonic() + longest
    while time.monotonic() < until:
        now = stamps(root)
        if now != before:
            return
        time.sleep(0.0005)


def stamps(root: Path) -> dict[str, tuple[int, int]]:
    """What tells that a file was replaced, of all in the folder of the baselines."""
    found = {}
    for entry in os.scandir(root / BASELINES):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        found[entry.name] = (status.st_ino, status.st_mtime_ns)
    return found


def kill(pid: int) -> bool:
    """Kill a run with all its workers; whether it was still running."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not made its group yet, or it has ended
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return ended(pid) == -signal.SIGKILL


def judge(root: Path, before: dict[str, bytes], seeds: dict[str, Baseline]) -> int:
    """See what a killed run has left; how many baselines are new.

    Args:
        root: of the project.
        before: the baselines of the run before.
        seeds: those that the killed run would have written.

    Raises:
        Killed: a baseline is missing, broken, or neither the old nor the new one; or another file was changed.
    """
    after = files(root)
    if sorted(after) != sorted(before):
        raise Killed(f"there are {sorted(after)}, and were {sorted(before)}")
    new = 0
    for name, data in after.items():
        if data == before[name]:
            continue
        try:
            found = loads(data)
        except BaselineError as error:
            raise Killed(f"{name}: {error}") from None
        if found.raw.tobytes() != seeds[name].raw.tobytes() or found.check != seeds[name].check:
            raise Killed(f"{name} is neither the old nor the new one")
        new += 1
    for other in OTHERS:
        if (root / other).read_bytes() != b"not to be touched":
            raise Killed(f"{other} was changed")
    return new


def expected(folder: Path, seed: int, tests: int) -> dict[str, bytes]:
    """The baselines that a run with these weights writes, made in a project of its own."""
    root = folder / f"expected-{seed}"
    root.mkdir()
    project(root, tests)
    return whole(root, seed)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, kill, judge, print; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="?", type=int, default=200, help="killed runs (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=10, help="tests, with two baselines each (default: %(default)s)")
    parser.add_argument("--xdist", type=int, default=10, help="of the runs, those with -n 2 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    warm_up()
    rng = random.Random(options.seed)
    outcomes: Counter[str] = Counter()
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Three sets of weights are enough for every run to rewrite all: the old, the new, and the one of the next run.
        wanted = {seed: expected(folder, seed, options.tests) for seed in range(3)}
        new_ones = {seed: {name: loads(data) for name, data in made.items()} for seed, made in wanted.items()}
        root = folder / "project"
        root.mkdir()
        project(root, options.tests)
        whole(root, 0)
        took = {(): statistics.median(whole(root, turn % 3)[1] for turn in range(1, 6))}
        if options.xdist:
            took["-n", "2"] = whole(root, 0, "-n", "2")[1]
        print(
            ", ".join(f"a whole run {' '.join(given)} takes {each:.2f} s" for given, each in took.items()), flush=True
        )
        before, seed = whole(root, 0)[0], 0
        for number in range(options.runs):
            every = options.runs // options.xdist if options.xdist else 0
            given: tuple[str, ...] = ("-n", "2") if every and number % every == every - 1 else ()
            seed = (seed + 1) % 3
            marks = stamps(root)
            pid = start(root, seed, *given)
            if number % 2:
                time.sleep(rng.uniform(0, 1) * took[given])
            else:
                wait_for_change(root, marks, 2 * took[given])
                time.sleep(rng.uniform(0, 0.4) * took[()])
            was_running = kill(pid)
            if given:  # nobody can wait for killed workers but their parent, which is gone
                time.sleep(0.3)
            left = len(drafts(root))
            try:
                new = judge(root, before, new_ones[seed])
                seed = (seed + 1) % 3
                before, _ = whole(root, seed)  # the next run: no draft is left, and all are rewritten
                if any(
                    loads(data).raw.tobytes() != new_ones[seed][name].raw.tobytes() for name, data in before.items()
                ):
                    raise Killed("the run after the killed one did not write all")
            except Killed as error:
                print(f"run {number}: {error}")
                return 1
            shares.append(new / len(before))
            moment = (
                "after its end"
                if not was_running
                else "before"
                if not new
                else "after"
                if new == len(before)
                else "amid"
            )
            outcomes[f"killed {moment} writing" if was_running else "ended before it was killed"] += 1
            outcomes["with -n 2"] += bool(given)
            outcomes["left drafts, gone after the next run"] += bool(left)
    print(f"{options.runs} runs of {2 * options.tests} baselines: nothing lost, nothing half written")
    for what, count in outcomes.items():
        print(f"{count:5} {what}")
    print(f"baselines rewritten by a killed run: {statistics.mean(shares):.0%} on average")
    return 0


def warm_up() -> None:
    """Import what a run imports, so that its forks need not."""
    import numpy as np
    import torch

    import pytest_gradcam.assertions
    import pytest_gradcam.assertions.checking
    import pytest_gradcam.baselines.orphans
    import pytest_gradcam.baselines.shelf
    import pytest_gradcam.baselines.summary
    import pytest_gradcam.report.records
    import pytest_gradcam.report.summary  # noqa: F401  # loaded before the fork, for its children
    from pytest_gradcam.metrics import wasserstein

    wasserstein(np.eye(3), np.ones((3, 3)))  # loads scipy
    torch.set_num_threads(1)  # a fork of a process with other threads would wait for them
    gc.freeze()


if __name__ == "__main__":
    raise SystemExit(main())
