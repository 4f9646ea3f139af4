"""D2C-SR: the divergence network, the convergence network, and both together.

Li et al., "D2C-SR: A Divergence to Convergence Approach for Real-World Image Super-Resolution", ECCV 2022
(https://arxiv.org/abs/2103.14373).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.checks import whole_number
from d2csr.models.bodies import build_body
from d2csr.models.layers import MAX_FEATURES, ColourShift, Tail, conv3x3
from d2csr.models.sr_network import PredictionNetwork, SRNetwork, common_settings
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
        whole_number("fusion_features", fusion_features, most=MAX_FEATURES)
        tree = Tree(branching)
        super().__init__(
            {**common, "branching": list(tree.branching), "fusion_features": fusion_features},
            DivergenceNetwork(tree, scale, features, lambda: build_body(features, common["body"])),
            ConvergenceNetwork(tree.num_leaves, fusion_features),
        )


class DivergenceNetwork(PredictionNetwork):
    """A tree-shaped network, N×3×H×W to N×K×3×sH×sW, RGB in [0, 1] (not clamped).

    Every node refines its parent's features by a body of its own. A leaf then adds back the features of its ancestors,
    from the parent up to the head, with a convolution before each (the skips), and reconstructs an image from them.
    The trunk consists of head, bodies and skips.

    ``body`` builds the module of one node, from N×F×H×W to N×F×H×W; F is the width, ``features``.
    """

    def __init__(self, tree: Tree, scale: int, features: int, body: Callable[[], nn.Module]) -> None:
        super().__init__(tree, scale)
        self.input_shift = ColourShift(sign=-1)
        self.head = conv3x3(3, features)
        self.bodies = nn.ModuleDict({node: body() for node in tree.nodes})
        self.skips = nn.ModuleDict(
            {leaf: nn.ModuleList(conv3x3(features, features) for _ in range(tree.depth)) for leaf in tree.leaves}
        )
        self.tails = nn.ModuleDict({leaf: Tail(features, scale) for leaf in tree.leaves})
        self.output_shift = ColourShift(sign=+1)

    def trunk(self, lr: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each leaf's name and its features, N×F×H×W, depth first: few maps are alive at a time."""
        return self._descend("", [self.head(self.input_shift(lr))])

    def reconstruct(self, leaf: str, features: Tensor) -> Tensor:
        """Return one leaf's prediction, N×3×sH×sW, from its features, N×F×H×W."""
        return self.output_shift(self._apply_part(self.tails[leaf], features))

    def around_bodies(self, leaf: str) -> list[nn.Module]:
        """Return the head and the skips of a leaf."""
        return [self.head, *self.skips[leaf].children()]

    def _descend(self, node: str, path: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield the leaves below ``node``; ``path`` holds the features from the head down to it."""
        for child in self.tree.children(node):
            # No name for the child's features: it would keep the map alive while the next child's body works.
            if len(child) == self.tree.depth:
                yield child, self._add_ancestors(child, self._apply_part(self.bodies[child], path[-1]), path)
            else:
                yield from self._descend(child, [*path, self._apply_part(self.bodies[child], path[-1])])

    def _add_ancestors(self, leaf: str, features: Tensor, path: list[Tensor]) -> Tensor:
        for skip, ancestor in zip(self.skips[leaf].children(), reversed(path), strict=True):
            features = skip(features) + ancestor
        return features


class ConvergenceNetwork(nn.Module):
    """A weighted sum of the predictions, with a weight for each pixel.

    Three bias-free 3×3 convolutions and a softmax over K predictions; ``features`` is the width of hidden layers.
    """

    def __init__(self, num_predictions: int, features: int) -> None:
        super().__init__()
        widths = [3 * num_predictions, features, features, num_predictions]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, kernel_size=3, padding=1, bias=False) for a, b in pairwise(widths))

    def forward(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse predictions, N×K×3×H×W, RGB in [0, 1].

        Returns:
            The fused image, N×3×H×W, and its weights, N×K×H×W: positive, with the sum 1 at each pixel.
        """
        x = predictions.flatten(1, 2)
        for layer in self.layers:  # the last one is followed by a ReLU too, as in the official network
            x = torch.relu_(layer(x))
        # Under autocast x has 16 bits: too coarse for weights whose sum must be 1.
        weights = x.softmax(dim=1, dtype=next(self.parameters()).dtype)
        return (weights.unsqueeze(2) * predictions).sum(dim=1), weights
