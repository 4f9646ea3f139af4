"""Bicubic upscaling, the baseline of every report; and the oracle of the fusion: the best leaf by the ground truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """Upscale N×3×H×W to N×3×sH×sW by Keys' kernel with a = −0.5, as Pillow and MATLAB do; not clamped."""
    # torch uses a = −0.75 without antialiasing. Antialiasing changes nothing else when upscaling.
    size = (lr.shape[2] * scale, lr.shape[3] * scale)
    return F.interpolate(lr, size=size, mode="bicubic", align_corners=False, antialias=True)


ORACLES = {"oracle per pixel": 1, "oracle per 8x8 block": 8}  # side of a block in pixels, by name

_STRIP = 256  # rows that are computed at once, a multiple of the blocks


def oracle(predictions: Tensor, hr: Tensor, block: int) -> Tensor:
    """Return the image of the best leaf in each block, as a fusion that chose perfectly among the leaves.

    The best leaf has the least squared error over the three channels of a block. So no choice has a higher PSNR on RGB;
    a mixture of leaves can have one.

    Args:
        predictions: of the leaves, N×K×3×H×W.
        hr: the ground truth, N×3×H×W.
        block: side of a block in pixels; blocks at the bottom and right may be smaller.

    Returns:
        N×3×H×W.
    """
    best = torch.empty_like(predictions[:, 0])
    for top in range(0, hr.shape[-2], _STRIP):  # bounds the memory in addition to the result
        rows = (..., slice(top, top + _STRIP), slice(None))
        best[rows] = _best_leaves(predictions[rows], hr[rows], block)
    return best


def _best_leaves(predictions: Tensor, hr: Tensor, block: int) -> Tensor:
    best, *others = predictions.unbind(dim=1)
    least = _errors(best, hr, block)
    for prediction in others:
        error = _errors(prediction, hr, block)
        best = torch.where(error < least, prediction, best)
        least = torch.minimum(error, least)
    return best


def _errors(prediction: Tensor, hr: Tensor, block: int) -> Tensor:
    """Return the squared error of each pixel's block, N×1×H×W."""
    error = (prediction - hr.to(prediction.device)).square().sum(dim=1, keepdim=True)
    if block == 1:
        return error
    blocks = F.avg_pool2d(error, block, ceil_mode=True)
    return F.interpolate(blocks, scale_factor=block, mode="nearest")[..., : error.shape[-2], : error.shape[-1]]
