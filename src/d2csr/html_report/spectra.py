"""Radial power spectra of images, and their figure, once for a light and once for a dark page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from d2csr.errors import printable
from d2csr.files import atomic_write

_WINDOW = 256  # largest side of a window, in pixels

_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601


def radial_spectrum(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the power spectral density of an image's luma, averaged over all directions.

    Welch's method: square windows of at most 256 pixels, which overlap by half, less their means and times a Hann
    window. The method averages the periodograms, so that memory and the frequencies do not depend on the image's size.

    Args:
        image: 1×3×H×W, RGB in [0, 1], at least 16 pixels a side.

    Returns:
        Frequencies in cycles per pixel, up to 0.5, and the density at each, in squared luma per (cycle/pixel)².
        White noise of variance v has the density v.
    """
    luma = torch.einsum("c,chw->hw", _LUMA, image[0].cpu().float().clamp(0, 1))
    side = min(_WINDOW, *luma.shape)
    taper = torch.outer(*2 * [torch.hann_window(side)])
    power, count = torch.zeros(side, side), 0
    for windows in luma.unfold(0, side, side // 2).unfold(1, side, side // 2):  # of one row, which bounds the memory
        tapered = (windows - windows.mean(dim=(1, 2), keepdim=True)) * taper
        power += torch.fft.fft2(tapered).abs().square().sum(dim=0)
        count += len(windows)
    power /= count * taper.square().sum()
    axis = torch.fft.fftfreq(side) * side
    radius = torch.hypot(*torch.meshgrid(axis, axis, indexing="ij")).round().long()
    members = torch.bincount(radius.flatten())
    means = torch.bincount(radius.flatten(), power.flatten().double()) / members
    shown = slice(1, side // 2 + 1)  # without the mean, and up to the highest frequency of a row or column
    return np.arange(1, side // 2 + 1) / side, means[shown].numpy()


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
