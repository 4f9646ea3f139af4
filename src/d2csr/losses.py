"""The losses of the divergence and of the convergence stage (Li et al., ECCV 2022, https://arxiv.org/abs/2103.14373).

The divergence network is trained on :func:`reconstruction_loss` plus :func:`divergence_loss`, the convergence network
on the mean squared error of the fused image. Shapes: N images, K predictions (leaves), H×W pixels of HR.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.errors import ConfigError
from d2csr.models.tree import PAPER_BRANCHING, Tree

# Over what the divergence loss standardises and averages.
SCOPES = ("batch", "image")

# Below this variance an image is one flat colour. It is far below what 8-bit images can have, so it changes no result
# but one: a flat batch gives zero where the division would give NaN.
_FLAT = 1e-12


def reconstruction_loss(predictions: Tensor, hr: Tensor) -> Tensor:
    """Return the sum over the leaves of the mean squared error to HR, a scalar.

    Args:
        predictions: N×K×3×H×W, RGB in [0, 1].
        hr: N×3×H×W, RGB in [0, 1].
    """
    target = hr.float().unsqueeze(1).expand_as(predictions)
    return F.mse_loss(predictions.float(), target) * predictions.shape[1]


def fusion_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean squared error of the fused image to HR, both N×3×H×W, a scalar."""
    return F.mse_loss(sr.float(), hr.float())


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
) -> Tensor:
    """Return the divergence (triplet) loss, which pushes the errors of the leaves apart.

    With z the standardised grey image and d_k = |z(prediction_k) − z(HR)|, each ordered pair of leaves (k, j) gives
    max(0, mean(d_k²) − mean((d_k − d_j)²) + margin). Leaves of one parent take ``margin_same`` and the factor
    ``decay_rate``, all others ``margin_diff``. The loss is ``weight`` times the mean over the ordered pairs.

    With the scope ``batch``, z and the means are taken over all pixels of the batch at hand, as in the official code:
    the loss of an image then depends on what else is in its batch. Of several processes each sees a share of the global
    batch and standardises over that alone, so the same global batch gives another loss on two devices than on one.
    With ``image`` each image is standardised, and its terms are computed, by itself; the loss is the mean over the
    images. It depends on no batch and no process, and is the same as that of ``batch`` for a batch of one image.

    Args:
        predictions: N×K×3×H×W, RGB in [0, 1].
        hr: N×3×H×W, RGB in [0, 1].
        weight: the factor of the whole loss.
        margin_same: the margin between siblings.
        margin_diff: the margin between leaves of different parents.
        decay_rate: the factor of the siblings' terms.
        branching: the tree's children on each level, for the kinship of the leaves.
        scope: ``batch`` or ``image``.

    Returns:
        A scalar in float32, with a gradient towards ``predictions``.

    Raises:
        ConfigError: there is no such scope.
        ValueError: the tree has another number of leaves than there are predictions, or the shapes do not fit.
    """
    check_scope(scope)
    tree = Tree(tuple(branching))
    n, k, channels, height, width = predictions.shape
    if tree.num_leaves != k:
        raise ValueError(f"a tree with branching {list(branching)} has {tree.num_leaves} leaves, not {k}.")
    if hr.shape != (n, channels, height, width):
        raise ValueError(f"predictions are {tuple(predictions.shape)}, so hr cannot be {tuple(hr.shape)}.")
    if k == 1:
        return predictions.sum() * 0.0
    errors = (_standardise(predictions, scope) - _standardise(hr.unsqueeze(1), scope)).abs()
    own = errors.square().mean(dim=2)
    apart = (errors.unsqueeze(2) - errors.unsqueeze(1)).square().mean(dim=3)
    margins, factors, others = _kinship(tree, margin_same, margin_diff, decay_rate, errors)
    terms = (own.unsqueeze(2) - apart + margins).clamp_min(0) * factors
    return weight * terms[:, others].mean()


def check_scope(scope: str) -> None:
    """Refuse a scope of the divergence loss that there is not.

    Raises:
        ConfigError: it is none of :data:`SCOPES`.
    """
    if scope not in SCOPES:
        raise ConfigError(f"model.divergence_scope: must be {' or '.join(SCOPES)}, got {scope!r}.")


def _standardise(images: Tensor, scope: str) -> Tensor:
    """Return z of N×K×3×H×W: channel mean, then zero mean, unit population variance.

    Its shape is 1×K×(N·H·W) where the batch is standardised as one, N×K×(H·W) where each image is by itself.
    """
    grey = images.float().mean(dim=2)
    grey = grey.flatten(2) if scope == "image" else grey.transpose(0, 1).flatten(1).unsqueeze(0)
    variance, mean = torch.var_mean(grey, dim=2, correction=0, keepdim=True)
    return (grey - mean) / variance.clamp_min(_FLAT).sqrt()


def _kinship(
    tree: Tree, margin_same: float, margin_diff: float, decay_rate: float, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return margins, factors and the mask of pairs of different leaves, each K×K, on the device of ``like``."""
    leaves = range(tree.num_leaves)
    siblings = torch.tensor([[tree.siblings(k, j) for j in leaves] for k in leaves], device=like.device)
    margins = torch.where(siblings, like.new_tensor(margin_same), like.new_tensor(margin_diff))
    factors = torch.where(siblings, like.new_tensor(decay_rate), like.new_tensor(1.0))
    others = ~torch.eye(tree.num_leaves, dtype=torch.bool, device=like.device)
    return margins, factors, others
