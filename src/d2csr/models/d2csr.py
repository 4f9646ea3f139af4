"""D2C-SR: divergence, then convergence.

Li et al., "D2C-SR: A Divergence to Convergence Approach for Real-World Image Super-Resolution", ECCV 2022
(https://arxiv.org/abs/2103.14373).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from d2csr.checks import whole_number
from d2csr.models.bodies import build_body
from d2csr.models.convergence import ConvergenceNetwork
from d2csr.models.divergence import DivergenceNetwork
from d2csr.models.sr_network import SRNetwork, common_settings
from d2csr.models.tree import Tree


class D2CSR(SRNetwork):
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
        common = common_settings(scale, features, body)
        whole_number("fusion_features", fusion_features)
        tree = Tree(branching)
        super().__init__(
            {**common, "branching": list(tree.branching), "fusion_features": fusion_features},
            DivergenceNetwork(tree, scale, features, lambda: build_body(features, common["body"])),
            ConvergenceNetwork(tree.num_leaves, fusion_features),
        )
