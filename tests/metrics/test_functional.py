from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.metrics import PROTOCOLS, psnr, ssim, to_8bit
from reference_scores import skimage_scores

SCALES = [2, 4]


def by_scikit_image(sr, hr, scale, protocol):
    """PSNR and SSIM of one 3×H×W pair."""
    sr, hr = (image.permute(1, 2, 0).double().numpy() for image in (sr, hr))
    return skimage_scores(sr, hr, scale, protocol)


def noisy_images(n=3, height=30, width=26):
    """Images of different quality whose values leave [0, 1], as a network's do."""
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(n, 3, height, width, generator=generator)
    noise = torch.randn(n, 3, height, width, generator=generator)
    return hr + noise * torch.linspace(0.02, 0.2, n).view(n, 1, 1, 1), hr


@pytest.mark.parametrize("protocol", ["d2csr", "cdc", "y"])
@pytest.mark.parametrize("scale", SCALES)
def test_scores_equal_those_of_the_reference_projects(protocol, scale, golden, golden_arrays):
    arrays = golden_arrays(f"metrics-x{scale}.npz")
    expected = json.loads((golden / f"metrics-x{scale}.json").read_text())[protocol]
    scores = {
        "psnr": psnr(arrays["sr"], arrays["hr"], scale=scale, protocol=protocol).item(),
        "ssim": ssim(arrays["sr"], arrays["hr"], scale=scale, protocol=protocol).item(),
    }
    assert scores["psnr"] == pytest.approx(expected["psnr"], abs=1e-4)
    assert scores["ssim"] == pytest.approx(expected["ssim"], abs=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_the_official_protocol_is_the_default(scale, golden_arrays):
    arrays = golden_arrays(f"metrics-x{scale}.npz")
    assert psnr(arrays["sr"], arrays["hr"], scale=scale).item() == pytest.approx(arrays["psnr"].item(), abs=1e-4)
    assert ssim(arrays["sr"], arrays["hr"], scale=scale).item() == pytest.approx(arrays["ssim"].item(), abs=1e-5)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("scale", [2, 3])
def test_each_image_of_a_batch_has_the_scores_of_scikit_image(protocol, scale):
    sr, hr = noisy_images()
    expected = [by_scikit_image(x, y, scale, protocol) for x, y in zip(sr, hr, strict=True)]
    psnrs, ssims = zip(*expected, strict=True)
    assert psnr(sr, hr, scale=scale, protocol=protocol).tolist() == pytest.approx(psnrs, abs=1e-6)
    assert ssim(sr, hr, scale=scale, protocol=protocol).tolist() == pytest.approx(ssims, abs=1e-6)
    assert len(set(psnrs)) == len(psnrs)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_the_same_image_has_infinite_psnr_and_ssim_one(protocol):
    hr = torch.rand(2, 3, 20, 17)
    assert psnr(hr, hr, scale=2, protocol=protocol).tolist() == [float("inf")] * 2
    assert ssim(hr, hr, scale=2, protocol=protocol).tolist() == pytest.approx([1.0, 1.0], abs=1e-9)


@pytest.mark.parametrize("protocol", ["d2csr", "cdc", "y", "rgb"])
def test_psnr_ignores_the_border(protocol):
    hr = torch.rand(1, 3, 20, 20)
    sr = hr.clone()
    sr[..., :4, :] = sr[..., -4:, :] = 0
    sr[..., :, :4] = sr[..., :, -4:] = 0
    assert psnr(sr, hr, scale=4, protocol=protocol).item() == float("inf")
    assert psnr(sr, hr, scale=3, protocol=protocol).item() < 40


def test_protocol_realsr_ignores_only_what_exceeds_a_multiple_of_four():
    hr = torch.rand(1, 3, 23, 30)
    sr = hr.clone()
    sr[..., 20:, :] = sr[..., :, 28:] = 0
    assert psnr(sr, hr, scale=3, protocol="realsr").item() == float("inf")
    assert ssim(sr, hr, scale=3, protocol="realsr").item() == pytest.approx(1)
    sr[..., 0, 0] = sr[..., 19, 27] = 0
    assert psnr(sr, hr, scale=3, protocol="realsr").item() < 60
    assert ssim(sr, hr, scale=3, protocol="realsr").item() < 1


def test_protocol_realsr_rounds_the_luma_as_matlab_does():
    """Luma of MATLAB's documentation and of BT.601: white 235, black 16, the primaries 81, 145 and 41."""
    colours = [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    image = torch.tensor(colours, dtype=torch.float64).T.view(1, 3, 1, 5)
    assert PROTOCOLS["realsr"].psnr_planes(image).flatten().tolist() == [235, 16, 81, 145, 41]


@pytest.mark.parametrize("protocol", ["y", "realsr", "rgb"])
def test_8_bit_protocols_give_a_saved_image_the_same_scores(protocol):
    sr, hr = noisy_images()
    for score in (psnr, ssim):
        saved = score(to_8bit(sr), to_8bit(hr), scale=2, protocol=protocol)
        assert score(sr, hr, scale=2, protocol=protocol).tolist() == pytest.approx(saved.tolist(), abs=1e-9)


def test_8_bit_images_are_those_of_numpy():
    image = noisy_images()[0]
    expected = (image.numpy().clip(0, 1) * np.float32(255)).round().astype(np.uint8)
    assert (to_8bit(image).numpy() == expected.astype(np.float32) / np.float32(255)).all()
    assert expected.min() == 0
    assert expected.max() == 255


@pytest.mark.parametrize(
    ("protocol", "sees"), [("d2csr", True), ("cdc", True), ("y", False), ("realsr", True), ("rgb", False)]
)
def test_ssim_includes_the_border_except_for_protocols_that_cut_it(protocol, sees):
    hr = torch.rand(1, 3, 30, 30)
    sr = hr.clone()
    sr[..., 0] = 0
    assert (ssim(sr, hr, scale=4, protocol=protocol).item() < 0.99999) == sees


def test_the_official_protocol_swaps_red_and_blue():
    hr = torch.zeros(1, 3, 16, 16)
    red, blue = hr.clone(), hr.clone()
    red[:, 0], blue[:, 2] = 0.1, 0.1
    official = [psnr(sr, hr, scale=2, protocol="d2csr").item() for sr in (red, blue)]
    standard = [psnr(sr, hr, scale=2, protocol="cdc").item() for sr in (blue, red)]
    assert official == pytest.approx(standard)
    assert official[0] > official[1]


def test_large_values_are_exact_in_double_precision():
    hr = torch.full((1, 3, 32, 32), 0.9)
    sr = hr + 1e-4 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = by_scikit_image(sr[0], hr[0], 2, "cdc")
    assert ssim(sr, hr, scale=2, protocol="cdc").item() == pytest.approx(expected[1], abs=1e-7)
    assert psnr(sr.double(), hr.double(), scale=2, protocol="cdc").item() == pytest.approx(expected[0], abs=1e-4)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_an_unknown_protocol_is_refused_with_the_known_ones(score):
    with pytest.raises(ConfigError, match=r"protocol: must be one of d2csr, cdc, y, realsr, rgb, got 'lab'"):
        score(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), scale=2, protocol="lab")


@pytest.mark.parametrize("score", [psnr, ssim])
@pytest.mark.parametrize(
    ("sr", "hr"), [((1, 3, 20, 20), (1, 3, 20, 21)), ((3, 20, 20), (3, 20, 20)), ((1, 1, 20, 20), (1, 1, 20, 20))]
)
def test_shapes_that_do_not_fit_are_refused(score, sr, hr):
    with pytest.raises(ValueError, match="expected two N×3×H×W images of one shape"):
        score(torch.rand(sr), torch.rand(hr), scale=2)


@pytest.mark.parametrize("protocol", ["d2csr", "cdc", "y", "rgb"])
def test_psnr_needs_a_pixel_within_the_border(protocol):
    assert psnr(torch.zeros(1, 3, 9, 9), torch.ones(1, 3, 9, 9), scale=4, protocol=protocol).isfinite().all()
    with pytest.raises(ValueError, match="at least 9 pixels a side, got 9×8"):
        psnr(torch.zeros(1, 3, 9, 8), torch.ones(1, 3, 9, 8), scale=4, protocol=protocol)


@pytest.mark.parametrize(("score", "least"), [(psnr, 4), (ssim, 12)])
def test_protocol_realsr_needs_a_multiple_of_four(score, least):
    assert score(torch.zeros(1, 3, least, least), torch.ones(1, 3, least, least), scale=8, protocol="realsr").isfinite()
    with pytest.raises(ValueError, match=f"at least {least} pixels a side, got {least - 1}×19"):
        score(torch.zeros(1, 3, least - 1, 19), torch.ones(1, 3, least - 1, 19), scale=8, protocol="realsr")


def test_ssim_without_padding_needs_room_for_the_window():
    for protocol in ("y", "rgb"):
        assert ssim(torch.zeros(1, 3, 19, 19), torch.ones(1, 3, 19, 19), scale=4, protocol=protocol).isfinite().all()
        with pytest.raises(ValueError, match="at least 19 pixels a side, got 18×19"):
            ssim(torch.zeros(1, 3, 18, 19), torch.ones(1, 3, 18, 19), scale=4, protocol=protocol)
    assert ssim(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), scale=4, protocol="d2csr").isfinite().all()
