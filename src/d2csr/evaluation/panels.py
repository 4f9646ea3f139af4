"""Panels of one image: every method, and for each leaf its prediction, weight and difference; grids of any images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d2csr.checks import whole_number
from d2csr.colormap import VIRIDIS, colour_weights
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError
from d2csr.evaluation.report import MEAN, ImageResult, image_scores

MIN_CROP = 32  # in HR pixels; SSIM by each protocol needs 27 at ×8

_SMALL, _LARGE = 256, 2048  # longest side of a whole image: smaller ones are enlarged, larger ones reduced
GAIN = 8  # of differences
_ROWS = 3  # prediction, weight and difference of each leaf
_LEAF = "leaf "
_BOX = (255, 40, 40)
_BACKGROUND, _TEXT = (255, 255, 255), (20, 20, 20)
_LEAST_WIDTH = 128  # of a cell, in pixels: below, captions cannot be read


@dataclass(frozen=True)
class Cell:
    """An image with two lines below it; Pillow's font has ASCII alone."""

    image: Image.Image
    name: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A colour bar at the right of a row."""

    colours: Image.Image  # one pixel wide, the highest value on top
    ticks: tuple[str, str, str]  # the values at the top, in the middle and at the bottom


WEIGHT_BAR = Bar(
    Image.frombytes("RGB", (1, 256), VIRIDIS).transpose(Image.Transpose.FLIP_TOP_BOTTOM), ("1", "0.5", "0")
)
DIFFERENCE_BAR = Bar(
    Image.fromarray(np.arange(255, -1, -1, dtype=np.uint8)[:, None]).convert("RGB"),
    (f"+{0.5 / GAIN:.2f}", "0", f"-{0.5 / GAIN:.2f}"),
)


@dataclass(frozen=True)
class Part:
    """The part of an image that a panel shows; a ConfigError names a value out of its range."""

    crop: int | None = None  #: its side in HR pixels, at least :data:`MIN_CROP`; None for the whole image
    #: x and y of its upper left corner in HR pixels, rounded down to LR pixels; None for the middle of the image. Where
    #: the part would exceed the image, it is moved inside.
    at: Sequence[int] | None = None
    #: How many times it is enlarged, at most 32. A whole image is enlarged to about 256 pixels, or reduced to 2,048.
    zoom: int = 4

    def __post_init__(self) -> None:
        if self.crop is not None:
            whole_number("crop", self.crop, MIN_CROP)
        whole_number("zoom", self.zoom, most=32)  # a sheet of many such parts fits the memory
        if self.at is not None:
            if self.crop is None:
                raise ConfigError("at: needs crop too, the side of the part in HR pixels.")
            if not isinstance(self.at, list | tuple) or len(self.at) != 2:
                raise ConfigError(f"at: must be [x,y] in HR pixels, got {self.at!r}.")
            for value in self.at:
                whole_number("at", value, 0)

    def box(self, lr_size: Sequence[int], scale: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in the LR image, from its height and width."""
        height, width = lr_size
        if self.crop is None:
            return 0, 0, width, height
        side = self.crop // scale
        right, bottom = max(width - side, 0), max(height - side, 0)  # the last possible corner
        left, top = (right // 2, bottom // 2) if self.at is None else (value // scale for value in self.at)
        left, top = min(left, right), min(top, bottom)
        return left, top, min(left + side, width), min(top + side, height)


def panel(result: ImageResult, part: Part, protocol: str) -> Image.Image:
    """Draw the results of one image, with PSNR and SSIM of the part that is shown.

    The columns at the left show the whole HR with a box around the part, LR (nearest neighbour), all methods and HR.
    One column for each leaf shows its prediction, its weight in viridis from 0 to 1, and its difference from the mean
    of the leaves, times 8, where grey is 0. Without a part, the error of the last method takes the place of the whole
    HR; without weights, all images are in one row. Scores that ``result`` lacks are computed, by the protocol.
    """
    scale = result.hr.shape[-1] // result.lr.shape[-1]
    box = part.box(result.lr.shape[-2:], scale)
    shown = _cut(result, box, scale)
    is_whole = shown.lr.shape == result.lr.shape
    zoom = _whole_zoom(result.hr) if is_whole else float(part.zoom)
    methods = {name: image for name, image in shown.images.items() if not name.startswith(_LEAF)}

    def cell(name: str) -> Cell:
        image = shown.images[name]
        known = result.scores.get(name) if is_whole else None
        scores = known or image_scores(image, shown.hr, scale=scale, protocol=protocol)
        return Cell(_zoomed(to_image(image), zoom), name, f"{scores['psnr']:.2f} dB / {scores['ssim']:.4f}")

    def difference_cell(name: str, difference: Tensor) -> Cell:
        rms = difference.square().mean().sqrt().item()
        return Cell(_zoomed(difference_image(difference), zoom), f"{name}, x{GAIN}", f"rms {rms:.4f}")

    lr = to_image(shown.lr)
    cells = [
        Cell(_zoomed(_zoomed(lr, scale), zoom), "LR", f"{lr.width}x{lr.height}"),
        *map(cell, methods),
        Cell(_zoomed(to_image(shown.hr), zoom), "HR", f"PSNR / SSIM ({protocol})"),
    ]
    if not is_whole:
        cells.insert(0, _overview(result.hr, [scale * value for value in box], cells[-1].image.size))
    if shown.weights is None:
        return draw_grid([cells])
    for name in list(reversed(methods))[: -len(cells) % _ROWS]:  # fill the last column
        cells.append(difference_cell(f"{name} - HR", methods[name] - shown.hr))
    columns = [cells[first : first + _ROWS] for first in range(0, len(cells), _ROWS)]
    leaves = [name for name in shown.images if name not in methods]
    for name, weight in zip(leaves, shown.weights[0].numpy(), strict=True):
        leaf = name.removeprefix(_LEAF)
        note = f"{weight.min():.2f} to {weight.max():.2f}, mean {weight.mean():.2f}"
        weight_cell = Cell(_zoomed(colour_weights(weight).convert("RGB"), zoom), f"weight {leaf}", note)
        columns.append([cell(name), weight_cell, difference_cell(f"{leaf} - mean", shown.images[name] - methods[MEAN])])
    return draw_grid(list(zip(*columns, strict=True)), {1: WEIGHT_BAR, 2: DIFFERENCE_BAR})


def panel_name(pairs: Sequence[ImagePair], index: int) -> str:
    """Return the file name of a pair's images, without suffix: the stem of its LR, after its number if not unique."""
    stems = [pair.lr.stem for pair in pairs]
    return stems[index] if stems.count(stems[index]) == 1 else f"{index:04d}_{stems[index]}"


def to_image(image: Tensor) -> Image.Image:
    """Return the first of N×3×H×W, RGB in [0, 1], as an 8-bit image, clamped and rounded."""
    pixels = image[0].clamp(0, 1).mul_(255).round_().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def difference_image(difference: Tensor) -> Image.Image:
    """Return a difference of images, N×3×H×W, times 8 around grey, as an 8-bit image."""
    return to_image(0.5 + GAIN * difference)


def _cut(result: ImageResult, box: Sequence[int], scale: int) -> ImageResult:
    """Return a part of the images, on the CPU in single precision; the box is in LR pixels."""
    left, top, right, bottom = box

    def cut(image: Tensor, factor: int = scale) -> Tensor:
        return image[..., top * factor : bottom * factor, left * factor : right * factor].cpu().float()

    images = {name: cut(image) for name, image in result.images.items()}
    weights = None if result.weights is None else cut(result.weights)
    return replace(result, lr=cut(result.lr, 1), hr=cut(result.hr), images=images, weights=weights)


def _whole_zoom(hr: Tensor) -> float:
    """Return the factor of a whole image: a whole number, or 1 over a whole number."""
    side = max(hr.shape[-2:])
    return max(1, _SMALL // side) if side <= _LARGE else 1 / -(-side // _LARGE)


def _zoomed(image: Image.Image, factor: float) -> Image.Image:
    """Enlarge an image by repeating pixels, or reduce it to the mean of blocks of pixels."""
    if factor < 1:
        return image.reduce(round(1 / factor))
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.NEAREST)


def _overview(hr: Tensor, box: Sequence[int], size: tuple[int, int]) -> Cell:
    """Return the whole HR, reduced or enlarged to fit into a size, with the box, which is in HR pixels."""
    image = to_image(hr)
    factor = min(size[0] / image.width, size[1] / image.height)
    image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    line = max(2, max(size) // 128)
    left, top = (max(0, factor * value - line) for value in box[:2])
    right, bottom = (min(factor * end + line, last - 1) for end, last in zip(box[2:], image.size, strict=True))
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline=_BOX, width=line)
    width, height = hr.shape[-1], hr.shape[-2]
    return Cell(image, f"HR {width}x{height}", f"{box[2] - box[0]}x{box[3] - box[1]} at {box[0]},{box[1]}")


def draw_grid(rows: Sequence[Sequence[Cell]], bars: Mapping[int, Bar] | None = None) -> Image.Image:
    """Draw rows of cells of one length, with bars by row; gaps and captions scale with the images."""
    bars = bars or {}
    cells = [cell for row in rows for cell in row]
    width = max(_LEAST_WIDTH, *(cell.image.width for cell in cells))
    height = max(cell.image.height for cell in cells)
    font = _font([text for cell in cells for text in (cell.name, cell.note)], width)
    line, gap = round(1.25 * font.size), max(4, width // 32)
    row_height = height + 2 * line + 2 * gap
    right = gap + len(rows[0]) * (width + gap)
    ticks = [tick for bar in bars.values() for tick in bar.ticks]
    margin = round(1.5 * font.size + max(map(font.getlength, ticks)) + gap) if bars else 0
    grid = Image.new("RGB", (right + margin, len(rows) * row_height), color=_BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for number, row in enumerate(rows):
        top = gap + number * row_height
        for column, cell in enumerate(row):
            left = gap + column * (width + gap)
            grid.paste(cell.image, (left + (width - cell.image.width) // 2, top + (height - cell.image.height) // 2))
            for place, text in enumerate((cell.name, cell.note)):
                draw.text((left + width // 2, top + height + gap // 2 + place * line), text, _TEXT, font, anchor="ma")
        if number in bars:
            bar = bars[number]
            grid.paste(bar.colours.resize((int(font.size), height), Image.Resampling.NEAREST), (right, top))
            for tick, y, anchor in zip(bar.ticks, (0, height // 2, height), ("la", "lm", "ld"), strict=True):
                draw.text((right + round(1.4 * font.size), top + y), tick, _TEXT, font, anchor=anchor)
    return grid


def _font(texts: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's font in the largest size, up to a fourteenth of the width, in which all texts fit."""
    font = ImageFont.load_default(width / 14)
    assert isinstance(font, ImageFont.FreeTypeFont)  # with a size, Pillow returns no bitmap font
    return font.font_variant(size=font.size * min(1, width / max(map(font.getlength, texts))))
