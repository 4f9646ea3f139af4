"""D2C-SR: divergence, then convergence.

Li et al., "D2C-SR: A Divergence to Convergence Approach for Real-World Image Super-Resolution", ECCV 2022
(https://arxiv.org/abs/2103.14373).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.checks import SCALES, one_of, whole_number
from d2csr.errors import ConfigError
from d2csr.models.bodies import build_body, complete_settings
from d2csr.models.convergence import ConvergenceNetwork
from d2csr.models.divergence import DivergenceNetwork
from d2csr.models.tree import Tree

_CHECKED_SIZES = ((5, 7), (18, 9))
_checked_bodies: set[tuple[type[nn.Module], str]] = set()


class D2CSR(nn.Module):
    """The model: N×3×H×W to N×3×sH×sW, RGB in [0, 1]; the output is not clamped.

    The two networks share no parameter. The paper's model at scale 4, ``D2CSR(scale=4, features=64, branching=[2, 2],
    fusion_features=64)``, has 5,769,572 parameters.

    Args:
        scale: s; 2, 3, 4 or 8.
        features: F, the width of the divergence network.
        branching: children of a node, one number a level; ``[2, 2]`` has the four leaves 11, 12, 21, 22.
        fusion_features: the width of the convergence network.
        body: of a node of the tree: the name of a registered body, or its ``name`` and settings.

    Attributes:
        settings: these arguments as plain values; ``D2CSR(**model.settings)`` has the same architecture.
        divergence: LR, N×3×H×W, to predictions, N×K×3×sH×sW.
        convergence: predictions to ``(sr, weights)``, N×3×sH×sW and N×K×sH×sW.

    Raises:
        ConfigError: a setting is out of its range, or the body changes the shape of its input.
    """

    def __init__(
        self,
        scale: int,
        features: int,
        branching: Sequence[int],
        fusion_features: int,
        body: Mapping[str, Any] | str = "rcab",
    ) -> None:
        super().__init__()
        one_of("scale", scale, SCALES)
        whole_number("features", features)
        whole_number("fusion_features", fusion_features)
        body = complete_settings({"name": body} if isinstance(body, str) else body)
        self.scale = scale
        self.tree = Tree(branching)
        self.settings: dict[str, Any] = {
            "scale": scale,
            "features": features,
            "branching": list(self.tree.branching),
            "fusion_features": fusion_features,
            "body": body,
        }
        self.divergence = DivergenceNetwork(self.tree, scale, features, lambda: build_body(features, body))
        self.convergence = ConvergenceNetwork(self.tree.num_leaves, fusion_features)
        _check_shapes(self.divergence.bodies[self.tree.leaves[0]], features, body)
        # In this layout oneDNN and cuDNN convolve without copies, for any layout of the input.
        self.to(memory_format=torch.channels_last)

    def forward(self, lr: Tensor) -> Tensor:
        """Return the fused image, N×3×sH×sW, of an LR batch, N×3×H×W."""
        sr, _ = self.convergence(self.divergence(lr))
        return sr


@torch.no_grad()
def _check_shapes(module: nn.Module, features: int, body: Mapping[str, Any]) -> None:
    """Check that a body keeps the shape of its input, once for the same settings."""
    key = (type(module), json.dumps([features, body]))
    if key in _checked_bodies:
        return
    device = next((parameter.device for parameter in module.parameters()), torch.get_default_device())
    module.eval()
    result: object
    for size in _CHECKED_SIZES:
        shape = (1, features, *size)
        try:
            result = tuple(module(torch.zeros(shape, device=device)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            result = f"an error ({error})"
        if result != shape:
            raise ConfigError(
                f"body: {body['name']!r} must keep the shape of its input, N×F×H×W, for any H and W; {shape} gave "
                f"{result}. Pad the input inside the body, and crop the output."
            )
    module.train()
    _checked_bodies.add(key)
