"""Parts of a result, and putting them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Outputs(NamedTuple):
    """What the network makes of a batch of LR images.

    Attributes:
        sr: the fused images, N×3×sH×sW.
        predictions: those of the leaves, N×K×3×sH×sW; None unless asked for.
        weights: the fusion's, N×K×sH×sW; None unless asked for.
    """

    sr: Tensor
    predictions: Tensor | None = None
    weights: Tensor | None = None


class TileOutput(NamedTuple):
    """A rectangle of the result of one image.

    Attributes:
        top: its first row in the result.
        left: its first column.
        sr: 1×3×h×w, on the device of the model.
        predictions: 1×K×3×h×w.
        weights: 1×K×h×w.
    """

    top: int
    left: int
    sr: Tensor
    predictions: Tensor
    weights: Tensor


def assemble(pieces: Iterable[TileOutput], height: int, width: int, *, parts: bool) -> Outputs:
    """Add pieces up on the CPU as they come.

    Args:
        pieces: of one image. Where some overlap, they have been weighted so that their sum is right.
        height: of the result.
        width: of the result.
        parts: keep predictions and weights too: with four leaves 19 floats a pixel, where the image alone takes 3.

    Returns:
        The outputs for a batch of one, in single precision, or double where the pieces are.
    """
    outputs: Outputs | None = None
    for piece in pieces:
        if outputs is None:
            outputs = _empty(piece, height, width, parts)
        rows = slice(piece.top, piece.top + piece.sr.shape[-2])
        columns = slice(piece.left, piece.left + piece.sr.shape[-1])
        for whole, part in zip(outputs, (piece.sr, piece.predictions, piece.weights), strict=True):
            if whole is not None:
                whole[..., rows, columns] += part.to(whole.device, whole.dtype)
    assert outputs is not None
    return outputs


def _empty(piece: TileOutput, height: int, width: int, parts: bool) -> Outputs:
    def zeros(like: Tensor) -> Tensor:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.zeros(*like.shape[:-2], height, width, dtype=dtype)

    if not parts:
        return Outputs(zeros(piece.sr))
    return Outputs(zeros(piece.sr), zeros(piece.predictions), zeros(piece.weights))


ORIENTATIONS = 8


def self_ensemble(infer: Callable[[Tensor], Outputs], lr: Tensor) -> Outputs:
    """Return the mean over the eight orientations (EDSR's "+", Lim et al., CVPR Workshops 2017).

    Predictions and weights are averaged as well: the weights still sum to 1, yet the mean of the fused images is not
    exactly the fusion of the means.

    Args:
        infer: what gives the outputs of a batch.
        lr: N×3×H×W.
    """
    total: list[Tensor | None] = []
    for index in range(ORIENTATIONS):
        outputs = infer(orient(lr, index))
        turned_back = [None if part is None else restore(part, index) for part in outputs]
        del outputs
        if not total:
            total = [None if part is None else part.contiguous() for part in turned_back]
            continue
        for whole, part in zip(total, turned_back, strict=True):
            if whole is not None and part is not None:
                whole += part
    sr, predictions, weights = (None if whole is None else whole.div_(ORIENTATIONS) for whole in total)
    assert sr is not None
    return Outputs(sr, predictions, weights)


def orient(image: Tensor, index: int) -> Tensor:
    """Turn an image, …×H×W, by ``index % 4`` quarters, and mirror it if ``index`` is 4 or more."""
    image = image.rot90(index % 4, dims=(-2, -1))
    return image.flip(-1) if index >= 4 else image


def restore(image: Tensor, index: int) -> Tensor:
    """Undo :func:`orient`."""
    image = image.flip(-1) if index >= 4 else image
    return image.rot90(-(index % 4), dims=(-2, -1))
