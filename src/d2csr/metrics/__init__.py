"""PSNR and SSIM by named protocols, as functions and as torchmetrics metrics.

Figures of different protocols are up to 2 dB apart: a figure always stands beside the name of its protocol.
"""

from d2csr.metrics.functional import PSNR, SSIM, psnr, ssim
from d2csr.metrics.protocols import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "PSNR", "SSIM", "Protocol", "psnr", "ssim"]
