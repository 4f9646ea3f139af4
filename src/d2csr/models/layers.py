"""The building blocks of the divergence network.

They are those of RCAN, "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", Zhang et al.,
ECCV 2018 (https://arxiv.org/abs/1807.02758), without its residual scaling. Every 3×3 convolution is padded by one and
has a bias. F is the number of features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The mean colour of DIV2K's training images, RGB in [0, 1], as the official code has it.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3×3 convolution that keeps the size of its input."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


class ColourShift(nn.Conv2d):
    """A learned 1×1 convolution of three channels, N×3×H×W to N×3×H×W.

    The official code means a fixed subtraction (or addition) of the mean colour, but trains an ordinary convolution: so
    the mean is no more than where this one starts.

    Args:
        sign: −1 starts by subtracting the mean colour of DIV2K, +1 by adding it.
    """

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, kernel_size=1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            assert self.bias is not None
            self.bias.copy_(sign * torch.tensor(DIV2K_MEAN))


class ChannelAttention(nn.Module):
    """Channel attention (RCAN, section 3.3): each channel is scaled by a figure drawn from all channels' averages.

    Args:
        features: F.
        reduction: by how much the layer between is narrower than F.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(features, features // reduction, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features // reduction, features, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale N×F×H×W by its N×F×1×1 attention."""
        return x * self.attention(x)


class ResidualChannelAttentionBlock(nn.Module):
    """RCAB (RCAN, section 3.4): conv, ReLU, conv, channel attention, plus the input; N×F×H×W to N×F×H×W."""

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv3x3(features, features),
            nn.ReLU(inplace=True),
            conv3x3(features, features),
            ChannelAttention(features, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's residual."""
        return x + self.residual(x)


class ResidualGroup(nn.Module):
    """A residual group (RCAN, section 3.2): some RCABs, a convolution, plus the input; N×F×H×W to N×F×H×W."""

    def __init__(self, features: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(ResidualChannelAttentionBlock(features, reduction) for _ in range(blocks)),
            conv3x3(features, features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the group's residual."""
        return x + self.residual(x)


class Body(nn.Sequential):
    """What one node of the tree computes: some residual groups, then a convolution; N×F×H×W to N×F×H×W."""

    def __init__(self, features: int, groups: int, blocks: int, reduction: int) -> None:
        super().__init__(
            *(ResidualGroup(features, blocks, reduction) for _ in range(groups)),
            conv3x3(features, features),
        )


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling (Shi et al., CVPR 2016): N×F×H×W to N×F×sH×sW.

    A scale that is a power of two takes a convolution and a pixel shuffle by two for each factor; three takes one of
    each.
    """

    def __init__(self, features: int, scale: int) -> None:
        factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        layers: list[nn.Module] = []
        for factor in factors:
            layers += [conv3x3(features, factor**2 * features), nn.PixelShuffle(factor)]
        super().__init__(*layers)


class Tail(nn.Sequential):
    """A leaf's reconstruction: upsampler, then a convolution to three channels; N×F×H×W to N×3×sH×sW."""

    def __init__(self, features: int, scale: int) -> None:
        super().__init__(Upsampler(features, scale), conv3x3(features, 3))
