"""Models that misbehave on the actors of a cluster, and tell where they were: for the tests of the ray engine."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from tests.audit.scenes import reader

_forwards = itertools.count()  # of this process; a model's own attributes are put back after each map


class Dying(nn.Module):
    """The reader of red and green, whose process is killed in the midst of a part: once.

    Args:
        marker: file that is made by whoever dies; where it is there, nobody does.
        after: forwards of the process before.
    """

    def __init__(self, marker: Path, after: int) -> None:
        super().__init__()
        self.net = reader()
        self.marker = marker
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if next(_forwards) >= self.after and Path(sys.argv[0]).name == "default_worker.py":
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        found: torch.Tensor = self.net(x)
        return found


class Telling(nn.Module):
    """The reader of red and green, which tells by files on which machine and in which process it runs, and takes time.

    Args:
        folder: of the files.
        seconds: that a forward takes at least.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__()
        self.net = reader()
        self.folder = folder
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import ray

        if ray.is_initialized():
            (self.folder / ray.get_runtime_context().get_node_id()).touch()
            (self.folder / f"process-{os.getpid()}").touch()
            time.sleep(self.seconds)
        found: torch.Tensor = self.net(x)
        return found
