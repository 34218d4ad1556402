"""Spatial views: how a layer's output becomes (N, C, h, w).

One registry of kinds. A kind looks at the shape of an output and at the size of the model input, and proposes the views
under which the output could be a grid over the image; nothing here decides which layer is read, and no arithmetic
elsewhere asks which kind it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

# Class tokens, distillation tokens and registers: no published vision transformer carries more.
MAX_PREFIX_TOKENS = 16
# A map with fewer cells cannot tell one half of the image from another in both directions.
MIN_CELLS = 4


@dataclass(frozen=True, slots=True)
class View:
    """One way to read an output as a grid.

    Attributes:
        kind: `nchw`, `nhwc`, `tokens`, `sequence-first tokens` or `channels-first tokens`.
        grid: (h, w) in cells.
        prefix: tokens before the grid's own, which have no place in the image.
        suffix: such tokens after the grid's own.
    """

    kind: str
    grid: tuple[int, int]
    prefix: int = 0
    suffix: int = 0

    def __call__(self, output: Tensor) -> Tensor:
        """The output as (N, C, h, w); differentiable, a view of the same memory wherever strides allow."""
        return _KINDS[self.kind].read(output, self)

    def __str__(self) -> str:
        h, w = self.grid
        before, after = f"{self.prefix}+" if self.prefix else "", f"+{self.suffix}" if self.suffix else ""
        return f"{self.kind} {before}{h}×{w}{after}"

    @property
    def batch_axis(self) -> int:
        """Which axis of the output counts the images."""
        return _KINDS[self.kind].batch_axis

    def of_one(self, output: Tensor) -> tuple[int, ...]:
        """The shape of an output for one image: without the batch."""
        return tuple(length for axis, length in enumerate(output.shape) if axis != self.batch_axis)

    @property
    def cells(self) -> int:
        """How many cells the grid has."""
        return self.grid[0] * self.grid[1]

    @property
    def is_partial(self) -> bool:
        """Whether the output has tokens that have no place in the image."""
        return self.prefix + self.suffix > 0


@dataclass(frozen=True, slots=True)
class _Kind:
    propose: Callable[[Sequence[int], tuple[int, int]], Iterator[View]]
    read: Callable[[Tensor, View], Tensor]
    batch_axis: int = 0


def views_of(shape: Sequence[int], size: tuple[int, int]) -> list[View]:
    """The views that an output of this shape allows, the likeliest first. Which of them is true, no shape can tell.

    Args:
        shape: shape of the output, batch first; of one image also tokens first, (L, 1, C).
        size: (H, W) of the model input, in pixels.
    """
    views = [view for kind in _KINDS.values() for view in kind.propose(shape, size)]
    if len(shape) == 4:  # of the two readings, the one with the aspect of the input
        views.sort(key=lambda view: not _fits(view.grid, size, 1.0))
    return views


def _has_cells(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    (h, w), (height, width) = grid, size
    return h * w >= MIN_CELLS and h <= height and w <= width


def _fits(grid: tuple[int, int], size: tuple[int, int], slack: float) -> bool:
    """Whether the grid has the aspect of the input, up to `slack` cells of rounding or unpadded border."""
    (h, w), (height, width) = grid, size
    return abs(w - h * width / height) <= slack and abs(h - w * height / width) <= slack


def _propose_nchw(shape: Sequence[int], size: tuple[int, int]) -> Iterator[View]:
    if len(shape) != 4:
        return
    # Convolutions may stretch the grid (strides that differ, missing padding), so NCHW, torch's own order, needs no
    # matching aspect.
    grid = (shape[2], shape[3])
    if _has_cells(grid, size):
        yield View("nchw", grid)


def _propose_nhwc(shape: Sequence[int], size: tuple[int, int]) -> Iterator[View]:
    if len(shape) == 4:
        grid = (shape[1], shape[2])
        if _has_cells(grid, size) and _fits(grid, size, 1.0):
            yield View("nhwc", grid)


def _propose_tokens(shape: Sequence[int], size: tuple[int, int]) -> Iterator[View]:
    if len(shape) == 3:
        yield from _token_views("tokens", shape[1], size, MAX_PREFIX_TOKENS)


def _propose_sequence_first_tokens(shape: Sequence[int], size: tuple[int, int]) -> Iterator[View]:
    # torch's own order of tokens. Only the one image that is looked at tells it from a batch of channels-first tokens.
    if len(shape) == 3 and shape[1] == 1:
        yield from _token_views("sequence-first tokens", shape[0], size, MAX_PREFIX_TOKENS)


def _propose_channels_first_tokens(shape: Sequence[int], size: tuple[int, int]) -> Iterator[View]:
    if len(shape) == 3:
        yield from _token_views("channels-first tokens", shape[2], size, 0)


def _token_views(kind: str, length: int, size: tuple[int, int], max_prefix: int) -> Iterator[View]:
    for prefix in range(min(max_prefix, length - 1) + 1):
        cells = length - prefix
        # The side that a grid of this many cells with the input's aspect would have, then its neighbours.
        ideal = round((cells * size[0] / size[1]) ** 0.5)
        for h in sorted(range(max(1, ideal - 1), ideal + 2), key=lambda h: abs(h - ideal)):
            grid = (h, cells // h)
            if cells % h == 0 and _has_cells(grid, size) and _fits(grid, size, 0.999):
                yield View(kind, grid, prefix)
                if prefix:
                    yield View(kind, grid, 0, prefix)
                break


def _read_nchw(output: Tensor, view: View) -> Tensor:
    return output


def _read_nhwc(output: Tensor, view: View) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _read_tokens(output: Tensor, view: View) -> Tensor:
    tokens = output[:, view.prefix : view.prefix + view.cells].transpose(1, 2)
    return tokens.reshape(*tokens.shape[:2], *view.grid)


def _read_sequence_first_tokens(output: Tensor, view: View) -> Tensor:
    tokens = output[view.prefix : view.prefix + view.cells].permute(1, 2, 0)
    return tokens.reshape(*tokens.shape[:2], *view.grid)


def _read_channels_first_tokens(output: Tensor, view: View) -> Tensor:
    return output.reshape(*output.shape[:2], *view.grid)


_KINDS: dict[str, _Kind] = {
    "nchw": _Kind(_propose_nchw, _read_nchw),
    "nhwc": _Kind(_propose_nhwc, _read_nhwc),
    "tokens": _Kind(_propose_tokens, _read_tokens),
    "sequence-first tokens": _Kind(_propose_sequence_first_tokens, _read_sequence_first_tokens, batch_axis=1),
    "channels-first tokens": _Kind(_propose_channels_first_tokens, _read_channels_first_tokens),
}
