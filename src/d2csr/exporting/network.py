"""The network as it is exported, and the check of an export against the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from d2csr.errors import CheckpointError
from d2csr.models import SRNetwork

OUTPUTS = ("sr", "all")
DTYPES = {"32": torch.float32, "16": torch.float16}

# Batch, height and width. A map of one pixel is where exported reshapes and poolings break first.
_SIZES = ((1, 1, 1), (1, 13, 8), (3, 24, 31))
# The largest difference that rounding explains, as a share of the largest value.
_BOUNDS = {"32": 1e-4, "16": 1e-2}


class ExportedNetwork(nn.Module):
    """LR, N×3×H×W, to ``sr`` alone or to ``(sr, predictions, weights)``; RGB in [0, 1], not clamped."""

    def __init__(self, model: SRNetwork, outputs: str, precision: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().to(DTYPES[precision]).eval().requires_grad_(False)
        self.names = ["sr"] if outputs == "sr" else ["sr", "predictions", "weights"]

    def forward(self, lr: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of ``names``."""
        predictions = self.model.divergence(lr)
        sr, weights = self.model.convergence(predictions)
        return (sr,) if len(self.names) == 1 else (sr, predictions, weights)


def traced(network: ExportedNetwork) -> torch.export.ExportedProgram:
    """Return the program of a network for all sizes of its input; raise a CheckpointError if its body prevents it."""
    sizes = {0: torch.export.Dim("batch", min=1), 2: torch.export.Dim("height", min=1)}
    sizes[3] = torch.export.Dim("width", min=1)
    example = torch.rand(2, 3, 12, 17, dtype=next(network.parameters()).dtype)  # a batch of 1 would be kept as fixed
    try:
        return torch.export.export(network, (example,), dynamic_shapes=(sizes,))
    except Exception as error:  # its errors have many types
        reason = str(error).strip().partition("\n")[0][:300]
        raise CheckpointError(
            f"the body {network.model.settings['body']['name']!r} cannot be exported for all image sizes ({reason}). "
            "Export to safetensors, which holds the weights alone."
        ) from error


@torch.no_grad()
def largest_difference(
    model: SRNetwork, outputs: str, precision: str, run: Callable[[Tensor], Sequence[Tensor]]
) -> float:
    """Return the largest difference between an export and the model in single precision, over three image sizes.

    It is a share of the largest value of the output, or absolute if that is below 1. ``run`` calls the export with LR
    images, N×3×H×W in its precision, ``32`` or ``16``.

    Raises:
        CheckpointError: the difference is larger than rounding explains.
    """
    reference = ExportedNetwork(model, outputs, "32")
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in _SIZES:
        lr = torch.rand(batch, 3, height, width, generator=generator)
        for actual, expected in zip(run(lr.to(DTYPES[precision])), reference(lr), strict=True):
            difference = (actual.float() - expected).abs().max() / expected.abs().max().clamp_min(1)
            largest = max(largest, difference.item())
    if not largest <= _BOUNDS[precision]:
        raise CheckpointError(
            f"the exported network differs from the model by {largest:.1e} of the largest value, more than rounding "
            "explains; nothing was written."
        )
    return largest
