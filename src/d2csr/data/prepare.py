"""From the pairs of a split to those that can be used, and their pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from d2csr.data.agreement import agreed
from d2csr.data.check import ON_ERROR, CheckedPair, check_pairs, is_cut, settle
from d2csr.data.lists import ImagePair
from d2csr.data.sources import CACHES, PairSource, open_source
from d2csr.errors import ConfigError

log = logging.getLogger(__name__)


def prepare(
    read: Callable[[], Sequence[ImagePair]],
    *,
    scale: int,
    patch_size: int = 1,
    cache: str = "none",
    cache_dir: Path,
    on_error: str = "raise",
    speaks: bool = True,
) -> tuple[list[ImagePair], PairSource]:
    """Read and check pairs, decode them if there is a cache, and leave out what cannot be used if that is wanted.

    In a distributed run every process calls this, and all of them come to the same pairs.

    Args:
        read: returns the pairs of a split. It is called here because of a distributed run, where no process may fail
            before it has told the others.
        scale: s.
        patch_size: the side of the LR patch that each pair has to give.
        cache: ``none``, ``ram`` or ``disk``.
        cache_dir: where the check is remembered, and where the disk cache is.
        on_error: ``raise`` or ``skip``; see :func:`d2csr.data.check.settle`.
        speaks: this process is the one that speaks for all.

    Returns:
        The pairs that can be used, in their order, and their images.

    Raises:
        ConfigError: a setting has an impossible value.
        DataError: pairs cannot be used, or the disk cache cannot be written.
    """
    _one_of("cache", cache, CACHES)
    _one_of("on_error", on_error, ON_ERROR)
    pairs: Sequence[ImagePair] = []
    good: dict[int, CheckedPair] = {}

    def check() -> dict[int, str]:
        nonlocal pairs
        pairs = read()
        found, problems = check_pairs(pairs, scale, patch_size, cache_dir)
        good.update(found)
        return problems

    problems = agreed(check)
    settle(problems, len(pairs), on_error, speaks=speaks)
    kept = [pair for number, pair in good.items() if number not in problems]
    if speaks and (cut := sum(is_cut(pair, scale) for pair in kept)):
        log.info("%d of %d pairs are no exact multiples of %d: cut to their common area.", cut, len(kept), scale)

    source: PairSource | None = None

    def decode() -> dict[int, str]:
        nonlocal source
        source, problems = open_source(kept, scale, cache, cache_dir)
        return problems

    problems = agreed(decode)
    settle(problems, len(kept), on_error, speaks=speaks)
    if problems:
        kept = [pair for number, pair in enumerate(kept) if number not in problems]
        source = None  # its memory, before that of the next one is taken
        decode()
    assert source is not None
    return [pair.named for pair in kept], source


def _one_of(setting: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"data.{setting}: must be {', '.join(known[:-1])} or {known[-1]}, got {value!r}.")
