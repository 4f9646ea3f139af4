"""PSNR and SSIM as torchmetrics metrics: means over the images of all batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

from d2csr.metrics.functional import psnr, ssim
from d2csr.metrics.protocols import protocol_named

# Apple's GPUs have no float64.
_WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64


class _ImageMean(Metric):
    """The mean over images of a score of each image."""

    score: Callable[..., Tensor]
    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, scale: int, protocol: str = "d2csr") -> None:
        super().__init__()
        self.scale = scale
        self.protocol = protocol_named(protocol).name
        self.add_state("total", torch.tensor(0.0, dtype=_WIDEST), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, sr: Tensor, hr: Tensor) -> None:
        """Add a batch, two N×3×H×W images, RGB in [0, 1]."""
        values = self.score(sr, hr, scale=self.scale, protocol=self.protocol)
        self.total = self.total + values.sum()
        self.count = self.count + values.numel()

    def compute(self) -> Tensor:
        """Return the mean over all images so far, over all ranks, a scalar."""
        return self.total / self.count


class PSNR(_ImageMean):
    """The mean over images of :func:`d2csr.metrics.psnr`, in dB."""

    score = staticmethod(psnr)


class SSIM(_ImageMean):
    """The mean over images of :func:`d2csr.metrics.ssim`."""

    score = staticmethod(ssim)
