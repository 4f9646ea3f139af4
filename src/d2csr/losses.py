"""Losses of the divergence and the convergence network (Li et al., ECCV 2022, https://arxiv.org/abs/2103.14373).

Shapes: N images, K predictions (leaves), H×W pixels of HR; RGB in [0, 1]. A loss of images is called with two tensors
N×3×H×W, a loss of predictions with N×K×3×H×W and N×3×H×W. Both return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from d2csr.checks import flag, number, one_of
from d2csr.errors import ConfigError
from d2csr.models.tree import PAPER_BRANCHING, Tree

# Pixels that the divergence loss standardizes together.
SCOPES = ("batch", "image")

# Least variance, below that of any 8-bit image: a batch of one flat colour gives zero instead of NaN.
_FLAT = 1e-12


class Charbonnier(nn.Module):
    """Charbonnier loss, the mean of sqrt(difference² + eps²): L1 with a smooth minimum. ``eps`` is above 0."""

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = number("eps", eps, above=0)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of two tensors of the same shape, a scalar."""
        return ((sr - hr).square() + self.eps**2).sqrt().mean()


class PerceptualLoss(nn.Module):
    """Mean LPIPS of a batch, with AlexNet (Zhang et al., CVPR 2018, https://arxiv.org/abs/1801.03924).

    Images need at least 31 pixels a side. The weights are frozen; torchvision downloads those of AlexNet (244 MB).

    Raises:
        ConfigError: the weights cannot be downloaded or read.
    """

    def __init__(self) -> None:
        super().__init__()
        from d2csr.metrics.iqa import load_lpips  # torchmetrics' LPIPS is slow to import

        self.lpips = load_lpips().requires_grad_(False)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of two batches N×3×H×W, RGB in [0, 1], a scalar."""
        return self.lpips(sr, hr, normalize=True).mean()


class WeightedSum(nn.Module):
    """Sum of losses, modules that return a scalar of the same two tensors, each times its weight."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if not losses or not all(isinstance(loss, nn.Module) for loss in losses):
            raise ConfigError(f"losses: must be a list of torch.nn.Module, at least one, got {losses!r}.")
        if len(weights) != len(losses):
            raise ConfigError(f"weights: must be one number for each of {len(losses)} losses, got {weights!r}.")
        self.losses = nn.ModuleList(losses)
        self.weights = [number(f"weights.{index}", weight) for index, weight in enumerate(weights)]

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the weighted sum, a scalar."""
        terms = [weight * loss(sr, hr) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


class DivergenceLoss(nn.Module):
    """:func:`divergence_loss` with the weight 1, as a module."""

    def __init__(
        self,
        branching: Sequence[int],
        margin_same: float,
        margin_diff: float,
        decay_rate: float,
        scope: str,
        error_term: bool = True,
    ) -> None:
        super().__init__()
        tree = Tree(branching)
        self.num_leaves = tree.num_leaves
        self.settings: dict[str, Any] = {
            "branching": tree.branching,
            "margin_same": number("margin_same", margin_same, least=0),
            "margin_diff": number("margin_diff", margin_diff, least=0),
            "decay_rate": number("decay_rate", decay_rate, least=0),
            "scope": one_of("scope", scope, SCOPES),
            "error_term": flag("error_term", error_term),
        }

    def forward(self, predictions: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of predictions, N×K×3×H×W, to HR, N×3×H×W, a scalar in float32."""
        return divergence_loss(predictions, hr, weight=1.0, **self.settings)


def sum_over_leaves(criterion: Callable[[Tensor, Tensor], Tensor], predictions: Tensor, hr: Tensor) -> Tensor:
    """Return the sum over the leaves of a loss of two tensors M×3×H×W, which averages over images."""
    target = hr.unsqueeze(1).expand_as(predictions)
    return criterion(predictions.flatten(0, 1), target.flatten(0, 1)) * predictions.shape[1]


def divergence_loss(
    predictions: Tensor,
    hr: Tensor,
    *,
    weight: float,
    margin_same: float,
    margin_diff: float,
    decay_rate: float = 0.8,
    branching: Sequence[int] = PAPER_BRANCHING,
    scope: str = "batch",
    error_term: bool = True,
) -> Tensor:
    """Return the divergence (triplet) loss, which pushes the errors of the leaves apart.

    With z the standardized grey image and ``d_k = |z(prediction_k) − z(HR)|``, each ordered pair of leaves (k, j) gives
    max(0, mean(d_k²) − mean((d_k − d_j)²) + margin). Leaves of one parent use ``margin_same`` and the factor
    ``decay_rate``, all others ``margin_diff``. The loss is ``weight`` times the mean over the ordered pairs.

    The scope ``batch`` standardizes over all pixels of the batch, as the official code does. The loss of an image then
    depends on the other images of its batch, and on the number of devices. The scope ``image`` treats each image
    separately and returns the mean over the images.

    The term mean(d_k²) is the leaf's own error, a second reconstruction loss. Without it (``error_term=False``) a pair
    gives max(0, margin − mean((d_k − d_j)²)), which is 0 as soon as the two leaves differ by more than the margin.

    Predictions are N×K×3×H×W, ``hr`` is N×3×H×W, RGB in [0, 1]. ``branching`` holds the children of a node on each
    level of the tree. The result is a scalar in float32.

    Raises:
        ConfigError: the scope is unknown.
        ValueError: the number of leaves or the shapes do not fit.
    """
    one_of("scope", scope, SCOPES)
    tree = Tree(tuple(branching))
    n, k, channels, height, width = predictions.shape
    if tree.num_leaves != k:
        raise ValueError(f"a tree with branching {list(branching)} has {tree.num_leaves} leaves, not {k}.")
    if hr.shape != (n, channels, height, width):
        raise ValueError(f"predictions are {tuple(predictions.shape)}, so hr cannot be {tuple(hr.shape)}.")
    if k == 1:
        return predictions.sum() * 0.0
    errors = (_standardize(predictions, scope) - _standardize(hr.unsqueeze(1), scope)).abs()
    own = errors.square().mean(dim=2) if error_term else errors.new_zeros(errors.shape[:2])
    apart = (errors.unsqueeze(2) - errors.unsqueeze(1)).square().mean(dim=3)
    margins, factors = _pairs(tree, margin_same, margin_diff, decay_rate, errors.device)
    terms = (own.unsqueeze(2) - apart + margins).clamp_min(0) * factors
    return weight * terms.sum() / (len(terms) * k * (k - 1))


def _standardize(images: Tensor, scope: str) -> Tensor:
    """Return z of N×K×3×H×W, 1×K×(N·H·W) for the scope ``batch`` and N×K×(H·W) for ``image``."""
    grey = images.float().mean(dim=2)
    grey = grey.flatten(2) if scope == "image" else grey.transpose(0, 1).flatten(1).unsqueeze(0)
    variance, mean = torch.var_mean(grey, dim=2, correction=0, keepdim=True)
    return (grey - mean) / variance.clamp_min(_FLAT).sqrt()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached inference tensor could not be used in a training
def _pairs(
    tree: Tree, margin_same: float, margin_diff: float, decay_rate: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return margins and factors of ordered pairs of leaves, each K×K in float32; a leaf with itself has the factor 0.

    They are cached: each copy of a number to a GPU would make the host wait for it.
    """
    leaves = range(tree.num_leaves)
    margins = [[margin_same if tree.siblings(k, j) else margin_diff for j in leaves] for k in leaves]
    factors = [[0.0 if k == j else decay_rate if tree.siblings(k, j) else 1.0 for j in leaves] for k in leaves]
    new = partial(torch.tensor, dtype=torch.float32, device=device)
    return new(margins), new(factors)
