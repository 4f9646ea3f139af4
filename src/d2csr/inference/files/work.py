"""One picture through the model: grey stays grey, alpha is super-resolved too, the depth is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.inference.files.pictures import Picture
from d2csr.inference.run import Inference, Progress
from d2csr.models import D2CSR

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Enlarged:
    """What came of one picture.

    Attributes:
        sr: the result, s times as large, in the form of the picture.
        leaves: the prediction of each leaf by its name, without alpha; empty unless asked for.
        weights: its share in the result, grey, 8 bits, white for 1; empty unless asked for.
    """

    sr: Picture
    leaves: dict[str, Picture] = field(default_factory=dict)
    weights: dict[str, Picture] = field(default_factory=dict)


def enlarge(
    model: D2CSR,
    inference: Inference,
    picture: Picture,
    *,
    parts: bool = False,
    progress: Progress | None = None,
) -> Enlarged:
    """Super-resolve a picture.

    The network knows colours only: a grey picture goes through it as one whose channels agree, and the luminance of
    what comes out is the result; so does alpha, except that what is wholly opaque or transparent around a pixel stays
    precisely so.

    Args:
        model: in eval mode.
        inference: how to run it.
        picture: to enlarge.
        parts: give leaves and weights too, which takes six times the memory for the result.
        progress: called with the fraction of the work that is done, up to 1.

    Raises:
        ConfigError: the memory does not suffice even for the smallest tiles.
    """
    alpha = picture.alpha
    alpha_takes = 0.0 if alpha is None or alpha.min() == alpha.max() else 0.5
    first = _share(progress, 0.0, 1 - alpha_takes)
    outputs = inference.outputs(model, _to_tensor(picture.colour), parts=parts, progress=first)
    enlarged_alpha = None
    if alpha is not None:
        enlarged_alpha = _enlarge_alpha(model, inference, alpha, _share(progress, 1 - alpha_takes, alpha_takes))

    def to_picture(image: Tensor, alpha: np.ndarray | None = None) -> Picture:
        return Picture(_to_array(image, picture.colour), alpha, picture.icc)

    leaves, weights = {}, {}
    if parts:
        assert outputs.predictions is not None
        assert outputs.weights is not None
        for index, leaf in enumerate(model.tree.leaves):
            leaves[leaf] = to_picture(outputs.predictions[0, index])
            shades = outputs.weights[0, index].clamp(0, 1).mul(255).round_().byte()
            weights[leaf] = Picture(shades.unsqueeze(-1).numpy())
    return Enlarged(to_picture(outputs.sr[0], enlarged_alpha), leaves, weights)


def _enlarge_alpha(model: D2CSR, inference: Inference, alpha: np.ndarray, progress: Progress | None) -> np.ndarray:
    if alpha.min() == alpha.max():
        height, width = (extent * model.scale for extent in alpha.shape)
        return np.full((height, width), alpha.flat[0])
    sr = _to_array(inference(model, _to_tensor(alpha[..., None]), progress)[0], alpha[..., None])[..., 0]
    plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
    highest = F.max_pool2d(plane, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-plane, 3, stride=1, padding=1)
    even = (highest == lowest)[0, 0].numpy()
    for axis in (0, 1):
        even, alpha = even.repeat(model.scale, axis), alpha.repeat(model.scale, axis)
    return np.where(even, alpha, sr)


def _to_tensor(colour: np.ndarray) -> Tensor:
    """Turn H×W×C into 1×3×H×W, in [0, 1]."""
    figures = colour.astype(np.float32) / np.iinfo(colour.dtype).max
    return torch.from_numpy(figures).permute(2, 0, 1)[None].expand(1, 3, -1, -1).contiguous()


def _to_array(image: Tensor, like: np.ndarray) -> np.ndarray:
    """Turn 3×H×W into H×W×C with the channels and the depth of another image; the tensor is used up."""
    if like.shape[-1] == 1:
        image = torch.einsum("chw,c->hw", image, image.new_tensor(_LUMA)).unsqueeze(0)
    figures = image.clamp_(0, 1).mul_(np.iinfo(like.dtype).max).round_().permute(1, 2, 0)
    if like.dtype == np.uint8:
        return figures.byte().contiguous().numpy()
    return figures.contiguous().numpy().astype(like.dtype)


def _share(progress: Progress | None, start: float, share: float) -> Progress | None:
    return None if progress is None else lambda fraction: progress(start + share * fraction)
