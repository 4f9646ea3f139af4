"""Bodies unlike the registered ones, for tests of inference; imported by tests and by the processes they start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2csr.models import register_body


@register_body("test_wide")
class WideBody(nn.Sequential):
    """5×5 and dilated convolutions with five times as many maps, without attention."""

    receptive_field = 1 + 2 * (2 + 6 + 2)

    def __init__(self, features: int) -> None:
        super().__init__(
            nn.Conv2d(features, 5 * features, 5, padding=2),
            nn.GELU(),
            nn.Conv2d(5 * features, 5 * features, 5, padding=6, dilation=3, groups=5),
            nn.GELU(),
            nn.Conv2d(5 * features, features, 5, padding=2),
        )


@register_body("test_unstated")
class UnstatedBody(WideBody):
    """The same, but it does not state its receptive field."""

    receptive_field = None


@register_body("test_dense")
class DenseBody(nn.Module):
    """Each convolution gets all outputs before."""

    receptive_field = 13

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d((i + 1) * features, features, 3, padding=1) for i in range(6))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, dim=1)))
        return maps[-1]


@register_body("test_quadratic")
class QuadraticBody(nn.Module):
    """Attention of every pixel to every other: its memory grows with the square of the number of pixels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(features, 3 * features, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, dim=2)
        scores = (q @ k.transpose(1, 2) * x.shape[1] ** -0.5).softmax(dim=-1)
        return x + (scores @ v).transpose(1, 2).reshape(x.shape)


@register_body("test_u_net")
class UNetBody(nn.Module):
    """Convolutions and a pooling at a half and a quarter of the resolution; pads and crops."""

    receptive_field = None

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(features, features, 3, stride=2, padding=1),
            nn.AvgPool2d(2),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ConvTranspose2d(features, features, 4, stride=4),
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, (0, -width % 4, 0, -height % 4))
        return x + self.layers(padded)[..., :height, :width]


@register_body("test_strided")
class StridedBody(nn.Sequential):
    """Halves the resolution inside and needs even sizes."""

    def __init__(self, features: int) -> None:
        super().__init__(
            nn.Conv2d(features, features, 2, stride=2), nn.ConvTranspose2d(features, features, 2, stride=2)
        )


@register_body("test_unpadded")
class UnpaddedBody(nn.Conv2d):
    """A convolution that makes the map smaller."""

    def __init__(self, features: int) -> None:
        super().__init__(features, features, 3)


@register_body("test_wrong_channels")
class WrongChannelsBody(nn.Conv2d):
    """A convolution that returns twice as many channels."""

    def __init__(self, features: int) -> None:
        super().__init__(features, 2 * features, 1)


@register_body("test_failing")
class FailingBody(nn.Module):
    """Splits the map into windows without padding it."""

    def __init__(self, features: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        n, f, h, w = x.shape
        return x.view(n, f, h // 4, 4, w // 4, 4).flip(3).reshape(x.shape)


@register_body("test_no_meta")
class NoMetaBody(nn.Conv2d):
    """Looks at its values."""

    def __init__(self, features: int) -> None:
        super().__init__(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / max(1, x.abs().max().item()))
