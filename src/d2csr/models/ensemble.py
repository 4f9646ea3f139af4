"""Networks without a tree: a single path from LR to SR, or the mean of several independent ones.

They are the baselines of D2C-SR. With the bodies of this package, the single path is the usual network of the
literature, such as EDSR (Lim et al., 2017) or RCAN (Zhang et al., 2018): head, body with a long skip, tail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.checks import whole_number
from d2csr.models.bodies import build_body
from d2csr.models.layers import ColourShift, Tail, conv3x3
from d2csr.models.sr_network import PredictionNetwork, SRNetwork, common_settings
from d2csr.models.tree import Tree

MAX_PATHS = 9


class PathEnsemble(SRNetwork):
    """K independent paths, which share no parameter; the output is the mean of their images.

    Args:
        scale: s; 2, 3, 4 or 8.
        features: F, the width of each path.
        body: of each path: the name of a registered body, or its ``name`` and settings.
        paths: K, from 1 to 9; 1 is a single-path network.

    Raises:
        ConfigError: a setting is out of its range, or the body changes the shape of its input.
    """

    learned_fusion = False

    def __init__(self, scale: int, features: int, body: Mapping[str, Any] | str, paths: int = 1) -> None:
        common = common_settings(scale, features, body)
        tree = Tree([whole_number("paths", paths, 1, MAX_PATHS)])
        super().__init__(
            {"architecture": "ensemble", **common, "paths": paths},
            Paths(tree, scale, features, lambda: build_body(features, common["body"])),
            MeanFusion(),
        )


class Paths(PredictionNetwork):
    """Independent paths, each with a colour shift, head, body with a long skip, tail and colour shift of its own.

    ``body`` builds the body of a path, from N×F×H×W to N×F×H×W.
    """

    def __init__(self, tree: Tree, scale: int, features: int, body: Callable[[], nn.Module]) -> None:
        super().__init__(tree, scale)
        self.input_shifts = nn.ModuleDict({leaf: ColourShift(sign=-1) for leaf in tree.leaves})
        self.heads = nn.ModuleDict({leaf: conv3x3(3, features) for leaf in tree.leaves})
        self.bodies = nn.ModuleDict({leaf: body() for leaf in tree.leaves})
        self.tails = nn.ModuleDict({leaf: Tail(features, scale) for leaf in tree.leaves})
        self.output_shifts = nn.ModuleDict({leaf: ColourShift(sign=+1) for leaf in tree.leaves})

    def trunk(self, lr: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each path's name and its features, N×F×H×W."""
        for leaf in self.tree.leaves:
            shallow = self.heads[leaf](self.input_shifts[leaf](lr))
            yield leaf, self._apply_part(self.bodies[leaf], shallow) + shallow

    def reconstruct(self, leaf: str, features: Tensor) -> Tensor:
        """Return the image of a path, N×3×sH×sW, from its features, N×F×H×W."""
        image: Tensor = self.output_shifts[leaf](self._apply_part(self.tails[leaf], features))
        return image

    def around_bodies(self, leaf: str) -> list[nn.Module]:
        """Return the head of a path."""
        return [self.heads[leaf]]


class MeanFusion(nn.Module):
    """The mean of K predictions, without parameters."""

    def forward(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Average predictions, N×K×3×H×W.

        Returns:
            The mean, N×3×H×W, and equal weights, N×K×H×W, both at least in single precision.
        """
        count = predictions.shape[1]
        sr = predictions.mean(dim=1, dtype=torch.promote_types(predictions.dtype, torch.float32))
        return sr, torch.full_like(predictions[:, :, 0], 1 / count, dtype=sr.dtype)
