"""PSNR and SSIM in strips: the same scores, within bounded memory."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from d2csr.metrics import PROTOCOLS, functional, psnr, ssim
from fake_gpu import fake_gpu

# What PSNR and SSIM take beside two images of 12 megapixels, which are there already.
PEAK = """
import json, resource
import torch
from d2csr.metrics import PROTOCOLS, psnr, ssim

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

sr, hr = torch.rand(1, 3, 4000, 3000), torch.rand(1, 3, 4000, 3000)
ssim(sr[..., :600, :600], hr[..., :600, :600], scale=4)  # the threads' stacks and kernels
before = peak()
for protocol in PROTOCOLS:
    psnr(sr, hr, scale=4, protocol=protocol), ssim(sr, hr, scale=4, protocol=protocol)
print(json.dumps(peak() - before))
"""


def noisy(*shape):
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(*shape, generator=generator)
    return hr + 0.1 * torch.randn(*shape, generator=generator), hr


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("score", [psnr, ssim])
@pytest.mark.parametrize("rows", [1, 4, 5, 7, 29, 30])
def test_the_height_of_a_strip_changes_no_score(rows, score, protocol, monkeypatch):
    sr, hr = noisy(2, 3, 34, 27)
    whole = score(sr, hr, scale=2, protocol=protocol)
    rules = PROTOCOLS[protocol]
    width = 27 if rules.pads and score is ssim else rules.crop(sr, 2).shape[3]
    monkeypatch.setattr(functional, "_STRIP", rows * 2 * width)
    assert score(sr, hr, scale=2, protocol=protocol).tolist() == pytest.approx(whole.tolist(), rel=1e-12)


def test_an_image_of_several_strips_has_the_ssim_of_scikit_image():
    sr, hr = noisy(1, 3, 500, 400)
    assert functional._STRIP < 500 * 400 / 3
    planes = [np.pad(image[0].permute(1, 2, 0).double().numpy(), [(5, 5), (5, 5), (0, 0)]) for image in (sr, hr)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(*planes, data_range=1, channel_axis=2, **options)
    assert ssim(sr, hr, scale=4, protocol="cdc").item() == pytest.approx(expected, abs=1e-7)


def test_an_empty_batch_gives_no_scores():
    empty = torch.zeros(0, 3, 20, 20)
    assert psnr(empty, empty, scale=2).shape == ssim(empty, empty, scale=2).shape == (0,)


@pytest.mark.slow
def test_scores_of_a_large_image_need_little_memory(python):
    done = subprocess.run([python, "-c", PEAK], capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout) < 50  # one plane of such an image in double precision takes 96 MB


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_on_a_gpu_the_strips_are_larger_and_the_host_never_waits(protocol):
    with fake_gpu() as waits:
        sr, hr = (torch.rand(1, 3, 1200, 1000, device="cuda") for _ in range(2))
        assert psnr(sr, hr, scale=4, protocol=protocol).device == ssim(sr, hr, scale=4, protocol=protocol).device
        assert waits.seen == []
        assert waits.kernels < 900  # two strips instead of 19, which take 3,000 and more
