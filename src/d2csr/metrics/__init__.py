"""PSNR and SSIM by named protocols, as functions and as torchmetrics metrics.

Scores of different protocols differ by up to 2 dB. Always report the protocol with the score.
"""

from d2csr.metrics.functional import PSNR, SSIM, psnr, ssim
from d2csr.metrics.protocols import PROTOCOLS, Protocol, to_8bit

__all__ = ["PROTOCOLS", "PSNR", "SSIM", "Protocol", "psnr", "ssim", "to_8bit"]
