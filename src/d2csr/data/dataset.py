"""Datasets of training patches and whole images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2csr.data.batch import PADDING
from d2csr.data.sampler import PatchKey
from d2csr.data.sources import PairSource


@dataclass(eq=False, repr=False)
class PatchDataset(Dataset[dict[str, Tensor | int]]):
    """Random aligned LR/HR patches, augmented, by :data:`d2csr.data.sampler.PatchKey`.

    A patch follows from the seed, the epoch and its number alone. So neither the number of workers nor the number of
    ranks changes a global batch.

    Args:
        source: the pairs.
        scale: s.
        patch_size: p, the side of the LR patch in pixels.
        patches_per_image: patches from each pair in an epoch.
        seed: the seed of all crops and augmentations.
        augment: flip horizontally, flip vertically and transpose, each with probability ½.
    """

    source: PairSource
    scale: int
    patch_size: int
    patches_per_image: int
    seed: int
    augment: bool = True

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
        # The upper bound is exclusive: the last row and column are reached, and an image of exactly p pixels works.
        top = int(random.integers(lr.shape[0] - p + 1))
        left = int(random.integers(lr.shape[1] - p + 1))
        return lr[top : top + p, left : left + p], hr[s * top : s * (top + p), s * left : s * (left + p)]


@dataclass(eq=False, repr=False)
class WholeImageDataset(Dataset[dict[str, Tensor | int]]):
    """Whole pairs, for validation and test."""

    source: PairSource

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """Return ``lr``, 3×H×W, ``hr``, 3×sH×sW, uint8 RGB, and ``index``, the number of the pair.

        For :data:`d2csr.data.batch.PADDING` these are the images of the first pair.
        """
        lr, hr = self.source[0 if index == PADDING else index]
        return {"lr": to_tensor(lr), "hr": to_tensor(hr), "index": index}


def to_tensor(image: np.ndarray) -> Tensor:
    """Return H×W×3 as 3×H×W, copied."""
    planes = image.transpose(2, 0, 1)
    if planes.strides[2] == -1:  # rows read backwards: numpy copies them byte by byte, torch is four times as fast
        return torch.from_numpy(planes[:, :, ::-1].copy()).flip(2)
    return torch.from_numpy(planes.copy())


def _augment(random: np.random.Generator, *images: np.ndarray) -> list[np.ndarray]:
    flip_horizontally, flip_vertically, transpose = random.random(3) < 0.5
    rows, columns = (slice(None, None, -1 if flip else None) for flip in (flip_vertically, flip_horizontally))
    return [image[rows, columns].transpose((1, 0, 2) if transpose else (0, 1, 2)) for image in images]
