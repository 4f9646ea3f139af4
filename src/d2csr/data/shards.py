"""Whole images shared among processes, for validation and test: each image in one of them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import Sampler

from d2csr.data.batches import Batch

# The number that a filler has in place of its pair's.
FILLER = -1


class ShardSampler(Sampler[int]):
    """Every ``world_size``-th image, from ``rank`` on.

    torch's DistributedSampler repeats images until all processes have as many, and these would count twice. Here a
    process that would have none gets a filler, :data:`FILLER`, and no process gets one beside images: Lightning skips
    validation in a process without a batch, so that the others would wait forever for its share of the figures.

    Args:
        num_images: images in all.
        rank: the number of this process.
        world_size: how many processes there are.
    """

    def __init__(self, num_images: int, rank: int = 0, world_size: int = 1) -> None:
        self.numbers = list(range(rank, num_images, world_size)) or [FILLER]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def without_fillers(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return LR, N×3×H×W, and HR, N×3×sH×sW, of the images that count; N may be 0."""
    lr, hr = batch["lr"], batch["hr"]
    if "index" not in batch:  # patches, or batches that came from elsewhere
        return lr, hr
    counts = batch["index"] != FILLER
    return lr[counts], hr[counts]
