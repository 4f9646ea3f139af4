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
``realsr``
    The protocol of RealSR's authors (Cai et al., ICCV 2019; ``Test/Test.m`` of csjcai/RealSR). Both images clamped and
    rounded to 8 bits, cut at the bottom and right to a multiple of 4 pixels, no border cut; BT.601 luma rounded to 8
    bits, as MATLAB's ``rgb2ycbcr`` does; SSIM over the positions where the window fits.
``rgb``
    What BasicSR reports without its Y-channel option. Both images clamped and rounded to 8 bits, s pixels cut off each
    border, three channels: PSNR of their mean squared error, the mean of their SSIM where the window fits.

Images are N×3×H×W, RGB in [0, 1]; s is the scale of the super-resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from d2csr.checks import one_of

# BT.601's studio-swing luma of R, G and B in [0, 1], as a share of 256 levels (the official code and CDC) ...
_LUMA_256 = (65.738 / 256, 129.057 / 256, 25.064 / 256)
# ... and in 8-bit levels, above an offset of 16 (MATLAB's rgb2ycbcr).
_LUMA_8BIT = (65.481, 128.553, 24.966)


@dataclass(frozen=True)
class Protocol:
    """One way to report PSNR and SSIM."""

    name: str  #: the value of the setting ``protocol``
    scored_on: str  #: the values of an image that are scored, in words for tables
    peak: float  #: the largest value of the planes
    psnr_planes: Callable[[Tensor], Tensor]  #: an N×3×H×W image to the N×C×H×W planes that PSNR compares
    ssim_planes: Callable[[Tensor], Tensor]  #: the same for SSIM
    #: SSIM is computed on the whole image, padded with zeros. If false, it is computed on the same part as PSNR, within
    #: which the window stays.
    pads: bool = False
    cuts_border: bool = True  #: s pixels are cut off each border
    multiple: int = 1  #: height and width are cut to a multiple, at the bottom and right (MATLAB's ``modcrop``)

    def border(self, scale: int) -> int:
        """Return the number of pixels that are cut off each border."""
        return scale if self.cuts_border else 0

    def crop(self, image: Tensor, scale: int) -> Tensor:
        """Return the part of an N×3×H×W image that PSNR compares."""
        border = self.border(scale)
        height, width = (side - side % self.multiple - border for side in image.shape[2:])
        return image[..., border:height, border:width]


def to_8bit(image: Tensor) -> Tensor:
    """Return RGB in [0, 1] as an 8-bit file holds it: clamped to [0, 1] and rounded to multiples of 1/255."""
    return (image.clamp(0, 1) * 255).round() / 255


def protocol_named(name: str) -> Protocol:
    """Return the protocol with this name; raise a ConfigError if there is none."""
    return PROTOCOLS[one_of("protocol", name, tuple(PROTOCOLS))]


def _luma(image: Tensor, coefficients: Sequence[float] = _LUMA_256) -> Tensor:
    r, g, b = image.unbind(dim=1)
    red, green, blue = coefficients
    return (red * r + green * g + blue * b).unsqueeze(1)


def _swapped_luma(image: Tensor) -> Tensor:
    return _luma(image, _LUMA_256[::-1])


def _clamped_luma(image: Tensor) -> Tensor:
    return _swapped_luma(image.clamp(0, 1))


def _y(image: Tensor) -> Tensor:
    return 16 + _luma(to_8bit(image), _LUMA_8BIT)


def _y_8bit(image: Tensor) -> Tensor:
    return (_y(image) + 0.5).floor()  # MATLAB rounds halves up, torch.round to even


def _rgb_8bit(image: Tensor) -> Tensor:
    return to_8bit(image) * 255


#: The protocols by name.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("d2csr", "float, PSNR clamped, SSIM not clamped", 1.0, _clamped_luma, _swapped_luma, pads=True),
        Protocol("cdc", "float, not clamped", 1.0, _luma, lambda image: image, pads=True),
        Protocol("y", "8-bit", 255.0, _y, _y),
        Protocol("realsr", "8-bit", 255.0, _y_8bit, _y_8bit, cuts_border=False, multiple=4),
        Protocol("rgb", "8-bit", 255.0, _rgb_8bit, _rgb_8bit),
    )
}
