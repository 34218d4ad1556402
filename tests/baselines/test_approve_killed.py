"""`gradcam approve` killed at any moment: every baseline is the old or the new one, and a second run ends the work."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from pytest_gradcam import cli
from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.names import CheckName
from pytest_gradcam.baselines.received.deeds import discard
from pytest_gradcam.baselines.received.waiting import find
from pytest_gradcam.files import is_draft
from tests.baselines.received_files import Project, project, spot

COUNT = 200
KILLS = 10
CHECKS = [CheckName("test_cats.py", f"test_reads[{i}]") for i in range(COUNT)]


def is_touched(made: Project) -> bool:
    return any(made.target(CHECKS[0]).parent.glob("*.png"))


def kill_while_approving(made: Project, chance: random.Random) -> None:
    """Start it, and end it without a word at a random moment of its work."""
    command = [sys.executable, "-c", "from pytest_gradcam.cli import main; main()", "approve", "--all"]
    with subprocess.Popen(command, cwd=made.root, stdout=subprocess.DEVNULL) as running:
        while not is_touched(made) and running.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.25))
        running.send_signal(signal.SIGKILL)


def test_killed_it_leaves_whole_baselines_and_can_be_run_again(tmp_path: Path) -> None:
    made = project(tmp_path / "made")
    for check in CHECKS:
        made.keep(check)
        made.receive(check)
    old = {check: made.target(check).read_bytes() for check in CHECKS}
    chance = random.Random(5)
    interrupted = 0
    for i in range(KILLS):
        copy = Project(tmp_path / f"copy-{i}")
        shutil.copytree(made.root, copy.root)
        kill_while_approving(copy, chance)
        written = 0
        for check in CHECKS:
            found = store.read(copy.target(check))
            assert found is not None
            is_new = found.raw[5, 5] == found.raw.max()
            assert is_new or copy.target(check).read_bytes() == old[check]
            written += is_new
        interrupted += 0 < written < COUNT
        arguments = ["--report", str(copy.report), "--rootdir", str(copy.root)]
        assert cli.main(["approve", "--all", *arguments]) == 0
        assert all(read.raw[5, 5] == read.raw.max() for read in map(store.read, map(copy.target, CHECKS)) if read)
        assert len(list(copy.target(CHECKS[0]).parent.iterdir())) == 2 * COUNT
        assert not copy.received.exists()
        assert not any(is_draft(path.name) for path in copy.root.rglob("*"))
        shutil.rmtree(copy.root)
    assert interrupted >= KILLS // 2, "the kills must fall into the work"


def test_what_was_written_before_the_kill_is_no_change_since_the_run(tmp_path: Path) -> None:
    """Killed between the baseline and the removal of the received file."""
    made = project(tmp_path)
    made.keep(CHECKS[0])
    made.receive(CHECKS[0])
    made.keep(CHECKS[0], spot(5, 5))
    assert cli.main(["approve", "--all", "--report", str(made.report), "--rootdir", str(made.root)]) == 0
    assert made.target(CHECKS[0]).with_suffix(".png").exists()
    assert not made.received.exists()


def test_a_picture_that_lost_its_received_file_is_removed_by_the_next_run(tmp_path: Path) -> None:
    """Killed between the removals of the received file and of its picture."""
    made = project(tmp_path)
    made.receive(CHECKS[0]).unlink()
    holiday = made.received / "holiday.png"
    holiday.write_bytes(b"\x89PNG")
    assert cli.main(["approve", "--all", "--report", str(made.report), "--rootdir", str(made.root)]) == 0
    assert [path.name for path in made.received.rglob("*")] == ["holiday.png"]


def test_discarding_twice_does_no_harm(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.receive(CHECKS[0])
    (waiting,) = find(made.received).waiting
    discard(waiting)
    discard(waiting)
    assert not made.received.exists()
    assert made.report.exists()
