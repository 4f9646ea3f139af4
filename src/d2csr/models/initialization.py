"""Initial weights of a network before training."""

from __future__ import annotations

import torch
from torch import nn

from d2csr.errors import ConfigError
from d2csr.models.d2csr import DivergenceNetwork
from d2csr.models.layers import Tail, Upsampler
from d2csr.models.sr_network import SRNetwork

INITIALIZATIONS = ("torch", "official", "interpolation")

_COLOURS = 3


@torch.no_grad()
def initialize_as_official(network: nn.Module) -> None:
    """Draw all convolutions and linear layers again, in place, as the official code does under MegEngine.

    Weights come from N(0, 1/fan_in), biases are zero. The colour shifts are no exception: the official code assigns the
    mean colour to them, but under MegEngine 1.13 the assignment has no effect, so they start as random 3×3 matrices.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=fan_in**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def initialize_as_interpolation(network: SRNetwork) -> None:
    """Change some initial weights, in place, so that each leaf begins as the interpolated LR image.

    The first three features of the head are the LR image, and the upsamplers interpolate these by a parabola through
    three pixels in each direction. The last skip of each leaf starts at zero, and so do the weights of the last
    convolution for all other features. Everything else, such as the bodies, keeps its weights. An untrained network
    then has about the PSNR of bicubic interpolation. The idea is that of zero-initialized residual branches (Goyal et
    al., 2017, https://arxiv.org/abs/1706.02677, section 5.1) and of initializing a sub-pixel convolution as an
    interpolation (Aitken et al., 2017, https://arxiv.org/abs/1707.02937). The paper and the official code have neither.

    Raises:
        ConfigError: the network has no tree, or fewer than three features.
    """
    divergence = network.divergence
    features = network.settings["features"]
    if not isinstance(divergence, DivergenceNetwork):
        raise ConfigError("init: interpolation needs the skips of a tree (model=d2csr); use torch or official.")
    if features < _COLOURS:
        raise ConfigError(f"init: interpolation needs model.network.features of at least {_COLOURS}, got {features}.")
    _copy_colours(divergence.head)
    for leaf in divergence.tree.leaves:
        last_skip, tail = divergence.around_bodies(leaf)[-1], divergence.tails[leaf]
        assert isinstance(last_skip, nn.Conv2d) and isinstance(tail, Tail)  # noqa: PT018
        nn.init.zeros_(last_skip.weight)
        nn.init.zeros_(_bias(last_skip))
        upsampler, last = tail
        assert isinstance(upsampler, Upsampler) and isinstance(last, nn.Conv2d)  # noqa: PT018
        for conv, shuffle in zip(*[iter(upsampler)] * 2, strict=True):
            _interpolate_colours(conv, shuffle.upscale_factor)
        nn.init.zeros_(last.weight)
        _copy_colours(last)


def _copy_colours(conv: nn.Conv2d) -> None:
    """Let the first three output channels of a 3×3 convolution be the first three input channels."""
    conv.weight[:_COLOURS] = 0
    for colour in range(_COLOURS):
        conv.weight[colour, colour, 1, 1] = 1
    _bias(conv)[:_COLOURS] = 0


def _interpolate_colours(conv: nn.Conv2d, factor: int) -> None:
    """Let a convolution before a pixel shuffle interpolate the first three channels."""
    phases = [_parabola((2 * phase + 1 - factor) / (2 * factor)) for phase in range(factor)]
    conv.weight[: _COLOURS * factor**2] = 0
    for colour in range(_COLOURS):
        for row, vertical in enumerate(phases):
            for column, horizontal in enumerate(phases):
                kernel = torch.outer(vertical, horizontal)
                conv.weight[colour * factor**2 + row * factor + column, colour] = kernel
    _bias(conv)[: _COLOURS * factor**2] = 0


def _parabola(position: float) -> torch.Tensor:
    """Return the weights of the pixels −1, 0 and 1 in the parabola through them, at a position between −½ and ½."""
    t = position
    return torch.tensor([t * (t - 1) / 2, 1 - t * t, t * (t + 1) / 2])


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias
