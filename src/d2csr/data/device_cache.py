"""Decoded training set on the device, from which patches are cut there."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2csr.data.cache import size_text
from d2csr.data.dataset import PatchDataset, RandomCrop, to_tensor
from d2csr.data.sampler import PatchKey
from d2csr.data.sources import PairSource
from d2csr.distributed import is_rank_zero
from d2csr.errors import DataError
from d2csr.inference.plan import budget

log = logging.getLogger(__name__)


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
        _require_memory(total, device, copies)
        pixels = torch.empty(total, dtype=torch.uint8, device=device)
        parts = pixels.split([3 * height * width for height, width in sizes])
        self._images = [part.view(3, *size) for part, size in zip(parts, sizes, strict=True)]  # LR, HR, LR, HR …
        for index in range(len(source)):
            for place, image in zip(self[index], source[index], strict=True):
                place.copy_(to_tensor(image))
        if is_rank_zero():
            log.info("Keeping %d decoded pairs on %s; they take %s.", len(source), device, size_text(total))

    def __len__(self) -> int:
        return len(self._images) // 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return views of LR, 3×H×W, and HR, 3×sH×sW, uint8 RGB."""
        lr, hr = self._images[2 * index : 2 * index + 2]
        return lr, hr


@dataclass(eq=False, repr=False)
class DevicePatchDataset(Dataset[dict[str, Tensor | int]]):
    """The patches of a :class:`d2csr.data.dataset.PatchDataset`, cut on a device.

    The positions are drawn on the host, and no operation waits for the device.

    Args:
        patches: the rule of the patches; its source is not read.
        images: the pairs of that source on the device.
    """

    patches: PatchDataset
    images: DeviceCache

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, key: PatchKey) -> dict[str, Tensor | int]:
        """Return ``lr``, 3×p×p, ``hr``, 3×sp×sp, uint8 RGB, which may be views, and ``index``."""
        rule = self.patches
        index, random = rule.draw(key)
        lr, hr = self.images[index]
        crop = RandomCrop.draw(random, tuple(lr.shape[1:]), rule.patch_size, augment=rule.augment)
        lr, hr = (_cut(image, crop, rule.patch_size, scale) for image, scale in ((lr, 1), (hr, rule.scale)))
        return {"lr": lr, "hr": hr, "index": index}


def _cut(image: Tensor, crop: RandomCrop, patch_size: int, scale: int) -> Tensor:
    rows, columns = crop.window(patch_size, scale)
    patch = image[:, rows, columns]
    flips = [axis for axis, flip in ((1, crop.flip_vertically), (2, crop.flip_horizontally)) if flip]
    if flips:
        patch = torch.flip(patch, flips)
    return patch.transpose(1, 2) if crop.transpose else patch


def _require_memory(needed: int, device: torch.device, copies: int) -> None:
    available = budget("auto", device)
    if copies * needed <= available:
        return
    several = f" in each of {copies} processes" if copies > 1 else ""
    raise DataError(
        f"data.cache=device: the decoded training images take {size_text(needed)}{several}, but of the memory of "
        f"{device} {size_text(available)} can be used (four fifths of what is free). Use data.cache=disk."
    )
