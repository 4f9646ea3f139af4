"""The body of ESRGAN: residual-in-residual dense blocks, then a convolution.

"ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", Wang et al., ECCV Workshops 2018
(https://arxiv.org/abs/1809.00219).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2csr.checks import number, whole_number
from d2csr.models.bodies.registry import register_body
from d2csr.models.layers import MAX_BLOCKS, MAX_FEATURES, Residual, conv3x3

_CONVOLUTIONS = 5  # in a dense block
_DENSE_BLOCKS = 3  # in an RRDB
_SLOPE = 0.2  # of LeakyReLU
_INITIAL_SCALE = 0.1  # of the weights (section 3.1, "smaller initialization")


class DenseBlock(nn.Module):
    """Residual dense block: each convolution gets the input and all outputs before; N×F×H×W to N×F×H×W."""

    def __init__(self, features: int, growth: int, residual_scale: float) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.growing = nn.ModuleList(
            nn.Sequential(conv3x3(features + i * growth, growth), nn.LeakyReLU(_SLOPE, inplace=True))
            for i in range(_CONVOLUTIONS - 1)
        )
        self.last = conv3x3(features + (_CONVOLUTIONS - 1) * growth, features)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                with torch.no_grad():
                    layer.weight.mul_(_INITIAL_SCALE)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add the scaled residual."""
        features = x
        for layer in self.growing:
            features = torch.cat([features, layer(features)], dim=1)
        return x + self.residual_scale * self.last(features)


def rrdb(features: int, growth: int, scale: float) -> Residual:
    """Return a residual-in-residual dense block (section 3.1): three dense blocks, scaled, plus the input."""
    return Residual(*(DenseBlock(features, growth, scale) for _ in range(_DENSE_BLOCKS)), scale=scale)


@register_body("rrdb")
class RRDBBody(nn.Sequential):
    """RRDBs, then a 3×3 convolution; N×F×H×W to N×F×H×W.

    The long skip connection is left to the network around the body. ESRGAN has 64 features and 23 blocks.

    Args:
        features: F.
        blocks: RRDBs.
        growth: output channels of each convolution of a dense block but the last.
        residual_scale: factor of the residuals of dense blocks and RRDBs (the paper's β).
    """

    def __init__(self, features: int, blocks: int = 1, growth: int = 32, residual_scale: float = 0.2) -> None:
        whole_number("blocks", blocks, most=MAX_BLOCKS)
        whole_number("growth", growth, most=MAX_FEATURES)
        number("residual_scale", residual_scale, above=0)
        super().__init__(
            *(rrdb(features, growth, residual_scale) for _ in range(blocks)),
            conv3x3(features, features),
        )
        self.receptive_field: int | None = 1 + 2 * (blocks * _DENSE_BLOCKS * _CONVOLUTIONS + 1)
