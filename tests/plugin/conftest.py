"""A project of a user's: a model whose attention is known beforehand, a picture for it, and pytest to run there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_gradcam import AttentionError, assert_attention_in_region
from pytest_gradcam.baselines import orphans, shelf, summary as _summary  # noqa: F401  # loaded once: runs forget what they load
from pytest_gradcam.report import records, summary  # noqa: F401  # as above
from tests.plugin.life import IMAGE, Life

PROJECT = '''
import pytest, torch
from torch import nn

RED, BLUE = (0, 64, 24, 96), (40, 8, 72, 40)


@pytest.fixture
def model():
    """Class 0 reads what is red, class 1 what is blue, on a grid of 12×12."""
    reads = nn.Conv2d(3, 2, 1, bias=False)
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        reads.weight.zero_()
        reads.weight[0, 0] = reads.weight[1, 2] = 1.0
        head.weight.copy_(torch.eye(2))
    return nn.Sequential(nn.AvgPool2d(8), reads, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


'''

TESTS = """
import pytest
from conftest import BLUE, RED


def test_reads_red(gradcam, model, image):
    gradcam.assert_attention_in_region(model, image, RED, 0)


@pytest.mark.parametrize("name", ["cup-017"])
def test_reads_the_object(gradcam, model, image, name):
    gradcam.assert_attention_in_region(model, image, BLUE, 0)
"""


@pytest.fixture(scope="session")
def loaded() -> None:
    """A verdict made in this process, and with it all that torch loads late.

    `Pytester.runpytest` forgets the modules that a run loaded: each run would load them again, and torch must not be.
    """
    reads = nn.Conv2d(3, 1, 1)
    nn.init.ones_(reads.weight)
    model = nn.Sequential(reads, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    image = torch.zeros(3, 8, 8)
    image[:, 6:, 6:] = 1.0
    with pytest.raises(AttentionError):
        assert_attention_in_region(model, image, (0, 0, 3, 3), 0, layer="1")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, loaded: None) -> pytest.Pytester:
    """A folder with the model, the picture, and one test that passes and one that fails."""
    for name in ("CI", "BUILD_NUMBER", "COLORTERM", "PY_COLORS", "NO_COLOR", "FORCE_COLOR", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    # Half of the time of a run would go into pytest's search for unraisable exceptions, in all that torch has loaded.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:unraisableexception -p no:benchmark")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makeconftest(PROJECT + IMAGE)
    pytester.makepyfile(test_demo=TESTS)
    return pytester


@pytest.fixture
def life(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, loaded: None) -> Life:
    for name in ("CI", "BUILD_NUMBER", "PY_COLORS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:unraisableexception -p no:benchmark")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Life(pytester)
