"""The architecture for spandrel, the model loader of chaiNNer and ComfyUI.

spandrel passes on a state dict alone, so all settings are inferred from names and shapes. Bodies of one's own are
refused: load those by :func:`d2csr.load_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry, ArchSupport, ImageModelDescriptor, ModelTiling
except ImportError:
    raise ImportError("d2csr.integrations.spandrel needs spandrel; install it by: pip install spandrel.") from None

from d2csr.checkpoints.inferred_settings import infer_settings
from d2csr.checkpoints.loading import Checkpoint
from d2csr.checkpoints.own import PREFIX
from d2csr.models import SRNetwork

StateDict = dict[str, Any]

_SIGNATURES = (
    ("divergence.input_shift.weight", "divergence.head.weight", "convergence.layers.0.weight"),
    ("divergence.input_shifts.1.weight", "divergence.heads.1.weight", "divergence.output_shifts.1.weight"),  # ensembles
)


class D2CSRArchitecture(Architecture[SRNetwork]):
    """D2C-SR with any tree, single paths and ensembles, with any body of this package.

    Channel attention averages over the whole image, so tiling is discouraged.
    """

    def __init__(self) -> None:
        super().__init__(id="D2CSR", name="D2C-SR", detect=_detect)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[SRNetwork]:
        """Build the model; its images are N×3×H×W, RGB in [0, 1].

        Raises:
            CheckpointError: the settings cannot be inferred, do not fit the weights, or a weight is NaN or infinite.
        """
        weights = _without_prefix(state_dict)
        settings = infer_settings(weights)
        model = Checkpoint(Path("state_dict"), settings, weights).model()
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


def _without_prefix(state_dict: StateDict) -> StateDict:
    if _has_signature(state_dict):
        return state_dict
    return {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}


def _detect(state_dict: StateDict) -> bool:
    return _has_signature(_without_prefix(state_dict))


def _has_signature(state_dict: StateDict) -> bool:
    return any(all(name in state_dict for name in names) for names in _SIGNATURES)
