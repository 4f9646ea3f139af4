"""Parameters and FLOPs of a network, counted on the meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from d2csr.models.architectures import build_network
from d2csr.models.sr_network import SRNetwork

_PARTS = {"head": "head", "heads": "head", "bodies": "bodies", "skips": "skips", "tails": "tails"}


@dataclass(frozen=True)
class Cost:
    """Parameters of a network or a part, and FLOPs of its forward pass; a multiply-accumulate (MAC) has two."""

    parameters: int
    flops: int

    @property
    def macs(self) -> int:
        """The multiply-accumulate operations."""
        return self.flops // 2


def on_meta(settings: Mapping[str, Any]) -> SRNetwork:
    """Build a network on the meta device, shapes without values, as :func:`d2csr.models.build_network` does.

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
    """Count the FLOPs of one forward pass of a network on the meta device, by :mod:`torch.utils.flop_counter`.

    It counts convolutions, matrix products and attention; a multiplication and an addition are two FLOPs. The shape is
    that of the input: N×3×H×W for a whole network.
    """
    return _counted(network, shape).get_total_flops()


def cost_by_part(network: SRNetwork, shape: tuple[int, ...]) -> dict[str, Cost]:
    """Return the cost of head, bodies, skips, tails, fusion and colour shifts, in this order; the sum is the whole.

    The network is on the meta device, and the shape is that of its input, N×3×H×W.
    """
    counts = {name: sum(operations.values()) for name, operations in _counted(network, shape).get_flop_counts().items()}
    root = type(network).__name__
    costs = {name: Cost(0, 0) for name in ("head", "bodies", "skips", "tails", "fusion", "colour shifts")}
    for child in (*network.divergence.named_children(), ("fusion", network.convergence)):
        name, module = child
        part = name if name == "fusion" else _PARTS.get(name, "colour shifts")
        full = f"{root}.convergence" if name == "fusion" else f"{root}.divergence.{name}"
        below = [count for key, count in counts.items() if key == full or _is_below(key, full, counts)]
        costs[part] = Cost(costs[part].parameters + count_parameters(module), costs[part].flops + sum(below))
    return {part: cost for part, cost in costs.items() if cost.parameters or cost.flops}


def _is_below(key: str, full: str, counts: Mapping[str, int]) -> bool:
    """Return whether a module is the outermost one that is counted below another."""
    if full in counts or not key.startswith(f"{full}."):
        return False
    return not any(key.startswith(f"{other}.") for other in counts if other.startswith(f"{full}."))


def _counted(network: nn.Module, shape: tuple[int, ...]) -> FlopCounterMode:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, device="meta"))
    return counter
