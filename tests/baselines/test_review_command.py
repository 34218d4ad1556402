"""`gradcam review`: what is shown of each map that waits, and what becomes of it for each answer."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_gradcam import cli
from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import CheckName
from tests.baselines.received_files import Project, project, snapshot, spot

EARS = CheckName("test_cats.py", "test_ears")
NEW = CheckName("test_cats.py", "test_new")
LAYER = CheckName("test_cats.py", "test_layer")
CHECKS = (EARS, LAYER, NEW)  # in the order in which they are shown
PROMPT = "[a]pprove  [r]eject  [s]kip  [A]ll that are left  [q]uit: "


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    made.keep(EARS)
    made.keep(LAYER)
    made.receive(EARS, predicted=5)
    made.receive(LAYER, spot(2, 2, 14), layer="layer3", layers=("layer3",))
    made.receive(NEW, label=None, predicted=7)
    return made


def review(answers: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    return cli.main(["review"])


def is_new(made: Project, check: CheckName) -> bool:
    found = store.read(made.target(check))
    return found is not None and found.raw[1, 1] != 1.0


def still_waits(made: Project, check: CheckName) -> bool:
    return (made.received / "tests" / "__gradcam__" / check.file).exists()


@pytest.mark.parametrize(
    ("answers", "approved", "rejected", "code"),
    [
        ("a\na\na\n", CHECKS, (), 0),
        ("A\n", CHECKS, (), 0),
        ("s\nA\n", (LAYER, NEW), (), 1),
        ("r\na\nr\n", (LAYER,), (EARS, NEW), 0),
        ("r\nr\nr\n", (), CHECKS, 0),
        ("s\ns\ns\n", (), (), 1),
        ("a\nq\n", (EARS,), (), 1),
        ("a\n", (EARS,), (), 1),
        ("", (), (), 1),
        ("x\n\n  approve\nyes\nskip\nreject", (EARS,), (NEW,), 1),
    ],
)
def test_answers(
    waiting: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: str,
    approved: tuple[CheckName, ...],
    rejected: tuple[CheckName, ...],
    code: int,
) -> None:
    before = {check: store.read_bytes(waiting.target(check)) for check in CHECKS}
    assert review(answers, monkeypatch) == code
    for check in CHECKS:
        assert still_waits(waiting, check) == (check not in (*approved, *rejected))
        assert is_new(waiting, check) == (check in approved)
        if check not in approved:
            assert store.read_bytes(waiting.target(check)) == before[check]
    left = 3 - len(approved) - len(rejected)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{len(approved)} approved, {len(rejected)} rejected, {left} left"


def test_unknown_answers_are_asked_again(
    waiting: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert review("R\n?\n \n\x1b[A\nq\n", monkeypatch) == 1
    out = capsys.readouterr().out
    assert out.count(PROMPT) == 5
    assert "\x1b" not in out
    assert len([check for check in CHECKS if still_waits(waiting, check)]) == 3


def test_what_is_shown(waiting: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    review("s\ns\ns\n", monkeypatch)
    ears, layer, new = re.split(r"^(?=\d of 3)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert ears.startswith("1 of 3  tests/test_cats.py::test_ears\n")
    for line in (
        "  class      class 3 (rocket); predicted was class 3, is class 5",
        "  layer      layer4 · grad-cam · 7×7 · hooks · cpu",
        "  pearson    -0.3439, needs 0.999",
        "  moved      97% of the mass, from the top left to the bottom right",
        "  picture    gradcam-report/received/tests/__gradcam__/test_cats/test_ears.png",
    ):
        assert line in ears.splitlines()
    assert re.search(r"^  distance   the mass moved 4\.98 cells, allowed 0\.\d\d$", ears, re.MULTILINE)
    assert re.search(r"baseline +current +difference", ears)
    rows = [line for line in ears.splitlines() if line.startswith("  │")]
    assert "@" in rows[1].split("│")[1]  # the baseline's hill is at the top,
    assert "@" in rows[-3].split("│")[3]  # and the new one at the bottom
    assert "  changed    layer: was layer4, is layer3\n  changed    grid: was 7×7, is 14×14\n" in layer
    assert "pearson" not in layer
    assert "  class      class 3, predicted is class 7\n" in new
    assert "  new        there is no baseline yet" in new
    assert "difference" not in new
    hottest = [line for line in new.splitlines() if line.startswith("  │") and "@" in line]
    assert hottest
    assert all(line.index("@") > len(line) // 2 for line in hottest)


def test_a_map_within_the_floor_says_that_the_test_asks_for_more(
    waiting: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting.receive(EARS, spot(1, 1.001))
    review("q\n", monkeypatch)
    assert "same_weights would let it pass: the test asks for more" in capsys.readouterr().out


def test_one_that_changed_since_the_run_is_told_and_passed_over(
    waiting: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting.keep(EARS, spot(3, 3))
    kept = store.read_bytes(waiting.target(EARS))
    assert review("a\na\na\n", monkeypatch) == 1
    said = capsys.readouterr()
    assert said.err.startswith("BaselineError: tests/test_cats.py::test_ears: its baseline has changed since the run")
    assert said.out.splitlines()[-1] == "2 approved, 0 rejected, 1 left"
    assert store.read_bytes(waiting.target(EARS)) == kept


def test_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert review("a\n", monkeypatch) == 0
    assert capsys.readouterr().out.startswith("nothing waits in gradcam-report/received")
    assert snapshot(tmp_path) == {}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({}, "38;5;"),
        ({"COLORTERM": "truecolor"}, "38;2;"),
        ({"NO_COLOR": "1"}, None),
        ({"NO_COLOR": ""}, "38;5;"),
        ({"TERM": "dumb"}, None),
    ],
)
def test_colours_are_for_terminals_that_have_some(
    waiting: Project, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colour: str | None
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    review("s\ns\ns\n", monkeypatch)
    text = screen.getvalue()
    assert ("\x1b[" in text) == (colour is not None)
    assert text.count("▀") == 0 if colour is None else text.count(colour) > 100


def run_apart(made: Project, answers: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "import sys; from pytest_gradcam.cli import main; sys.exit(main())", "review"]
    return subprocess.run(
        command, cwd=made.root, input=answers, capture_output=True, env={**os.environ, **environment}, check=False
    )


def test_a_stream_that_knows_only_ascii(waiting: Project) -> None:
    done = run_apart(waiting, b"s\ns\ns\n", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.isascii()
    assert b"|++*##**+-:..        |" in done.stdout
    assert b"layer4 - grad-cam - 7x7" in done.stdout


def test_bytes_that_are_no_text_are_no_answer(waiting: Project) -> None:
    done = run_apart(waiting, b"\xff\xfe\na\nq\n", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (1, b"")


def test_interrupted_it_leaves_whole_files(waiting: Project) -> None:
    command = [sys.executable, "-c", "import sys; from pytest_gradcam.cli import main; sys.exit(main())", "review"]
    with subprocess.Popen(
        command, cwd=waiting.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(b"a\n")
        running.stdin.flush()
        seen = b""
        while not (b"\n2 of 3" in seen and seen.endswith(PROMPT.encode())):
            seen += os.read(running.stdout.fileno(), 1000)
        for _ in range(10):  # a signal that comes just before the process waits for input does not wake it
            running.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                running.wait(2.0)
                break
        out, err = running.communicate()
    assert running.returncode == 130
    assert b"Traceback" not in err
    assert out.splitlines()[-1] == b"1 approved, 0 rejected, 2 left"
    assert is_new(waiting, EARS)
    assert still_waits(waiting, LAYER)
