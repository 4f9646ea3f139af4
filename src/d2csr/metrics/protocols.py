"""Protocols of PSNR and SSIM: channels, clamping, rounding, border and padding.

``d2csr``
    The official code's. It reads images as BGR and never swaps them, so the luma coefficients, which are meant for RGB,
    are applied to the channels in reverse order. PSNR on the luma of clamped images, s pixels cut off each border; SSIM
    on the luma of images neither clamped nor cut, with a zero-padded window.
``cdc``
    The protocol of CDC (Wei et al., "Component Divide-and-Conquer for Real-World Image Super-Resolution", ECCV 2020).
    The published scores on DRealSR use it. PSNR on the luma, s pixels cut off, not clamped; SSIM on the three RGB
    channels with a zero-padded window.
``y``
    What BasicSR reports with its Y-channel option, and MATLAB scripts do. Both images clamped and rounded to 8 bits, s
    pixels cut off each border, BT.601 luma with its offset; SSIM over the positions where the window fits.

Images are N×3×H×W, RGB in [0, 1]; s is the scale of the super-resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from d2csr.checks import one_of

# BT.601's studio-swing luma of R, G and B in [0, 1], as a share of 256 levels (the official code and CDC) ...
_LUMA_256 = (65.738 / 256, 129.057 / 256, 25.064 / 256)
# ... and in 8-bit levels, above an offset of 16 (MATLAB's rgb2ycbcr).
_LUMA_8BIT = (65.481, 128.553, 24.966)


@dataclass(frozen=True)
class Protocol:
    """One way to report PSNR and SSIM.

    Attributes:
        name: the value of the setting ``protocol``.
        peak: the largest value of the planes.
        pads: SSIM is computed on the whole image, padded with zeros. If false, s pixels are cut off each border, as for
            PSNR, and the window stays within the image.
        psnr_planes: an N×3×H×W image to the N×C×H×W planes that PSNR compares, pixel by pixel.
        ssim_planes: the same for SSIM.
    """

    name: str
    peak: float
    pads: bool
    psnr_planes: Callable[[Tensor], Tensor]
    ssim_planes: Callable[[Tensor], Tensor]


def protocol_named(name: str) -> Protocol:
    """Return the protocol with this name; raise a ConfigError if there is none."""
    return PROTOCOLS[one_of("protocol", name, tuple(PROTOCOLS))]


def _weighted(image: Tensor, red: float, green: float, blue: float) -> Tensor:
    r, g, b = image.unbind(dim=1)
    return (red * r + green * g + blue * b).unsqueeze(1)


def _luma(image: Tensor) -> Tensor:
    return _weighted(image, *_LUMA_256)


def _swapped_luma(image: Tensor) -> Tensor:
    return _weighted(image, *reversed(_LUMA_256))


def _clamped_swapped_luma(image: Tensor) -> Tensor:
    return _swapped_luma(image.clamp(0, 1))


def _rgb(image: Tensor) -> Tensor:
    return image


def _y(image: Tensor) -> Tensor:
    return 16 + _weighted((image.clamp(0, 1) * 255).round() / 255, *_LUMA_8BIT)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("d2csr", peak=1.0, pads=True, psnr_planes=_clamped_swapped_luma, ssim_planes=_swapped_luma),
        Protocol("cdc", peak=1.0, pads=True, psnr_planes=_luma, ssim_planes=_rgb),
        Protocol("y", peak=255.0, pads=False, psnr_planes=_y, ssim_planes=_y),
    )
}
