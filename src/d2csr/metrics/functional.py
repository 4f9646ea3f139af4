"""PSNR and SSIM of each image of a batch.

Both are computed in double precision and in strips, which need little memory: at 80 megapixels the maps of SSIM of a
whole image would need several gigabytes. The result does not depend on the strips, except for float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.errors import DataError
from d2csr.metrics.protocols import protocol_named

# Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
_HEIGHTS = [math.exp(-((place - _WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for place in range(_WINDOW)]
_WEIGHTS = [height / math.fsum(_HEIGHTS) for height in _HEIGHTS]

# Pixels of a strip, of all images of the batch together. On a CPU a plane in double precision has half a megabyte, and
# fits into the cache. On a GPU it has 8 MB: there the number of kernels limits the speed.
_STRIP = 2**16
_DEVICE_STRIP = 2**20


def psnr(sr: Tensor, hr: Tensor, *, scale: int, protocol: str = "d2csr") -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB.

    Args:
        sr: the result, N×3×H×W, RGB in [0, 1] (values beyond are treated as the protocol does).
        hr: the ground truth, the same shape.
        scale: s, by which the protocols cut the border.
        protocol: ``d2csr``, ``cdc``, ``y``, ``realsr`` or ``rgb``, defined in :mod:`d2csr.metrics.protocols`.

    Returns:
        Shape N, float64 (float32 on a device without it); infinite where the images are the same.

    Raises:
        ConfigError: the protocol is unknown.
        ValueError: the shapes differ; a DataError, which is one too, if the images are too small.

    Example:
        >>> hr = torch.zeros(1, 3, 16, 16)
        >>> round(psnr(hr + 0.1, hr, scale=2).item(), 3)
        21.323
    """
    rules = protocol_named(protocol)
    _check(sr, hr, max(rules.multiple, 2 * rules.border(scale) + 1))
    sr, hr = rules.crop(sr, scale), rules.crop(hr, scale)
    total = _exact(sr.new_zeros(len(sr)))
    for strips in zip(*(image.split(_strip_rows(sr), dim=2) for image in (sr, hr)), strict=True):
        x, y = (rules.psnr_planes(_exact(strip)) for strip in strips)
        total += (x - y).square().sum(dim=(2, 3)).mean(dim=1)
    return 10 * torch.log10(rules.peak**2 * (sr.shape[2] * sr.shape[3]) / total)


def ssim(sr: Tensor, hr: Tensor, *, scale: int, protocol: str = "d2csr") -> Tensor:
    """Return the structural similarity of each image, at most 1; arguments, type and errors are those of :func:`psnr`.

    An 11×11 Gaussian window with σ 1.5, K1 = 0.01, K2 = 0.03 (Wang et al., IEEE TIP 2004), the mean over the map.
    """
    rules = protocol_named(protocol)
    padding = _WINDOW // 2 if rules.pads else 0
    if rules.pads:
        _check(sr, hr, 1)
    else:
        _check(sr, hr, math.ceil(_WINDOW / rules.multiple) * rules.multiple + 2 * rules.border(scale))
        sr, hr = rules.crop(sr, scale), rules.crop(hr, scale)
    height, width = (extent + 2 * padding - (_WINDOW - 1) for extent in sr.shape[2:])  # of the map
    total = _exact(sr.new_zeros(len(sr)))
    for start in range(0, height, rows := _strip_rows(sr)):
        stop = min(start + rows, height)
        x, y = (_window_rows(rules.ssim_planes, image, start, stop, padding) for image in (sr, hr))
        total += _similarity(x, y, rules.peak).sum(dim=(2, 3)).mean(dim=1)
    return total / (height * width)


def _window_rows(planes: Callable[[Tensor], Tensor], image: Tensor, start: int, stop: int, padding: int) -> Tensor:
    """Return the planes that rows ``start`` to ``stop`` of the SSIM map are taken from, zeros beyond the border."""
    first, last = start - padding, stop - padding + _WINDOW - 1
    rows = planes(_exact(image[:, :, max(0, first) : last]))
    return F.pad(rows, (padding, padding, max(0, -first), max(0, last - image.shape[2])))


def _similarity(x: Tensor, y: Tensor, peak: float) -> Tensor:
    """Return the SSIM map of N×C×H×W planes, at the positions where the window fits."""
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    mean_xx, mean_yy, mean_xy = mean_x.square(), mean_y.square(), mean_x * mean_y
    var_x = _blur(x.square()) - mean_xx
    var_y = _blur(y.square()) - mean_yy
    cov = _blur(x * y) - mean_xy
    return (2 * mean_xy + c1) * (2 * cov + c2) / ((mean_xx + mean_yy + c1) * (var_x + var_y + c2))


def _blur(planes: Tensor) -> Tensor:
    """Filter by the Gaussian window, which is separable, at the positions where it fits."""
    # In double precision, sums of shifted planes need a third of the time of a convolution, and less memory.
    for axis in (-1, -2):
        length = planes.shape[axis] - (_WINDOW - 1)
        total = planes.narrow(axis, 0, length) * _WEIGHTS[0]
        for offset, weight in enumerate(_WEIGHTS[1:], start=1):
            total.add_(planes.narrow(axis, offset, length), alpha=weight)
        planes = total
    return planes


def _strip_rows(image: Tensor) -> int:
    """Return the number of rows of a strip."""
    pixels = _STRIP if image.device.type == "cpu" else _DEVICE_STRIP
    return max(1, pixels // max(1, image.shape[0] * image.shape[3]))


def _exact(image: Tensor) -> Tensor:
    """Return the image in the widest float of its device: in float32 a difference of squares costs SSIM digits."""
    return image.detach().to(torch.float32 if image.device.type == "mps" else torch.float64)


def _check(sr: Tensor, hr: Tensor, smallest: int) -> None:
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] != 3:
        raise ValueError(f"expected two N×3×H×W images of one shape, got {tuple(sr.shape)} and {tuple(hr.shape)}.")
    if min(sr.shape[2:]) < smallest:
        raise DataError(f"the images must be at least {smallest} pixels a side, got {sr.shape[2]}×{sr.shape[3]}.")
