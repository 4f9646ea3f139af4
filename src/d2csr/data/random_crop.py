"""Random crop and orientation of a training patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
