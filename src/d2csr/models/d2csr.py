"""D2C-SR: divergence, then convergence.

Li et al., "D2C-SR: A Divergence to Convergence Approach for Real-World Image Super-Resolution", ECCV 2022
(https://arxiv.org/abs/2103.14373).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from d2csr.errors import ConfigError
from d2csr.models.convergence import ConvergenceNetwork
from d2csr.models.divergence import DivergenceNetwork
from d2csr.models.tree import PAPER_BRANCHING, Tree

SCALES = (2, 3, 4, 8)


class D2CSR(nn.Module):
    """The whole model: N×3×H×W to N×3×sH×sW, RGB in [0, 1]; the output is not clamped.

    The defaults are the paper's; at scale 4 they come to 5,769,572 parameters. The two networks share none.

    Args:
        scale: s; 2, 3, 4 or 8.
        features: F, the width of the divergence network.
        groups: residual groups in each node of the tree.
        blocks: channel-attention blocks in each group.
        branching: children of a node, one figure a level; ``[2, 2]`` has the four leaves 11, 12, 21, 22.
        reduction: by how much the inner layer of channel attention is narrower than F.
        fusion_features: the width of the convergence network.

    Attributes:
        settings: these arguments as plain numbers and lists; ``D2CSR(**model.settings)`` is the same architecture.
        scale: s.
        tree: the shape of the divergence tree.
        divergence: LR, N×3×H×W, to predictions, N×K×3×sH×sW.
        convergence: predictions to ``(sr, weights)``, N×3×sH×sW and N×K×sH×sW.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        scale: int = 4,
        features: int = 64,
        groups: int = 2,
        blocks: int = 4,
        branching: Sequence[int] = PAPER_BRANCHING,
        reduction: int = 16,
        fusion_features: int = 64,
    ) -> None:
        super().__init__()
        widths = {
            "features": features,
            "groups": groups,
            "blocks": blocks,
            "reduction": reduction,
            "fusion_features": fusion_features,
        }
        _check(scale, branching, widths)
        self.scale = scale
        self.tree = Tree(tuple(branching))
        self.settings = {"scale": scale, "branching": list(self.tree.branching), **widths}
        self.divergence = DivergenceNetwork(self.tree, scale, features, groups, blocks, reduction)
        self.convergence = ConvergenceNetwork(self.tree.num_leaves, fusion_features)
        # In this layout oneDNN and cuDNN convolve without copies, whatever the layout of what comes in.
        self.to(memory_format=torch.channels_last)

    def forward(self, lr: Tensor) -> Tensor:
        """Return the fused image, N×3×sH×sW, of an LR batch, N×3×H×W."""
        sr, _ = self.convergence(self.divergence(lr))
        return sr


def _check(scale: int, branching: Sequence[int], widths: dict[str, int]) -> None:
    if not isinstance(scale, int) or scale not in SCALES:  # 4.0 is in SCALES, too
        raise ConfigError(f"scale: must be one of {', '.join(map(str, SCALES))}, got {scale!r}.")
    if not isinstance(branching, Sequence):
        raise ConfigError(
            f"branching: expected one whole number from 1 to 9 for each level, as a list, got {branching!r}."
        )
    for name, value in widths.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: must be a positive whole number, got {value!r}.")
    if widths["features"] < widths["reduction"]:
        raise ConfigError(
            f"features: channel attention narrows them by {widths['reduction']} (reduction), "
            f"so there must be at least as many, got {widths['features']}."
        )
