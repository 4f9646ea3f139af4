"""Initial weights of a network before training."""

from __future__ import annotations

import torch
from torch import nn

INITIALIZATIONS = ("torch", "official")


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
