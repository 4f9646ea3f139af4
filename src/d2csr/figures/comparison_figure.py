"""Drawing of a figure with matplotlib, as PDF and PNG."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from d2csr.errors import printable
from d2csr.evaluation.report import Scores
from d2csr.figures.figure_content import Cell, Content
from d2csr.figures.figure_layout import Box, Layout, Style, layout
from d2csr.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".pdf", ".png")

_INCH = 25.4  # mm
_COLOURS = ("#d7191c", "#2c7fb8", "#f5a300", "#1b9e4b", "#984ea3", "#00a5a5")  # of the boxes
_FRAME = 0.9  # line width of boxes and frames, in points


def write_figure(content: Content, style: Style, paths: Sequence[Path]) -> tuple[float, float]:
    """Write a figure as files with suffixes of :data:`FORMATS`, and return its width and height in millimetres.

    Raises:
        ConfigError: the width is too small for the content.
    """
    from matplotlib import rc_context

    sizes = [(crop.width, crop.height) for crop in content.crops]
    height, width = content.overview.shape[:2]
    places = layout(style, sizes, len(content.rows[0]), (width, height), with_scores=bool(content.note))
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs each glyph
    settings: Any = {"pdf.fonttype": 42, "font.family": "sans-serif", "font.size": style.font_pt}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = _draw(content, places, style)
        for path in paths:
            kind = path.suffix[1:]
            with atomic_write(path) as partial:
                figure.savefig(partial, format=kind, dpi=style.dpi)
    return places.width, places.height


def _draw(content: Content, places: Layout, style: Style) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(places.width / _INCH, places.height / _INCH), facecolor="white")
    if places.overview:
        axes = _image(figure, places, places.overview, _reduced(content.overview, places.overview, style.dpi), None)
        _boxes(axes, content, style.font_pt)
    for number, (row, boxes) in enumerate(zip(content.rows, places.cells, strict=True)):
        best = _best(row)
        colour = _COLOURS[number % len(_COLOURS)] if places.overview else None
        for cell, box in zip(row, boxes, strict=True):
            _image(figure, places, box, cell.image, colour)
            _caption(figure, places, box, cell, best)
        if name := content.crops[number].name:
            tag = _tag_style(colour or "black", style.font_pt)
            _text(figure, places, boxes[0].left + 0.6, boxes[0].top + 0.6, printable(name), **tag)
    if content.note:
        note = _text(figure, places, 0, places.note, content.note, fontsize=0.85 * style.font_pt)
        _shrink(figure, note, places.width)
    return figure


def _image(figure: Figure, places: Layout, box: Box, image: np.ndarray, colour: str | None) -> Any:
    """Draw an image into its place; its pixels are repeated, and stay as they are in a PDF."""
    left, bottom = box.left / places.width, 1 - (box.top + box.height) / places.height
    axes = figure.add_axes((left, bottom, box.width / places.width, box.height / places.height))
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="none", aspect="auto", extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=colour is not None, color=colour or "black", linewidth=_FRAME)
    return axes


def _boxes(axes: Any, content: Content, font_pt: float) -> None:
    """Draw the crops as boxes with their names into the whole image; a white line stands out from any background."""
    from matplotlib.patches import Rectangle

    height, width = content.overview.shape[:2]
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.images[0].set_extent((0, width, height, 0))
    for number, crop in enumerate(content.crops):
        for colour, line in (("white", 2.2 * _FRAME), (_COLOURS[number % len(_COLOURS)], 1.2 * _FRAME)):
            box = (crop.x, crop.y), crop.width, crop.height
            axes.add_patch(Rectangle(*box, fill=False, edgecolor=colour, linewidth=line))
        if crop.name:
            below = crop.y < height / 8  # no space above
            axes.annotate(
                printable(crop.name),
                (crop.x, crop.y + crop.height if below else crop.y),
                xytext=(0, -2 if below else 2),
                textcoords="offset points",
                verticalalignment="top" if below else "bottom",
                **_tag_style(_COLOURS[number % len(_COLOURS)], font_pt),
            )


def _caption(figure: Figure, places: Layout, box: Box, cell: Cell, best: str) -> None:
    middle, top = box.left + box.width / 2, box.top + box.height + 0.5
    label = _text(figure, places, middle, top, printable(cell.label), horizontalalignment="center")
    _shrink(figure, label, box.width)
    if cell.scores is None:
        return
    text = _score_text(cell.scores)
    scores = _text(figure, places, middle, top + places.line, text, horizontalalignment="center")
    if text == best:
        scores.set_fontweight("bold")
    _shrink(figure, scores, box.width)


def _text(figure: Figure, places: Layout, left: float, top: float, text: str, **settings: Any) -> Any:
    share = left / places.width, 1 - top / places.height
    return figure.text(*share, text, verticalalignment="top", **{"parse_math": False, **settings})


def _tag_style(colour: str, font_pt: float) -> dict[str, Any]:
    """Return the settings of a crop's name: white on the colour of its box."""
    return {
        "color": "white",
        "fontsize": 0.85 * font_pt,
        "parse_math": False,
        "bbox": {"facecolor": colour, "edgecolor": "none", "pad": 1},
    }


def _shrink(figure: Figure, text: Any, width: float) -> None:
    """Reduce a text that is wider than a cell; the width is in millimetres."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    limit = 0.99 * width / _INCH * figure.dpi
    while (extent := text.get_window_extent(renderer).width) > limit:  # hinting makes widths grow in steps
        text.set_fontsize(text.get_fontsize() * min(limit / extent, 0.98))


def _score_text(scores: Scores) -> str:
    return f"{scores['psnr']:.2f} / {scores['ssim']:.4f}"


def _best(row: Sequence[Cell]) -> str:
    """Return the scores, as printed, of the method with the highest PSNR, if there are several methods."""
    scored = [cell.scores for cell in row if cell.scores and not math.isnan(cell.scores["psnr"])]
    return _score_text(max(scored, key=lambda scores: scores["psnr"])) if len(scored) > 1 else ""


def _reduced(image: np.ndarray, box: Box, dpi: int) -> np.ndarray:
    """Return the whole image with the pixels that its place has, if it has more."""
    size = math.ceil(box.width / _INCH * dpi), math.ceil(box.height / _INCH * dpi)
    if size[0] >= image.shape[1]:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
