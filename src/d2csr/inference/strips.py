"""Exact inference on large images: the trunk on the whole image, tails and fusion on strips.

A body may use the whole image (channel attention averages over it), so the trunk is not cut. It works at LR resolution.
Tails and fusion work at HR resolution and need most of the memory, but they are local: on a strip with a halo of a few
rows, their output is the same as on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from d2csr.inference.trace import strip_halo
from d2csr.models import SRNetwork
from d2csr.torch_internals import call_eagerly

Progress = Callable[[float], None]


class Outputs(NamedTuple):
    """Outputs of the network for a batch of LR images; predictions and weights only if requested."""

    sr: Tensor  # the fused images, N×3×sH×sW
    predictions: Tensor | None = None  # of the leaves, N×K×3×sH×sW
    weights: Tensor | None = None  # of the fusion, N×K×sH×sW


def zero_outputs(
    model: SRNetwork, lr: Tensor, *, keep_leaves: bool, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Return zeros for the outputs of LR images, N×3×H×W: of ``sr``, with ``keep_leaves`` of all :class:`Outputs`.

    They are on ``device``, in single precision, or in double if the images are.
    """
    height, width = (extent * model.scale for extent in lr.shape[-2:])
    leaves = model.tree.num_leaves
    channels = [(3,), (leaves, 3), (leaves,)] if keep_leaves else [(3,)]
    dtype = torch.promote_types(lr.dtype, torch.float32)
    return [torch.zeros(len(lr), *shape, height, width, dtype=dtype, device=device) for shape in channels]


def part_of(progress: Progress | None, number: int, parts: int) -> Progress:
    """Return the progress of one of several equal parts of the work, from its number, 0 for the first."""
    return lambda fraction: progress((number + fraction) / parts) if progress else None


@torch.inference_mode()
def add_strips(
    totals: Sequence[Tensor],
    model: SRNetwork,
    lr: Tensor,
    length: int,
    *,
    window: Tensor | None = None,
    offload: bool = False,
    progress: Progress | None = None,
) -> None:
    """Add the outputs of an LR image to zeros, in strips across its longer side.

    Args:
        totals: from :func:`zero_outputs`.
        model: on any device.
        lr: 1×3×H×W, RGB in [0, 1], with the model's device and dtype.
        length: LR rows of a strip (columns, if the image is wider than high).
        window: factors of the outputs, sH×sW.
        offload: keep the leaves' features on the CPU until they are needed.
        progress: called with the fraction of the work that is done after each leaf's features and each strip.
    """
    axis = -1 if lr.shape[-1] > lr.shape[-2] else -2
    starts, done = range(0, lr.shape[axis], length), count()
    steps = model.tree.num_leaves + len(starts)

    def tick() -> None:
        part_of(progress, next(done), steps)(1.0)

    waiting = []
    # With the channels last, oneDNN and cuDNN need no copies in a layout of their own.
    for _, features in model.divergence.trunk(lr.contiguous(memory_format=torch.channels_last)):
        waiting.append(features.cpu() if offload else features)
        del features  # or an offloaded map would stay on the device while the next body runs
        tick()
    for start in starts:
        rows = min(length, lr.shape[axis] - start)
        first, size = start * model.scale, rows * model.scale
        outputs = _strip(model, waiting, axis, start, rows)
        for total, part in zip(totals, outputs, strict=False):  # without leaves, the image alone
            weighted = part if window is None else part * window.narrow(axis, first, size)
            total.narrow(axis, first, size).add_(weighted.to(total.device, total.dtype))
        tick()


def _strip(model: SRNetwork, features: list[Tensor], axis: int, start: int, rows: int) -> list[Tensor]:
    """Return image, predictions and weights of a strip of LR rows (columns, if ``axis`` is −1)."""
    halo, s = strip_halo(model), model.scale
    first, last = max(0, start - halo), min(features[0].shape[axis], start + rows + halo)
    device = next(model.parameters()).device
    predictions = torch.stack(
        [
            model.divergence.reconstruct(leaf, maps.narrow(axis, first, last - first).to(device))
            for leaf, maps in zip(model.tree.leaves, features, strict=True)
        ],
        dim=1,
    )
    # Not its compiled version, which would be compiled again for each shape of a strip.
    sr, weights = call_eagerly(model.convergence, predictions)
    return [part.narrow(axis, (start - first) * s, rows * s) for part in (sr, predictions, weights)]
