"""Audits that are killed at random moments, or lose their actors and machines: is every image there, once?

    python -m benchmarks.audit_faults [--kills 20] [--images 2000] [--seed 0] [--no-ray]

A run is `gradcam audit` in a fork of this process, which has imported all that it needs. It is killed with SIGKILL at a
random moment, of the whole run in half of them, and from its last part on in the others, when the results are merged,
judged and reported; it is started again in the same folder until it is done. What it leaves then must be, byte by byte,
the results of a run that nobody killed, each image and class once, with no part and no draft beside them.

Then the ray engine, on a cluster of two machines, simulated by `ray.cluster_utils.Cluster`: actors are killed with
SIGKILL at random moments, then a machine is removed. The results must be the same again.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.audit import SMALL
from benchmarks.crash import ended
from pytest_gradcam.audit.command import CODES
from pytest_gradcam.audit.store import ABOUT, PARTS, RESULTS
from pytest_gradcam.cli import main as gradcam
from pytest_gradcam.files import is_draft
from tests.audit.clusters import Telling
from tests.audit.data.generated import coco_data_set
from tests.audit.scenes import Scenes, audited, scenes

BATCH = 16
PART = 128
STORE = 80 * 2**20


class Lost(Exception):
    """What a killed audit has left is not what it must leave."""


def start(data: Path, images: Path, out: Path) -> int:
    """Start a run; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        command = ["audit", "--model", "tests.audit.scenes:reader", "--transform", "benchmarks.audit:to_input"]
        command += ["--data", str(data), "--images", str(images), "--out", str(out)]
        command += ["--device", "cpu", "--batch-size", str(BATCH)]
        status = gradcam(command)
    finally:
        os._exit(status)


def finished(pid: int) -> bool:
    """Wait for a run; whether it came to its end, and was not killed.

    Raises:
        Lost: it came to another end.
    """
    status = ended(pid)
    if status not in (-signal.SIGKILL, *CODES.values()):
        raise Lost(f"a run ended with {status}")
    return status != -signal.SIGKILL


def wait_for_parts(pid: int, out: Path, count: int) -> None:
    """Until all parts are there, or the run has ended."""
    while parts(out) < count and not (out / RESULTS).exists():
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def parts(out: Path) -> int:
    """How many parts lie there."""
    try:
        return sum(not is_draft(name) for name in os.listdir(out / PARTS))
    except FileNotFoundError:
        return 0


def state(out: Path, count: int) -> str:
    """How far a killed run had come."""
    if not (out / ABOUT).exists():
        return "before it wrote anything"
    if (out / RESULTS).exists():
        return "after the results, before the report" if not (out / "index.html").exists() else "after the report"
    if parts(out) == count:
        return "amid merging"
    return "amid parts" if parts(out) else "before the first part"


def judge(out: Path, expected: Path) -> None:
    """See what an audit has left that was killed and gone on with.

    Raises:
        Lost: it is not what a run leaves that nobody killed.
    """
    rows = pq.read_table(out / RESULTS)
    counted = Counter(zip(rows["index"].to_pylist(), rows["place"].to_pylist(), strict=True))
    if any(number > 1 for number in counted.values()):
        raise Lost("a row is there twice")
    if not rows.equals(pq.read_table(expected / RESULTS)):
        raise Lost("the rows are others")
    if (out / RESULTS).read_bytes() != (expected / RESULTS).read_bytes():
        raise Lost("the file is another")
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    wanted = {str(path.relative_to(expected)) for path in expected.rglob("*")}
    if names != wanted:
        raise Lost(f"there lie {sorted(names ^ wanted)} too many or too few")


def killed(asked: argparse.Namespace, folder: Path) -> None:
    """Kill runs, and print where they were.

    Raises:
        Lost: something was.
    """
    rng, outcomes = random.Random(asked.seed), Counter[str]()
    data, images = coco_data_set(folder / "data", asked.images, size=(SMALL, SMALL))
    whole, count = folder / "whole", -(-asked.images // PART)
    began = time.monotonic()
    pid = start(data, images, whole)
    wait_for_parts(pid, whole, count)
    merging = time.monotonic() - began
    if not finished(pid):
        raise Lost("a run was killed by somebody else")
    took = time.monotonic() - began
    print(f"a whole run takes {took:.2f} s, the last {took - merging:.2f} s of them after its last part", flush=True)
    kills = audits = starts = 0
    while kills < asked.kills:
        out = folder / f"out-{audits}"
        audits += 1
        is_done = False
        while not is_done:
            starts += 1
            pid = start(data, images, out)
            if kills < asked.kills:
                if kills % 2:
                    wait_for_parts(pid, out, count)
                    time.sleep(rng.uniform(0, 1 if kills % 4 == 1 else 0.1) * (took - merging))  # merging is short
                else:
                    time.sleep(rng.uniform(0, 1) * took)
                os.kill(pid, signal.SIGKILL)
            is_done = finished(pid)
            if not is_done:
                kills += 1
                outcomes[state(out, count)] += 1
        judge(out, whole)
    print(f"{kills} kills in {starts} runs of {audits} audits of {asked.images} images: each image once, nothing else")
    for what, number in outcomes.most_common():
        print(f"{number:5} {what}")


def on_ray(asked: argparse.Namespace, folder: Path) -> None:
    """Kill actors, and remove a machine.

    Raises:
        Lost: something was.
    """
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    data, rng = Scenes(scenes(1500)), random.Random(asked.seed)
    seen = folder / "seen"
    seen.mkdir()
    model = Telling(seen, seconds=0.1).eval()
    local = audited(data, folder / "local", model=model).rows()
    try:
        kills: list[int] = []

        def kill() -> None:
            for _ in range(asked.actors_killed):
                time.sleep(rng.uniform(0.5, 2))
                for path in sorted(seen.glob("process-*")):
                    kills.append(int(path.name.removeprefix("process-")))
                    path.unlink()
                    os.kill(kills[-1], signal.SIGKILL)
                    break

        _beside(kill, data, folder / "killed", model, local, {"actors": 2})
        print(f"ray: {len(kills)} actors of 2 were killed amid parts: the same rows", flush=True)
        node = cluster.add_node(num_cpus=2, object_store_memory=STORE)

        def remove() -> None:
            while not (seen / node.node_id).exists():
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 2))
            cluster.remove_node(node, allow_graceful=False)

        began = time.monotonic()
        _beside(remove, data, folder / "removed", model, local, {"actors": 2, "cpus": 2})
        print(f"ray: one machine of two was removed amid parts: the same rows, in {time.monotonic() - began:.0f} s")
    finally:
        ray.shutdown()
        cluster.shutdown()


def _beside(
    trouble: Callable[[], None], data: Scenes, out: Path, model: Telling, local: Any, cluster: dict[str, Any]
) -> None:
    thread = threading.Thread(target=trouble)
    thread.start()
    report = audited(data, out, model=model, engine="ray", cluster=cluster)
    thread.join()
    if not report.rows().equals(local):
        raise Lost("the rows are others")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, kill, judge, print; 1 where something was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit_faults", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--actors-killed", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-ray", action="store_true", help="kill local runs only")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a fork of a process with other threads would wait for them
    import sklearn.cluster  # noqa: F401  # loaded before the fork, for its children

    import pytest_gradcam.audit.run
    import pytest_gradcam.report.audit_page.page  # noqa: F401  # loaded before the fork, for its children

    gc.freeze()
    with tempfile.TemporaryDirectory() as name:
        try:
            killed(asked, Path(name))
            if not asked.no_ray:
                on_ray(asked, Path(name))
        except Lost as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
