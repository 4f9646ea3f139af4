"""Statistics of the leaves and of the fusion weights of a test image."""

from __future__ import annotations

import math

from torch import Tensor

from d2csr.inference import Outputs
from d2csr.metrics.leaves import error_correlation, leaf_distances, weight_entropy
from d2csr.models.tree import Tree


def leaf_statistics(outputs: Outputs, hr: Tensor, tree: Tree) -> dict[str, float]:
    """Return the statistics of an image whose leaves were kept, as floats.

    ``distance``, ``distance_same`` and ``distance_diff`` are those of :func:`d2csr.metrics.leaves.leaf_distances`, RGB
    in [0, 1]; ``error_correlation`` is between the errors of two leaves, ``weight_entropy`` is 1 for equal weights.
    Values that are not finite, and those without pairs of leaves, are omitted.
    """
    assert outputs.predictions is not None  # the leaves were kept
    found = {
        **leaf_distances(outputs.predictions, tree),
        "error_correlation": error_correlation(outputs.predictions, hr),
    }
    if outputs.weights is not None:
        found["weight_entropy"] = weight_entropy(outputs.weights)
    values = {name: value.item() for name, value in found.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}
