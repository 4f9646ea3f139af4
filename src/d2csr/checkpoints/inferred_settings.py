"""Settings of a network, inferred from the names and shapes of its weights.

Loaders of other programs pass on a state dict alone. A factor that no weight's shape depends on, such as the residual
scale of ``edsr`` and ``rrdb``, is assumed to be the default of the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from d2csr.errors import CheckpointError
from d2csr.models import SRNetwork
from d2csr.models.bodies import complete_settings

Weights = Mapping[str, Tensor]
Settings = dict[str, Any]


# By a weight that no other body has: the name of the body, and for each number the pattern that counts it.
_BODIES = {
    "0.residual.0.residual.3.attention.1.weight": (
        "rcab",
        {"groups": r"(\d+)\.residual\.", "blocks": r"0\.residual\.(\d+)\.residual\."},
    ),
    "0.residual.0.growing.0.0.weight": ("rrdb", {"blocks": r"(\d+)\.residual\."}),
    "0.residual.2.weight": ("edsr", {"blocks": r"(\d+)\.residual\."}),
    "blocks.0.refinements.0.0.weight": ("imdn", {"blocks": r"blocks\.(\d+)\."}),
    "0.beta": ("nafnet", {"blocks": r"(\d+)\.beta$"}),
    "blocks.1.layers.0.attention.1.position_bias": (
        "swin",
        {"groups": r"blocks\.(\d+)\.convolution\.", "layers": r"blocks\.1\.layers\.(\d+)\."},
    ),
}


def infer_settings(weights: Weights) -> Settings:
    """Return the settings of :func:`d2csr.models.build_network` for a state dict, with any body of this package.

    Raises:
        CheckpointError: the settings cannot be inferred, as those of a body of one's own.
    """
    try:
        return network_settings(weights)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        detail = f"{type(error).__name__}: {str(error)[:100]}"
        raise CheckpointError(
            f"the settings of the network cannot be inferred from its weights ({detail}); use d2csr.load_model."
        ) from None


def obstacle_to_inference(model: SRNetwork) -> str | None:
    """Return why a loader that has the weights of a model alone cannot rebuild it, as a sentence; None if it can."""
    try:
        inferred = infer_settings(model.state_dict())
    except CheckpointError as error:
        return str(error)
    for name, value in model.settings["body"].items():
        assumed = inferred["body"].get(name)
        # Another reduction or ratio that rounds to the same width builds the same layers.
        if name.endswith("_scale") and assumed != value:
            return f"body.{name} is {value}, which leaves no trace in the weights; {assumed} would be assumed."
    return None


def network_settings(weights: Weights) -> Settings:
    """Return what :func:`infer_settings` does; raises KeyError, IndexError, ValueError or ZeroDivisionError instead."""
    nodes = {match[1] for name in weights if (match := re.match(r"divergence\.bodies\.(\d+)\.", name))}
    leaf = max(nodes, key=lambda node: (len(node), node))
    ensemble = f"divergence.heads.{leaf}.weight" in weights
    features = weights[f"divergence.heads.{leaf}.weight" if ensemble else "divergence.head.weight"].shape[0]
    tail = _below(weights, f"divergence.tails.{leaf}.0")
    factor_squared = tail["0.weight"].shape[0] // features
    common = {
        "scale": 3 if factor_squared == 9 else 2 ** _count(tail, r"(\d+)\.weight"),
        "features": features,
        "body": complete_settings(_body(_below(weights, f"divergence.bodies.{leaf}"), features)),
    }
    if ensemble:
        return {"architecture": "ensemble", **common, "paths": len(nodes)}
    fusion_features = weights["convergence.layers.0.weight"].shape[0]
    return {**common, "branching": [int(digit) for digit in leaf], "fusion_features": fusion_features}


def _body(weights: Weights, features: int) -> Settings:
    """Return name and settings of the body whose weights these are."""
    for weight, (name, patterns) in _BODIES.items():
        if weight in weights:
            counts = {setting: _count(weights, pattern) for setting, pattern in patterns.items()}
            return {"name": name, **counts, **_further(name, weights[weight].shape, weights, features)}
    raise CheckpointError(
        "the settings of this body cannot be inferred from its weights; use d2csr.load_model, which reads them from "
        "the file."
    )


def _further(name: str, shape: Sequence[int], weights: Weights, features: int) -> Settings:
    """Return the settings of a body that are no counts; ``shape`` is that of its weight in :data:`_BODIES`."""
    if name == "rcab":
        return {"reduction": features // shape[0]}
    if name == "rrdb":
        return {"growth": shape[0]}
    if name == "imdn":
        return {"reduction": features // weights["blocks.0.attention.attention.0.weight"].shape[0]}
    if name != "swin":
        return {}
    positions, heads = shape
    hidden = weights["blocks.1.layers.0.mlp.1.weight"].shape[0]
    ratio = hidden / features
    return {
        "heads": heads,
        "window": (round(positions**0.5) + 1) // 2,
        # The width is int(ratio · features), which float rounding may leave one short.
        "mlp_ratio": ratio if int(ratio * features) == hidden else (hidden + 0.5) / features,
    }


def _below(weights: Weights, module: str) -> Weights:
    """Return the weights of a module, by their names inside it."""
    return {name[len(module) + 1 :]: value for name, value in weights.items() if name.startswith(f"{module}.")}


def _count(names: Iterable[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})
