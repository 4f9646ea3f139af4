"""A picture of what the network did to one image: LR, bicubic, every guess, their weights, the fusion, HR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d2csr.data.lists import ImagePair
from d2csr.evaluation.report import Results, Scores

_GAP, _LABEL = 8, 26
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


def panel(results: Results) -> Image.Image:
    """Draw one test image's results.

    The first row shows LR (its pixels enlarged), bicubic, the plain mean of the leaves, the fusion and HR; the second
    the leaves; the third the fusion's weights, dark for the lowest weight of the image and bright for the highest.

    Args:
        results: with the leaves compared.
    """
    assert results.weights is not None
    images, figures = results.images, results.figures
    scale = results.hr.shape[2] // results.lr.shape[2]
    enlarged = F.interpolate(results.lr, scale_factor=scale, mode="nearest")
    leaves = [name for name in images if name.startswith("leaf")]
    first = [("LR", enlarged), *((_labelled(n, figures[n]), images[n]) for n in ("bicubic", "mean", "fusion"))]
    rows = [
        [(label, to_image(image)) for label, image in [*first, ("HR", results.hr)]],
        [(_labelled(name, figures[name]), to_image(images[name])) for name in leaves],
        _weight_maps([name.removeprefix("leaf ") for name in leaves], results.weights),
    ]
    return _grid(rows)


def picture_name(pairs: Sequence[ImagePair], index: int) -> str:
    """Return a name for the pictures of a pair: that of its LR, with its number in front where another has the same."""
    stems = [pair.lr.stem for pair in pairs]
    return stems[index] if stems.count(stems[index]) == 1 else f"{index:04d}_{stems[index]}"


def to_image(image: Tensor) -> Image.Image:
    """Return the first of N×3×H×W, RGB in [0, 1], as an 8-bit picture, clamped and rounded."""
    pixels = image[0].clamp(0, 1).mul_(255).round_().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def _weight_maps(leaves: list[str], weights: Tensor) -> list[tuple[str, Image.Image]]:
    maps = weights[0].float().cpu().numpy()
    low, high = maps.min(), maps.max()
    grey = np.rint((maps - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return [
        (
            f"weight {leaf}: {one.min():.2f} to {one.max():.2f}, mean {one.mean():.2f}",
            Image.fromarray(picture).convert("RGB"),
        )
        for leaf, one, picture in zip(leaves, maps, grey, strict=True)
    ]


def _labelled(name: str, figures: Scores) -> str:
    return f"{name}  {figures.psnr:.2f} dB"


def _grid(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    width, height = rows[0][0][1].size
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, len(rows) * (height + _GAP + _LABEL) + _GAP), color=_PAPER
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    for row, cells in enumerate(rows):
        for column, (label, picture) in enumerate(cells):
            left, top = _GAP + column * (width + _GAP), _GAP + row * (height + _GAP + _LABEL)
            draw.text((left, top), label, fill=_INK, font=font)
            sheet.paste(picture, (left, top + _LABEL))
    return sheet


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """Upscale by Keys' kernel with a = −0.5, as Pillow and MATLAB do.

    Args:
        lr: N×3×H×W, RGB in [0, 1].
        scale: s.

    Returns:
        N×3×sH×sW, not clamped.
    """
    # torch takes a = −0.75, unless it is asked to antialias, which changes nothing else when upscaling.
    size = (lr.shape[2] * scale, lr.shape[3] * scale)
    return F.interpolate(lr, size=size, mode="bicubic", align_corners=False, antialias=True)
