"""The body of the paper: residual groups of channel-attention blocks, then a convolution.

Blocks, groups and channel attention are those of RCAN, "Image Super-Resolution Using Very Deep Residual Channel
Attention Networks", Zhang et al., ECCV 2018 (https://arxiv.org/abs/1807.02758), without its residual scaling.
"""

from __future__ import annotations

from torch import Tensor, nn

from d2csr.checks import whole_number
from d2csr.models.bodies.registry import register_body
from d2csr.models.layers import MAX_BLOCKS, Residual, channel_gates, conv3x3


class ChannelAttention(nn.Module):
    """Channel attention (RCAN, section 3.3): each channel is gated by a value computed from global pooling."""

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), *channel_gates(features, reduction))

    def forward(self, x: Tensor) -> Tensor:
        """Scale N×F×H×W by its N×F×1×1 attention."""
        return x * self.attention(x)


def residual_channel_attention_block(features: int, reduction: int) -> Residual:
    """Return an RCAB (RCAN, section 3.4): conv, ReLU, conv, channel attention, plus the input."""
    first, second = conv3x3(features, features), conv3x3(features, features)
    return Residual(first, nn.ReLU(inplace=True), second, ChannelAttention(features, reduction))


def residual_group(features: int, blocks: int, reduction: int) -> Residual:
    """Return a residual group (RCAN, section 3.2): some RCABs, a convolution, plus the input."""
    rcabs = [residual_channel_attention_block(features, reduction) for _ in range(blocks)]
    return Residual(*rcabs, conv3x3(features, features))


@register_body("rcab")
class RCABBody(nn.Sequential):
    """Residual groups of ``blocks`` channel-attention blocks, then a 3×3 convolution; N×F×H×W to N×F×H×W.

    The defaults are the paper's. ``reduction`` is F divided by the width of the inner layer of channel attention.
    """

    receptive_field: int | None = None  # channel attention uses the whole image

    def __init__(self, features: int, groups: int = 2, blocks: int = 4, reduction: int = 16) -> None:
        whole_number("groups", groups, most=MAX_BLOCKS)
        whole_number("blocks", blocks, most=MAX_BLOCKS)
        residual_groups = [residual_group(features, blocks, reduction) for _ in range(groups)]
        super().__init__(*residual_groups, conv3x3(features, features))
