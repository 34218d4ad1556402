"""The `gradcam` command: what it says of itself, what it refuses, and that it hands a subcommand's exit code on."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pytest_gradcam import __version__, cli
from pytest_gradcam.demo import session


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"pytest-gradcam {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["dmeo"], ["demo", "--nonsense"], ["demo", "extra"]])
def test_a_command_line_that_cannot_be_understood_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "usage: gradcam" in capsys.readouterr().err


def test_help_names_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_is_the_demos(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def run(folder: Path) -> int:
        asked.append(folder)
        return code

    monkeypatch.setattr(session, "run", run)
    assert cli.main(["demo", "--output-dir", "elsewhere"]) == code
    assert cli.main(["demo"]) == code
    assert asked == [Path("elsewhere"), Path("gradcam-report")]


def test_the_console_script_is_main() -> None:
    (script,) = entry_points(group="console_scripts", name="gradcam")
    assert script.load() is cli.main


def test_help_costs_no_import_of_torch_numpy_or_pytest() -> None:
    code = (
        "import sys; from pytest_gradcam import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'pytest', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
