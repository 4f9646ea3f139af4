"""Self-ensemble: the mean of the results for an image turned and mirrored in all ways."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from d2csr.inference.pieces import Outputs

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
