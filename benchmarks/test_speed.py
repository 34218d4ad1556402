"""The contenders of `contenders.py` for pytest-benchmark: `pytest benchmarks --benchmark-only`.

A group for each task, a benchmark for each contender. pytest-benchmark times one after the other; ratios are taken from
`python -m benchmarks.speed`, which interleaves them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed: pip install pytest-gradcam[bench]")

import torch

from benchmarks.contenders import CONTENDERS, TASKS, Contender, Job, check

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 10


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.key)
def job(request: pytest.FixtureRequest) -> Job:
    return Job.of(request.param, torch.device("cpu"))


@pytest.mark.parametrize(
    "contender", CONTENDERS, ids=lambda contender: contender.name.replace(", ", "-").replace(" ", "-")
)
def test_speed(benchmark: BenchmarkFixture, job: Job, contender: Contender) -> None:
    """The contender gives our maps; how long it takes is for the table, not for a verdict."""
    if contender.missing:
        pytest.skip(contender.missing)
    check(job, contender)
    benchmark.group = job.task.title
    slow = job.task.many > 0 and contender.repeats_forward
    rounds, warm_up = (1, 0) if slow else (ROUNDS, 1)
    benchmark.pedantic(contender.prepare(job), rounds=rounds, warmup_rounds=warm_up)  # type: ignore[no-untyped-call]
