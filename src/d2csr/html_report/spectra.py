"""Radial power spectra of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_WINDOW = 256  # largest side of a window, in pixels

_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601


def radial_spectrum(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the power spectral density of an image's luma, averaged over all directions.

    Welch's method: square windows of at most 256 pixels, which overlap by half, less their means and times a Hann
    window. The method averages the periodograms, so that memory and the frequencies do not depend on the image's size.

    Args:
        image: 1×3×H×W, RGB in [0, 1], at least 16 pixels a side.

    Returns:
        Frequencies in cycles per pixel, up to 0.5, and the density at each, in squared luma per (cycle/pixel)².
        White noise of variance v has the density v.
    """
    luma = torch.einsum("c,chw->hw", _LUMA, image[0].cpu().float().clamp(0, 1))
    side = min(_WINDOW, *luma.shape)
    taper = torch.outer(*2 * [torch.hann_window(side)])
    power, count = torch.zeros(side, side), 0
    for windows in luma.unfold(0, side, side // 2).unfold(1, side, side // 2):  # of one row, which bounds the memory
        tapered = (windows - windows.mean(dim=(1, 2), keepdim=True)) * taper
        power += torch.fft.fft2(tapered).abs().square().sum(dim=0)
        count += len(windows)
    power /= count * taper.square().sum()
    axis = torch.fft.fftfreq(side) * side
    radius = torch.hypot(*torch.meshgrid(axis, axis, indexing="ij")).round().long()
    members = torch.bincount(radius.flatten())
    means = torch.bincount(radius.flatten(), power.flatten().double()) / members
    shown = slice(1, side // 2 + 1)  # without the mean, and up to the highest frequency of a row or column
    return np.arange(1, side // 2 + 1) / side, means[shown].numpy()
