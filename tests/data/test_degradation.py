"""Steps of the degradation against scipy, torch, Pillow and statistics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from d2csr.data.degradation import RESAMPLING, add_noise, blur, gaussian, jpeg, resample, to_8_bits


@pytest.fixture
def image() -> np.ndarray:
    """A smooth random image, 61×90×3 float32 in [0, 1]."""
    noise = np.random.default_rng(0).random((61, 90, 3))
    return ndimage.gaussian_filter(noise, (1.5, 1.5, 0)).astype(np.float32)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 7.0])
def test_an_isotropic_blur_is_that_of_scipy(image: np.ndarray, sigma: float) -> None:
    expected = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=3.0)  # its border is mirrored, too
    np.testing.assert_allclose(blur(image, gaussian((sigma, sigma), 0.3)), expected, atol=2e-6)


def test_an_anisotropic_blur_is_along_its_axes(image: np.ndarray) -> None:
    along_rows = ndimage.gaussian_filter(image, (1.0, 3.0, 0), radius=(9, 9, 0))
    np.testing.assert_allclose(blur(image, gaussian((3.0, 1.0), 0.0)), along_rows, atol=2e-6)
    along_columns = ndimage.gaussian_filter(image, (3.0, 1.0, 0), radius=(9, 9, 0))
    np.testing.assert_allclose(blur(image, gaussian((3.0, 1.0), math.pi / 2)), along_columns, atol=2e-6)


def test_a_slanted_blur_is_a_convolution_with_its_kernel(image: np.ndarray) -> None:
    kernel = gaussian((2.0, 0.6), 0.7)
    expected = ndimage.convolve(image.astype(float), (kernel / kernel.sum())[..., None], mode="reflect")
    np.testing.assert_allclose(blur(image, kernel), expected, atol=2e-6)
    rows, columns = np.indices(kernel.shape) - kernel.shape[0] // 2
    covariance = np.cov(np.stack([columns.ravel(), rows.ravel()]), aweights=kernel.ravel())
    values, axes = np.linalg.eigh(covariance)
    np.testing.assert_allclose(np.sqrt(values), (0.6, 2.0), rtol=0.05)
    assert math.atan2(axes[1, 1], axes[0, 1]) % math.pi == pytest.approx(0.7, abs=0.02)


def test_a_blur_wider_than_the_image_is_its_mean(image: np.ndarray) -> None:
    small = image[:6, :5]
    blurred = blur(small, gaussian((40.0, 40.0), 0.0))
    np.testing.assert_allclose(blurred, np.broadcast_to(small.mean(axis=(0, 1)), blurred.shape), atol=2e-3)


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9])
def test_poisson_noise_has_the_variance_of_counted_electrons(value: float) -> None:
    flat = np.full((400, 500, 3), value, np.float32)
    noisy = add_noise(flat, np.random.default_rng(0), electrons=900.0)
    counted = np.random.default_rng(1).poisson(900 * value, flat.shape) / 900
    assert noisy.mean() == pytest.approx(value, abs=2e-4)
    assert noisy.std() == pytest.approx(counted.std(), rel=0.01)


def test_gaussian_noise_is_white_and_of_equal_strength_everywhere() -> None:
    steps = np.repeat(np.linspace(0, 1, 5, dtype=np.float32), 200)[None, :, None] * np.ones((400, 1, 3), np.float32)
    noise = add_noise(steps, np.random.default_rng(0), sigma=5 / 255) - steps
    for left in range(0, 1000, 200):
        assert noise[:, left : left + 200].std() == pytest.approx(5 / 255, rel=0.01)
    neighbours = ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 0], noise[..., 1]))
    assert max(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in neighbours) < 0.01


@pytest.mark.parametrize("method", RESAMPLING)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_resampling_is_that_of_torch(image: np.ndarray, method: str, scale: int) -> None:
    height, width = 48 // scale, 72 // scale
    planes = torch.from_numpy(image[:48, :72].transpose(2, 0, 1))[None]
    settings = {"mode": "area"} if method == "area" else {"mode": method, "antialias": True, "align_corners": False}
    expected = torch.nn.functional.interpolate(planes, (height, width), **settings)[0].permute(1, 2, 0)
    resampled = resample(image[:48, :72], (height, width), method)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, expected, atol=2e-5)


@pytest.mark.parametrize("quality", [10, 60, 95])
def test_jpeg_is_that_of_a_file_which_pillow_writes(image: np.ndarray, quality: int, tmp_path: Path) -> None:
    Image.fromarray(to_8_bits(image)).save(tmp_path / "a.jpg", quality=quality)  # 4:2:0 by default
    compressed = jpeg(image, quality)
    np.testing.assert_allclose(255 * compressed, np.asarray(Image.open(tmp_path / "a.jpg")), atol=1e-4)


def test_rounding_clips() -> None:
    np.testing.assert_array_equal(to_8_bits(np.array([-0.2, 0.0, 0.4999, 1.0, 1.7])), [0, 0, 127, 255, 255])
