"""Statistics of leaves and weights: distances, correlation of the errors, entropy of the weights, PSNR of patches.

Predictions are N×K×3×H×W, RGB in [0, 1]; weights are N×K×H×W, with the sum 1 at each pixel.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

from d2csr.models.tree import Tree

_ROWS = 64  # of images that are computed at once in double precision, for less memory


def leaf_distances(predictions: Tensor, tree: Tree) -> dict[str, Tensor]:
    """Return the mean over pairs of leaves of the root mean squared difference of their predictions, in [0, 1].

    Returns:
        Scalars: ``distance`` over all pairs, ``distance_same`` over siblings, ``distance_diff`` over the others. A name
        without pairs is omitted.
    """
    groups: dict[str, list[Tensor]] = {"distance": [], "distance_same": [], "distance_diff": []}
    leaves = predictions.float().unbind(dim=1)
    for k, j in combinations(range(len(leaves)), 2):
        difference = (leaves[k] - leaves[j]).square().mean().sqrt()
        groups["distance"].append(difference)
        groups["distance_same" if tree.siblings(k, j) else "distance_diff"].append(difference)
    return {name: torch.stack(pairs).mean() for name, pairs in groups.items() if pairs}


def error_correlation(predictions: Tensor, hr: Tensor) -> Tensor:
    """Return the mean over pairs of leaves of Pearson's correlation of their errors, prediction − HR.

    1: the leaves make the same errors up to a factor; 0: independent errors. All channels and pixels of the batch count
    alike.

    Returns:
        A scalar in double precision, in [−1, 1]; NaN for a single leaf, or if the error of a leaf is constant.
    """
    k = predictions.shape[1]
    device = "cpu" if predictions.device.type == "mps" else predictions.device  # which has no double precision
    sums, products = (torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((k,), (k, k)))
    count = 0
    for rows, target in zip(predictions.split(_ROWS, dim=-2), hr.split(_ROWS, dim=-2), strict=True):
        errors = (rows - target.to(rows.device).unsqueeze(1)).transpose(0, 1).flatten(1).to(device, torch.float64)
        count += errors.shape[1]
        sums += errors.sum(dim=1)
        products += errors @ errors.T
    covariances = products / count - torch.outer(sums, sums) / count**2
    deviations = covariances.diagonal().clamp_min(0).sqrt()
    correlations = covariances / torch.outer(deviations, deviations)
    first, second = torch.triu_indices(k, k, offset=1, device=device)
    return correlations[first, second].mean()


def weight_entropy(weights: Tensor) -> Tensor:
    """Return the mean over pixels of −Σ w log w / log K, a scalar.

    1 is equal weights of all leaves, 0 is one leaf alone at each pixel.
    """
    k = weights.shape[1]
    if k == 1:
        return weights.new_zeros((), dtype=torch.float32)
    return torch.special.entr(weights.float()).sum(dim=1).mean() / math.log(k)


def patch_psnr(images: Tensor, hr: Tensor) -> Tensor:
    """Return the mean over a batch of the PSNR of N×3×H×W images to HR in dB, a scalar.

    All three channels, clamped to [0, 1], no border cut: patches are too small for the protocols.
    """
    error = (images.float().clamp(0, 1) - hr.float()).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).mean()
