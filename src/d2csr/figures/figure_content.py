"""Content of a figure: the crops that a user names, of each method, with their scores."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from d2csr.checks import whole_number
from d2csr.errors import ConfigError
from d2csr.evaluation.panels import MIN_CROP, to_image
from d2csr.evaluation.report import MEAN, ImageResult, Scores, image_scores
from d2csr.metrics import PROTOCOLS, to_8bit

SCORES = ("crop", "image", "none")
LR, HR = "LR", "HR"

_FORM = "must be {name: [x,y,width,height], …}, or a list of [x,y,width,height], in HR pixels"
_COORDINATES = ("x", "y", "width", "height")


@dataclass(frozen=True)
class NamedCrop:
    """A rectangle of HR pixels."""

    name: str
    x: int
    y: int
    width: int
    height: int

    def require_inside(self, width: int, height: int) -> None:
        """Raise a ConfigError if it exceeds an image of this size."""
        if self.x + self.width > width or self.y + self.height > height:
            raise ConfigError(
                f"crops: {self.name}, {self.width}×{self.height} at {self.x},{self.y}, exceeds the image of "
                f"{width}×{height} (width×height in HR pixels)."
            )


def named_crops(value: Any) -> list[NamedCrop]:
    """Return the crops of a setting: a mapping from names, a list of rectangles, or one rectangle.

    Crops without a name are called a, b, c, …; a single one has an empty name.

    Raises:
        ConfigError: it is none of these, empty, or a number is impossible.
    """
    if isinstance(value, list) and value and not any(isinstance(one, list) for one in value):
        value = [value]
    if isinstance(value, list) and len(value) <= len(string.ascii_lowercase):
        value = dict(zip([""] if len(value) == 1 else string.ascii_lowercase, value, strict=False))
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"crops: {_FORM}, got {value!r}.")
    crops = []
    for name, numbers in value.items():
        if not isinstance(numbers, list) or len(numbers) != len(_COORDINATES):
            raise ConfigError(f"crops: {name}: must be [x,y,width,height] in HR pixels, got {numbers!r}.")
        for part, number in zip(_COORDINATES, numbers, strict=True):
            whole_number(f"crops: {name}: {part}", number, 0 if part in "xy" else 1)
        crops.append(NamedCrop(str(name), *numbers))
    return crops


@dataclass(frozen=True)
class Cell:
    """A crop of one method."""

    label: str
    image: np.ndarray  # H×W×3, uint8
    scores: Scores | None  # psnr and ssim; None for LR and HR, and where none are wanted


@dataclass(frozen=True)
class Content:
    """The content of a figure."""

    overview: np.ndarray  # the whole HR image, H×W×3, uint8
    crops: Sequence[NamedCrop]
    rows: Sequence[Sequence[Cell]]  # for each crop the cells of all methods
    note: str  # what the scores are, by which protocol; empty without scores


def figure_content(
    result: ImageResult,
    crops: Sequence[NamedCrop],
    *,
    methods: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    scores: str,
    protocol: str,
    eight_bit: bool,
) -> Content:
    """Return the crops of an image by several methods.

    ``methods`` are names in the order of the figure, also ``LR`` and ``HR``; all except leaves and their mean if empty.
    ``labels`` are printed in their place. ``scores`` are those of each ``crop``, of the whole ``image``, or ``none``;
    ``eight_bit`` scores 8-bit images.

    Raises:
        ConfigError: a method is unknown, a crop exceeds the image, or is too small for its scores.
    """
    height, width = result.hr.shape[-2:]
    scale = width // result.lr.shape[-1]
    lr = F.interpolate(result.lr, size=(height, width), mode="nearest")
    images = {LR: lr, **result.images, HR: result.hr}
    chosen = list(methods) or [name for name in images if name != MEAN and not name.startswith("leaf ")]
    for name in [*chosen, *(labels or {})]:
        if name not in images:
            raise ConfigError(f"methods, labels: no method is called {name}; the names are {', '.join(images)}.")
    for crop in crops:
        crop.require_inside(width, height)
        if scores == "crop" and min(crop.width, crop.height) < MIN_CROP:
            raise ConfigError(
                f"crops: {crop.name}: scores need {MIN_CROP}×{MIN_CROP} pixels. Enlarge it, or set scores=image."
            )

    def cell(name: str, crop: NamedCrop) -> Cell:
        part = _cut(images[name], crop)
        found = None
        if name not in (LR, HR) and scores == "image":
            found = result.scores[name]
        elif name not in (LR, HR) and scores == "crop":
            scored = to_8bit(part) if eight_bit else part
            found = image_scores(scored, _cut(result.hr, crop), scale=scale, protocol=protocol)
        return Cell((labels or {}).get(name, name), np.asarray(to_image(part)), found)

    rows = [[cell(name, crop) for name in chosen] for crop in crops]
    of = "each crop" if scores == "crop" else "the whole image"
    scored_on = "8-bit" if eight_bit else PROTOCOLS[protocol].scored_on
    note = "" if scores == "none" else f"PSNR (dB) / SSIM of {of}, protocol {protocol} ({scored_on})"
    return Content(np.asarray(to_image(result.hr)), crops, rows, note)


def _cut(image: Tensor, crop: NamedCrop) -> Tensor:
    return image[..., crop.y : crop.y + crop.height, crop.x : crop.x + crop.width].cpu().float()
