"""Training patches, whole images, and the sources of their pixels.

The content of a patch follows from the seed, the epoch and its number alone. So it does not depend on the number of
workers or ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2csr.data.cache import ImageCache
from d2csr.data.image_index import ImageFile
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair
from d2csr.data.sampler import PADDING, Batch, PatchKey
from d2csr.errors import DataError
from d2csr.files import cores, each


@dataclass(frozen=True)
class CheckedPair:
    """A pair whose two images are indexed.

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
    """Return whether a pair is cut to its common area: HR is not exactly ``scale`` times as large as LR."""
    return pair.hr.size != (scale * pair.lr.height, scale * pair.lr.width)


class PatchDataset(Dataset[dict[str, Tensor | int]]):
    """Random aligned LR/HR patches, augmented, by :data:`PatchKey`.

    Args:
        source: the pairs.
        scale: s.
        patch_size: p, the side of the LR patch in pixels.
        patches_per_image: how many patches an epoch takes from each pair.
        seed: the seed of all crops and augmentations.
        augment: flip horizontally, flip vertically and transpose, each with probability ½.
    """

    def __init__(
        self,
        source: PairSource,
        *,
        scale: int,
        patch_size: int,
        patches_per_image: int,
        seed: int,
        augment: bool = True,
    ) -> None:
        self.source = source
        self.scale = scale
        self.patch_size = patch_size
        self.patches_per_image = patches_per_image
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.source) * self.patches_per_image

    def __getitem__(self, key: PatchKey) -> dict[str, Tensor | int]:
        """Return ``lr``, 3×p×p, and ``hr``, 3×sp×sp, uint8 RGB, and ``index``, the number of the pair."""
        epoch, number = key if isinstance(key, tuple) else (0, key)  # trainer.overfit_batches replaces the sampler
        random = np.random.default_rng((self.seed, epoch, number))
        index = number // self.patches_per_image
        lr, hr = self.source[index]
        lr, hr = self._crop(random, lr, hr)
        if self.augment:
            lr, hr = _augment(random, lr, hr)
        return {"lr": to_tensor(lr), "hr": to_tensor(hr), "index": index}

    def _crop(self, random: np.random.Generator, lr: np.ndarray, hr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p, s = self.patch_size, self.scale
        # The upper bound is exclusive, so the last row and column are reached, and an image of exactly p pixels works.
        top = int(random.integers(lr.shape[0] - p + 1))
        left = int(random.integers(lr.shape[1] - p + 1))
        return lr[top : top + p, left : left + p], hr[s * top : s * (top + p), s * left : s * (left + p)]


class WholeImageDataset(Dataset[dict[str, Tensor | int]]):
    """Whole pairs, for validation and test.

    Args:
        source: the pairs.
    """

    def __init__(self, source: PairSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """Return ``lr``, 3×H×W, ``hr``, 3×sH×sW, uint8 RGB, and ``index``, the number of the pair.

        Padding, :data:`PADDING`, holds the first pair.
        """
        lr, hr = self.source[0 if index == PADDING else index]
        return {"lr": to_tensor(lr), "hr": to_tensor(hr), "index": index}


def to_tensor(image: np.ndarray) -> Tensor:
    """Return H×W×3 as 3×H×W, in memory of its own."""
    planes = image.transpose(2, 0, 1)
    if planes.strides[2] == -1:  # rows read backwards: numpy copies them byte by byte, torch is four times as fast
        return torch.from_numpy(planes[:, :, ::-1].copy()).flip(2)
    return torch.from_numpy(planes.copy())


def _augment(random: np.random.Generator, *images: np.ndarray) -> list[np.ndarray]:
    flip_horizontally, flip_vertically, transpose = random.random(3) < 0.5
    if flip_horizontally:
        images = tuple(image[:, ::-1] for image in images)
    if flip_vertically:
        images = tuple(image[::-1] for image in images)
    if transpose:
        images = tuple(image.transpose(1, 0, 2) for image in images)
    return list(images)


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

    def __init__(self, pairs: Sequence[CheckedPair], scale: int) -> None:
        self.pairs = [pair.named for pair in pairs]
        self.scale = scale
        self._sizes = np.array([[pair.lr.size, pair.hr.size] for pair in pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.pairs[index]
        images = []
        for path, size in zip((pair.lr, pair.hr), self._sizes[index].tolist(), strict=True):
            try:
                images.append(read_rgb(path))
            except DataError as error:
                raise DataError(f"{pair.origin}: {error}") from None
            if list(images[-1].shape[:2]) != size:
                height, width = images[-1].shape[:2]
                raise DataError(
                    f"{pair.origin}: {path}: was replaced during the run: {width}×{height} pixels, before "
                    f"{size[1]}×{size[0]}. Restore it, or start again."
                )
        return _cut(images[0], images[1], self.scale)


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
        self.files = FileSource(pairs, scale)
        # Arrays and not objects: to count references to objects would copy their pages into every worker.
        both = [(pair.lr, pair.hr) for pair in pairs]
        self._names = np.array([[cache.name(file).encode() for file in files] for files in both])
        self._sizes = np.array([[file.size for file in files] for files in both])
        self._verified = np.zeros((len(both), 2), dtype=bool)  # in this process

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            lr, hr = (
                self.cache.read(name.decode(), *size, verify=not verified)
                for name, size, verified in zip(
                    self._names[index], self._sizes[index].tolist(), self._verified[index].tolist(), strict=True
                )
            )
        except (OSError, ValueError) as error:  # deleted or damaged: decoding is slower, but the run goes on
            log.debug("%s; decoding the image.", error)
            return self.files[index]
        self._verified[index] = True
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
    files = FileSource(pairs, scale)
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


def to_float(batch: Batch) -> Batch:
    """Return a batch whose uint8 images (0 to 255) are float32 in [0, 1]; everything else is handed on as it is."""

    def convert(value: Tensor) -> Tensor:
        return value.float() / 255 if isinstance(value, Tensor) and value.dtype == torch.uint8 else value

    return {name: convert(value) for name, value in batch.items()}
