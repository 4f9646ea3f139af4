from __future__ import annotations

import pytest
import torch
from torch import nn

from d2csr.models.bodies.edsr import EDSRBody
from d2csr.models.layers import Tail


def test_edsr_baseline_has_the_published_number_of_parameters(single_path, parameters):
    """1,517,571: https://github.com/znsc/MSRResNet, whose network has the layers of EDSR-baseline in another order."""
    network = single_path(64, EDSRBody(64, blocks=16), Tail(64, scale=4))
    assert parameters(network) == 1_517_571


@pytest.mark.parametrize(
    ("features", "blocks", "scale", "millions"),
    [
        (64, 16, 2, 1.37),
        (64, 16, 3, 1.55),
        (64, 16, 4, 1.52),
        (256, 32, 2, 40.7),
        (256, 32, 3, 43.7),
        (256, 32, 4, 43.1),
    ],
)
def test_edsr_has_the_published_number_of_parameters(features, blocks, scale, millions, single_path, parameters):
    """The table of pre-trained models in https://github.com/sanghyun-son/EDSR-PyTorch."""
    with torch.device("meta"):
        network = single_path(features, EDSRBody(features, blocks), Tail(features, scale))
    assert parameters(network) / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("residual_scale", [1.0, 0.1])
def test_the_output_equals_that_of_another_implementation(residual_scale, randomised, copy_in_order):
    layers = pytest.importorskip("spandrel.architectures.__arch_helpers.block")
    blocks = (layers.ResNetBlock(16, 16, 16, res_scale=residual_scale) for _ in range(3))
    theirs = randomised(nn.Sequential(*blocks, nn.Conv2d(16, 16, 3, padding=1)))
    ours = EDSRBody(16, 3, residual_scale)
    copy_in_order(theirs, ours)
    x = torch.randn(2, 16, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 3])
def test_its_receptive_field_is_that_of_its_convolutions(blocks, randomised, assert_local):
    body = EDSRBody(4, blocks)
    assert body.receptive_field == {1: 7, 3: 15}[blocks]  # a 3×3 convolution adds a pixel on each side
    assert_local(randomised(body), 4)
