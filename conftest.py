"""What every test of the project shares: pytester, a Hypothesis that draws the same examples everywhere, CUDA skips."""

from __future__ import annotations

import pytest
from hypothesis import settings

pytest_plugins = ["pytester"]

# Derandomised always: a run here and a run in CI judge the same examples, and a red one can be repeated.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_cuda = [item for item in items if item.get_closest_marker("cuda") is not None]
    if not on_cuda:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_cuda:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none here"))
