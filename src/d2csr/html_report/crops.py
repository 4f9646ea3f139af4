"""Choice of the crops in which methods differ most, by their measured errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d2csr.evaluation.report import BICUBIC

CROPS = 3  # of an image, at most

_SIDE, _LEAST = 64, 16  # of a crop, in HR pixels
_SHARE = 3  # a crop is at most a third of the image's shorter side


@dataclass(frozen=True)
class Crop:
    """A square of HR pixels."""

    left: int
    top: int
    side: int


def compared(methods: Sequence[str]) -> list[str]:
    """Return the methods whose errors choose the crops: without bicubic, unless only one other method is left."""
    others = [name for name in methods if name != BICUBIC]
    return others if len(others) > 1 else list(methods)


def choose_crops(errors: Mapping[str, Tensor], scale: int) -> list[Crop]:
    """Return the squares in which the methods' errors differ most, without overlap, the largest difference first.

    The difference is the highest minus the lowest mean squared error of the methods in a square. Squares begin at
    multiples of a quarter of their side, at whole LR pixels. ``errors`` are the squared errors of at least one method,
    H×W; of one alone there is no difference.
    """
    height, width = next(iter(errors.values())).shape
    unit = 4 * scale  # the step is a quarter of the side, in whole LR pixels
    side = max(_LEAST, min(_SIDE, min(height, width) // _SHARE))
    side = min(max(unit, side // unit * unit), height, width)
    step = max(scale, side // unit * scale)
    means = torch.stack([F.avg_pool2d(error[None], side, step)[0] for error in errors.values()])
    spread = means.amax(dim=0) - means.amin(dim=0)
    crops: list[Crop] = []
    reach = math.ceil(side / step)
    while len(crops) < CROPS and spread.max() > 0:
        row, column = divmod(int(spread.argmax()), spread.shape[1])
        crops.append(Crop(column * step, row * step, side))
        spread[max(0, row - reach + 1) : row + reach, max(0, column - reach + 1) : column + reach] = 0
    return crops
