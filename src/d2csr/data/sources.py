"""Where the pixels of a pair come from: its files each time, memory, or the disk cache."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from d2csr.data.cache import ImageCache
from d2csr.data.check import CheckedPair, common_size
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair
from d2csr.data.parallel import cores, each
from d2csr.errors import DataError

log = logging.getLogger(__name__)

CACHES = ("none", "ram", "disk")


class PairSource(Protocol):
    """Whole LR and HR images by the number of their pair."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return LR, H×W×3, and HR, sH×sW×3, both uint8 RGB and cut at the bottom and right to their common area.

        They may be views of what lies elsewhere, on disk too: only what is taken out of them is read.
        """


class FileSource:
    """Decodes both images each time that a pair is asked for."""

    def __init__(self, pairs: Sequence[ImagePair], scale: int) -> None:
        self.pairs = pairs
        self.scale = scale

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.pairs[index]
        try:
            return _cut(read_rgb(pair.lr), read_rgb(pair.hr), self.scale)
        except DataError as error:
            raise DataError(f"{pair.origin}: {error}") from None


class MemorySource:
    """Decoded images, in memory that worker processes share by being forked from this one."""

    def __init__(self, images: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.images[index]


class DiskSource:
    """Images of the disk cache, mapped when they are asked for.

    A map that was kept would hold a file open, and a set of patches has more files than a process may have open.
    """

    def __init__(self, pairs: Sequence[CheckedPair], scale: int, cache: ImageCache) -> None:
        self.cache = cache
        self.scale = scale
        self.files = FileSource([pair.named for pair in pairs], scale)
        # Arrays and not objects: to count references to objects would copy their pages into every worker.
        both = [(pair.lr, pair.hr) for pair in pairs]
        self._names = np.array([[cache.name(file).encode() for file in files] for files in both])
        self._sizes = np.array([[file.size for file in files] for files in both])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            lr, hr = (
                self.cache.read(name.decode(), *size)
                for name, size in zip(self._names[index], self._sizes[index].tolist(), strict=True)
            )
        except (OSError, ValueError) as error:  # someone tidied up, or cut files: no reason to lose a run
            log.debug("%s; decoding the image.", error)
            return self.files[index]
        return _cut(lr, hr, self.scale)


def open_source(
    pairs: Sequence[CheckedPair], scale: int, cache: str, cache_dir: Path
) -> tuple[PairSource, dict[int, str]]:
    """Open pairs with the cache of that name.

    Args:
        pairs: the pairs.
        scale: s.
        cache: one of :data:`CACHES`; the last two decode every image, unless the disk cache holds it.
        cache_dir: the folder of the disk cache.

    Returns:
        The source, and what is wrong with images that could not be decoded, by the number of the pair. If there are
        any, the source is of no use: open the other pairs.

    Raises:
        DataError: the disk cache cannot be written.
    """
    files = FileSource([pair.named for pair in pairs], scale)
    if cache == "none":
        return files, {}
    if cache == "ram":
        images = each(
            lambda number: _planar(*files[number]), range(len(files)), label="decoding images", threads=cores()
        )
        problems = {number: str(result) for number, result in enumerate(images) if isinstance(result, DataError)}
        return MemorySource([pair for pair in images if not isinstance(pair, DataError)]), problems
    store = ImageCache(cache_dir)
    broken = store.fill([file for pair in pairs for file in (pair.lr, pair.hr)])
    problems = {
        number: f"{pair.named.origin}: {broken[file.path]}"
        for number, pair in enumerate(pairs)
        for file in (pair.hr, pair.lr)
        if file.path in broken
    }
    return DiskSource(pairs, scale, store), problems


def _cut(lr: np.ndarray, hr: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = common_size(lr.shape[:2], hr.shape[:2], scale)
    return lr[:height, :width], hr[: scale * height, : scale * width]


def _planar(lr: np.ndarray, hr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose colours lie in a plane each, of which crops are taken faster; see :mod:`d2csr.data.cache`."""
    first, second = (np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0) for image in (lr, hr))
    return first, second
