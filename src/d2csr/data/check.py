"""A look at every pair before the first step, so that a bad one does not stop a run in the middle of the night.

Only headers are read, and the files' ends; see :func:`d2csr.data.images.read_size`. All problems are found at once,
each with its list and line.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d2csr.data.headers import ImageFile, read_headers
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError

log = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip")
_SHOWN = 20


@dataclass(frozen=True)
class CheckedPair:
    """A pair whose two images have been looked at.

    Attributes:
        named: the pair as the list names it.
        lr: its LR image.
        hr: its HR image.
    """

    named: ImagePair
    lr: ImageFile
    hr: ImageFile


def common_size(lr: tuple[int, int], hr: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the LR height and width on which a pair overlaps: HR need not be an exact multiple of LR."""
    return min(lr[0], hr[0] // scale), min(lr[1], hr[1] // scale)


def is_cut(pair: CheckedPair, scale: int) -> bool:
    """Tell whether a pair is cut to its common area: HR is not exactly ``scale`` times as large as LR."""
    return pair.hr.size != (scale * pair.lr.height, scale * pair.lr.width)


def check_pairs(
    pairs: Sequence[ImagePair], scale: int, patch_size: int, cache_dir: Path
) -> tuple[dict[int, CheckedPair], dict[int, str]]:
    """Check that each pair is there, fits the scale, and can give an LR patch of ``patch_size`` pixels a side.

    Args:
        pairs: what to check.
        scale: s.
        patch_size: the side of the LR patch in pixels; 1 for whole images.
        cache_dir: where what was seen is remembered, so that the next check only looks for changes.

    Returns:
        The good pairs, and what is wrong with the others, both by number.
    """
    paths = list(dict.fromkeys(path for pair in pairs for path in (pair.lr, pair.hr)))
    files = dict(zip(paths, read_headers(paths, cache_dir), strict=True))
    good, problems = {}, {}
    for number, pair in enumerate(pairs):
        lr, hr = files[pair.lr], files[pair.hr]
        wrong = next((str(file) for file in (lr, hr) if isinstance(file, DataError)), None)
        if isinstance(lr, ImageFile) and isinstance(hr, ImageFile):
            checked = CheckedPair(pair, lr, hr)
            wrong = _misfit(checked, scale, patch_size)
            good[number] = checked
        if wrong:
            problems[number] = f"{pair.origin}: {wrong}"
            good.pop(number, None)
    return good, problems


def settle(problems: dict[int, str], total: int, on_error: str, *, speaks: bool = True) -> None:
    """End the run because of pairs that cannot be used, or say which ones are left out.

    Args:
        problems: what is wrong with pairs, by number.
        total: how many pairs there are.
        on_error: one of :data:`ON_ERROR`.
        speaks: this process is the one that speaks for all.

    Raises:
        DataError: pairs cannot be used, and ``on_error`` is ``raise`` or no pair is left. The message names them, up to
            a limit.
    """
    if not problems:
        return
    lines = [problems[number] for number in sorted(problems)]
    if on_error == "raise" or len(problems) == total:
        shown = "\n".join(lines[:_SHOWN])
        rest = f"\n... and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        advice = "\nMend them, or go on without them by data.on_error=skip." if len(problems) < total else ""
        raise DataError(f"{len(problems)} of {total} pairs cannot be used:\n{shown}{rest}{advice}")
    if speaks:  # all of them: which pairs a model has not seen is a part of its record
        log.warning("%d of %d pairs are left out (data.on_error=skip):\n%s", len(problems), total, "\n".join(lines))


def _misfit(pair: CheckedPair, scale: int, patch_size: int) -> str | None:
    lr, hr = pair.lr.size, pair.hr.size
    where = f"{pair.named.lr} is {lr[1]}×{lr[0]} and {pair.named.hr} is {hr[1]}×{hr[0]} (width×height)"
    if lr == hr:
        return f"{where}: LR is as large as HR, as in RealSR V1 and V2; use V3, whose LR is smaller"
    if any(abs(big - scale * small) >= 2 * scale for small, big in zip(lr, hr, strict=True)):
        return f"{where}: these do not fit the scale {scale}; set scale=… or correct the list"
    height, width = common_size(lr, hr, scale)
    if min(height, width) < patch_size:
        return f"{where}: smaller than the LR patch of {patch_size}; set data.patch_size={min(height, width)} or less"
    return None
