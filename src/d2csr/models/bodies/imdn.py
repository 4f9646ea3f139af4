"""The body of IMDN: information multi-distillation blocks, whose outputs are fused.

"Lightweight Image Super-Resolution with Information Multi-distillation Network", Hui et al., ACM Multimedia 2019
(https://arxiv.org/abs/1909.11856).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2csr.checks import whole_number
from d2csr.errors import ConfigError
from d2csr.models.bodies.registry import register_body
from d2csr.models.layers import MAX_BLOCKS, channel_gates, conv3x3

_STEPS = 4  # distillation steps; each keeps 1 / _STEPS of the features
_SLOPE = 0.05  # of LeakyReLU
_LEAST_VARIANCE = 1e-12  # the gradient of a square root is infinite at 0, as of a constant channel


class ContrastAwareChannelAttention(nn.Module):
    """Contrast-aware channel attention (section 3.3): gates from each channel's standard deviation plus mean."""

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(*channel_gates(features, reduction))

    def forward(self, x: Tensor) -> Tensor:
        """Scale N×F×H×W by its N×F×1×1 attention."""
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return x * self.attention(variance.clamp_min(_LEAST_VARIANCE).sqrt() + mean)


class InformationMultiDistillationBlock(nn.Module):
    """IMDB (section 3.2): four convolutions that each keep a quarter of the features, then attention and fusion.

    The first three pass their other features on to the next convolution. N×F×H×W to N×F×H×W.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.kept = features // _STEPS
        self.passed = features - self.kept
        inputs = [features, *[self.passed] * (_STEPS - 2)]
        self.refinements = nn.ModuleList(
            nn.Sequential(conv3x3(channels, features), nn.LeakyReLU(_SLOPE, inplace=True)) for channels in inputs
        )
        self.last = conv3x3(self.passed, self.kept)
        self.attention = ContrastAwareChannelAttention(features, reduction)
        self.fusion = nn.Conv2d(features, features, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the fused features to the input."""
        distilled = []
        remaining = x
        for refinement in self.refinements:
            kept, remaining = refinement(remaining).split((self.kept, self.passed), dim=1)
            distilled.append(kept)
        distilled.append(self.last(remaining))
        return x + self.fusion(self.attention(torch.cat(distilled, dim=1)))


@register_body("imdn")
class IMDNBody(nn.Module):
    """IMDBs, a fusion of all their outputs, then a 3×3 convolution; N×F×H×W to N×F×H×W.

    The long skip connection is left to the network around the body. IMDN has 64 features and the default settings.

    Args:
        features: F, a multiple of 4.
        blocks: IMDBs.
        reduction: F divided by the width of the inner layer of channel attention; at most F.
    """

    receptive_field: int | None = None  # channel attention uses the whole image

    def __init__(self, features: int, blocks: int = 6, reduction: int = 16) -> None:
        super().__init__()
        whole_number("blocks", blocks, most=MAX_BLOCKS)
        if features % _STEPS:
            raise ConfigError(f"name: 'imdn' needs a multiple of {_STEPS} features, got {features}.")
        self.blocks = nn.ModuleList(InformationMultiDistillationBlock(features, reduction) for _ in range(blocks))
        self.fusion = nn.Sequential(
            nn.Conv2d(blocks * features, features, kernel_size=1),
            nn.LeakyReLU(_SLOPE, inplace=True),
            conv3x3(features, features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the outputs of all blocks."""
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.fusion(torch.cat(outputs, dim=1))
