"""The locality probe: whether the cells of a grid stand for their places in the image.

Whatever a layer's shape suggests, a cell must depend most on the part of the image that it stands for. A few cells are
asked: the gradient of each with respect to the image is gathered over the grid, and seen against what all of them
depend on. Mostly four cells settle it. Where every cell sees nearly everything, as deep in a convolutional network,
more cells are asked, and more combinations of their channels, until the centre of what a cell depends on is seen to
follow its place. Where a forward cannot be differentiated back to the image, parts of the image are redrawn instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pytest_gradcam.cam.views import View

# Where every cell depends on its own place this many times as much as the probed cells do on average, four of them do.
CLEAR = 2.0
# The least that cells must depend on their own places, on average, as a multiple of what cells do in common.
LOCAL = 1.2
# Correlation of the places that cells depend on with their own, along each axis. Of nine cells in a random order, one
# in 500 reaches it along both; `docs/models.md` has the figures of real models.
FOLLOWS = 0.6
# Between these, more draws of the channels are taken, which take noise out of it.
HOPELESS, FOLLOWS_CLOSELY = 0.3, 0.8
DRAWS = 4
# Set against what all cells depend on, a cell in its place depends on no place this many times as much as on its own.
# Of real models the most was seen to be 2.2; of nine cells in other orders the least 9, of four (at most 4) 3.2.
OUT_OF_PLACE = 3.0
# A small convolution may weigh a neighbour most; from this size on, a grid has more than neighbours.
HAS_NEIGHBOURS = 3
# How far from their places cells may be, in cells, where they depend on little more than that: so many cells around it.
MAX_DISPLACEMENT = 1.0
SHARP = 0.75
# As a share of the grid: more than the kernels of a few small convolutions may weigh to one side.
FAR = 0.2
# Cells that depend on their own places less than on others', by more than chance, are in a wrong order.
ELSEWHERE = 0.9
# Where the probed cells lie, as shares of height and width: none in its own place, or in that of another, on a grid
# that is transposed, flipped, rotated or ordered by windows.
PLACES = (
    *((0.22, 0.78), (0.78, 0.36), (0.36, 0.22), (0.64, 0.64)),
    *((0.1, 0.45), (0.5, 0.95), (0.9, 0.9), (0.55, 0.05), (0.05, 0.1)),
)
FIRST = 4
# Where next to none of those says anything: a lattice over the grid.
LATTICE = tuple((row, column) for row in (0.125, 0.375, 0.625, 0.875) for column in (0.125, 0.375, 0.625, 0.875))
# Of what is differentiated: in half precision, gradients of 1 may underflow on their way.
SCALE = 2.0**8
# The side of a window that is redrawn, as a share of the image's.
WINDOW = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """On which places of the image some cells depend.

    Attributes:
        cells: (row, column) of each.
        maps: for each, how much it depends on the place of every cell: float64 (K, h, w), each of sum 1.
        reach: how far from its own a cell's place may be, in cells.
        asked: how many cells were asked: those that depend on nothing are not among the cells.
    """

    cells: tuple[tuple[int, int], ...]
    maps: npt.NDArray[np.float64]
    reach: int
    asked: int

    @property
    def own(self) -> npt.NDArray[np.float64]:
        """How much each cell depends on its own place, as a multiple of what the cells do on average, (K,).

        1 for cells that stand for no place, or for others; K for a place on which no other cell depends.
        """
        reach = self.reach
        near = [
            relative[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1].max()
            for (row, column), relative in zip(self.cells, self._relative(), strict=True)
        ]
        return np.array(near)

    @property
    def locality(self) -> float:
        """The geometric mean of `own`: one cell that does not depend on its place at all takes it to 0."""
        return float(np.exp(np.log(np.maximum(self.own, 1e-12)).mean()))

    @property
    def share(self) -> float:
        """The share of what a cell depends on that is in its own place, the geometric mean: tells neighbours apart."""
        shares = self.maps[range(len(self.cells)), *np.array(self.cells).T]
        return float(np.exp(np.log(np.maximum(shares, 1e-12)).mean()))

    @property
    def follows(self) -> float:
        """Correlation of the centres of what the cells depend on with their places, along the axis where it is smaller.

        Where a centre moves along one axis as the cell does along the other, more than along its own, it is 0.
        """
        h, w = self.maps.shape[1:]
        relative = self._relative()
        weights = relative / relative.sum(axis=(1, 2), keepdims=True)
        rows = (weights.sum(axis=2) * np.arange(h)).sum(axis=1)
        columns = (weights.sum(axis=1) * np.arange(w)).sum(axis=1)
        at = np.array(self.cells, np.float64)
        along = [_correlation(rows, at[:, 0])] * (h > 1) + [_correlation(columns, at[:, 1])] * (w > 1)
        across = [_correlation(rows, at[:, 1]), _correlation(columns, at[:, 0])] if h > 1 and w > 1 else [0.0]
        return min(along) if min(along) > max(across) else min(0.0, *along)

    @property
    def are_proven(self) -> bool:
        """Whether the cells stand for their places."""
        in_order = not self.are_elsewhere and self.displacement <= MAX_DISPLACEMENT
        return self.are_enough and in_order and self.locality >= LOCAL and self.follows >= FOLLOWS

    @property
    def are_enough(self) -> bool:
        """Whether at least half of the cells that were asked depend on the image."""
        return len(self.cells) >= self.asked / 2

    @property
    def are_elsewhere(self) -> bool:
        """Whether some of the cells stand for other places than theirs."""
        return self.locality < ELSEWHERE or self.elsewhere > OUT_OF_PLACE

    @property
    def displacement(self) -> float:
        """How far cells at the grid's border are from their places, in cells: far, over a crop or a padded image.

        A straight line is laid through the centres of what the cells depend on, along each axis. It says something only
        where cells depend on little more than their own places: else 0.
        """
        h, w = self.maps.shape[1:]
        weights = self.maps * self._relative()
        weights = weights / weights.sum(axis=(1, 2), keepdims=True)
        found = []
        for axis, length in ((0, h), (1, w)):
            steps = np.arange(length)
            profile = weights.sum(axis=2 - axis)  # (K, length)
            centres = profile @ steps
            spread = np.sqrt(np.maximum(profile @ steps**2 - centres**2, 0.0))
            at = np.array(self.cells, np.float64)[:, axis]
            if np.median(spread) > SHARP or np.ptp(at) < max(1, length / 4):
                continue
            slope, offset = np.polyfit(at, centres, 1)
            found += [abs(offset), abs(offset + (slope - 1) * (length - 1))]
        return float(max(found, default=0.0))

    @property
    def contradict(self) -> bool:
        """Whether that is beyond doubt also for the few random channels of a small convolution."""
        least = min(self.maps.shape[1:])
        elsewhere = self.are_enough and self.are_elsewhere
        if least > HAS_NEIGHBOURS:
            return elsewhere or self.displacement > max(2 * MAX_DISPLACEMENT, FAR * least)
        return elsewhere and self.follows < 0

    @property
    def elsewhere(self) -> float:
        """How many times as much as on its own place a cell depends on another, of all cells the most."""
        return float((self._relative().max(axis=(1, 2)) / np.maximum(self.own, 1e-12)).max())

    @property
    def are_exact(self) -> bool:
        """Whether no cell depends on any place more than on its own."""
        return all(found[cell] >= found.max() for cell, found in zip(self.cells, self.maps, strict=True))

    def _relative(self) -> npt.NDArray[np.float64]:
        common = self.maps.mean(axis=0)
        relative: npt.NDArray[np.float64] = self.maps / (common + 1e-6 * common.mean())
        return relative


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def probed(outputs: Sequence[tuple[Tensor, Tensor]], view: View) -> Places | None:
    """On which places the probed cells of a layer's output depend, by gradients: as many as it takes to tell.

    Args:
        outputs: the output for one image, a function of it, and the image, (1, C, H, W), a leaf; and for other images,
            at which those cells are asked that depend on nothing at the first, as at a closed ReLU.
        view: how it is read.

    Returns:
        None where fewer than two depend on an image.
    """
    grids = [(view(tensor)[0], inputs) for tensor, inputs in outputs]  # (C, h, w)
    cells = _cells_at(PLACES, view.grid)
    asked: list[tuple[int, int]] = []
    energies: dict[tuple[int, int], Tensor] = {}

    def ask(more: Sequence[tuple[int, int]], draw: int = 0) -> Places | None:
        for row, column in more:
            answers = (sensitivity(grid[:, row, column], inputs, draw) for grid, inputs in grids)
            found = next((answer for answer in answers if answer is not None), None)
            if found is not None:
                energies[row, column] = found + energies.get((row, column), 0.0)
        asked.extend(cell for cell in more if cell not in asked)
        return _places(energies, view, len(asked))

    first = ask(cells[:FIRST])
    if first is not None and (first.are_elsewhere or (first.own.min() >= CLEAR and first.are_proven)):
        return first
    places = ask(cells[FIRST:])
    if places is None:  # mostly closed ReLUs; or a frame around the image, of which a few cells may be inside
        return ask([cell for cell in _cells_at(LATTICE, view.grid) if cell not in asked])
    for draw in range(1, DRAWS):
        if not HOPELESS < places.follows < FOLLOWS_CLOSELY:
            return places
        places = ask(list(energies), draw) or places
    return places


def _cells_at(places: Sequence[tuple[float, float]], grid: tuple[int, int]) -> list[tuple[int, int]]:
    return list(dict.fromkeys((int(row * grid[0]), int(column * grid[1])) for row, column in places))


def _places(energies: dict[tuple[int, int], Tensor], view: View, asked: int) -> Places | None:
    if len(energies) < 2:
        return None
    reach = int(view.kind == "nchw" and min(view.grid) >= HAS_NEIGHBOURS)
    return Places(tuple(energies), np.stack([_shares(energy, view.grid) for energy in energies.values()]), reach, asked)


def sensitivity(cell: Tensor, inputs: Tensor, draw: int = 0) -> Tensor | None:
    """How much a cell depends on each pixel: the energy of the gradient of a combination of its channels, (H, W).

    Args:
        cell: (C,), a function of `inputs`.
        inputs: the image, (1, C, H, W), a leaf.
        draw: which combination. Its weights are drawn at random, for channels that would cancel each other, as after a
            normalisation over them.

    Returns:
        None where it depends on none, as at a ReLU that is closed.
    """
    if not cell.requires_grad:
        return None
    weights = torch.randn(cell.shape, generator=torch.Generator().manual_seed(draw)).to(cell) * SCALE
    take: Callable[..., tuple[Tensor | None, ...]] = torch.autograd.grad
    (found,) = take(cell, inputs, grad_outputs=weights, retain_graph=True, allow_unused=True)
    if found is None:
        return None
    return _energy(found[0])


def redrawn(inputs: Tensor) -> Tensor:
    """The image with a window at each of the probed places redrawn with noise of its own spread, (K, C, H, W)."""
    height, width = inputs.shape[2:]
    images = inputs.repeat(len(PLACES), 1, 1, 1)
    for image, (row, column) in zip(images, PLACES, strict=True):
        top, left = max(0, int((row - WINDOW / 2) * height)), max(0, int((column - WINDOW / 2) * width))
        bottom, right = math.ceil((row + WINDOW / 2) * height), math.ceil((column + WINDOW / 2) * width)
        window = image[:, top:bottom, left:right]
        window += _noise(window, scale=_spread(inputs))
    return images


def changed(before: Tensor, after: Tensor, view: View) -> Places | None:
    """Which cells of a layer's output changed when windows of the image were redrawn.

    Args:
        before: the output for the image.
        after: for the K redrawn images, together.
        view: how it is read.

    Returns:
        None where fewer than two of the windows changed anything.
    """
    energies: dict[tuple[int, int], Tensor] = {}
    for (row, column), change in zip(PLACES, view(after - before).detach(), strict=True):
        energy = _energy(change)
        if energy is not None:
            energies.setdefault((int(row * view.grid[0]), int(column * view.grid[1])), energy)
    return _places(energies, view, len(PLACES))


def noisy(inputs: Tensor, sign: float) -> Tensor:
    """An image under noise of its own spread, added or taken away."""
    image = inputs.detach()
    return image + sign * _noise(image, scale=_spread(image))


def _spread(inputs: Tensor) -> float:
    """Standard deviation of an image, 1 where it has none."""
    found = float(inputs.float().std(correction=0))
    return found if found > 0 else 1.0


def _noise(like: Tensor, scale: float) -> Tensor:
    """Noise of a tensor's shape, type and device, the same every time."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    return (drawn * scale).to(like)


def _energy(values: Tensor) -> Tensor | None:
    """Squares added up over channels, (C, H, W) → (H, W), of sum 1; None where there is nothing, or no number."""
    values = values.detach().float()  # Apple's devices have no double
    top = float(values.abs().max())
    if not 0 < top < math.inf:
        return None
    energy = (values / top).square().sum(dim=0)
    return energy / energy.sum()


def _shares(energy: Tensor, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Energy by pixel or cell, (H, W), gathered over the grid, (h, w), of sum 1."""
    places = functional.adaptive_avg_pool2d(energy.cpu().double()[None, None], grid)[0, 0].numpy()
    shares: npt.NDArray[np.float64] = places / places.sum()
    return shares
