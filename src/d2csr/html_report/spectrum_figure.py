"""Figure of radial power spectra, once for a light and once for a dark page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d2csr.errors import printable
from d2csr.files import atomic_write

_SIZE = (7.0, 3.6)  # inches
_MARGINS = {"left": 0.09, "right": 0.99, "bottom": 0.13, "top": 0.98}  # as shares; a computed layout takes longer
_WIDTHS = {"leaf": 0.8, "method": 1.4, "hr": 1.8}  # points
_COLOURS = {  # of text and axes, the grid, the lines, all different within a theme
    "light": ("#3b4149", "#d9dde2", "#1f5fbf", "#c2410c", "#0f766e", "#7e22ce", "#a16207", "#be185d", "#4d7c0f"),
    "dark": ("#c3c9d0", "#343a41", "#7fb0ff", "#fb9a5b", "#4fd1c0", "#c79bff", "#e5c04b", "#f58ab8", "#a8d65c"),
}


class Spectrum(NamedTuple):
    """A line of the figure."""

    name: str
    kind: str  # method, leaf or hr
    frequencies: np.ndarray
    densities: np.ndarray


def write_spectra(spectra: Sequence[Spectrum], folder: Path) -> dict[str, str]:
    """Write ``spectrum-light.svg`` and ``spectrum-dark.svg``, and return their names by theme."""
    drawn = _draw(spectra, *_COLOURS["light"])
    names = {}
    for theme, colours in _COLOURS.items():
        table = dict(zip(_COLOURS["light"], colours, strict=True))
        text = re.sub(r"#[0-9a-f]{6}", lambda match, table=table: table.get(match[0], match[0]), drawn)  # type: ignore[misc]
        names[theme] = f"spectrum-{theme}.svg"
        with atomic_write(folder / names[theme]) as partial:
            partial.write_text(text, encoding="utf-8")
    return names


def _draw(spectra: Sequence[Spectrum], text: str, grid: str, *colours: str) -> str:
    """Return the figure as SVG; the browser sets its text."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "d2csr"}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), text)
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the fonts
        figure = Figure(figsize=_SIZE)
        figure.subplots_adjust(**_MARGINS)
        axes = figure.add_subplot()
        lines = []
        for number, (_, kind, frequencies, densities) in enumerate(spectra):
            colour = text if kind == "hr" else colours[number % len(colours)]
            dashes = "--" if kind == "hr" else "-"
            floored = np.maximum(densities, np.finfo(float).tiny)
            lines += axes.plot(frequencies, floored, color=colour, linewidth=_WIDTHS[kind], linestyle=dashes)
        axes.set(yscale="log", xlim=(0, 0.5), xlabel="frequency (cycles/pixel)", ylabel="power spectral density")
        axes.grid(color=grid, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        # A label that begins with an underscore would be left out.
        legend = axes.legend(lines, [f" {printable(one.name)}" for one in spectra], frameon=False, ncols=2)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
        output = io.StringIO()
        figure.savefig(output, format="svg", transparent=True, metadata={"Date": None})
    return output.getvalue()
