"""A look at every pair before the first step, so that a bad one does not stop a run in the middle of the night.

Only headers are read. All problems are reported at once, each with its list and line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from d2csr.data.images import read_size
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError

_SHOWN = 20


def common_size(lr: tuple[int, int], hr: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the LR height and width on which a pair overlaps: HR need not be an exact multiple of LR."""
    return min(lr[0], hr[0] // scale), min(lr[1], hr[1] // scale)


def check_pairs(pairs: Sequence[ImagePair], scale: int, patch_size: int = 1) -> None:
    """Check that each pair is there, fits the scale, and can give an LR patch of ``patch_size`` pixels a side.

    Raises:
        DataError: the message names every pair that fails (up to a limit) and what to do.
    """
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        problems = [p for p in pool.map(lambda pair: _problem(pair, scale, patch_size), pairs) if p]
    if problems:
        shown = "\n".join(problems[:_SHOWN])
        rest = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{len(problems)} of {len(pairs)} pairs cannot be used:\n{shown}{rest}")


def _problem(pair: ImagePair, scale: int, patch_size: int) -> str | None:
    try:
        lr, hr = read_size(pair.lr), read_size(pair.hr)
    except DataError as error:
        return f"{pair.origin}: {error}"
    where = f"{pair.origin}: {pair.lr} is {lr[1]}×{lr[0]} and {pair.hr} is {hr[1]}×{hr[0]} (width×height)"
    if lr == hr:
        return f"{where}: LR is as large as HR, as in RealSR V1 and V2; use V3, whose LR is smaller"
    if any(abs(big - scale * small) >= 2 * scale for small, big in zip(lr, hr, strict=True)):
        return f"{where}: these do not fit the scale {scale}; set scale=… or correct the list"
    height, width = common_size(lr, hr, scale)
    if min(height, width) < patch_size:
        return f"{where}: smaller than the LR patch of {patch_size}; set data.patch_size={min(height, width)} or less"
    return None
