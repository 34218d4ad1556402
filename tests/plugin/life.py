"""The life of baselines, told once: missing → created → passes → changed → fails → reviewed → approved → passes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest

from pytest_gradcam.cli import main

IMAGE = '''
@pytest.fixture
def image():
    """A red square in the bottom left corner, a blue one at the top, 96×96."""
    x = torch.zeros(3, 96, 96)
    x[0, 64:96, 0:24] = 1.0
    x[2, 8:40, 40:72] = 1.0
    return x
'''
CONFTEST = (
    '''
import pathlib, random
import pytest, torch
from torch import nn

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def model():
    """Class 0 reads the colour that reads.txt names, class 1 the other, on a grid of 12×12."""
    first = {"red": 0, "blue": 1}[(HERE / "reads.txt").read_text()]
    reads = nn.Conv2d(3, 2, 1, bias=False)
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        reads.weight.zero_()
        reads.weight[first, 0] = reads.weight[1 - first, 2] = 1.0
        head.weight.copy_(torch.eye(2))
    return nn.Sequential(nn.AvgPool2d(8), reads, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--shuffle") is not None:
        random.Random(config.getoption("--shuffle")).shuffle(items)
'''
    + IMAGE
)


@dataclass
class Life:
    """A user's project, whose model reads red or blue, and its baselines.

    Attributes:
        pytester: runs pytest in the project.
        arguments: given to every run.
        runs: texts of the runs so far.
    """

    pytester: pytest.Pytester
    arguments: Sequence[str] = ()
    runs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pytester.makeconftest(CONFTEST)
        self.model_reads("red")

    @property
    def root(self) -> Path:
        return self.pytester.path

    def model_reads(self, colour: str) -> None:
        (self.root / "reads.txt").write_text(colour)

    def run(self, *arguments: str) -> dict[str, int]:
        """Run pytest; how many tests had which outcome."""
        result = self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *self.arguments, *arguments)
        self.runs.append(result.stdout.str() + result.stderr.str())
        if result.ret == pytest.ExitCode.USAGE_ERROR:
            return {}
        return {name: count for name, count in result.parseoutcomes().items() if name not in ("warnings", "deselected")}

    @property
    def said(self) -> str:
        """The text of the last run."""
        return self.runs[-1]

    def baselines(self) -> dict[str, bytes]:
        """The files of all baselines, by their path from the root."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("__gradcam__/**/*.safetensors"))
            if "gradcam-report" not in path.parts
        }

    def received(self) -> list[str]:
        """The baselines that wait to be approved, by their path from the root."""
        folder = self.root / "gradcam-report" / "received"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))

    def gradcam(self, *arguments: str, typed: str = "") -> int:
        """Run the `gradcam` command in the project, as a person who types this."""
        with _inside(self.root, typed):
            return main(arguments)


@contextmanager
def _inside(folder: Path, typed: str) -> Iterator[None]:
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", StringIO(typed))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def live(life: Life, files: Sequence[str], *, tests: int, stops: bool = False) -> None:
    """Lead the baselines of a project through their life, and see at each turn what must be seen.

    Args:
        life: the project, with its tests.
        files: of the baselines that its tests ask for, from the root.
        tests: how many tests there are.
        stops: whether a run ends with the first failure, as with -x: then there is one to approve at a time.
    """
    assert life.run() == ({"failed": 1} if stops else {"failed": tests})
    assert "there is no baseline for" in life.said
    assert "--gradcam-update=new" in life.said
    assert life.baselines() == {}

    assert life.run("--gradcam-update=new") == {"passed": tests}
    assert f"baselines: {len(files)} created" in life.said
    first = life.baselines()
    assert sorted(first) == sorted(files)
    assert life.received() == []  # what the first run left is no longer asked for

    assert life.run() == {"passed": tests}
    assert "baselines:" not in life.said  # nothing to say
    assert life.run("--gradcam-update=new") == {"passed": tests}
    assert life.baselines() == first

    life.model_reads("blue")
    for _ in range(len(files) + 1):
        outcomes = life.run()
        if outcomes == {"passed": tests}:
            break
        if not stops:
            assert set(outcomes) == {"failed"}
        assert "where its baseline looks" in life.said
        waiting = life.received()
        assert waiting and set(waiting) <= set(files)
        assert len(waiting) == 1 or not stops
        assert all(life.baselines()[each] != b"" for each in waiting)
        before = life.baselines()
        assert life.gradcam("review", typed="s\n" * len(waiting)) == 1  # looked at, and left
        assert (life.received(), life.baselines()) == (waiting, before)
        assert life.gradcam("review", typed="a\n" * len(waiting)) == 0
        assert life.received() == []
        assert {each for each in files if life.baselines()[each] != before[each]} == set(waiting)
    else:
        pytest.fail("approving did not end")
    assert set(life.baselines()) == set(first)
    assert all(life.baselines()[each] != first[each] for each in files)
