"""Approximate inference in overlapping tiles, for images whose trunk does not fit either.

Each tile is an image of its own to the network: its channel attention averages over the tile alone, and its border is
padded with zeros. So the result differs from that of the whole image. Neighbours overlap, and are blended there by
linear ramps, which hides the seams; :func:`probe` measures what difference remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from d2csr.inference.outputs import TileOutput, assemble
from d2csr.inference.strips import strips
from d2csr.inference.trace import trunk_radius
from d2csr.models import D2CSR

_PROBE = 256


def tiles(
    model: D2CSR,
    lr: Tensor,
    side: int,
    length: int,
    *,
    dtype: torch.dtype | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[TileOutput]:
    """Yield weighted pieces of one image: they add up to the result.

    Args:
        model: on any device.
        lr: 1×3×H×W, RGB in [0, 1], on the model's device, of the model's dtype.
        side: of a tile, in LR pixels.
        length: LR rows of a strip within a tile.
        dtype: for autocast; None computes in the model's own.
        tick: called after each leaf's features and after each strip.
    """
    rows, columns = (spans(extent, side, trunk_radius(model)) for extent in lr.shape[-2:])
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            window = _ramp(rows, i, model.scale)[:, None] * _ramp(columns, j, model.scale)
            window = window.to(lr.device, lr.dtype)
            for piece in strips(model, lr[..., top:bottom, left:right], length, dtype=dtype, tick=tick):
                yield _weighted(piece, window, top * model.scale, left * model.scale)


def spans(extent: int, side: int, reach: int) -> list[tuple[int, int]]:
    """Return where the tiles of one axis start and stop, in LR rows: alike in size, no point in more than two.

    Neighbours overlap by twice the reach of the trunk, so that where one's weight is high its border is far; but at
    most by half a tile.
    """
    if side >= extent:
        return [(0, extent)]
    overlap = min(2 * reach, side // 2)
    count = -(-(extent - overlap) // (side - overlap))
    stride = -(-(extent - overlap) // count)
    overlap = min(overlap, stride)  # more would bring in the next but one
    starts = [index * stride for index in range(count)]
    return [(start, start + stride + overlap) for start in starts[:-1]] + [(starts[-1], extent)]


def probe(model: D2CSR, lr: Tensor, side: int, length: int, *, dtype: torch.dtype | None = None) -> tuple[float, int]:
    """Measure what tiles cost, on a square from the middle of the image: exact against tiles of half its side.

    Args:
        model: on any device.
        lr: 1×3×H×W.
        side: of a tile; the square is no larger.
        length: LR rows of a strip.
        dtype: for autocast.

    Returns:
        The largest absolute difference, of RGB in [0, 1], and the side of the square in LR pixels. Tiles smaller than
        those of the image itself differ more, so the figure is on the high side of what to expect.
    """
    square = min(side, _PROBE, *lr.shape[-2:])
    top, left = ((extent - square) // 2 for extent in lr.shape[-2:])
    lr = lr[..., top : top + square, left : left + square]
    size = square * model.scale
    exact = assemble(strips(model, lr, length, dtype=dtype), size, size, parts=False)
    tiled = assemble(tiles(model, lr, max(1, square // 2), length, dtype=dtype), size, size, parts=False)
    return (exact.sr - tiled.sr).abs().max().item(), square


def _ramp(tiles: list[tuple[int, int]], index: int, scale: int) -> Tensor:
    """Return the weight of each HR row of a tile: 1, but for a rise and a fall where it overlaps its neighbours."""
    start, stop = tiles[index]
    weight = torch.ones((stop - start) * scale)
    if index > 0:
        rise = _rise((tiles[index - 1][1] - start) * scale)
        weight[: len(rise)] = rise
    if index + 1 < len(tiles):
        rise = _rise((stop - tiles[index + 1][0]) * scale)
        weight[len(weight) - len(rise) :] = 1 - rise
    return weight


def _rise(overlap: int) -> Tensor:
    """Return a ramp from 0 to 1 over the middle half of an overlap: next to its border, a tile counts for nothing."""
    return ((torch.arange(overlap) + 0.5) / overlap * 2 - 0.5).clamp(0, 1)


def _weighted(piece: TileOutput, window: Tensor, top: int, left: int) -> TileOutput:
    """Weight a piece of a tile, and give its place in the whole result."""
    rows = slice(piece.top, piece.top + piece.sr.shape[-2])
    columns = slice(piece.left, piece.left + piece.sr.shape[-1])
    weight = window[rows, columns]
    parts = (part * weight for part in (piece.sr, piece.predictions, piece.weights))
    return TileOutput(top + piece.top, left + piece.left, *parts)
