from __future__ import annotations

import numpy as np
import pytest
import torch

from d2csr.html_report.spectra import radial_spectrum


@pytest.mark.parametrize("size", [(600, 500), (100, 300)])
def test_white_noise_has_its_variance_at_all_frequencies(size: tuple[int, int]) -> None:
    noise = 0.5 + 0.1 * torch.randn(*size, generator=torch.Generator().manual_seed(0))
    frequencies, densities = radial_spectrum(noise.expand(1, 3, *size))
    assert frequencies[-1] == pytest.approx(0.5, abs=0.01)
    assert densities[2:].mean() == pytest.approx(0.01, rel=0.05)
    assert np.all(np.abs(densities[10:] / 0.01 - 1) < 0.4)


@pytest.mark.parametrize(("across", "down"), [(0.25, 0), (0, 0.25), (0.15, 0.2)])
def test_a_wave_has_its_power_at_its_frequency_in_any_direction(across: float, down: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    wave = 0.5 + 0.3 * torch.sin(2 * torch.pi * (across * columns + down * rows))
    frequencies, densities = radial_spectrum(wave.expand(1, 3, 512, 512))
    assert frequencies[densities.argmax()] == pytest.approx(0.25, abs=1 / 256)
    assert densities[np.abs(frequencies - 0.25) > 0.02].max() < 1e-3 * densities.max()


def test_the_luma_is_that_of_bt601() -> None:
    noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    green = torch.cat([torch.zeros_like(noise), 0.5 + 0.1 * noise, torch.zeros_like(noise)], dim=1)
    _, of_green = radial_spectrum(green)
    _, of_grey = radial_spectrum((0.5 + 0.1 * noise).expand(1, 3, 256, 256))
    assert of_green == pytest.approx(0.587**2 * of_grey, rel=1e-3)
