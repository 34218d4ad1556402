"""What all tests share: the same random numbers for each, and one thread, so that a busy machine does not slow them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
pytest.register_assert_rewrite("tests.plugin.life")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test's random weights do not depend on which tests ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
