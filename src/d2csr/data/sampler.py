"""Samplers of training patches and of evaluation images, and the contract of batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

PADDING = -1  # the ``index`` of a padding image

Batch = dict[str, Tensor]
"""A batch of N pairs, the contract of loaders and tasks.

- ``lr``, N×3×H×W, and ``hr``, N×3×sH×sW: RGB, uint8 (0 to 255) from a loader, float32 in [0, 1] on the device.
- ``index``, N, int64: numbers of pairs, or :data:`PADDING` for images that do not count. May be missing.
- ``error``, a list of texts: only in a batch that could not be read, in a distributed run. Every rank raises it.
"""

PatchKey = tuple[int, int]  # the epoch, and the number of the patch in it


class PatchSampler(Sampler[PatchKey]):
    """Every patch of an epoch once, in an order that follows from the seed and the epoch.

    Global batch t of an epoch holds the same patches however many processes there are: each takes its slice of it. What
    does not fill a global batch is left out.

    Args:
        num_patches: patches in an epoch.
        batch_size: patches in a batch of one process.
        seed: the seed of the order.
        rank: of this process.
        world_size: the number of ranks.
    """

    def __init__(self, num_patches: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_patches = num_patches
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from its first batch unless it is the present one; Lightning calls this before each."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return the place at which the next iteration begins.

        An iteration does not move it: workers fetch batches long before they are trained on, so only the training knows
        how many are behind.
        """
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the iterations of one epoch leave out its first batches.

        Args:
            state: ``epoch``, and ``batch``, the number of batches that are left out.
        """
        self.epoch, self.batch = state["epoch"], state["batch"]

    def __len__(self) -> int:
        """Return the number of this process's patches in a whole epoch, wherever the iteration begins."""
        return self.num_patches // (self.batch_size * self.world_size) * self.batch_size

    def __iter__(self) -> Iterator[PatchKey]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_patches)
        batches = len(self) // self.batch_size
        mine = order[: batches * self.batch_size * self.world_size].reshape(batches, self.world_size, self.batch_size)
        for number in mine[self.batch :, self.rank].reshape(-1).tolist():
            yield self.epoch, number


class EvaluationSampler(Sampler[int]):
    """Every ``world_size``-th image, from ``rank`` on.

    torch's DistributedSampler repeats images until all ranks have as many, so that some count twice. Here a rank
    without an image gets one :data:`PADDING`: Lightning skips validation on a rank without a batch, and the others
    would wait forever for its scores.

    Args:
        num_images: images in all.
        rank: of this process.
        world_size: the number of ranks.
    """

    def __init__(self, num_images: int, rank: int = 0, world_size: int = 1) -> None:
        self.numbers = list(range(rank, num_images, world_size)) or [PADDING]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def without_padding(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return LR, N×3×H×W, and HR, N×3×sH×sW, of the images that count; N may be 0."""
    lr, hr = batch["lr"], batch["hr"]
    if "index" not in batch:  # patches, or batches that came from elsewhere
        return lr, hr
    counts = batch["index"] != PADDING
    return lr[counts], hr[counts]
