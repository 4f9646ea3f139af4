"""Oracle of the fusion: the best leaf at each place, chosen by the ground truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # side of a block in pixels

PER_PIXEL, PER_BLOCK = "oracle per pixel", f"oracle per {BLOCK}x{BLOCK} block"
ORACLES = (PER_PIXEL, PER_BLOCK)


def oracles(predictions: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Return what a fusion could reach that chose the best leaf at each pixel, and in each block.

    The best leaf has the least squared error over the three channels, summed over the block. No fusion that chooses
    among the leaves has a higher PSNR on RGB; one that mixes them can.

    Args:
        predictions: of the leaves, N×K×3×H×W.
        hr: the ground truth, N×3×H×W.

    Returns:
        Two images, N×3×H×W, by the names in :data:`ORACLES`.
    """
    return {PER_PIXEL: _best_leaves(predictions, hr, 1), PER_BLOCK: _best_leaves(predictions, hr, BLOCK)}


def _best_leaves(predictions: Tensor, hr: Tensor, block: int) -> Tensor:
    """Return the best leaf of each block, one leaf after the other, which needs the memory of one."""
    first, *others = predictions.unbind(dim=1)
    best, least = first, _errors(first, hr, block)
    for prediction in others:
        error = _errors(prediction, hr, block)
        best = torch.where(error < least, prediction, best)
        least = torch.minimum(error, least)
    return best


def _errors(prediction: Tensor, hr: Tensor, block: int) -> Tensor:
    """Return the squared error of each pixel's block, N×1×H×W; blocks at the bottom and right may be smaller."""
    error = (prediction - hr.to(prediction.device)).square().sum(dim=1, keepdim=True)
    if block == 1:
        return error
    blocks = F.avg_pool2d(error, block, ceil_mode=True)
    return F.interpolate(blocks, scale_factor=block, mode="nearest")[..., : error.shape[-2], : error.shape[-1]]
