"""Where the pixels of a pair come from: its files each time, or memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from d2csr.data.check import common_size
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError, DataError


class PairSource(Protocol):
    """Whole LR and HR images by the number of their pair."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return LR, H×W×3, and HR, sH×sW×3, both uint8 RGB and cut at the bottom and right to their common area."""


class FileSource:
    """Decodes both images each time that a pair is asked for."""

    def __init__(self, pairs: Sequence[ImagePair], scale: int) -> None:
        self.pairs = pairs
        self.scale = scale

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair, s = self.pairs[index], self.scale
        try:
            lr, hr = read_rgb(pair.lr), read_rgb(pair.hr)
        except DataError as error:
            raise DataError(f"{pair.origin}: {error}") from None
        height, width = common_size(lr.shape[:2], hr.shape[:2], s)
        return lr[:height, :width], hr[: s * height, : s * width]


class MemorySource:
    """Decodes everything once, into memory that worker processes share by being forked from this one."""

    def __init__(self, files: FileSource) -> None:
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
            self._images = list(pool.map(files.__getitem__, range(len(files))))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._images[index]


def open_source(pairs: Sequence[ImagePair], scale: int, cache: str) -> PairSource:
    """Open pairs with the cache of that name, ``none`` or ``ram``.

    Raises:
        ConfigError: there is no such cache.
        DataError: an image cannot be decoded.
    """
    files = FileSource(pairs, scale)
    if cache == "none":
        return files
    if cache == "ram":
        return MemorySource(files)
    raise ConfigError(f"data.cache: must be none or ram, got {cache!r}.")
