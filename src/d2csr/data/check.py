"""The check of all pairs before the first step.

Headers and ends of files are read; pixels are decoded for a cache, and for ``on_error=skip``. All problems are reported
together, each with its list and line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from d2csr.checks import one_of
from d2csr.data.dataset import CACHES, CheckedPair, PairSource, common_size, is_cut, open_source
from d2csr.data.image_index import ImageFile, index_images
from d2csr.data.lists import ImagePair
from d2csr.distributed import gather_problems
from d2csr.errors import DataError

log = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip")
_SHOWN = 20


def check_pairs(
    pairs: Sequence[ImagePair], scale: int, patch_size: int, cache_dir: Path, *, decode: bool = False
) -> tuple[dict[int, CheckedPair], dict[int, str]]:
    """Check that each pair is there, fits the scale, and can give an LR patch of ``patch_size`` pixels a side.

    Args:
        pairs: what to check.
        scale: s.
        patch_size: the side of the LR patch in pixels; 1 for whole images.
        cache_dir: folder of the image index, so that the next check reads changed images only.
        decode: also decode every image that is not known to be good.

    Returns:
        The good pairs, and what is wrong with the others, both by number.
    """
    paths = list(dict.fromkeys(path for pair in pairs for path in (pair.lr, pair.hr)))
    files = dict(zip(paths, index_images(paths, cache_dir, decode=decode), strict=True))
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


def raise_or_skip(problems: dict[int, str], total: int, on_error: str, *, is_rank_zero: bool = True) -> None:
    """Raise an error for pairs that cannot be used, or log which ones are left out.

    Args:
        problems: errors of pairs, by number.
        total: how many pairs there are.
        on_error: one of :data:`ON_ERROR`.
        is_rank_zero: this process logs messages.

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
    if is_rank_zero:  # all of them: which pairs a model has not seen is a part of its record
        log.warning("%d of %d pairs are skipped (data.on_error=skip):\n%s", len(problems), total, "\n".join(lines))


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


def prepare(
    read: Callable[[], Sequence[ImagePair]],
    *,
    scale: int,
    patch_size: int = 1,
    cache: str = "none",
    cache_dir: Path,
    on_error: str = "raise",
    is_rank_zero: bool = True,
) -> tuple[list[ImagePair], PairSource]:
    """Read and check pairs, decode them if there is a cache, and leave out what cannot be used if that is wanted.

    In a distributed run every rank calls this, and all get the same pairs.

    Args:
        read: returns the pairs of a split. Its errors are raised on all ranks.
        scale: s.
        patch_size: the side of the LR patch that each pair has to give.
        cache: ``none``, ``ram`` or ``disk``.
        cache_dir: folder of the image index and of the disk cache.
        on_error: ``raise`` or ``skip``, as for :func:`raise_or_skip`.
        is_rank_zero: this process logs messages.

    Returns:
        The pairs that can be used, in their order, and their images.

    Raises:
        ConfigError: a setting has an impossible value.
        DataError: pairs cannot be used, or the disk cache cannot be written.
    """
    one_of("cache", cache, CACHES)
    one_of("on_error", on_error, ON_ERROR)
    decode = on_error == "skip" and cache == "none"  # the caches decode every image anyway
    pairs: Sequence[ImagePair] = []
    good: dict[int, CheckedPair] = {}

    def check() -> dict[int, str]:
        nonlocal pairs
        pairs = read()
        found, problems = check_pairs(pairs, scale, patch_size, cache_dir, decode=decode)
        good.update(found)
        return problems

    problems = gather_problems(check)
    raise_or_skip(problems, len(pairs), on_error, is_rank_zero=is_rank_zero)
    kept = [pair for number, pair in good.items() if number not in problems]
    if is_rank_zero and (cut := sum(is_cut(pair, scale) for pair in kept)):
        log.info("%d of %d pairs are no exact multiples of %d: cut to their common area.", cut, len(kept), scale)

    source: PairSource | None = None

    def open_pairs() -> dict[int, str]:
        nonlocal source
        source, problems = open_source(kept, scale, cache, cache_dir)
        return problems

    problems = gather_problems(open_pairs)
    raise_or_skip(problems, len(kept), on_error, is_rank_zero=is_rank_zero)
    if problems:
        kept = [pair for number, pair in enumerate(kept) if number not in problems]
        source = None  # its memory, before that of the next one is taken
        open_pairs()
    assert source is not None
    return [pair.named for pair in kept], source
