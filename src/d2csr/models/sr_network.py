"""The bases of all networks: K predictions of an image from features at LR resolution, and their fusion."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from d2csr.checks import SCALES, one_of, whole_number
from d2csr.errors import ConfigError
from d2csr.models.bodies import complete_settings
from d2csr.models.layers import MAX_FEATURES
from d2csr.models.tree import Tree


class PredictionNetwork(nn.Module, ABC):
    """N×3×H×W to N×K×3×sH×sW, RGB in [0, 1] (not clamped).

    The trunk works at LR resolution and, by channel attention, sees the whole image. The tails are local: a pixel of a
    prediction depends on few pixels of the leaf's features. Inference uses this to compute large images in strips.

    Attributes:
        tree: its leaves are the K predictions.
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


_OWN = __name__.partition(".")[0]
_CHECKED_SIZES = ((5, 7), (18, 9))
_checked_bodies: set[tuple[type[nn.Module], str]] = set()


class SRNetwork(nn.Module):
    """A network from N×3×H×W to N×3×sH×sW, RGB in [0, 1]; the output is not clamped.

    Training, inference, evaluation and export use these attributes alone, so they work with each architecture.

    Attributes:
        learned_fusion: the convergence has parameters to train.
        scale: s.
        settings: the arguments as plain values; :func:`d2csr.models.build_network` makes the same architecture of them.
        divergence: LR, N×3×H×W, to predictions, N×K×3×sH×sW.
        convergence: predictions to ``(sr, weights)``, N×3×sH×sW and N×K×sH×sW.

    Raises:
        ConfigError: the body changes the shape of its input.
    """

    learned_fusion: ClassVar[bool] = True

    def __init__(self, settings: dict[str, Any], divergence: PredictionNetwork, convergence: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        self.scale: int = settings["scale"]
        self.divergence = divergence
        self.convergence = convergence
        _check_shapes(divergence.bodies[self.tree.leaves[0]], settings["features"], settings["body"])
        # In this layout oneDNN and cuDNN convolve without copies, for any layout of the input.
        self.to(memory_format=torch.channels_last)

    @property
    def tree(self) -> Tree:
        """The tree whose leaves are the K predictions."""
        return self.divergence.tree

    def forward(self, lr: Tensor) -> Tensor:
        """Return the fused image, N×3×sH×sW, of an LR batch, N×3×H×W."""
        sr, _ = self.convergence(self.divergence(lr))
        return sr


def common_settings(scale: int, features: int, body: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the settings of every architecture, checked, with those of the body completed; raises ConfigError."""
    one_of("scale", scale, SCALES)
    whole_number("features", features, most=MAX_FEATURES)
    return {"scale": scale, "features": features, "body": complete_settings(body)}


@torch.no_grad()
def _check_shapes(module: nn.Module, features: int, body: Mapping[str, Any]) -> None:
    """Check that a body of a plugin keeps the shape of its input, once for the same settings.

    The package's own bodies keep it for all settings, and their pass would cost seconds: on the meta device, where a
    checkpoint's network is built first, pooling makes torch import its compiler.
    """
    key = (type(module), json.dumps([features, body]))
    if key in _checked_bodies or type(module).__module__.startswith(f"{_OWN}."):
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
