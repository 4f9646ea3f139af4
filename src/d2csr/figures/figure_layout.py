"""Size of a figure, and the places of its parts, in millimetres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from d2csr.checks import number, one_of, whole_number
from d2csr.errors import ConfigError

OVERVIEWS = ("left", "top", "none")

_MARGIN = 0.2  # for the frames, whose lines exceed their cells by a half
_GAP = 1.2  # between cells
_LEAST_CELL = 6.0  # width of a cell; below, its caption cannot be read
_LINE = 0.43  # height of a line of text, in mm per point


@dataclass(frozen=True)
class Style:
    """Size and form of a figure; a ConfigError names a value out of its range. Defaults are in ``conf/figure.yaml``."""

    width_mm: float  # width in millimetres; 84 and 174 are one and two columns of many journals
    dpi: int  # pixels per inch of the PNG, and of the whole image in the PDF. Crops keep their pixels in the PDF.
    font_pt: float  # size of the text in points
    columns: int | None  # of crops; None chooses them
    overview: str  # place of the whole image with the boxes: ``left``, ``top`` or ``none``

    def __post_init__(self) -> None:
        number("width_mm", self.width_mm, least=20, below=2001)
        whole_number("dpi", self.dpi, 50, 2400)
        number("font_pt", self.font_pt, least=4, below=25)
        if self.columns is not None:
            whole_number("columns", self.columns)
        one_of("overview", self.overview, OVERVIEWS)


class Box(NamedTuple):
    """A rectangle; the origin is the figure's upper left corner."""

    left: float
    top: float
    width: float
    height: float


class Layout(NamedTuple):
    """The size of a figure and the places of its parts."""

    width: float
    height: float
    overview: Box | None  # of the whole image
    cells: Sequence[Sequence[Box]]  # by crop, of the cells of all methods
    line: float  # the height of a line of text
    note: float  # the upper edge of the note at the bottom


def layout(
    style: Style, crop_sizes: Sequence[tuple[int, int]], methods: int, image_size: tuple[int, int], *, with_scores: bool
) -> Layout:
    """Return the places that fill a width exactly.

    Sizes are width and height. Without ``columns`` all methods of a crop are in one row, those of a single crop in two.
    Scores need a line in each caption, and one for the note at the bottom.

    Raises:
        ConfigError: the cells would be too small.
    """
    width, columns, overview = style.width_mm, style.columns, style.overview
    if columns is None:
        columns = math.ceil(methods / 2) if len(crop_sizes) == 1 and methods > 3 and overview == "left" else methods
    columns = min(columns, methods)
    line = _LINE * style.font_pt
    caption = (2 if with_scores else 1) * line + 0.5
    bands = math.ceil(methods / columns)  # rows of cells of one crop
    slopes = [size[1] / size[0] for size in crop_sizes for _ in range(bands)]  # height of a cell per width
    fixed = len(slopes) * caption + (len(slopes) - 1) * _GAP  # of the grid's height
    aspect = image_size[0] / image_size[1]
    inner = width - 2 * _MARGIN
    gaps = (columns - 1) * _GAP
    if overview == "left":
        # The image is as high as the grid, less the last caption.
        cell = (inner - gaps - _GAP - aspect * (fixed - caption)) / (columns + aspect * sum(slopes))
    else:
        cell = (inner - gaps) / columns
    if cell < _LEAST_CELL:
        raise ConfigError(
            f"width_mm: {width:g} mm leave {max(cell, 0):.1f} mm for a crop, and {_LEAST_CELL:g} mm are needed. Set a "
            "larger width_mm, fewer methods or crops, or overview=top or none."
        )
    box, left, top = None, _MARGIN, _MARGIN
    if overview == "left":
        box = Box(left, top, inner - columns * cell - gaps - _GAP, cell * sum(slopes) + fixed - caption)
        left += box.width + _GAP
    elif overview == "top":
        box = Box(left, top, inner, inner / aspect)
        top += box.height + _GAP
    cells = []
    for crop_width, crop_height in crop_sizes:
        height = cell * crop_height / crop_width
        cells.append(_cells_of_crop(left, top, cell, height, caption, methods, columns))
        top += bands * (height + caption + _GAP)
    bottom = top - _GAP
    return Layout(width, bottom + (line if with_scores else 0), box, cells, line, bottom)


def _cells_of_crop(
    left: float, top: float, cell: float, height: float, caption: float, methods: int, columns: int
) -> list[Box]:
    """Return the places of one crop, row by row; ``cell`` is the width of a place."""
    places = (divmod(number, columns) for number in range(methods))
    return [
        Box(left + column * (cell + _GAP), top + band * (height + caption + _GAP), cell, height)
        for band, column in places
    ]
