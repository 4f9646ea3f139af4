"""The body of EDSR: residual blocks without batch normalisation, then a convolution.

"Enhanced Deep Residual Networks for Single Image Super-Resolution", Lim et al., CVPR Workshops 2017
(https://arxiv.org/abs/1707.02921).
"""

from __future__ import annotations

from torch import nn

from d2csr.checks import number, whole_number
from d2csr.models.bodies.registry import register_body
from d2csr.models.layers import MAX_BLOCKS, Residual, conv3x3


def residual_block(features: int, scale: float) -> Residual:
    """Return a residual block (section 3.1): conv, ReLU, conv, scaled, plus the input."""
    return Residual(conv3x3(features, features), nn.ReLU(inplace=True), conv3x3(features, features), scale=scale)


@register_body("edsr")
class EDSRBody(nn.Sequential):
    """Residual blocks, then a 3×3 convolution; N×F×H×W to N×F×H×W.

    The long skip connection is left to the network around the body. EDSR-baseline has 64 features, 16 blocks and a
    residual scale of 1; EDSR has 256, 32 and 0.1.

    Args:
        features: F.
        blocks: residual blocks.
        residual_scale: factor of each block's residual.
    """

    def __init__(self, features: int, blocks: int = 9, residual_scale: float = 1.0) -> None:
        whole_number("blocks", blocks, most=MAX_BLOCKS)
        number("residual_scale", residual_scale, above=0)
        super().__init__(
            *(residual_block(features, residual_scale) for _ in range(blocks)), conv3x3(features, features)
        )
        self.receptive_field: int | None = 1 + 2 * (2 * blocks + 1)
