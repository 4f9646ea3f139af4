"""Sources of decoded pairs: from files, from memory, from the disk cache, or on a device, where patches are cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from d2csr.data.cache import ImageCache, size_text
from d2csr.data.image_index import ImageFile
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair
from d2csr.distributed import is_rank_zero
from d2csr.errors import DataError
from d2csr.files import cores, each
from d2csr.inference.plan import budget

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


class DeviceCache:
    """All pairs of a source as uint8 on a device, in one tensor.

    Args:
        source: the pairs, at least one.
        device: the device.
        copies: how many processes keep a copy in the memory of this machine; 1 on a GPU.

    Raises:
        DataError: the images need more than four fifths of the free memory of the device.
    """

    def __init__(self, source: PairSource, device: torch.device, copies: int = 1) -> None:
        sizes = [image.shape[:2] for index in range(len(source)) for image in source[index]]
        total = sum(3 * height * width for height, width in sizes)
        available = budget("auto", device)
        if copies * total > available:
            several = f" in each of {copies} processes" if copies > 1 else ""
            raise DataError(
                f"data.cache=device: the decoded training images take {size_text(total)}{several}, but of the memory "
                f"of {device} {size_text(available)} can be used (four fifths of what is free). Use data.cache=disk."
            )
        pixels = torch.empty(total, dtype=torch.uint8, device=device)
        parts = pixels.split([3 * height * width for height, width in sizes])
        planes = [part.view(3, *size) for part, size in zip(parts, sizes, strict=True)]
        self._images = [plane.permute(1, 2, 0) for plane in planes]  # LR, HR, LR, HR …
        for index in range(len(source)):
            for place, image in zip(planes[2 * index : 2 * index + 2], source[index], strict=True):
                place.copy_(to_tensor(image))
        if is_rank_zero():
            log.info("Keeping %d decoded pairs on %s; they take %s.", len(source), device, size_text(total))

    def __len__(self) -> int:
        return len(self._images) // 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return views of LR, H×W×3, and HR, sH×sW×3, uint8 RGB; their colours lie in three planes."""
        lr, hr = self._images[2 * index : 2 * index + 2]
        return lr, hr


def open_source(
    pairs: Sequence[CheckedPair], scale: int, cache: str, cache_dir: Path
) -> tuple[PairSource, dict[int, str]]:
    """Open pairs with one of :data:`CACHES`; all but ``none`` decode every image that is not in the disk cache.

    ``device`` opens the disk cache, from which :class:`DeviceCache` is filled.

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
        images = each(lambda number: _planar(*files[number]), numbers, label="decoding images", threads=cores())
        problems = {number: str(result) for number, result in enumerate(images) if isinstance(result, DataError)}
        # A list: worker processes share its memory by being forked from this one.
        return [pair for pair in images if not isinstance(pair, DataError)], problems
    store = ImageCache(cache_dir)
    broken = store.fill([file for pair in pairs for file in (pair.lr, pair.hr)])
    problems = {
        number: f"{pair.named.origin}: {broken[file.path]}"
        for number, pair in enumerate(pairs)
        for file in (pair.hr, pair.lr)
        if file.path in broken
    }
    return DiskSource(pairs, scale, store), problems


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


def _planar(lr: np.ndarray, hr: np.ndarray) -> _Images:
    """Return images whose colours lie in a plane each, which makes crops faster, as in :mod:`d2csr.data.cache`."""
    first = np.ascontiguousarray(lr.transpose(2, 0, 1)).transpose(1, 2, 0)
    return first, first if hr is lr else np.ascontiguousarray(hr.transpose(2, 0, 1)).transpose(1, 2, 0)


def to_tensor(image: np.ndarray | Tensor) -> Tensor:
    """Return H×W×3 as 3×H×W: a copy of an array, or a view of a tensor."""
    if isinstance(image, Tensor):
        return image.permute(2, 0, 1)
    planes = image.transpose(2, 0, 1)
    if planes.strides[2] == -1:  # rows read backwards: numpy copies them byte by byte, torch is four times as fast
        return torch.from_numpy(planes[:, :, ::-1].copy()).flip(2)
    return torch.from_numpy(planes.copy())
