"""PSNR and SSIM by scikit-image, with the images prepared in numpy by each protocol."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Array: TypeAlias = np.ndarray

_COEFFICIENTS = np.array([65.738, 129.057, 25.064]) / 256  # of R, G and B


def skimage_scores(sr: Array, hr: Array, scale: int, protocol: str) -> tuple[float, float]:
    """Return PSNR and SSIM of H×W×3 images, RGB in [0, 1]."""
    cut = np.s_[scale:-scale, scale:-scale]
    if protocol in ("y", "realsr", "rgb"):
        sr, hr = (_planes_8bit((image.clip(0, 1) * 255).round().astype(np.uint8), protocol, cut) for image in (sr, hr))
        return peak_signal_noise_ratio(hr, sr, data_range=255), _ssim(sr, hr, 255)
    order = _COEFFICIENTS[::-1] if protocol == "d2csr" else _COEFFICIENTS
    limits = (0, 1) if protocol == "d2csr" else (-np.inf, np.inf)
    lumas = [(image.clip(*limits) @ order)[cut] for image in (sr, hr)]
    planes = (sr @ order, hr @ order) if protocol == "d2csr" else (sr, hr)
    # scikit-image averages over the positions where the window fits: with five zeros around, over the whole image.
    padded = [np.pad(plane, [(5, 5), (5, 5)] + [(0, 0)] * (plane.ndim - 2)) for plane in planes]
    return peak_signal_noise_ratio(lumas[1], lumas[0], data_range=1), _ssim(*padded, 1)


def _planes_8bit(image: Array, protocol: str, cut: Any) -> Array:
    """Return what a protocol of 8-bit images compares."""
    if protocol == "rgb":
        return image[cut].astype(float)
    if protocol == "y":
        return rgb2ycbcr(image)[..., 0][cut]
    height, width = image.shape[0] // 4 * 4, image.shape[1] // 4 * 4
    return np.floor(rgb2ycbcr(image[:height, :width])[..., 0] + 0.5)


def _ssim(sr: Array, hr: Array, data_range: float) -> float:
    return structural_similarity(
        sr,
        hr,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if sr.ndim == 3 else None,
    )
