"""The base of the networks that make K predictions: features of each leaf at LR resolution, then its image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from d2csr.models.tree import Tree


class PredictionNetwork(nn.Module, ABC):
    """N×3×H×W to N×K×3×sH×sW, RGB in [0, 1] (not clamped).

    The trunk works at LR resolution and, by channel attention, sees the whole image. The tails are local: a pixel of a
    prediction depends on few pixels of the leaf's features. Inference uses this to compute large images in strips.

    Attributes:
        tree: its leaves are the K predictions.
        scale: s.
        bodies: by node of the tree.
        activation_checkpointing: keep only the inputs of bodies and tails for the backward pass, and recompute the rest
            (Chen et al., https://arxiv.org/abs/1604.06174): less memory, slower steps, the same gradients.
    """

    activation_checkpointing = False
    if TYPE_CHECKING:  # an annotation at run time would be read by torch.jit
        bodies: nn.ModuleDict

    def __init__(self, tree: Tree, scale: int) -> None:
        super().__init__()
        self.tree = tree
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        """Return all predictions, N×K×3×sH×sW, in the order of the tree's leaves."""
        return torch.stack([self.reconstruct(leaf, features) for leaf, features in self.trunk(lr)], dim=1)

    @abstractmethod
    def trunk(self, lr: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each leaf's name and its features, N×F×H×W: few maps are alive at a time."""

    @abstractmethod
    def reconstruct(self, leaf: str, features: Tensor) -> Tensor:
        """Return one leaf's prediction, N×3×sH×sW, from its features, N×F×H×W."""

    @abstractmethod
    def around_bodies(self, leaf: str) -> list[nn.Module]:
        """Return the layers of the trunk outside the bodies on the way to a leaf; the first one has three channels."""

    def _apply_part(self, part: nn.Module, x: Tensor) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():  # no dropout, so no random state to keep
            return cast(Tensor, checkpoint(part, x, use_reentrant=False, preserve_rng_state=False))
        return cast(Tensor, part(x))
