"""Samplers of training patches and evaluation images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from d2csr.data.dataset import PADDING, PatchKey


@dataclass(eq=False)
class PatchSampler(Sampler[PatchKey]):
    """Every patch of an epoch once, in an order that follows from the seed and the epoch.

    Global batch t of an epoch holds the same patches for any number of ranks; each rank yields its slice. Patches that
    do not fill a global batch are dropped. An iteration begins at ``batch`` of ``epoch`` and changes neither: workers
    fetch batches ahead, so only the training knows how many are done.

    Args:
        num_patches: patches in an epoch.
        batch_size: patches in a batch of one rank.
        repeat: yield the patches of epoch 0 in every epoch, to see whether a network can overfit to them.
    """

    num_patches: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    batch: int = 0
    repeat: bool = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; a new one starts at its first batch. Lightning calls this before each epoch."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def __len__(self) -> int:
        """Return the number of patches of this rank in a whole epoch, wherever the iteration begins."""
        return self.num_patches // (self.batch_size * self.world_size) * self.batch_size

    def __iter__(self) -> Iterator[PatchKey]:
        epoch = 0 if self.repeat else self.epoch
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_patches)
        batches = len(self) // self.batch_size
        mine = order[: batches * self.batch_size * self.world_size].reshape(batches, self.world_size, self.batch_size)
        for number in mine[self.batch :, self.rank].reshape(-1).tolist():
            yield epoch, number


class EvaluationSampler(list[int]):
    """Every ``world_size``-th image, from ``rank`` on, so that each of ``num_images`` is evaluated once.

    torch's DistributedSampler repeats images until all ranks have equally many, and these would count twice. Here a
    rank without images yields :data:`PADDING` once: Lightning skips validation on a rank without a batch, and the
    other ranks would wait forever for its scores.
    """

    def __init__(self, num_images: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(range(rank, num_images, world_size) or [PADDING])
