"""Layers of the divergence network around its bodies. F is the number of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2csr.checks import whole_number
from d2csr.errors import ConfigError

# The mean colour of DIV2K's training images, RGB in [0, 1]; the official code names the same values.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)

# Limits of settings, far above any useful network: without them a mistyped number is built without end.
MAX_FEATURES = 4096
MAX_BLOCKS = 1024


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3×3 convolution that keeps the size of its input."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def channel_gates(features: int, reduction: int) -> list[nn.Module]:
    """Return the layers of channel attention that turn statistics, N×F×1×1, into gates between 0 and 1.

    Raises:
        ConfigError: ``reduction``, F divided by the width of the inner layer, is no whole number from 1 to F.
    """
    if features < whole_number("reduction", reduction):
        raise ConfigError(f"reduction: must not exceed the number of features, {features}, got {reduction}.")
    inner = features // reduction
    return [nn.Conv2d(features, inner, 1), nn.ReLU(inplace=True), nn.Conv2d(inner, features, 1), nn.Sigmoid()]


class Residual(nn.Module):
    """Some layers whose output, times ``scale``, is added to their input; N×F×H×W to N×F×H×W."""

    def __init__(self, *layers: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.residual = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Add the scaled residual."""
        return x + self.residual(x) if self.scale == 1 else x + self.scale * self.residual(x)


class ColourShift(nn.Conv2d):
    """A learned 1×1 convolution of three channels, N×3×H×W to N×3×H×W.

    It starts by subtracting (``sign`` −1) or adding (+1) the mean colour of DIV2K, and is trained. The official code
    means to start there too, but starts with random weights: see
    :func:`d2csr.models.initialization.initialize_as_official`.
    """

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, kernel_size=1)
        with torch.no_grad():
            nn.init.dirac_(self.weight)
            assert self.bias is not None
            for channel, mean in enumerate(DIV2K_MEAN):  # torch.tensor would import the compiler on the meta device
                self.bias[channel] = sign * mean


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling (Shi et al., CVPR 2016): N×F×H×W to N×F×sH×sW.

    A power of two has a convolution and a pixel shuffle by 2 for each factor of 2; scale 3 has one of each.
    """

    def __init__(self, features: int, scale: int) -> None:
        layers: list[nn.Module] = []
        for factor in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
            layers += [conv3x3(features, factor**2 * features), nn.PixelShuffle(factor)]
        super().__init__(*layers)


class Tail(nn.Sequential):
    """A leaf's reconstruction: upsampler, then a convolution to three channels; N×F×H×W to N×3×sH×sW."""

    def __init__(self, features: int, scale: int) -> None:
        super().__init__(Upsampler(features, scale), conv3x3(features, 3))
