"""Bicubic upscaling, the baseline of every report."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """Upscale N×3×H×W to N×3×sH×sW by Keys' kernel with a = −0.5, as Pillow and MATLAB do; not clamped."""
    # torch uses a = −0.75 without antialiasing. Antialiasing changes nothing else when upscaling.
    size = (lr.shape[2] * scale, lr.shape[3] * scale)
    return F.interpolate(lr, size=size, mode="bicubic", align_corners=False, antialias=True)
