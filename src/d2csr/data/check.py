"""Check of all pairs before the first training step, with all problems in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from d2csr.checks import SCALES
from d2csr.data.cache import Cache
from d2csr.data.image_index import ImageFile, check_images
from d2csr.data.lists import ImagePair
from d2csr.data.sources import CheckedPair, PairSource, common_size, fill_cache, fits_scale
from d2csr.distributed import gather_problems, is_rank_zero
from d2csr.errors import DataError, first_of

log = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip")


def check_pairs(
    pairs: Sequence[ImagePair],
    scale: int,
    patch_size: int,
    cache_dir: Path,
    *,
    decode: bool = False,
    hr_alone: bool = False,
) -> tuple[dict[int, CheckedPair], dict[int, str]]:
    """Check that each pair exists, fits the scale, and is large enough for an LR patch of ``patch_size`` pixels a side.

    The headers and the ends of the files are read; ``decode`` decodes every image, which finds all defects. The image
    index in ``cache_dir`` makes the next check fast. With ``hr_alone``, each pair is an HR image with itself. Returns
    the good pairs, and the problems of the others, both by number.
    """
    paths = list(dict.fromkeys(path for pair in pairs for path in (pair.lr, pair.hr)))
    files = dict(zip(paths, check_images(paths, cache_dir, decode=decode), strict=True))
    good, problems = {}, {}
    small: dict[int, str] = {}  # what is wrong with pairs that are too small
    smallest = patch_size  # the patch that fits all of them
    for number, pair in enumerate(pairs):
        lr, hr = files[pair.lr], files[pair.hr]
        if isinstance(lr, ImageFile) and isinstance(hr, ImageFile):
            checked = CheckedPair(pair, lr, hr)
            problem = None if hr_alone else _misfit(checked, scale)
            side = min(common_size(lr.size, hr.size, scale))
            if not problem and side < patch_size:
                patch = f"the LR patch of {patch_size}, {scale * patch_size} in HR"
                small[number] = f"{_sizes(checked)}: smaller than {patch}"
                smallest = min(smallest, side)
                continue
        else:
            problem = str(lr if isinstance(lr, DataError) else hr)
        if problem:
            problems[number] = f"{pair.origin}: {problem}"
        else:
            good[number] = checked
    for number, problem in small.items():
        problems[number] = f"{pairs[number].origin}: {problem}; data.patch_size={smallest} fits all"
    return good, problems


def raise_or_skip(problems: dict[int, str], total: int, on_error: str, *, what: str = "pairs") -> None:
    """Raise a DataError for problems, by the number of the pair, or write them to the log of rank 0.

    It is raised if ``on_error`` is ``raise``, or if none of the ``total`` pairs is left, and names up to 20 problems.
    ``what`` names the pairs.
    """
    if not problems:
        return
    lines = [problems[number] for number in sorted(problems)]
    if on_error == "raise" or len(problems) == total:
        shown = "\n".join(first_of(lines))
        skip = "\nRepair them, or skip them by data.on_error=skip." if len(problems) < total else ""
        raise DataError(f"{len(problems)} of {total} {what} cannot be used:\n{shown}{skip}")
    if is_rank_zero():  # all of them: the log has to show on which pairs a model was not trained
        log.warning("%d of %d %s are skipped (data.on_error=skip):\n%s", len(problems), total, what, "\n".join(lines))


def prepare(
    read: Callable[[], Sequence[ImagePair]],
    *,
    scale: int,
    patch_size: int = 1,
    cache: str = "none",
    cache_dir: Path,
    on_error: str = "raise",
    hr_alone: bool = False,
) -> tuple[list[ImagePair], PairSource]:
    """Read and check pairs, fill a cache, and return the pairs that can be used, in their order, and their images.

    In a distributed run every rank calls this. All ranks return the same pairs, and raise the errors of all, also those
    of ``read``, which returns the pairs of a split. ``patch_size`` is the side of the LR patch in pixels, ``cache`` one
    of :data:`d2csr.data.sources.CACHES`, ``on_error`` one of :data:`ON_ERROR`. With ``hr_alone``, each pair is an HR
    image with itself, and the source gives it at both places.

    Raises:
        DataError: a list or pairs cannot be used, or the disk cache cannot be written.
    """
    decode = cache == "none" and on_error == "skip"  # without a cache nothing else decodes all images before training

    def check() -> tuple[tuple[dict[int, CheckedPair], int, Cache | None], dict[int, str]]:
        pairs = read()
        good, problems = check_pairs(pairs, scale, patch_size, cache_dir, decode=decode, hr_alone=hr_alone)
        store = None
        if on_error == "skip" or not problems:
            store, broken = fill_cache(good, cache, cache_dir)
            problems |= broken
        return (good, len(pairs), store), problems

    (good, total, store), problems = gather_problems(check)
    raise_or_skip(problems, total, on_error, what="HR images" if hr_alone else "pairs")
    kept = [pair for number, pair in good.items() if number not in problems]
    cut = sum(pair.hr.size != (scale * pair.lr.height, scale * pair.lr.width) for pair in kept)
    if cut and not hr_alone and is_rank_zero():
        log.info("%d of %d pairs are no exact multiples of %d: cut to their common area.", cut, len(kept), scale)
    return [pair.named for pair in kept], PairSource(kept, 1 if hr_alone else scale, store)


def _misfit(pair: CheckedPair, scale: int) -> str | None:
    """Return why the sizes do not fit, and what to do."""
    lr, hr = pair.lr.size, pair.hr.size
    if lr == hr:
        return f"{_sizes(pair)}: LR is as large as HR, as in RealSR V1 and V2; use V3, whose LR is smaller"
    if fits_scale(lr, hr, scale):
        return None
    ratio = f"{hr[1] / lr[1]:.3g}×{hr[0] / lr[0]:.3g}"
    return f"{_sizes(pair)}: these do not fit the scale {scale}, but {ratio}; correct the list{_other_scale(lr, hr)}"


def _other_scale(lr: tuple[int, int], hr: tuple[int, int]) -> str:
    """Return the advice to use the scale that fits, if any; that of an evaluation is the checkpoint's."""
    s = next((other for other in SCALES if fits_scale(lr, hr, other)), None)
    return f", train with scale={s}, or evaluate a checkpoint of scale {s}" if s else ""


def _sizes(pair: CheckedPair) -> str:
    hr = f"{pair.named.hr} is {pair.hr.width}×{pair.hr.height} (width×height)"
    return hr if pair.hr is pair.lr else f"{pair.named.lr} is {pair.lr.width}×{pair.lr.height} and {hr}"
