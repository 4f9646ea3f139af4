"""Decoded pairs, from files or from a cache. Without torch, for worker processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2csr.data.cache import Cache, DiskCache, MemoryCache, decode
from d2csr.data.image_index import ImageFile
from d2csr.data.lists import ImagePair
from d2csr.data.shared_memory import memory_file
from d2csr.errors import DataError

log = logging.getLogger(__name__)

#: Where decoded training images are kept: nowhere, in memory, on disk, or on disk and on the device.
CACHES = ("none", "ram", "disk", "device")


@dataclass(frozen=True)
class CheckedPair:
    """A pair as the list names it, and its two images, which were checked."""

    named: ImagePair
    lr: ImageFile
    hr: ImageFile


def fits_scale(lr: tuple[int, int], hr: tuple[int, int], scale: int) -> bool:
    """Return whether two sizes differ from the scale by less than two LR pixels: HR need not be an exact multiple."""
    return all(abs(big - scale * small) < 2 * scale for small, big in zip(lr, hr, strict=True))


def common_size(lr: tuple[int, int], hr: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the LR height and width on which a pair overlaps."""
    return min(lr[0], hr[0] // scale), min(lr[1], hr[1] // scale)


@dataclass(eq=False, repr=False)
class PairSource:
    """Whole LR and HR images by the number of their pair; without a cache they are decoded at each access."""

    pairs: Sequence[CheckedPair]
    scale: int
    cache: Cache | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return LR, H×W×3, and HR, sH×sW×3, both uint8 RGB and cut at the bottom and right to their common area.

        They may be views of mapped files: pixels are read from the disk when they are used.
        """
        pair, s = self.pairs[index], self.scale
        try:
            lr = self._image(pair.lr)
            hr = lr if pair.hr is pair.lr else self._image(pair.hr)
        except DataError as error:
            raise DataError(f"{pair.named.origin}: {error}") from None
        height, width = common_size(pair.lr.size, pair.hr.size, s)
        return lr[:height, :width], hr[: s * height, : s * width]

    def _image(self, file: ImageFile) -> np.ndarray:
        if self.cache is not None:
            try:
                return self.cache.read(file)
            except (OSError, ValueError) as error:  # an entry was deleted or cut during the run, which need not end it
                log.debug("%s; decoding the image.", error)
        return decode(file)


def fill_cache(pairs: Mapping[int, CheckedPair], cache: str, cache_dir: Path) -> tuple[Cache | None, dict[int, str]]:
    """Decode pairs, each image once, into one of :data:`CACHES`; ``device`` fills the one on disk.

    Returns:
        The cache, and problems with images that could not be decoded, by the number of the pair.

    Raises:
        DataError: the disk cache cannot be written.
    """
    if cache == "none" or not pairs:
        return None, {}
    files = list({file.path: file for pair in pairs.values() for file in (pair.lr, pair.hr)}.values())
    store = MemoryCache(files, memory_file()) if cache == "ram" else DiskCache(cache_dir)
    broken = store.fill(files)
    return store, {
        number: f"{pair.named.origin}: {broken[file.path]}"
        for number, pair in pairs.items()
        for file in (pair.hr, pair.lr)
        if file.path in broken
    }
