"""Training pairs on a device, where patches are cut."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from d2csr.data.batch import to_tensor
from d2csr.data.cache import size_text
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
