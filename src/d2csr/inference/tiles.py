"""Approximate inference in overlapping tiles, for images whose trunk does not fit into memory.

The network processes each tile as an image of its own: channel attention averages over the tile only, and the border of
the tile is padded. So the result differs from that of the whole image. Neighbouring tiles overlap and are blended by
linear ramps, which hides the seams. :func:`probe` measures the remaining difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

from d2csr.inference.strips import Progress, add_strips, part_of, zero_outputs
from d2csr.inference.trace import trunk_radius
from d2csr.models import SRNetwork

_PROBE = 256


def add_tiles(
    totals: Sequence[Tensor], model: SRNetwork, lr: Tensor, side: int, length: int, *, progress: Progress | None = None
) -> None:
    """Add the outputs of an LR image, 1×3×H×W, to ``totals``, in tiles of ``side`` LR pixels whose weights sum to 1.

    Each tile is computed in strips of ``length`` LR rows; ``progress`` is called with the fraction that is done.
    """
    s = model.scale
    rows, columns = (_windows(spans(extent, side, trunk_radius(model)), s) for extent in lr.shape[-2:])
    for number, ((top, bottom, vertical), (left, right, horizontal)) in enumerate(product(rows, columns)):
        tile = lr[..., top:bottom, left:right]
        places = [total[..., top * s : bottom * s, left * s : right * s] for total in totals]
        window = torch.outer(vertical, horizontal).to(lr.device, lr.dtype)
        part = part_of(progress, number, len(rows) * len(columns))
        add_strips(places, model, tile, length, window=window, progress=part)


def spans(extent: int, side: int, radius: float) -> list[tuple[int, int]]:
    """Return where the tiles along one axis of ``extent`` LR rows start and stop.

    All tiles but the last have the same size, and a row belongs to at most two. Neighbours overlap by twice the radius
    of the receptive field, which may be infinite, but at most by half a tile. So the border of a tile is far from the
    rows where its weight is high.
    """
    if side >= extent:
        return [(0, extent)]
    overlap = int(min(2 * radius, side // 2))
    count = -(-(extent - overlap) // (side - overlap))
    stride = -(-(extent - overlap) // count)
    overlap = min(overlap, stride)  # with more, a row would belong to three tiles
    starts = [index * stride for index in range(count)]
    return [(start, start + stride + overlap) for start in starts[:-1]] + [(starts[-1], extent)]


def probe(model: SRNetwork, lr: Tensor, side: int, length: int) -> tuple[float, int]:
    """Measure the error of tiles on a square from the middle of the image, cut into tiles of half its side.

    Returns:
        The largest absolute difference to the exact result, of RGB in [0, 1], and the side of the square in LR pixels.
        Smaller tiles have larger errors, so the tiles of the image are likely to have a smaller one.
    """
    square = min(side, _PROBE, *lr.shape[-2:])
    top, left = ((extent - square) // 2 for extent in lr.shape[-2:])
    lr = lr[..., top : top + square, left : left + square]
    exact, tiled = (zero_outputs(model, lr, keep_leaves=False) for _ in range(2))
    add_strips(exact, model, lr, length)
    add_tiles(tiled, model, lr, max(1, square // 2), length)
    return (exact[0] - tiled[0]).abs().max().item(), square


def _windows(tiles: list[tuple[int, int]], scale: int) -> list[tuple[int, int, Tensor]]:
    """Return the tiles with the weight of each of their HR rows: 1, with ramps where a tile overlaps its neighbours."""
    windows = [torch.ones((stop - start) * scale) for start, stop in tiles]
    for index, ((first, stop), (start, _)) in enumerate(pairwise(tiles)):
        overlap = (stop - start) * scale
        # From 0 to 1 over the middle half of the overlap; next to its border, a tile has the weight 0.
        ramp = ((torch.arange(overlap) + 0.5) / overlap * 2 - 0.5).clamp(0, 1)
        windows[index][(start - first) * scale :] = 1 - ramp
        windows[index + 1][:overlap] = ramp
    return [(*tile, window) for tile, window in zip(tiles, windows, strict=True)]
