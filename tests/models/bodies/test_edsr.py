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


def test_edsr_has_the_published_number_of_parameters(single_path, parameters):
    """43 million: the paper's table 1, of the network at ×4 without its mean shifts."""
    network = single_path(256, EDSRBody(256, blocks=32, residual_scale=0.1), Tail(256, scale=4))
    assert parameters(network) == pytest.approx(43.1e6, rel=1e-3)


@pytest.mark.parametrize("residual_scale", [1.0, 0.1])
def test_it_computes_what_another_implementation_does(residual_scale, randomised, copy_in_order):
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
