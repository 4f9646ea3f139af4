"""Parts of a result, and putting them together."""

from __future__ import annotations

from collections.abc import Iterable
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


class Piece(NamedTuple):
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


def assemble(pieces: Iterable[Piece], height: int, width: int, *, parts: bool) -> Outputs:
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


def _empty(piece: Piece, height: int, width: int, parts: bool) -> Outputs:
    def zeros(like: Tensor) -> Tensor:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.zeros(*like.shape[:-2], height, width, dtype=dtype)

    if not parts:
        return Outputs(zeros(piece.sr))
    return Outputs(zeros(piece.sr), zeros(piece.predictions), zeros(piece.weights))
