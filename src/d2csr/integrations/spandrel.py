"""The architecture for spandrel, the model loader of chaiNNer and ComfyUI.

spandrel passes on a state dict alone, so all settings are inferred from names and shapes. Other bodies, whose settings
leave no trace there, are refused: load those by :func:`d2csr.load_model`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry, ArchSupport, ImageModelDescriptor, ModelTiling
from torch import Tensor

from d2csr.checkpoints.own import PREFIX
from d2csr.checkpoints.size import check_size
from d2csr.errors import CheckpointError
from d2csr.models import D2CSR

StateDict = dict[str, Any]

_SIGNATURE = ("divergence.input_shift.weight", "divergence.head.weight", "convergence.layers.0.weight")


class D2CSRArchitecture(Architecture[D2CSR]):
    """D2C-SR with the body ``rcab`` (the paper's) or ``edsr``.

    Channel attention averages over the whole image, so tiling is discouraged.
    """

    def __init__(self) -> None:
        super().__init__(id="D2CSR", name="D2C-SR", detect=_detect)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[D2CSR]:
        """Build the model; its images are N×3×H×W, RGB in [0, 1].

        Raises:
            CheckpointError: the settings cannot be inferred, or do not fit the weights.
        """
        weights = _without_prefix(state_dict)
        settings = infer_settings(weights)
        check_size(settings, weights)
        model = D2CSR(**settings)
        return ImageModelDescriptor(
            model,
            weights,
            architecture=self,
            purpose="SR",
            tags=[f"{settings['features']}nf", f"{model.tree.num_leaves} leaves", settings["body"]["name"]],
            supports_half=True,
            supports_bfloat16=True,
            scale=model.scale,
            input_channels=3,
            output_channels=3,
            tiling=ModelTiling.DISCOURAGED,
        )


def install(registry: ArchRegistry = MAIN_REGISTRY) -> None:
    """Register the architecture, so that spandrel's ``ModelLoader`` loads its models. A second call changes nothing."""
    architecture = D2CSRArchitecture()
    if architecture.id not in registry:
        registry.add(ArchSupport.from_architecture(architecture))


def infer_settings(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of :class:`d2csr.models.D2CSR` for a state dict.

    Raises:
        CheckpointError: the settings of its body cannot be inferred.
    """
    nodes = {match[1] for name in weights if (match := re.match(r"divergence\.bodies\.(\d+)\.", name))}
    leaf = max(nodes, key=lambda node: (len(node), node))
    features = weights["divergence.head.weight"].shape[0]
    upsampling = _indices(weights, rf"divergence\.tails\.{leaf}\.0\.(\d+)\.weight")
    factor_squared = weights[f"divergence.tails.{leaf}.0.0.weight"].shape[0] // features
    return {
        "scale": 3 if factor_squared == 9 else 2 ** len(upsampling),
        "features": features,
        "branching": [int(digit) for digit in leaf],
        "fusion_features": weights["convergence.layers.0.weight"].shape[0],
        "body": _infer_body(weights, f"divergence.bodies.{leaf}", features),
    }


def _infer_body(weights: Mapping[str, Tensor], body: str, features: int) -> dict[str, Any]:
    outer = _indices(weights, rf"{re.escape(body)}\.(\d+)\.")
    attention = weights.get(f"{body}.0.residual.0.residual.3.attention.1.weight")
    if attention is not None:
        blocks = _indices(weights, rf"{re.escape(body)}\.0\.residual\.(\d+)\.residual\.")
        reduction = features // attention.shape[0]
        return {"name": "rcab", "groups": len(outer) - 1, "blocks": len(blocks), "reduction": reduction}
    if {f"{body}.0.residual.0.weight", f"{body}.0.residual.2.weight"} <= weights.keys():
        return {"name": "edsr", "blocks": len(outer) - 1}
    raise CheckpointError("the settings of this body cannot be inferred from its weights; use d2csr.load_model.")


def _indices(names: Iterable[str], pattern: str) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}


def _without_prefix(state_dict: StateDict) -> StateDict:
    if f"{PREFIX}{_SIGNATURE[0]}" not in state_dict:
        return state_dict
    return {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}


def _detect(state_dict: StateDict) -> bool:
    return any(all(prefix + name in state_dict for name in _SIGNATURE) for prefix in ("", PREFIX))
