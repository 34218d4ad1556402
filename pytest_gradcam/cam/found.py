"""What a way to explain hands on: raw CAMs and what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_gradcam.cam.scores import Fact


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Raw CAMs and what they were made from.

    Attributes:
        raws: (M, h, w).
        facts: of the M scores.
        layer: where they were read, for a person.
        method: registered name, or that of the user's callable.
        labels: class names, by index, where they are known.
        engine: how they were obtained, where that was no engine that the user may choose.
        layers: the dotted names of the layers, where there are any.
        view: how their outputs were read as grids, where there are layers.
    """

    raws: npt.NDArray[np.float64]
    facts: Sequence[Fact]
    layer: str
    method: str
    labels: Sequence[str] | None
    engine: str | None = None
    layers: tuple[str, ...] = ()
    view: str = ""
