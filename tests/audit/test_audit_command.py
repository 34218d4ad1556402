"""`gradcam audit`: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pytest_gradcam.cli import main
from tests.audit.data.generated import table_data_set

MODEL = """
import numpy as np
import torch
from tests.audit.scenes import Scenes, reader, scenes

def red():
    return reader(0)

def blue():
    return reader(2)

def to_input(picture):
    return torch.from_numpy(np.asarray(picture.resize((64, 64)), np.float32).transpose(2, 0, 1).copy() / 255.0)

def good():
    return Scenes(scenes(60))

def few():
    return Scenes(scenes(10))

many = Scenes(scenes(400))
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the user's, with models and data sets in it; nothing of them is left in this process."""
    (tmp_path / "mine.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mine", None)


def run(*arguments: str) -> int:
    return main(["audit", *arguments])


class TestCodes:
    def test_enough_pass(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--model", "mine:red", "--data", "mine:good") == 0
        said = capsys.readouterr().out
        assert "audit passed: 60 of 60 images pass (100.0%)" in said
        assert "report: gradcam-audit/index.html" in said
        assert {"audit.json", "index.html", "report.json", "results.parquet"} <= {
            each.name for each in Path("gradcam-audit").iterdir()
        }

    def test_too_few_pass(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--model", "mine:blue", "--data", "mine:good", "--slice", "class") == 1
        said = capsys.readouterr().out
        assert "audit failed: 0 of 60 images pass" in said and "too few pass in class 0, class 1" in said

    def test_what_no_verdict_says_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Boxes that stick out, as x1 and y1 taken for a width and a height do; classes that are not the model's."""
        data, images = table_data_set(tmp_path / "data", 20, size=(64, 64))
        lines = data.read_text().splitlines()
        wrong = [lines[0].replace("x0,y0,x1,y1", "x,y,width,height"), *lines[1:]]
        data.write_text("\n".join(wrong))
        run("--model", "mine:blue", "--data", str(data), "--images", str(images), "--transform", "mine:to_input")
        said = capsys.readouterr().out
        assert "rows have notes; the first, of" in said and "was clipped to the image" in said
        assert "the model predicts another class than was asked for in" in said

    def test_what_changed_since_the_baseline_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--model", "mine:red", "--data", "mine:good", "--out", "october") == 0
        assert run("--model", "mine:blue", "--data", "mine:good", "--baseline", "october") == 1
        assert "since the baseline: worse (p < 0.0001" in capsys.readouterr().out

    def test_it_cannot_be_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--model", "mine:red", "--data", "mine:few") == 3
        assert "audit inconclusive: 10 of 10 images pass" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model", "mine:green", "--data", "mine:good"], "'mine:green' cannot be imported"),
            (["--model", "mine:red", "--data", "nowhere.json"], "there is no 'nowhere.json'"),
            (["--model", "mine:red", "--data", "mine:nothing"], "'mine:nothing' cannot be imported"),
            (["--model", "mine:red", "--data", "mine:good", "--slice", "site"], "no image says anything of the slice"),
            (["--model", "mine:red", "--data", "mine:good", "--pass-rate", "90"], "pass_rate is 90.0"),
            (["--model", "mine:red", "--data", "mine:good", "--workers", "-1"], "workers is -1"),
            (
                ["--model", "mine:red", "--data", "mine:good", "--labels", "no.txt"],
                "the labels 'no.txt' cannot be read",
            ),
            (["--model", "mine:red", "--data", "mine:good", "--baseline", "no"], "no"),
        ],
    )
    def test_something_is_wrong(self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        assert run(*arguments) == 2
        told = capsys.readouterr()
        assert message in told.err and told.err.startswith("gradcam audit: ") and "Traceback" not in told.err

    def test_a_wrong_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            run("--model", "mine:red")
        assert ended.value.code == 2
        assert "--data" in capsys.readouterr().err


class TestPaths:
    def test_a_table_of_pictures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data, images = table_data_set(tmp_path / "data", 20, size=(64, 64))
        code = run(
            *("--model", "mine:red", "--data", str(data), "--images", str(images), "--transform", "mine:to_input"),
            *("--metric", "pointing_game", "--metric", "energy", "--pass-rate", "0.5", "--batch-size", "6"),
        )
        assert code in (0, 1, 3)
        found = pq.read_table("gradcam-audit/results.parquet").to_pylist()
        assert len({row["index"] for row in found}) == 20
        assert {row["pointing_game"] for row in found if row["status"] == "measured"} <= {0.0, 1.0}
        assert json.loads(Path("gradcam-audit/audit.json").read_text())["asked"]["metrics"] == [
            "energy",
            "pointing_game",
        ]
        capsys.readouterr()


class TestKilled:
    def test_the_same_command_goes_on(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """A real process, a real kill; each image once, and the rows of a run that nobody disturbed."""
        command = [sys.executable, "-c", "import sys; from pytest_gradcam.cli import main; sys.exit(main())", "audit"]
        command += ["--model", "mine:red", "--data", "mine:many", "--batch-size", "16", "--out"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        process = subprocess.Popen([*command, "killed"], env=environment)
        parts = Path("killed", "parts")
        until = time.monotonic() + 120
        while not (parts.is_dir() and any(parts.iterdir())):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not Path("killed", "results.parquet").exists(), "the kill came too late"
        for folder in ("killed", "whole"):
            subprocess.run([*command, folder], env=environment, check=False)
        killed, whole = (pq.read_table(f"{folder}/results.parquet") for folder in ("killed", "whole"))
        assert killed.equals(whole)
        assert killed["index"].to_pylist() == list(range(400))
        assert list(parts.iterdir()) == []
        capfd.readouterr()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def find(name: str) -> Any:
        return None if name == "pyarrow" else object()

    monkeypatch.setattr("pytest_gradcam.audit.command.find_spec", find)
    assert run("--model", "mine:red", "--data", "mine:good") == 2
    assert 'an audit needs pyarrow: pip install "pytest-gradcam[audit]"' in capsys.readouterr().err
