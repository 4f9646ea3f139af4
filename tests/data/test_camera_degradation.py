"""Degradation by a camera: size, place, light and noise of LR."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from d2csr.checks import SCALES
from d2csr.data.degradation import degrade, linear_to_srgb, srgb_to_linear
from d2csr.demo.demo_pairs import read_photo
from d2csr.errors import ConfigError, DataError


def blob(side: int, y: float, x: float, sigma: float) -> np.ndarray:
    """A Gaussian spot of light on a dark grey ground, centred on pixel coordinates (y, x)."""
    rows, columns = np.mgrid[:side, :side]
    light = 0.05 + 0.8 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    return np.rint(255 * linear_to_srgb(np.repeat(light[..., None], 3, axis=2))).astype(np.uint8)


def centroid(image: np.ndarray) -> tuple[float, float]:
    weight = srgb_to_linear(image[..., 1] / 255.0) - 0.05
    weight = np.where(weight > 0.05, weight, 0.0)  # the spot, not the noise of the ground
    rows, columns = np.indices(weight.shape)
    return (rows * weight).sum() / weight.sum(), (columns * weight).sum() / weight.sum()


@pytest.mark.parametrize("scale", SCALES)
def test_size_and_type(scale: int) -> None:
    lr = degrade(read_photo("china"), scale, seed=0)
    assert lr.shape == (427 // scale, 640 // scale, 3)
    assert lr.dtype == np.uint8


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_a_spot_is_not_shifted(scale: int, seed: int) -> None:
    side = 24 * scale
    y, x = 11.3 * scale, 12.6 * scale
    lr_y, lr_x = centroid(degrade(blob(side, y, x, 2.5 * scale), scale, seed=seed))
    # LR pixel i has its centre at HR coordinate (i + 0.5) * scale - 0.5.
    assert (lr_y + 0.5) * scale - 0.5 == pytest.approx(y, abs=0.05 * scale)
    assert (lr_x + 0.5) * scale - 0.5 == pytest.approx(x, abs=0.05 * scale)


@pytest.mark.parametrize("scale", SCALES)
def test_the_upscaled_image_fits_best_without_a_shift(scale: int) -> None:
    hr = read_photo("astronaut")
    hr = hr[: 512 // scale * scale, : 512 // scale * scale]
    lr = Image.fromarray(degrade(hr, scale, seed=0))
    upscaled = np.asarray(lr.resize(hr.shape[1::-1], Image.Resampling.BICUBIC), float)

    def error(down: int, right: int) -> float:
        shifted = np.roll(upscaled, (down, right), axis=(0, 1))
        return float(np.square(shifted - hr)[8:-8, 8:-8].mean())

    errors = {(down, right): error(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert min(errors, key=errors.__getitem__) == (0, 0)


def test_the_remainder_at_bottom_and_right_is_cropped() -> None:
    hr = read_photo("astronaut")
    np.testing.assert_array_equal(degrade(hr[:403, :407], 4, seed=3), degrade(hr[:400, :404], 4, seed=3))


def test_the_result_follows_from_the_seed() -> None:
    hr = read_photo("astronaut")[:64, :64]
    np.testing.assert_array_equal(degrade(hr, 2, seed=1), degrade(hr, 2, seed=1))
    assert (degrade(hr, 2, seed=1) != degrade(hr, 2, seed=2)).mean() > 0.3


@pytest.mark.parametrize("level", [0, 30, 128, 220, 255])
def test_a_flat_image_keeps_its_level_and_gets_one_or_two_levels_of_noise(level: int) -> None:
    lr = degrade(np.full((400, 400, 3), level, np.uint8), 2, seed=0).astype(float)
    assert lr.mean() == pytest.approx(level, abs=1.0)
    assert (0.2 if level in (0, 255) else 0.8) < lr.std() < 2.5  # clipping at the ends halves it
    if level == 128:
        across, down = (
            np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in ((lr[:, 1:], lr[:, :-1]), (lr[1:], lr[:-1]))
        )
        assert max(abs(across), abs(down)) < 0.02  # white: each pixel has its own


@pytest.mark.parametrize("scale", SCALES)
def test_light_is_averaged_and_not_srgb_values(scale: int) -> None:
    rows, columns = np.indices((48 * scale, 48 * scale))
    checks = np.where((rows + columns) % 2, 255, 0).astype(np.uint8)
    if scale == 3:  # a block of 3 × 3 holds 4 or 5 white pixels: stripes instead, one white row in three
        checks = np.where(rows % 3 == 0, 255, 0).astype(np.uint8)
    lr = degrade(np.repeat(checks[..., None], 3, axis=2), scale, seed=0).astype(float)
    expected = 255 * linear_to_srgb(np.asarray(1 / 3 if scale == 3 else 1 / 2))
    assert lr[8:-8, 8:-8].mean() == pytest.approx(expected, abs=1.5)  # 188 of 255, where sRGB values would give 128


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_softer_than_the_mean_of_each_block_and_does_not_ring(scale: int) -> None:
    edge = np.full((32 * scale, 32 * scale, 3), 60, np.uint8)
    edge[:, 16 * scale :] = 190
    profile = degrade(edge, scale, seed=0)[..., 1].mean(axis=0)
    assert 64 < profile[15] < 190  # the edge lies between two LR pixels, yet the lens spreads it over them
    assert 60 < profile[16] < 188
    assert profile.min() > 58
    assert profile.max() < 192


def test_srgb_is_encoded_as_the_standard_says() -> None:
    levels = np.arange(256) / 255.0
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(levels)), levels, atol=1e-7)
    assert srgb_to_linear(np.asarray(0.5)) == pytest.approx(0.21404, abs=1e-5)
    assert srgb_to_linear(np.asarray(0.04)) == pytest.approx(0.04 / 12.92)


@pytest.mark.parametrize("scale", [1, 5, 0, -2])
def test_another_scale_is_refused(scale: int) -> None:
    with pytest.raises(ConfigError, match="2, 3, 4, 8"):
        degrade(np.zeros((32, 32, 3), np.uint8), scale, seed=0)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3)),
        np.zeros((3, 32, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "tiny"],
)
def test_only_8_bit_rgb_is_accepted(image: np.ndarray) -> None:
    with pytest.raises(DataError):
        degrade(image, 4, seed=0)
