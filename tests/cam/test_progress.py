"""The progress bar of long explanations: on a terminal, after a second, gone at the end; nowhere else."""

from __future__ import annotations

import io

import pytest

from pytest_gradcam import explain
from pytest_gradcam.cam import progress as module
from pytest_gradcam.cam.progress import progress
from tests.models import picture, small


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("method", ["score-cam", "occlusion", "rise"])
def test_is_shown_on_a_terminal_where_it_takes_long(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(module, "PATIENCE", 3600.0)
    explain(small(), picture(), 1, method=method)
    assert shown.getvalue() == ""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    explain(small(), picture(), 1, method=method)
    assert f"{method}:   0%|" in shown.getvalue()
    assert shown.getvalue().endswith("\r")  # wiped


def test_is_not_shown_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    assert list(progress(range(3), 3, "counting")) == [0, 1, 2]
    assert shown.getvalue() == ""
