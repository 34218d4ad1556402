"""A project that has the plugin installed and does not use it pays for nothing heavy, from start to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "numpy", "PIL", "cv2", "scipy", "timm", "jinja2"]

REPORTS_MODULES = f"""
import sys

def pytest_unconfigure():
    loaded = sorted(set({HEAVY!r}) & set(sys.modules))
    ours = sorted(name for name in sys.modules if name.startswith("pytest_gradcam"))
    print("LOADED", loaded)
    print("OURS", ours)
"""


def run_alone(folder: Path, *arguments: str) -> str:
    """What pytest writes in a process of its own with this plugin and no other: what others load is not our doing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_gradcam.plugin", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A project of somebody who does not use the fixture."""
    (tmp_path / "conftest.py").write_text(REPORTS_MODULES)
    (tmp_path / "test_sums.py").write_text("def test_sum(tmp_path, capsys):\n    assert 1 + 1 == 2\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments", [(), ("-v", "--gradcam-threshold=0.3"), ("--collect-only",), ("--help",)], ids=str
)
def test_nothing_heavy_is_loaded_by_its_end(stranger: Path, arguments: tuple[str, ...]) -> None:
    assert "LOADED []" in run_alone(stranger, *arguments)


def test_of_ours_only_what_reads_the_options_is_loaded(stranger: Path) -> None:
    plugin = ("plugin", "plugin.baselines", "plugin.reports", "plugin.shown", "plugin.spelling")
    modules = ("errors", *plugin, "settings")
    ours = ["pytest_gradcam", *(f"pytest_gradcam.{module}" for module in modules)]
    assert f"OURS {ours}" in run_alone(stranger)


def test_the_check_can_fail(stranger: Path) -> None:
    (stranger / "test_sums.py").write_text("import numpy\n\ndef test_sum():\n    assert 1 + 1 == 2\n")
    assert "LOADED ['numpy']" in run_alone(stranger)


def test_at_import_the_plugin_loads_nothing_that_pytest_has_not_loaded() -> None:
    """`typing` and its like are pytest's already; the package itself and the plugin are all that is new."""
    code = (
        "import sys, pytest, _pytest.config\n"
        "_pytest.config.get_config()\n"  # pytest's own plugins, as in every run
        "before = set(sys.modules)\n"
        "import pytest_gradcam.plugin\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = ("", ".plugin", ".plugin.baselines", ".plugin.reports", ".plugin.shown", ".plugin.spelling")
    assert done.stdout.strip() == str([f"pytest_gradcam{part}" for part in parts])
