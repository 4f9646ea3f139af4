"""The divergence network: a tree of branches, with one prediction for each leaf.

D2C-SR (Li et al., ECCV 2022, https://arxiv.org/abs/2103.14373), the divergence stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from d2csr.models.layers import ColourShift, Tail, conv3x3
from d2csr.models.sr_network import PredictionNetwork
from d2csr.models.tree import Tree


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
        skips = self.skips[leaf]
        assert isinstance(skips, nn.ModuleList)
        return [self.head, *skips]

    def _descend(self, node: str, path: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield the leaves below ``node``; ``path`` holds the features from the head down to it."""
        for child in self.tree.children(node):
            # No name for the child's features: it would keep the map alive while the next child's body works.
            if len(child) == self.tree.depth:
                yield child, self._add_ancestors(child, self._apply_part(self.bodies[child], path[-1]), path)
            else:
                yield from self._descend(child, [*path, self._apply_part(self.bodies[child], path[-1])])

    def _add_ancestors(self, leaf: str, features: Tensor, path: list[Tensor]) -> Tensor:
        skips = self.skips[leaf]
        assert isinstance(skips, nn.ModuleList)
        for skip, ancestor in zip(skips, reversed(path), strict=True):
            features = skip(features) + ancestor
        return features
