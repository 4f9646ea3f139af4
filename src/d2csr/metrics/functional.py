"""PSNR and SSIM, one value an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.metrics.protocols import protocol_named

# Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def psnr(sr: Tensor, hr: Tensor, *, scale: int, protocol: str = "d2csr") -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB.

    Args:
        sr: the result, N×3×H×W, RGB in [0, 1] (values beyond are treated as the protocol does).
        hr: the ground truth, the same shape.
        scale: s, by which the protocols cut the border.
        protocol: ``d2csr``, ``cdc`` or ``y``; see :mod:`d2csr.metrics.protocols`.

    Returns:
        Shape N, float64 (float32 on a device without it); infinite where the images are the same.

    Raises:
        ConfigError: there is no such protocol.
        ValueError: the shapes differ, or nothing is left once the border is cut.

    Example:
        >>> hr = torch.zeros(1, 3, 16, 16)
        >>> round(psnr(hr + 0.1, hr, scale=2).item(), 3)
        21.323
    """
    rules = protocol_named(protocol)
    _check(sr, hr, 2 * scale + 1)
    error = rules.psnr_planes(_exact(sr), scale) - rules.psnr_planes(_exact(hr), scale)
    return 10 * torch.log10(rules.peak**2 / error.square().mean(dim=(1, 2, 3)))


def ssim(sr: Tensor, hr: Tensor, *, scale: int, protocol: str = "d2csr") -> Tensor:
    """Return the structural similarity of each image, at most 1.

    An 11×11 Gaussian window with σ 1.5, K1 = 0.01, K2 = 0.03 (Wang et al., IEEE TIP 2004), the mean over the map.

    Args:
        sr: the result, N×3×H×W, RGB in [0, 1].
        hr: the ground truth, the same shape.
        scale: s, by which the protocols cut the border.
        protocol: ``d2csr``, ``cdc`` or ``y``; see :mod:`d2csr.metrics.protocols`.

    Returns:
        Shape N, float64 (float32 on a device without it).

    Raises:
        ConfigError: there is no such protocol.
        ValueError: the shapes differ, or the window does not fit into what the protocol leaves of the image.
    """
    rules = protocol_named(protocol)
    _check(sr, hr, 1 if rules.pads else _WINDOW + 2 * scale)
    x, y = rules.ssim_planes(_exact(sr), scale), rules.ssim_planes(_exact(hr), scale)
    padding = _WINDOW // 2 if rules.pads else 0
    return _similarity(x, y, rules.peak, padding).mean(dim=(1, 2, 3))


def _similarity(x: Tensor, y: Tensor, peak: float, padding: int) -> Tensor:
    """Return the SSIM map of N×C×H×W planes."""
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _blur(x, padding), _blur(y, padding)
    mean_xx, mean_yy, mean_xy = mean_x.square(), mean_y.square(), mean_x * mean_y
    var_x = _blur(x.square(), padding) - mean_xx
    var_y = _blur(y.square(), padding) - mean_yy
    cov = _blur(x * y, padding) - mean_xy
    return (2 * mean_xy + c1) * (2 * cov + c2) / ((mean_xx + mean_yy + c1) * (var_x + var_y + c2))


def _blur(planes: Tensor, padding: int) -> Tensor:
    """Filter by the Gaussian window, which is separable: rows, then columns."""
    n, c, h, w = planes.shape
    offsets = torch.arange(_WINDOW, dtype=planes.dtype, device=planes.device) - _WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    flat = planes.reshape(n * c, 1, h, w)
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, padding))
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(padding, 0))
    return flat.view(n, c, *flat.shape[2:])


def _exact(image: Tensor) -> Tensor:
    """Return the image in the widest float of its device: in float32 a difference of squares costs SSIM digits."""
    return image.detach().to(torch.float32 if image.device.type == "mps" else torch.float64)


def _check(sr: Tensor, hr: Tensor, smallest: int) -> None:
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] != 3:
        raise ValueError(f"expected two N×3×H×W images of one shape, got {tuple(sr.shape)} and {tuple(hr.shape)}.")
    if min(sr.shape[2:]) < smallest:
        raise ValueError(f"the images must be at least {smallest} pixels a side, got {sr.shape[2]}×{sr.shape[3]}.")
