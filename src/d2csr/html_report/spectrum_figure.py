"""Figure of radial power spectra, once for a light and once for a dark page."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d2csr.errors import printable

_SIZE = (7.0, 3.6)  # inches
_THEMES = {  # text and axes, grid, lines
    "light": ("#3b4149", "#d9dde2", ("#1f5fbf", "#c2410c", "#0f766e", "#7e22ce", "#a16207", "#be185d", "#4d7c0f")),
    "dark": ("#c3c9d0", "#343a41", ("#7fb0ff", "#fb9a5b", "#4fd1c0", "#c79bff", "#e5c04b", "#f58ab8", "#a8d65c")),
}


class Spectrum(NamedTuple):
    """A line of the figure."""

    name: str
    is_hr: bool
    frequencies: np.ndarray
    densities: np.ndarray


def write_spectra(spectra: Sequence[Spectrum], folder: Path) -> dict[str, str]:
    """Write ``spectrum-light.svg`` and ``spectrum-dark.svg``, and return their names by theme."""
    names = {theme: f"spectrum-{theme}.svg" for theme in _THEMES}
    for theme, name in names.items():
        _write(spectra, folder / name, *_THEMES[theme])
    return names


def _write(spectra: Sequence[Spectrum], path: Path, text: str, grid: str, colours: tuple[str, ...]) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "d2csr"}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), text)
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the fonts
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        lines = []
        for number, (_, is_hr, frequencies, densities) in enumerate(spectra):
            colour, width = (text, 1.8) if is_hr else (colours[number % len(colours)], 1.2)
            floored = np.maximum(densities, np.finfo(float).tiny)
            lines += axes.plot(frequencies, floored, color=colour, linewidth=width, linestyle="--" if is_hr else "-")
        axes.set(yscale="log", xlim=(0, 0.5), xlabel="frequency (cycles/pixel)", ylabel="power spectral density")
        axes.grid(color=grid, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        # A label that begins with an underscore would be left out.
        legend = axes.legend(lines, [f" {printable(one.name)}" for one in spectra], frameon=False, ncols=2)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
