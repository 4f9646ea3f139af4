from __future__ import annotations

import pytest
import torch
from torch import nn

from d2csr.models.bodies.rrdb import RRDBBody


def upsampling_tail(features: int) -> nn.Sequential:
    """ESRGAN's tail at ×4: two nearest-neighbour upsamplings with convolutions, then two convolutions."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(features, features, 3, padding=1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(features, features, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(features, 3, 3, padding=1)]
    return nn.Sequential(*layers)


def test_rrdbnet_has_the_published_number_of_parameters(single_path, parameters):
    """16,697,987, the number of RRDBNet in https://github.com/xinntao/ESRGAN (RRDBNet_arch.py, nf=64, nb=23)."""
    network = single_path(64, RRDBBody(64, blocks=23), upsampling_tail(64))
    assert parameters(network) == 16_697_987


def test_the_output_equals_that_of_another_implementation(single_path, randomised, copy_in_order):
    architectures = pytest.importorskip("spandrel.architectures.ESRGAN")
    theirs = randomised(architectures.ESRGAN(num_filters=16, num_blocks=2, scale=4))
    ours = single_path(16, RRDBBody(16, blocks=2), upsampling_tail(16))
    copy_in_order(theirs, ours)
    x = torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_its_receptive_field_is_that_of_its_convolutions(randomised, assert_local):
    body = RRDBBody(4, blocks=1, growth=4)
    assert body.receptive_field == 33  # 16 convolutions of 3×3, one after the other
    assert_local(randomised(body), 4)


def test_the_residuals_begin_small():
    """Section 3.1 of the paper: initial weights are He's, times 0.1."""
    torch.manual_seed(0)
    weight = RRDBBody(64)[0].residual[0].last.weight
    assert weight.std().item() == pytest.approx(0.1 * (2 / (192 * 9)) ** 0.5, rel=0.02)
