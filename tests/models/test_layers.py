from __future__ import annotations

import pytest
import torch

from d2csr.models.bodies.rcab import ChannelAttention, residual_channel_attention_block
from d2csr.models.layers import ColourShift, Tail, Upsampler


def test_a_fresh_shift_subtracts_or_adds_the_mean_colour_of_div2k():
    image = torch.rand(1, 3, 2, 2)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ColourShift(sign=-1)(image), image - mean)
        torch.testing.assert_close(ColourShift(sign=+1)(image), image + mean)


def test_a_shift_is_trained():
    assert all(parameter.requires_grad for parameter in ColourShift(sign=-1).parameters())


def test_attention_gates_channels_by_global_average_pooling():
    torch.manual_seed(0)
    layer = ChannelAttention(features=8, reduction=4)
    x = torch.randn(2, 8, 3, 5)
    with torch.no_grad():
        _, down, _, up, _ = layer.attention
        averages = x.mean(dim=(2, 3))
        inner = (averages @ down.weight[:, :, 0, 0].T + down.bias).clamp_min(0)
        scale = 1 / (1 + torch.exp(-(inner @ up.weight[:, :, 0, 0].T + up.bias)))
        torch.testing.assert_close(layer(x), x * scale[:, :, None, None])


def test_a_block_does_not_change_its_input():
    block = residual_channel_attention_block(features=8, reduction=4)
    x = torch.randn(1, 8, 4, 4)
    kept = x.clone()
    block(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(("scale", "convolutions"), [(2, 1), (3, 1), (4, 2), (8, 3)])
def test_powers_of_two_are_upsampled_by_factors_of_two_and_three_at_once(scale, convolutions):
    upsampler = Upsampler(features=4, scale=scale)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in upsampler) == convolutions
    assert upsampler(torch.rand(1, 4, 3, 2)).shape == (1, 4, 3 * scale, 2 * scale)
    assert Tail(features=4, scale=scale)(torch.rand(1, 4, 3, 2)).shape == (1, 3, 3 * scale, 2 * scale)
