"""Lines of a chart: logged values, means of long logs, gaps, and marks where a value is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from d2csr.plotting.run_log import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 400  # of a line; a chart is about 700 pixels wide
_FEW = 25  # points of a line that get markers


@dataclass(frozen=True)
class Line:
    """Points of a line; of a long series the mean, least and largest value of each group of successive rows."""

    steps: np.ndarray
    mean: np.ndarray  # NaN is a gap, also in low and high
    low: np.ndarray
    high: np.ndarray
    rows: int  # of the series in a point
    bad: np.ndarray  # steps with a NaN or infinite value


def line_of(series: Series, above_zero: bool = False) -> Line:
    """Return the points of a series, at most :data:`MOST_POINTS`; ``above_zero`` makes other values gaps."""
    finite = np.isfinite(series.values)
    shown = finite & (series.values > 0) if above_zero else finite
    values = np.where(shown, series.values, np.nan)
    rows = -(-len(values) // MOST_POINTS)
    first = np.arange(0, len(values), rows)
    count = np.add.reduceat(shown.astype(float), first)
    total = np.add.reduceat(np.where(shown, values, 0), first)
    empty = count == 0
    mean = np.where(empty, np.nan, total / np.where(empty, 1, count))
    low = np.where(empty, np.nan, np.minimum.reduceat(np.where(shown, values, np.inf), first))
    high = np.where(empty, np.nan, np.maximum.reduceat(np.where(shown, values, -np.inf), first))
    sizes = np.diff(np.append(first, len(values)))
    return Line(np.add.reduceat(series.steps, first) / sizes, mean, low, high, rows, series.steps[~finite])


def draw_line(axes: Axes, line: Line, *, band: bool = True, **style: Any) -> None:
    """Draw a line, the range of the values behind its means, and a cross at the lower edge for each bad value.

    Points get markers if they are few, or have gaps at both sides.
    """
    axes.plot(line.steps, line.mean, **style)
    marked = _marked(line)
    if marked.any():
        axes.plot(line.steps[marked], line.mean[marked], "o", color=style["color"], markersize=3)
    if line.rows > 1 and band:
        axes.fill_between(line.steps, line.low, line.high, color=style["color"], alpha=0.15, linewidth=0)
    if len(line.bad):
        edge = axes.get_xaxis_transform()
        at = np.full(len(line.bad), 0.03)
        axes.plot(line.bad, at, "x", color=style["color"], transform=edge, clip_on=False, markersize=5)


def _marked(line: Line) -> np.ndarray:
    finite = np.isfinite(line.mean)
    around = np.pad(finite, 1)
    alone = finite & ~around[:-2] & ~around[2:]
    return finite if len(finite) <= _FEW else alone


def draw_range(axes: Axes, lines: Sequence[Line], colour: str) -> None:
    """Draw the range of several lines with the same steps, as those of the leaves; others are not drawn."""
    if lines and all(np.array_equal(line.steps, lines[0].steps) for line in lines):
        means = np.stack([line.mean for line in lines])
        axes.fill_between(lines[0].steps, means.min(axis=0), means.max(axis=0), color=colour, alpha=0.2, linewidth=0)
