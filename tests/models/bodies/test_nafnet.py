from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from d2csr.models.bodies.nafnet import NAFNetBody

# Names of an NAFBlock's layers in the published code, and here.
NAMES = {
    "norm1": "convolutional.0",
    "conv1": "convolutional.1",
    "conv2": "convolutional.2",
    "sca.1": "convolutional.4.attention.1",
    "conv3": "convolutional.5",
    "norm2": "feed_forward.0",
    "conv4": "feed_forward.1",
    "conv5": "feed_forward.3",
}


class UNet(nn.Module):
    """NAFNet's U-Net, from one body for each resolution."""

    def __init__(self, width: int, encoder: list[int], middle: int, decoder: list[int]) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(len(encoder) + 1)]
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(NAFNetBody(w, n) for w, n in zip(widths, encoder, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, 2) for w in widths[:-1])
        self.middle_blks = NAFNetBody(widths[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, 2 * w, 1, bias=False), nn.PixelShuffle(2)) for w in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(NAFNetBody(w, n) for w, n in zip(widths[-2::-1], decoder, strict=True))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.intro(image)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.middle_blks(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return image + self.ending(x)


def test_nafnet_of_width_32_has_the_published_number_of_parameters(parameters):
    """29,159,715: NAFNet-SIDD-width32 in https://github.com/megvii-research/NAFNet."""
    with torch.device("meta"):
        assert parameters(UNet(32, [2, 2, 4, 8], 12, [2, 2, 2, 2])) == 29_159_715


def test_the_output_equals_that_of_another_implementation(randomised):
    architectures = pytest.importorskip("spandrel.architectures.NAFNet")
    theirs = randomised(architectures.NAFNet(width=8, enc_blk_nums=[1, 2], middle_blk_num=2, dec_blk_nums=[1, 1]))
    ours = UNet(8, [1, 2], 2, [1, 1])
    pattern = re.compile("|".join(map(re.escape, NAMES)))
    ours.load_state_dict(
        {pattern.sub(lambda match: NAMES[match[0]], name): value for name, value in theirs.state_dict().items()}
    )
    x = torch.rand(2, 3, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_a_new_body_is_the_identity():
    x = torch.randn(1, 8, 4, 5)
    assert torch.equal(NAFNetBody(8, blocks=3)(x), x)


def test_it_uses_the_mean_of_the_whole_image(randomised):
    body = randomised(NAFNetBody(8, blocks=1))
    x = torch.randn(1, 8, 40, 40)
    changed = x.clone()
    changed[:, :, 0, 0] *= -2
    with torch.no_grad():
        assert not torch.equal(body(x)[..., -1, -1], body(changed)[..., -1, -1])
