"""Outputs of inference: assembled from tiles, and averaged over orientations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor


class Outputs(NamedTuple):
    """Outputs of the network for a batch of LR images; predictions and weights only if requested."""

    sr: Tensor  # the fused images, N×3×sH×sW
    predictions: Tensor | None = None  # of the leaves, N×K×3×sH×sW
    weights: Tensor | None = None  # of the fusion, N×K×sH×sW


class TileOutput(NamedTuple):
    """Output for a rectangle of one image, on the device of the model."""

    top: int  # first row in the SR image
    left: int  # first column
    sr: Tensor  # 1×3×h×w
    predictions: Tensor  # 1×K×3×h×w
    weights: Tensor  # 1×K×h×w

    @property
    def place(self) -> tuple[EllipsisType, slice, slice]:
        """Index of its rows and columns in the SR image."""
        height, width = self.sr.shape[-2:]
        return ..., slice(self.top, self.top + height), slice(self.left, self.left + width)


def assemble(
    tile_outputs: Iterable[TileOutput],
    height: int,
    width: int,
    *,
    keep_leaves: bool,
    device: torch.device | str = "cpu",
) -> Outputs:
    """Return the sum of the tile outputs of one image, whose SR image has this height and width.

    The outputs are on ``device``, in single precision, or in double if the tile outputs are. With ``keep_leaves`` and
    four leaves they have 19 values a pixel instead of 3.
    """

    def zeros(like: Tensor) -> Tensor:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.zeros(*like.shape[:-2], height, width, dtype=dtype, device=device)

    totals: list[Tensor] = []
    for tile in tile_outputs:
        parts = (tile.sr, tile.predictions, tile.weights) if keep_leaves else (tile.sr,)
        totals = totals or [zeros(part) for part in parts]
        for total, part in zip(totals, parts, strict=True):
            total[tile.place] += part.to(total.device, total.dtype)
    return Outputs(*totals)


ORIENTATIONS = 8


def self_ensemble(infer: Callable[[Tensor], Outputs], lr: Tensor) -> Outputs:
    """Return the mean over the eight orientations (EDSR's "+", Lim et al., CVPR Workshops 2017).

    Predictions and weights are averaged too. The weights still sum to 1, but the mean of the fused images is not
    exactly the fusion of the means.
    """
    totals: list[Tensor] = []
    for index in range(ORIENTATIONS):
        restored = [restore(part, index) for part in infer(orient(lr, index)) if part is not None]
        totals = totals or [torch.zeros_like(part) for part in restored]
        for total, part in zip(totals, restored, strict=True):
            total += part
    return Outputs(*(total.div_(ORIENTATIONS) for total in totals))


def orient(image: Tensor, index: int) -> Tensor:
    """Rotate an image, …×H×W, by ``index % 4`` · 90°, and mirror it if ``index`` is 4 or more."""
    image = image.rot90(index % 4, dims=(-2, -1))
    return image.flip(-1) if index >= 4 else image


def restore(image: Tensor, index: int) -> Tensor:
    """Undo :func:`orient`."""
    image = image.flip(-1) if index >= 4 else image
    return image.rot90(-(index % 4), dims=(-2, -1))
