"""The body of NAFNet for super-resolution: a plain stack of blocks without nonlinear activation functions.

The block is that of "Simple Baselines for Image Restoration", Chen et al., ECCV 2022
(https://arxiv.org/abs/2204.04676). The stack at one resolution, in place of the U-Net, is that of "NAFSSR: Stereo Image
Super-Resolution Using NAFNet", Chu et al., CVPR Workshops 2022 (https://arxiv.org/abs/2204.08714), for one view and
without stochastic depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2csr.checks import whole_number
from d2csr.models.bodies.registry import register_body
from d2csr.models.layers import MAX_BLOCKS

_EXPANSION = 2  # of the channels before a gate, which halves them again


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel; N×F×H×W to N×F×H×W."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the channels of each pixel."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimpleGate(nn.Module):
    """SimpleGate (section 4): the product of the two halves of the channels; N×2F×H×W to N×F×H×W."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the halves."""
        first, second = x.chunk(2, dim=1)
        return first * second


class SimplifiedChannelAttention(nn.Module):
    """Simplified channel attention (SCA, section 4): global average pooling and a 1×1 convolution as gates."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(features, features, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        """Scale N×F×H×W by its N×F×1×1 attention."""
        return x * self.attention(x)


class NAFBlock(nn.Module):
    """NAFBlock (section 4): a convolutional and a feed-forward part, each with a learned scale; N×F×H×W to N×F×H×W.

    The scales begin at 0, so a new block is the identity.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        wide = _EXPANSION * features
        self.convolutional = nn.Sequential(
            LayerNorm2d(features, eps=1e-6),
            nn.Conv2d(features, wide, kernel_size=1),
            nn.Conv2d(wide, wide, kernel_size=3, padding=1, groups=wide),
            SimpleGate(),
            SimplifiedChannelAttention(features),
            nn.Conv2d(features, features, kernel_size=1),
        )
        self.feed_forward = nn.Sequential(
            LayerNorm2d(features, eps=1e-6),
            nn.Conv2d(features, wide, kernel_size=1),
            SimpleGate(),
            nn.Conv2d(features, features, kernel_size=1),
        )
        self.beta = nn.Parameter(torch.zeros(1, features, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, features, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add both scaled residuals, one after the other."""
        x = x + self.beta * self.convolutional(x)
        return x + self.gamma * self.feed_forward(x)


@register_body("nafnet")
class NAFNetBody(nn.Sequential):
    """A stack of NAFBlocks; N×F×H×W to N×F×H×W.

    NAFSSR-T has 48 features and 16 blocks, NAFSSR-S 64 and 32, NAFSSR-B 96 and 64.

    Args:
        features: F.
        blocks: NAFBlocks.
    """

    receptive_field: int | None = None  # channel attention uses the whole image

    def __init__(self, features: int, blocks: int = 22) -> None:
        whole_number("blocks", blocks, most=MAX_BLOCKS)
        super().__init__(*(NAFBlock(features) for _ in range(blocks)))
