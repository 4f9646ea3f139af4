"""Grids of captioned images with colour bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _TEXT = (255, 255, 255), (20, 20, 20)
_LEAST_WIDTH = 128  # of a cell, in pixels: below, captions cannot be read
_LINES = 2  # of a caption


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


def draw_grid(rows: Sequence[Sequence[Cell]], bars: Mapping[int, Bar] | None = None) -> Image.Image:
    """Draw rows of cells of one length, with bars by row; gaps and captions scale with the images."""
    bars = bars or {}
    cells = [cell for row in rows for cell in row]
    width = max(_LEAST_WIDTH, *(cell.image.width for cell in cells))
    height = max(cell.image.height for cell in cells)
    font = _font([text for cell in cells for text in (cell.name, cell.note)], width)
    line, gap = round(1.25 * font.size), max(4, width // 32)
    row_height = height + _LINES * line + 2 * gap
    right = gap + len(rows[0]) * (width + gap)
    ticks = [tick for bar in bars.values() for tick in bar.ticks]
    margin = round(1.5 * font.size + max(map(font.getlength, ticks)) + gap) if bars else 0
    grid = Image.new("RGB", (right + margin, len(rows) * row_height), color=_BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for number, row in enumerate(rows):
        top = gap + number * row_height
        for column, cell in enumerate(row):
            left = gap + column * (width + gap)
            space = width - cell.image.width, height - cell.image.height
            grid.paste(cell.image, (left + space[0] // 2, top + space[1] // 2))
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
    size = width / 14
    longest = max(map(_default_font(size).getlength, texts))
    return _default_font(size * min(1, width / longest))


def _default_font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # with a size, Pillow returns no bitmap font
    return font
