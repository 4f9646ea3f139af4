"""PSNR and SSIM by named protocols, as functions and as torchmetrics metrics.

Scores of different protocols differ by up to 2 dB. Always report the protocol with the score.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from d2csr.metrics.functional import psnr, ssim
from d2csr.metrics.protocols import PROTOCOLS, Protocol, to_8bit

if TYPE_CHECKING:
    from d2csr.metrics.modular import PSNR, SSIM

__all__ = ["PROTOCOLS", "PSNR", "SSIM", "Protocol", "psnr", "ssim", "to_8bit"]


def __getattr__(name: str) -> Any:
    """Load the metrics on first use: torchmetrics imports torchvision, SciPy and matplotlib, which takes seconds."""
    if name in ("PSNR", "SSIM"):
        return getattr(import_module("d2csr.metrics.modular"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "PSNR", "SSIM"]
