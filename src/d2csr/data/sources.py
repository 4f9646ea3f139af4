"""Sources of decoded pairs: from files, from memory, or from the disk cache. Without torch, for worker processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from d2csr.data.cache import ImageCache
from d2csr.data.image_index import ImageFile
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair
from d2csr.data.shared_memory import RamSource, memory_file
from d2csr.errors import DataError
from d2csr.files import cores, each

log = logging.getLogger(__name__)

#: Where decoded training images are kept: nowhere, in memory, on disk, or on disk and on the device.
CACHES = ("none", "ram", "disk", "device")

_Images = tuple[Any, Any]  # arrays; of DeviceCache tensors


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


def is_cut(pair: CheckedPair, scale: int) -> bool:
    """Return whether a pair is cut to its common area: HR is not exactly ``scale`` times as large as LR."""
    return pair.hr.size != (scale * pair.lr.height, scale * pair.lr.width)


class PairSource(Protocol):
    """Whole LR and HR images by the number of their pair."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def __getitem__(self, index: int) -> _Images:
        """Return LR, H×W×3, and HR, sH×sW×3, both uint8 RGB and cut at the bottom and right to their common area.

        They may be views of mapped files: pixels are read from the disk when they are used.
        """


@dataclass(eq=False, repr=False)
class FileSource:
    """Images that are decoded at each access."""

    pairs: Sequence[CheckedPair]
    scale: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> _Images:
        pair = self.pairs[index]
        try:
            lr = _decode(pair.lr)
            return _cut(lr, lr if pair.hr is pair.lr else _decode(pair.hr), self.scale)
        except DataError as error:
            raise DataError(f"{pair.named.origin}: {error}") from None


class DiskSource(FileSource):
    """Images of the disk cache, mapped at each access: a large set has more files than a process may map."""

    def __init__(self, pairs: Sequence[CheckedPair], scale: int, cache: ImageCache) -> None:
        super().__init__(pairs, scale)
        self.cache = cache
        # Arrays and not objects: counting references to objects would copy their pages into every worker.
        both = [(pair.lr, pair.hr) for pair in pairs]
        self._names = np.array([[cache.name(file).encode() for file in files] for files in both])
        self._sizes = np.array([[file.size for file in files] for files in both])

    def __getitem__(self, index: int) -> _Images:
        try:
            lr, hr = (
                self.cache.read(name.decode(), *size)
                for name, size in zip(self._names[index], self._sizes[index].tolist(), strict=True)
            )
        except (OSError, ValueError) as error:  # an entry was deleted or cut during the run, which need not end it
            log.debug("%s; decoding the image.", error)
            return super().__getitem__(index)
        return _cut(lr, hr, self.scale)


def open_source(
    pairs: Sequence[CheckedPair], scale: int, cache: str, cache_dir: Path
) -> tuple[PairSource, dict[int, str]]:
    """Open pairs with one of :data:`CACHES`; all but ``none`` decode every image that is not in the disk cache.

    ``device`` opens the disk cache, from which :class:`d2csr.data.device_cache.DeviceCache` is filled.

    Returns:
        The source, and problems with images that could not be decoded, by the number of the pair. If there are any,
        the source cannot be used: open the other pairs.

    Raises:
        DataError: the disk cache cannot be written.
    """
    files = FileSource(pairs, scale)
    if cache == "none":
        return files, {}
    if cache == "ram":
        numbers = range(len(files))
        store = RamSource(memory_file(), [_sizes(pair, scale) for pair in pairs])
        results = each(lambda n: store.fill(n, files[n]), numbers, label="decoding images", threads=cores())
        return store, {number: str(result) for number, result in enumerate(results) if isinstance(result, DataError)}
    images = ImageCache(cache_dir)
    broken = images.fill([file for pair in pairs for file in (pair.lr, pair.hr)])
    problems = {
        number: f"{pair.named.origin}: {broken[file.path]}"
        for number, pair in enumerate(pairs)
        for file in (pair.hr, pair.lr)
        if file.path in broken
    }
    return DiskSource(pairs, scale, images), problems


def _sizes(pair: CheckedPair, scale: int) -> list[tuple[int, int]]:
    """Return the sizes of LR and HR without what is cut, or of one image that is both."""
    if pair.hr is pair.lr:
        return [pair.hr.size]
    height, width = common_size(pair.lr.size, pair.hr.size, scale)
    return [(height, width), (scale * height, scale * width)]


def _decode(file: ImageFile) -> np.ndarray:
    image = read_rgb(file.path)
    height, width = image.shape[:2]
    if (height, width) != file.size:
        raise DataError(
            f"{file.path}: was changed during the run, from {file.width}×{file.height} to {width}×{height} pixels. "
            "Restore it, or start again."
        )
    return image


def _cut(lr: np.ndarray, hr: np.ndarray, scale: int) -> _Images:
    if hr is lr:  # HR alone
        return lr, lr
    height, width = common_size(lr.shape[:2], hr.shape[:2], scale)
    return lr[:height, :width], hr[: scale * height, : scale * width]
