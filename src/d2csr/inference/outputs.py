"""Outputs of inference, and their mean over orientations."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from d2csr.models import SRNetwork


class Outputs(NamedTuple):
    """Outputs of the network for a batch of LR images; predictions and weights only if requested."""

    sr: Tensor  # the fused images, N×3×sH×sW
    predictions: Tensor | None = None  # of the leaves, N×K×3×sH×sW
    weights: Tensor | None = None  # of the fusion, N×K×sH×sW


def zero_outputs(
    model: SRNetwork, lr: Tensor, *, keep_leaves: bool, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Return zeros for the outputs of an LR image, 1×3×H×W: of ``sr``, with ``keep_leaves`` of all :class:`Outputs`.

    They are on ``device``, in single precision, or in double if the image is. With ``keep_leaves`` and four leaves they
    have 19 values a pixel instead of 3.
    """
    height, width = (extent * model.scale for extent in lr.shape[-2:])
    leaves = model.tree.num_leaves
    channels = [(3,), (leaves, 3), (leaves,)] if keep_leaves else [(3,)]
    dtype = torch.promote_types(lr.dtype, torch.float32)
    return [torch.zeros(1, *shape, height, width, dtype=dtype, device=device) for shape in channels]


ORIENTATIONS = 8


def self_ensemble(infer: Callable[[Tensor], Outputs], lr: Tensor) -> Outputs:
    """Return the mean over the eight orientations (EDSR's "+", Lim et al., CVPR Workshops 2017).

    Predictions and weights are averaged too. The weights still sum to 1, but the mean of the fused images is not
    exactly the fusion of the means.
    """
    totals: list[Tensor] = []
    for index in range(ORIENTATIONS):
        restored = [restore(part, index) for part in infer(orient(lr, index)) if part is not None]
        totals = totals or [torch.zeros_like(part) for part in restored]
        for total, part in zip(totals, restored, strict=True):
            total += part
    return Outputs(*(total.div_(ORIENTATIONS) for total in totals))


def orient(image: Tensor, index: int) -> Tensor:
    """Rotate an image, …×H×W, by ``index % 4`` · 90°, and mirror it if ``index`` is 4 or more."""
    image = image.rot90(index % 4, dims=(-2, -1))
    return image.flip(-1) if index >= 4 else image


def restore(image: Tensor, index: int) -> Tensor:
    """Undo :func:`orient`."""
    image = image.flip(-1) if index >= 4 else image
    return image.rot90(-(index % 4), dims=(-2, -1))
