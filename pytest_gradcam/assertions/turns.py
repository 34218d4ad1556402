"""Flips and quarter turns, of model input and of maps. They move pixels and cells, and interpolate nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from pytest_gradcam.errors import SettingsError
from pytest_gradcam.images import Look, Prepared
from pytest_gradcam.settings import choices


@dataclass(frozen=True, slots=True)
class Turn:
    """A flip, or quarter turns.

    Attributes:
        quarters: how many, against the clock.
        mirrored: which axis is flipped, 0 (rows) or 1 (columns); None for neither.
    """

    quarters: int = 0
    mirrored: int | None = None

    def of_image(self, prepared: Prepared) -> Prepared:
        """The image as the model would see it turned."""
        return replace(prepared, tensor=self.of_input(prepared.tensor), look=partial(self._of_look, prepared.look))

    def of_input(self, tensor: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), turned."""
        if self.mirrored is not None:
            return tensor.flip(self.mirrored - 2)
        return torch.rot90(tensor, self.quarters, (-2, -1)).contiguous()

    def of_map(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(H, W) or (H, W, 3), turned."""
        return np.flip(values, self.mirrored) if self.mirrored is not None else np.rot90(values, self.quarters)

    def back(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(H, W), as it was before it was turned."""
        return replace(self, quarters=-self.quarters).of_map(values)

    def _of_look(self, look: Look) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self.of_map(look()))


TURNS: Final[dict[str, Turn]] = {
    "hflip": Turn(mirrored=1),
    "vflip": Turn(mirrored=0),
    "rot90": Turn(1),
    "rot180": Turn(2),
    "rot270": Turn(3),
}


def turn_of(under: object) -> Turn:
    """The turn of that name.

    Raises:
        SettingsError: there is none.
    """
    if not isinstance(under, str) or under not in TURNS:
        raise SettingsError(f"unknown under {under!r}: {choices(under, TURNS)}")
    return TURNS[under]
