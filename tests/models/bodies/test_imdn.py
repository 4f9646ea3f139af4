from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2csr.errors import ConfigError
from d2csr.models.bodies.imdn import ContrastAwareChannelAttention, IMDNBody, InformationMultiDistillationBlock


def pixel_shuffle_tail(features: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))


@pytest.mark.parametrize(("scale", "number"), [(2, 694_404), (3, 703_059), (4, 715_176)])
def test_imdn_has_the_published_number_of_parameters(scale, number, single_path, parameters):
    """694K, 703K and 715K in the paper; to the unit, those of IMDN in https://github.com/Zheng222/IMDN."""
    network = single_path(64, IMDNBody(64), pixel_shuffle_tail(64, scale))
    assert parameters(network) == number


def test_attention_gates_by_the_standard_deviation_plus_the_mean():
    torch.manual_seed(0)
    layer = ContrastAwareChannelAttention(8, reduction=2)
    x = torch.randn(2, 8, 5, 3)
    first, _, second, _ = layer.attention
    with torch.no_grad():
        contrast = x.flatten(2).numpy().std(axis=2) + x.flatten(2).numpy().mean(axis=2)
        inner = (torch.from_numpy(contrast) @ first.weight[:, :, 0, 0].T + first.bias).clamp_min(0)
        gates = 1 / (1 + torch.exp(-(inner @ second.weight[:, :, 0, 0].T + second.bias)))
        torch.testing.assert_close(layer(x), x * gates[:, :, None, None], rtol=1e-5, atol=1e-6)


def test_a_block_distils_a_quarter_of_the_features_in_each_of_four_steps(randomised):
    """Equation 4 of the paper, written out for 8 features."""
    block = randomised(InformationMultiDistillationBlock(8, reduction=4))
    (c1, c2, c3), c4 = ([step[0] for step in block.refinements], block.last)
    x = torch.randn(1, 8, 6, 5)

    def refined(convolution, features):
        return F.leaky_relu(F.conv2d(features, convolution.weight, convolution.bias, padding=1), 0.05)

    with torch.no_grad():
        first = refined(c1, x)
        second = refined(c2, first[:, 2:])
        third = refined(c3, second[:, 2:])
        fourth = F.conv2d(third[:, 2:], c4.weight, c4.bias, padding=1)
        distilled = torch.cat([first[:, :2], second[:, :2], third[:, :2], fourth], dim=1)
        expected = x + block.fusion(block.attention(distilled))
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_the_outputs_of_all_blocks_are_fused(randomised):
    body = randomised(IMDNBody(8, blocks=3, reduction=4))
    x = torch.randn(1, 8, 6, 5)
    pointwise, _, convolution = body.fusion
    with torch.no_grad():
        first = body.blocks[0](x)
        second = body.blocks[1](first)
        third = body.blocks[2](second)
        fused = torch.einsum("oc,nchw->nohw", pointwise.weight[:, :, 0, 0], torch.cat([first, second, third], dim=1))
        fused = F.leaky_relu(fused + pointwise.bias[:, None, None], 0.05)
        expected = F.conv2d(fused, convolution.weight, convolution.bias, padding=1)
        torch.testing.assert_close(body(x), expected, rtol=1e-5, atol=1e-5)


def test_a_constant_channel_has_finite_gradients():
    """The standard deviation of a single pixel is 0, where the square root has no finite gradient."""
    body = IMDNBody(16)
    body(torch.randn(1, 16, 1, 1)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in body.parameters())


def test_the_number_of_features_must_fit():
    with pytest.raises(ConfigError, match="name: 'imdn' needs a multiple of 4 features, got 30"):
        IMDNBody(30)
    with pytest.raises(ConfigError, match="reduction: must not exceed the number of features, 8, got 16"):
        IMDNBody(8)
