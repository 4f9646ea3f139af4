"""Entry points for ``torch.hub.load(REPOSITORY, "d2csr", checkpoint)``: https://docs.pytorch.org/docs/stable/hub.html."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

dependencies = ["torch", "numpy", "filelock", "tqdm"]  # torch.hub looks whether they are installed

# The repository's own code, also where another version is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))


def d2csr(checkpoint: str | Path, device: str | torch.device = "cpu", plugins: Sequence[str] = ()) -> torch.nn.Module:
    """Load a trained model in eval mode: N×3×H×W to N×3×sH×sW, RGB in [0, 1]; the output is not clamped.

    ``d2csr.upscale(model, image)`` runs it on images of any size.

    Args:
        checkpoint: a run folder, a checkpoint, exported weights, an official pickle, or ``hf://user/name``.
        device: of the model.
        plugins: names of your modules that register bodies.
    """
    from d2csr import load_model

    return load_model(checkpoint, device=device, plugins=plugins)


def d2csr_untrained(
    scale: int = 4,
    features: int = 64,
    branching: Sequence[int] = (2, 2),
    fusion_features: int = 64,
    body: Any = "rcab",
) -> torch.nn.Module:
    """Build a network with initial weights, by default the paper's at ×4; arguments as of ``d2csr.D2CSR``."""
    from d2csr import D2CSR

    return D2CSR(scale, features, branching, fusion_features, body)
