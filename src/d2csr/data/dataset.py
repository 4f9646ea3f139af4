"""Datasets of training patches and whole images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2csr.data.batch import PADDING
from d2csr.data.random_crop import RandomCrop
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
        index, random = self.draw(key)
        lr, hr = self.source[index]
        crop = RandomCrop.draw(random, lr.shape[:2], self.patch_size, augment=self.augment)
        windows = ((image, crop.window(self.patch_size, scale)) for image, scale in ((lr, 1), (hr, self.scale)))
        patches = (crop.oriented(image[window]) for image, window in windows)
        return {**dict(zip(("lr", "hr"), map(to_tensor, patches), strict=True)), "index": index}

    def draw(self, key: PatchKey) -> tuple[int, np.random.Generator]:
        """Return the number of the pair, and the generator of the patch's random values."""
        epoch, number = key if isinstance(key, tuple) else (0, key)  # trainer.overfit_batches replaces the sampler
        return number // self.patches_per_image, np.random.default_rng((self.seed, epoch, number))


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
