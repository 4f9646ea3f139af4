"""Datasets of training patches, cut at random or degraded, and of whole images. Without torch, for worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from d2csr.errors import DataError

if TYPE_CHECKING:
    from d2csr.data.device_cache import DeviceCache
    from d2csr.data.random_degradation import RandomDegradation
    from d2csr.data.sources import PairSource

#: ``index`` of an image that only pads the share of a rank.
PADDING = -1

#: The epoch and the number of the patch within it.
PatchKey = tuple[int, int]

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

    def oriented(self, patch: Any) -> Any:
        """Return a patch, H×W×3, in this orientation: a view of an array, or a tensor."""
        flips = self.flip_vertically, self.flip_horizontally
        if isinstance(patch, np.ndarray):
            rows, columns = (slice(None, None, -1 if flip else None) for flip in flips)
            patch = patch[rows, columns]
        elif any(flips):  # a tensor cannot be read backwards
            patch = patch.flip([axis for axis, flip in enumerate(flips) if flip])
        return patch.swapaxes(0, 1) if self.transpose else patch


@dataclass(eq=False, repr=False)
class PatchDataset:
    """Random aligned LR/HR patches, augmented, by :data:`PatchKey`.

    A patch follows from the seed, the epoch and its number alone. So neither the number of workers nor the number of
    ranks changes a global batch. ``patch_size`` p is the side of the LR patch in pixels. ``augment`` flips
    horizontally, flips vertically and transposes, each with probability ½.
    """

    source: PairSource | DeviceCache
    scale: int
    patch_size: int
    patches_per_image: int
    seed: int
    augment: bool = True

    def __len__(self) -> int:
        return len(self.source) * self.patches_per_image

    def __getitem__(self, key: PatchKey) -> dict[str, Any]:
        """Return ``lr``, 3×p×p, and ``hr``, 3×sp×sp, uint8 RGB, and ``index``, the number of the pair.

        The patches are arrays or, of a :class:`d2csr.data.device_cache.DeviceCache`, tensors on its device; no
        operation waits for the device.
        """
        epoch, number = key if isinstance(key, tuple) else (0, key)  # trainer.overfit_batches replaces the sampler
        index, random = number // self.patches_per_image, np.random.default_rng((self.seed, epoch, number))
        lr, hr = self.source[index]
        lr, hr = self._patches(lr, hr, random)
        return {"lr": to_planes(lr), "hr": to_planes(hr), "index": index}

    def _patches(self, lr: Any, hr: Any, random: np.random.Generator) -> tuple[Any, Any]:
        crop = RandomCrop.draw(random, lr.shape[:2], self.patch_size, augment=self.augment)
        lr, hr = lr[crop.window(self.patch_size)], hr[crop.window(self.patch_size, self.scale)]
        return crop.oriented(lr), crop.oriented(hr)


@dataclass(eq=False, repr=False)
class DegradedPatchDataset(PatchDataset):
    """Random patches of HR images, and LR patches that are made of them by a random degradation.

    The degradation follows from the seed, the epoch and the number of the patch alone, too. HR patches begin at any
    pixel. The source gives HR images at both places.
    """

    degradation: RandomDegradation = field(kw_only=True)

    def _patches(self, _: Any, hr: Any, random: np.random.Generator) -> tuple[Any, Any]:
        p, s = self.patch_size, self.scale
        crop = RandomCrop.draw(random, hr.shape[:2], s * p, augment=self.augment)
        corner = crop.top, crop.left  # in HR pixels
        before = [min(MARGIN, start // s) for start in corner]
        after = [min(MARGIN, (end - start) // s - p) for start, end in zip(corner, hr.shape[:2], strict=True)]
        rows, columns = (slice(c - s * b, c + s * (p + a)) for c, b, a in zip(corner, before, after, strict=True))
        window = np.ascontiguousarray(hr[rows, columns])
        top, left = before
        lr = self.degradation(window, s, random)[top : top + p, left : left + p]
        return crop.oriented(lr), crop.oriented(window[s * top : s * (top + p), s * left : s * (left + p)])


@dataclass(eq=False, repr=False)
class WholeImageDataset:
    """Whole pairs, for validation and test."""

    source: PairSource

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``lr``, 3×H×W, ``hr``, 3×sH×sW, uint8 RGB, and ``index``, the number of the pair.

        For :data:`PADDING` these are the images of the first pair.
        """
        lr, hr = self.source[0 if index == PADDING else index]
        return {"lr": to_planes(lr), "hr": to_planes(hr), "index": index}


class ErrorReportingDataset:
    """Data set that returns ``stand_in`` for a broken item, with the message under ``error``, instead of raising.

    All ranks can then raise together.
    """

    def __init__(self, items: Any, stand_in: Mapping[str, Any]) -> None:
        self.items = items
        self.stand_in = stand_in

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        try:
            return self.items[key]
        except DataError as error:
            return {**self.stand_in, "error": str(error)}


def without_good_items(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the broken items of a batch alone, if there are any: they have an ``error``."""
    return [item for item in items if "error" in item] or items


def to_planes(image: Any) -> Any:
    """Return H×W×3 as 3×H×W: a copy of a uint8 array, or a view of a tensor."""
    if not isinstance(image, np.ndarray):
        return image.permute(2, 0, 1)
    planes = image.transpose(2, 0, 1)
    if planes.strides[2] != -1 or planes.shape[2] % 8:
        return planes.copy()
    # Rows read backwards, which NumPy copies byte by byte: words of eight bytes are four times as fast.
    return planes[:, :, ::-1].copy().view(">u8")[:, :, ::-1].astype("<u8").view(np.uint8)
