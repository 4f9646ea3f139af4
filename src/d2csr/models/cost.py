"""Parameters and FLOPs of a network, counted on the meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d2csr.models.architectures import build_network
from d2csr.models.sr_network import SRNetwork


def on_meta(settings: Mapping[str, Any]) -> SRNetwork:
    """Build a network on the meta device: shapes without values, and without memory.

    Args:
        settings: those of :func:`d2csr.models.build_network`.

    Raises:
        ConfigError: a setting has an impossible value.
        TypeError: a setting is unknown or missing.
    """
    try:
        with torch.device("meta"):
            return build_network(settings)
    except RuntimeError:  # a plugin's body may compute values in its constructor
        return build_network(settings).to("meta")


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the FLOPs of one forward pass by :mod:`torch.utils.flop_counter`.

    It counts convolutions, matrix products and attention; a multiplication and an addition are two FLOPs.

    Args:
        network: on the meta device.
        shape: of its input: N×3×H×W for a whole network.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, device="meta"))
    return counter.get_total_flops()
