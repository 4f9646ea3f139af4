"""Dataset of training patches of HR images, degraded when they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from d2csr.data.dataset import PatchDataset, to_tensor
from d2csr.data.random_crop import RandomCrop
from d2csr.data.random_degradation import RandomDegradation
from d2csr.data.sampler import PatchKey

MARGIN = 8  # LR pixels around a patch that are degraded with it: their blur and JPEG blocks reach into it


@dataclass(eq=False, repr=False)
class DegradedPatchDataset(Dataset[dict[str, Tensor | int]]):
    """Random patches of HR images, and LR patches that are made of them by a random degradation.

    As in :class:`d2csr.data.dataset.PatchDataset`, a patch and its degradation follow from the seed, the epoch and the
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
