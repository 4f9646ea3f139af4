"""Colours and text sizes of the charts, for the screen and for print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from d2csr.errors import printable

# The palette for colour-blind readers of Okabe and Ito (https://jfly.uni-koeln.de/color), without its yellow, which is
# too light on white; ordered so that neighbours also differ in lightness, for print in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
MAIN = "#000000"  # the fusion
REFERENCE = "#808080"  # bicubic
WINDOW = "#E6E6E6"  # epochs with an active divergence loss
STAGE = "#404040"  # the start of the second stage
_MAX_NAME = 60

_SETTINGS = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.axisbelow": True,
    "figure.titlesize": 12,
    "grid.color": "#C8C8C8",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "lines.linewidth": 1.4,
    "savefig.dpi": 150,
    "svg.hashsalt": "d2csr",  # the same file from the same log
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def colours(count: int) -> list[str]:
    """Return colours for a number of lines: the palette, or, for more, colours from dark to light of viridis."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.92 * index / (count - 1))) for index in range(count)]


@contextmanager
def chart_style() -> Iterator[None]:
    """Use matplotlib's defaults with the settings of this package, whatever the user's matplotlibrc says."""
    import matplotlib

    settings: dict[str, Any] = {**matplotlib.rcParamsDefault, **_SETTINGS}
    settings = {key: value for key, value in settings.items() if not key.startswith(("backend", "interactive"))}
    with matplotlib.rc_context(settings):
        yield


def plain_label(name: str) -> str:
    """Return a name as a text of a chart: escaped, shortened, and neither mathematics nor a hidden label."""
    short = " ".join(printable(name).split())
    short = short if len(short) <= _MAX_NAME else f"{short[: _MAX_NAME // 2]}…{short[-_MAX_NAME // 2 + 1 :]}"
    return ("\u200b" if short.startswith("_") else "") + short.replace("$", r"\$")
