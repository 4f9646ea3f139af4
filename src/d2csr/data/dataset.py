"""Datasets of training patches, cut at random or degraded, and of whole images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2csr.data.batch import PADDING
from d2csr.data.sampler import PatchKey
from d2csr.data.sources import PairSource

if TYPE_CHECKING:
    from d2csr.data.random_degradation import RandomDegradation

MARGIN = 8  # LR pixels around a patch that are degraded with it: their blur and JPEG blocks reach into it


@dataclass(frozen=True)
class RandomCrop:
    """Place of an LR patch in its image, in LR pixels, and its orientation: flips first, then the transposition."""

    top: int
    left: int
    flip_horizontally: bool = False
    flip_vertically: bool = False
    transpose: bool = False

    @classmethod
    def draw(
        cls, random: np.random.Generator, size: tuple[int, ...], patch_size: int, *, augment: bool = True
    ) -> RandomCrop:
        """Draw a crop of an LR image of this height and width; ``augment`` draws the orientation too, each with ½."""
        # The upper bound is exclusive: the last row and column are reached, and an image of exactly p pixels works.
        top, left = (int(random.integers(extent - patch_size + 1)) for extent in size)
        return cls(top, left, *(random.random(3) < 0.5).tolist()) if augment else cls(top, left)

    def window(self, patch_size: int, scale: int = 1) -> tuple[slice, slice]:
        """Return rows and columns of the patch: in LR or, with the scale s, in HR."""
        rows, columns = (slice(scale * start, scale * (start + patch_size)) for start in (self.top, self.left))
        return rows, columns

    def oriented(self, patch: np.ndarray) -> np.ndarray:
        """Return a view of a patch, H×W×3, in this orientation."""
        rows, columns = (
            slice(None, None, -1 if flip else None) for flip in (self.flip_vertically, self.flip_horizontally)
        )
        return patch[rows, columns].transpose((1, 0, 2) if self.transpose else (0, 1, 2))


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
        lr = crop.oriented(lr[crop.window(self.patch_size)])
        hr = crop.oriented(hr[crop.window(self.patch_size, self.scale)])
        return {"lr": to_tensor(lr), "hr": to_tensor(hr), "index": index}

    def draw(self, key: PatchKey) -> tuple[int, np.random.Generator]:
        """Return the number of the pair, and the generator of the patch's random values."""
        epoch, number = key if isinstance(key, tuple) else (0, key)  # trainer.overfit_batches replaces the sampler
        return number // self.patches_per_image, np.random.default_rng((self.seed, epoch, number))


@dataclass(eq=False, repr=False)
class DegradedPatchDataset(Dataset[dict[str, Tensor | int]]):
    """Random patches of HR images, and LR patches that are made of them by a random degradation.

    As in :class:`PatchDataset`, a patch and its degradation follow from the seed, the epoch and the
    number of the patch alone. HR patches begin at any pixel.

    Args:
        patches: source, sizes, seed and augmentation. Its source gives HR images at both places.
        degradation: drawn for each patch.
    """

    patches: PatchDataset
    degradation: RandomDegradation

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, key: PatchKey) -> dict[str, Tensor | int]:
        """Return ``lr``, 3×p×p, and ``hr``, 3×sp×sp, uint8 RGB, and ``index``, the number of the image."""
        rule = self.patches
        index, random = rule.draw(key)
        image = rule.source[index][1]
        crop = RandomCrop.draw(random, image.shape[:2], rule.scale * rule.patch_size, augment=rule.augment)
        lr, hr = (crop.oriented(patch) for patch in self._patches(image, (crop.top, crop.left), random))
        return {"lr": to_tensor(lr), "hr": to_tensor(hr), "index": index}

    def _patches(
        self, image: np.ndarray, corner: tuple[int, int], random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the LR and the HR patch of an image, H×W×3 uint8, at a corner in HR pixels."""
        p, s = self.patches.patch_size, self.patches.scale
        before = [min(MARGIN, start // s) for start in corner]
        after = [min(MARGIN, (end - start) // s - p) for start, end in zip(corner, image.shape[:2], strict=True)]
        rows, columns = (slice(c - s * b, c + s * (p + a)) for c, b, a in zip(corner, before, after, strict=True))
        window = np.ascontiguousarray(image[rows, columns])
        top, left = before
        lr = self.degradation(window, s, random)[top : top + p, left : left + p]
        return lr, window[s * top : s * (top + p), s * left : s * (left + p)]


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
