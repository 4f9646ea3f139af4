"""Panels of one image: LR, bicubic, mean, fusion, HR, every leaf and its weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d2csr.data.lists import ImagePair
from d2csr.evaluation.report import ImageResult

_GAP, _LABEL_HEIGHT = 8, 26
_BACKGROUND, _TEXT = (255, 255, 255), (20, 20, 20)

_Cell = tuple[str, Image.Image]


def panel(result: ImageResult) -> Image.Image:
    """Draw the results of one image.

    The first row shows LR (nearest neighbour), bicubic, all other methods except the leaves, and HR. If the leaves were
    compared, the second row shows them, and the third row their weights, black for the lowest weight of the image and
    white for the highest.
    """
    images, scores = result.images, result.scores
    lr = F.interpolate(result.lr, scale_factor=result.hr.shape[2] // result.lr.shape[2], mode="nearest")
    leaves = [name for name in images if name.startswith("leaf")]

    def cell(name: str) -> _Cell:
        return f"{name}  {scores[name]['psnr']:.2f} dB", to_image(images[name])

    methods = [cell(name) for name in images if name not in leaves]
    rows = [[("LR", to_image(lr)), *methods, ("HR", to_image(result.hr))]]
    if result.weights is not None:
        rows.append([cell(name) for name in leaves])
        rows.append(_weight_cells([name.removeprefix("leaf ") for name in leaves], result.weights))
    return _draw_grid(rows)


def panel_name(pairs: Sequence[ImagePair], index: int) -> str:
    """Return the file name of a pair's images, without suffix: the stem of its LR, after its number if not unique."""
    stems = [pair.lr.stem for pair in pairs]
    return stems[index] if stems.count(stems[index]) == 1 else f"{index:04d}_{stems[index]}"


def to_image(image: Tensor) -> Image.Image:
    """Return the first of N×3×H×W, RGB in [0, 1], as an 8-bit image, clamped and rounded."""
    pixels = image[0].clamp(0, 1).mul_(255).round_().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def _weight_cells(leaves: list[str], weights: Tensor) -> list[_Cell]:
    maps = weights[0].float().cpu().numpy()
    low, high = maps.min(), maps.max()
    grey = np.rint((maps - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return [
        (
            f"weight {leaf}: {one.min():.2f} to {one.max():.2f}, mean {one.mean():.2f}",
            Image.fromarray(pixels).convert("RGB"),
        )
        for leaf, one, pixels in zip(leaves, maps, grey, strict=True)
    ]


def _draw_grid(rows: list[list[_Cell]]) -> Image.Image:
    width, height = rows[0][0][1].size
    columns = max(len(row) for row in rows)
    size = (columns * (width + _GAP) + _GAP, len(rows) * (height + _GAP + _LABEL_HEIGHT) + _GAP)
    grid = Image.new("RGB", size, color=_BACKGROUND)
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(size=16)
    for row, cells in enumerate(rows):
        for column, (label, image) in enumerate(cells):
            left, top = _GAP + column * (width + _GAP), _GAP + row * (height + _GAP + _LABEL_HEIGHT)
            draw.text((left, top), label, fill=_TEXT, font=font)
            grid.paste(image, (left, top + _LABEL_HEIGHT))
    return grid
