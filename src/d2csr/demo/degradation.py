"""Simulated degradation of an HR image to an LR image, as by a camera with fewer and larger pixels.

Pairs of RealSR, DRealSR and D2CRealSR are two shots of one scene at two focal lengths. The demo has one shot of each
scene. The other is simulated in the order of a camera's pipeline:

1. lens: a Gaussian blur, slightly longer in one direction, drawn for each image;
2. sensor: the mean of ``scale`` × ``scale`` HR pixels;
3. photon noise and read noise;
4. sRGB encoding and rounding to 8 bits.

Steps 1 to 3 are computed in linear light. Demosaicing, denoising, sharpening and JPEG are omitted.
"""

from __future__ import annotations

import math

import numpy as np

from d2csr.checks import SCALES, one_of
from d2csr.data.degradation_steps import add_noise, gaussian, linear_to_srgb, srgb_to_linear, to_8_bits
from d2csr.errors import DataError

# Standard deviation of the lens's Gaussian along its two axes, in LR pixels. With the mean over a pixel (0.29 of a
# pixel), the image is softer than after bicubic downscaling, as photographs are.
BLUR_RANGE = (0.35, 0.5)

# Electrons of a white pixel; sets the photon noise, here 1.4 of 255 in mid-grey.
FULL_WELL = 8000.0

# Standard deviation of the read noise, in parts of white (linear light): half a level of 255 in black.
READ_NOISE = 1.5e-4


def degrade(hr: np.ndarray, scale: int, *, seed: int) -> np.ndarray:
    """Simulate the LR image of an HR image.

    LR and HR are aligned without a shift, as by Pillow's ``resize``. Rows and columns of ``hr`` beyond a multiple of
    ``scale``, at the bottom and at the right, are cropped.

    Args:
        hr: ``(H, W, 3)`` uint8, sRGB.
        scale: the width of an LR pixel in HR pixels, one of ``d2csr.checks.SCALES``.
        seed: of the blur and the noise, 0 or more; the same seed gives the same image.

    Returns:
        ``(H // scale, W // scale, 3)`` uint8, sRGB.

    Raises:
        ConfigError: ``scale`` is not supported.
        DataError: ``hr`` is not an 8-bit RGB image, or is smaller than one LR pixel.
    """
    one_of("scale", scale, SCALES)
    if hr.dtype != np.uint8 or hr.ndim != 3 or hr.shape[2] != 3:
        raise DataError(f"The HR image should be (H, W, 3) uint8, and is {hr.shape} {hr.dtype}.")
    if min(hr.shape[:2]) < scale:
        raise DataError(f"An HR image of {hr.shape[1]}×{hr.shape[0]} pixels is too small for scale {scale}.")
    generator = np.random.default_rng(seed)
    height, width = (side // scale * scale for side in hr.shape[:2])
    light = srgb_to_linear(hr[:height, :width] / 255.0)
    light = _integrate(light, _lens_and_pixel(scale, generator), scale)
    light = add_noise(light, generator, electrons=FULL_WELL, sigma=READ_NOISE)
    return to_8_bits(linear_to_srgb(light.clip(0.0, 1.0)))


def _lens_and_pixel(scale: int, generator: np.random.Generator) -> np.ndarray:
    """Return the weights of the HR pixels in one LR pixel: the Gaussian of the lens convolved with a square pixel.

    They are ``(2 r + scale, 2 r + scale)`` float64, point-symmetric, with the sum 1; r is the radius of the Gaussian.
    """
    sigmas = generator.uniform(*BLUR_RANGE, size=2) * scale
    angle = generator.uniform(0.0, math.pi)
    lens = gaussian((sigmas[0], sigmas[1]), angle)
    radius = lens.shape[0] // 2
    weights = np.zeros((2 * radius + scale, 2 * radius + scale))
    for top in range(scale):
        for left in range(scale):
            weights[top : top + lens.shape[0], left : left + lens.shape[1]] += lens
    return weights / weights.sum()


def _integrate(light: np.ndarray, weights: np.ndarray, scale: int) -> np.ndarray:
    """Filter ``(H, W, 3)`` with ``weights`` and keep one value of each ``scale`` × ``scale`` block, the centred one.

    The image is padded with its mirror image. The sum is over shifted views in float64 instead of a library's
    convolution, so that the result does not depend on the number of threads.
    """
    radius = (weights.shape[0] - scale) // 2
    padded = np.pad(light, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    summed = np.zeros((light.shape[0] // scale, light.shape[1] // scale, 3))
    for (top, left), weight in np.ndenumerate(weights):
        view = padded[top : top + light.shape[0] : scale, left : left + light.shape[1] : scale]
        summed += weight * view
    return summed
