"""Simulated degradation by a camera, and steps of degradations: blur, noise, resampling, JPEG and the sRGB curve."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from d2csr.checks import SCALES, one_of
from d2csr.errors import DataError

_FILTERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
#: Filters of :func:`resample`; all average over the area of the new pixel.
RESAMPLING = tuple(_FILTERS)
_FAST = 32  # lengths that are multiples of it have fast Fourier transforms

# Of the camera. Standard deviation of the lens's Gaussian along its two axes, in LR pixels: with the mean over a pixel
# (0.29 of a pixel), the image is softer than after bicubic downscaling, as photographs are.
_LENS = (0.35, 0.5)
_FULL_WELL = 8000.0  # electrons of a white pixel; sets the photon noise, here 1.4 of 255 in mid-grey
_READ_NOISE = 1.5e-4  # standard deviation in parts of white (linear light): half a level of 255 in black


def degrade(hr: np.ndarray, scale: int, *, seed: int) -> np.ndarray:
    """Simulate the LR image of an HR image, as by a camera with fewer and larger pixels.

    In linear light: a Gaussian blur by the lens, slightly longer in one direction, both drawn; the mean of ``scale`` ×
    ``scale`` HR pixels; photon noise and read noise. Then sRGB encoding and rounding to 8 bits. Demosaicing, denoising,
    sharpening and JPEG are omitted. LR and HR are aligned without a shift, as by Pillow's ``resize``.

    Args:
        hr: ``(H, W, 3)`` uint8, sRGB. Rows and columns beyond a multiple of ``scale`` are dropped.
        scale: the width of an LR pixel in HR pixels, one of ``d2csr.checks.SCALES``.
        seed: of the blur and the noise, 0 or more; the same seed gives the same image.

    Returns:
        ``(H // scale, W // scale, 3)`` uint8, sRGB.

    Raises:
        ConfigError: ``scale`` is not supported.
        DataError: ``hr`` is not an 8-bit RGB image, or is smaller than one LR pixel.
    """
    one_of("scale", scale, SCALES)
    if hr.dtype != np.uint8 or hr.ndim != 3 or hr.shape[2] != 3 or min(hr.shape[:2]) < scale:
        raise DataError(f"HR should be (H, W, 3) uint8 with sides of at least {scale}, and is {hr.shape} {hr.dtype}.")
    random = np.random.default_rng(seed)
    height, width = (side // scale for side in hr.shape[:2])
    light = srgb_to_linear(hr[: scale * height, : scale * width] / 255.0)
    first, second = random.uniform(*_LENS, size=2) * scale
    light = blur(light, gaussian((first, second), random.uniform(0.0, math.pi)))
    light = light.reshape(height, scale, width, scale, 3).mean(axis=(1, 3))
    light = add_noise(light, random, electrons=_FULL_WELL, sigma=_READ_NOISE)
    return to_8_bits(linear_to_srgb(light.clip(0.0, 1.0)))


def gaussian(sigmas: tuple[float, float], angle: float) -> np.ndarray:
    """Return a Gaussian, (2r + 1)×(2r + 1) float64, with the value 1 in its centre; r is three standard deviations.

    Args:
        sigmas: standard deviations along the two axes, in pixels, above 0.
        angle: of the first axis from the rows, in radians.
    """
    radius = math.ceil(3.0 * max(sigmas))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    return np.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve an H×W×3 float image with a kernel of odd size, scaled to the sum 1; the border is mirrored.

    By Fourier transforms: the time hardly depends on the size of the kernel.
    """
    radius = kernel.shape[0] // 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    shape = tuple(-(-side // _FAST) * _FAST for side in padded.shape[:2])
    weights = (kernel / kernel.sum()).astype(image.dtype)
    spectrum = np.fft.rfft2(padded, shape, axes=(0, 1)) * np.fft.rfft2(weights, shape)[..., None]
    blurred = np.fft.irfft2(spectrum, shape, axes=(0, 1))[2 * radius :, 2 * radius :]
    return blurred[: image.shape[0], : image.shape[1]].astype(image.dtype)


def add_noise(
    image: np.ndarray, random: np.random.Generator, *, electrons: float = math.inf, sigma: float = 0.0
) -> np.ndarray:
    """Add Poisson noise of ``electrons`` in white, and Gaussian noise of the standard deviation ``sigma``.

    A Gaussian of the variance value / ``electrons`` stands for the Poisson distribution. Each value has its own noise.

    Args:
        image: H×W×3, float, 0 to 1; 1 is white.
        random: source of the noise.
        electrons: fewer are noisier.
        sigma: in parts of white.
    """
    noise = random.standard_normal(image.shape, dtype=image.dtype.type)
    return image + noise * np.sqrt(image / electrons + sigma**2)


def resample(image: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """Resample an H×W×3 float32 image to a height and width by one of :data:`RESAMPLING`, without a shift."""
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in image.transpose(2, 0, 1))
    return np.stack([np.asarray(plane.resize(size[::-1], _FILTERS[method])) for plane in planes], axis=2)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress an H×W×3 float image, 0 to 1, as JPEG of a quality from 1 to 100, with halved colours (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(to_8_bits(image)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as decoded:
        return np.asarray(decoded.convert("RGB"), image.dtype) / 255


def to_8_bits(image: np.ndarray) -> np.ndarray:
    """Return a float image clipped to 0 to 1 as uint8, rounded."""
    return np.rint(image.clip(0.0, 1.0) * 255.0).astype(np.uint8)


def srgb_to_linear(encoded: np.ndarray) -> np.ndarray:
    """Decode sRGB values, 0 to 1, to linear light, 0 to 1 (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encode linear light, 0 to 1, as sRGB values, 0 to 1 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
