"""The global random generators: whether somebody drew from them, and putting them back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RandomStates:
    """The states of the global generators of torch, numpy and Python, as they were when this was made."""

    def __init__(self, device: torch.device | None = None) -> None:
        """Note the states.

        Args:
            device: where it is a CUDA device, its generator is noted too; None for those of all CUDA devices in use.
        """
        self._device = device
        self._before = self._read()

    def restore(self) -> list[str]:
        """Put back the generators that were drawn from; returns their names."""
        now = self._read()
        drawn = [name for name, state in self._before.items() if not _equal(state, now[name])]
        for name in drawn:
            state = self._before[name]
            if name == "torch":
                torch.set_rng_state(state)
            elif name == "numpy.random":
                np.random.set_state(state)
            elif name == "random":
                random.setstate(state)
            elif self._device is None:
                torch.cuda.set_rng_state_all(state)
            else:
                torch.cuda.set_rng_state(state, self._device)
        return drawn

    def _read(self) -> dict[str, Any]:
        states: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "numpy.random": np.random.get_state(legacy=True),
            "random": random.getstate(),
        }
        if self._device is None:
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own lack
                states["torch.cuda"] = torch.cuda.get_rng_state_all()
        elif self._device.type == "cuda":
            states["torch.cuda"] = torch.cuda.get_rng_state(self._device)
        return states


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Tensor):
        return bool(torch.equal(a, b))
    if len(a) == 5:  # numpy: (name, keys, position, has_gauss, cached_gaussian)
        return bool(a[0] == b[0] and a[2:] == b[2:] and np.array_equal(a[1], b[1]))
    return bool(a == b)
