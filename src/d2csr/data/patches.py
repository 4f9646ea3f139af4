"""Training patches: what each one holds follows from the seed, the epoch and its number alone.

No random state is carried from sample to sample, so the number of workers changes nothing, and neither does the number
of processes that share a global batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from d2csr.data.shards import FILLER
from d2csr.data.sources import PairSource

# The epoch and the number of the patch within it.
PatchKey = tuple[int, int]


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
        epoch, number = key
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


class PatchSampler(Sampler[PatchKey]):
    """Every patch of an epoch once, in an order that follows from the seed and the epoch.

    Global batch t of an epoch holds the same patches however many processes there are: each takes its slice of it. What
    does not fill a global batch is left out.

    Args:
        num_patches: patches in an epoch.
        batch_size: patches in a batch of one process.
        seed: the seed of the order.
        rank: the number of this process.
        world_size: how many processes there are.
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

        A filler holds the first pair: the one image that there surely is.
        """
        lr, hr = self.source[0 if index == FILLER else index]
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
