"""Figure of training curves: a chart for each quantity, one or several runs, divergence windows shaded."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2csr.checks import one_of, require_packages
from d2csr.errors import ConfigError, printable
from d2csr.files import atomic_write
from d2csr.plotting.divergence_windows import Window, divergence_windows, second_stage_step
from d2csr.plotting.lines import MOST_POINTS, draw_line, draw_range, line_of
from d2csr.plotting.quantities import Chart, Curve, charts_of
from d2csr.plotting.run_log import RunLog, epoch_starts
from d2csr.plotting.styles import MAIN, REFERENCE, STAGE, WINDOW, chart_style, colours, plain_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

FORMATS = (".png", ".svg", ".pdf")
MAX_RUNS = 24
_LEGEND_WIDTH = 130  # characters
_WIDTH, _ROW, _HEAD = 10.0, 2.4, 1.0  # inches


def draw_curves(logs: Sequence[RunLog]) -> Figure:
    """Return the figure of one run, or of several runs on the same axes, at most :data:`MAX_RUNS`.

    Raises:
        ConfigError: matplotlib is not installed, or the number of runs is out of range.
    """
    require_packages("A figure", ["matplotlib"], "report")
    if not 1 <= len(logs) <= MAX_RUNS:
        raise ConfigError(f"run: must name 1 to {MAX_RUNS} runs, got {len(logs)}.")
    from matplotlib.figure import Figure

    charts, others = charts_of(logs)
    if others:
        _log.info("%d more columns are not drawn: %s", len(others), printable(", ".join(others[:10])))
    rows = -(-len(charts) // 2)
    with chart_style():
        figure = Figure(figsize=(_WIDTH, _HEAD + _ROW * rows), layout="constrained")
        grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
        axes = list(grid.flat)
        for unused in axes[len(charts) :]:
            unused.remove()
        for chart, at in zip(charts, axes, strict=False):
            _draw_chart(at, chart, logs)
        _finish_steps(axes[: len(charts)], logs)
        marks = _mark_schedule(axes[: len(charts)], logs)
        _write_heading(figure, logs, marks)
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix, one of :data:`FORMATS`, atomically and without a date.

    Raises:
        ConfigError: another suffix.
        OSError: the file cannot be written.
    """
    suffix = one_of("output", path.suffix.lower(), FORMATS)
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with chart_style(), warnings.catch_warnings(), atomic_write(path) as partial:
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # the layout stays; with any engine, also "none", a format is drawn twice
        figure.savefig(partial, format=suffix[1:], metadata=metadata)


def _draw_chart(axes: Axes, chart: Chart, logs: Sequence[RunLog]) -> None:
    """Draw the curves of a chart: in the colours of the runs, or, of one run, each in its own colour."""
    series = [log.columns[curve.column].values for log in logs for curve in chart.curves if curve.column in log.columns]
    log_scale = chart.log and not any((values < 0).any() for values in series) and any((v > 0).any() for v in series)
    if log_scale:
        axes.set_yscale("log")
    axes.set_title(plain_label(chart.title))
    axes.set_ylabel(plain_label(chart.unit))
    if len(logs) == 1:
        for curve, colour in zip(chart.curves, _curve_colours(chart.curves), strict=True):
            _draw_curve(axes, logs[0], curve, colour, log_scale)
        entries = axes.get_legend_handles_labels()
    else:
        for log, colour in zip(logs, colours(len(logs)), strict=True):
            for curve in (curve for curve in chart.curves if not curve.leaf):
                _draw_curve(axes, log, curve, colour, log_scale)
            leaves = [log.columns[curve.column] for curve in chart.curves if curve.leaf and curve.column in log.columns]
            draw_range(axes, [line_of(leaf) for leaf in leaves], colour)
        entries = _legend_of_dashes(chart)
    if chart.title == "Learning rate":
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
    if len(entries[0]) > 1:
        axes.legend(*entries, ncols=2 if len(entries[0]) > 3 else 1)


def _draw_curve(axes: Axes, log: RunLog, curve: Curve, colour: str, log_scale: bool) -> None:
    if curve.column in log.columns:
        line = line_of(log.columns[curve.column], above_zero=log_scale)
        width = {"linewidth": 1.0} if curve.leaf else {}
        style = {"color": colour, "linestyle": curve.dash, "label": plain_label(curve.label), **width}
        draw_line(axes, line, band=not curve.leaf, **style)


def _curve_colours(curves: Sequence[Curve]) -> list[str]:
    """Return the colours of the curves of one run: black beside leaves, grey for bicubic, else the palette."""
    among_leaves = any(curve.leaf for curve in curves)
    others = iter(colours(len(curves)))
    return [
        REFERENCE if curve.label == "bicubic" else MAIN if among_leaves and not curve.leaf else next(others)
        for curve in curves
    ]


def _legend_of_dashes(chart: Chart) -> tuple[list[Any], list[str]]:
    """Return the legend of a chart of several runs, whose colours are those of the runs."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    main = [curve for curve in chart.curves if not curve.leaf]
    handles: list[Any] = [Line2D([], [], color="#404040", linestyle=curve.dash) for curve in main]
    labels = [plain_label(curve.label) for curve in main]
    if len(main) < len(chart.curves):
        handles.append(Patch(color="#404040", alpha=0.2))
        labels.append("range of the leaves")
    return handles, labels


def _finish_steps(axes: Sequence[Axes], logs: Sequence[RunLog]) -> None:
    """Set the limits and labels of the steps, and add an axis of epochs if all runs have epochs of one length."""
    from matplotlib.ticker import MaxNLocator

    last = max(log.last_step for log in logs)
    first = min(float(series.steps[0]) for log in logs for series in log.columns.values())
    first = 0 if first < last / 5 else first  # a part of a log may begin anywhere
    margin = max((last - first) * 0.02, 1)
    axes[0].set_xlim(first - margin, last + margin)  # of all, which share it
    axes[0].xaxis.set_major_formatter(_count)
    axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for at in axes[-2:]:
        at.set_xlabel("step")
        at.tick_params(labelbottom=True)
    lengths = {epoch_starts(log.epochs).length for log in logs}
    length = lengths.pop() if len(lengths) == 1 else None
    if length is None:
        return
    for at in axes[:2]:
        epochs = at.secondary_xaxis("top", functions=(lambda step: step / length, lambda epoch: epoch * length))
        epochs.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        epochs.xaxis.set_major_formatter(_count)
        epochs.set_xlabel("epoch", fontsize=8, labelpad=2)


def _count(value: float, position: int) -> str:
    """Return the label of a tick of steps or epochs."""
    return f"{value:,.0f}" if value >= 0 else ""


def _mark_schedule(axes: Sequence[Axes], logs: Sequence[RunLog]) -> list[Any]:
    """Shade the divergence windows and mark the second stage of a sequential run; return the entries of the legend.

    Of runs with different windows, those of the first run with any are shaded.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    windows = [divergence_windows(log) for log in logs]
    end = min(log.last_step for log in logs) + 1
    longest = max(range(len(logs)), key=lambda index: logs[index].last_step)
    agree = all(_clipped(one, end) == _clipped(windows[0], end) for one in windows)
    chosen = longest if agree else next(index for index, one in enumerate(windows) if one)
    edges = [edge for start, stop in windows[chosen] for edge in (start - 0.5, stop - 0.5, math.nan)]
    for at in axes if edges else ():
        at.fill_between(edges, 0, 1, color=WINDOW, linewidth=0, zorder=0, transform=at.get_xaxis_transform())
    label = "divergence loss active" if agree else f"divergence loss active ({plain_label(logs[chosen].name)})"
    marks: list[Any] = [Patch(color=WINDOW, label=label)] if windows[chosen] else []
    second = second_stage_step(logs[0]) if len(logs) == 1 else None
    if second is not None:
        for at in axes:
            at.axvline(second - 0.5, color=STAGE, linestyle=":", linewidth=1.2)
        marks.append(Line2D([], [], color=STAGE, linestyle=":", linewidth=1.2, label="second stage begins"))
    return marks


def _clipped(windows: Sequence[Window], end: float) -> list[Window]:
    return [(start, min(stop, end)) for start, stop in windows if start < end]


def _write_heading(figure: Figure, logs: Sequence[RunLog], marks: list[Any]) -> None:
    """Write the title with the legend of runs and marks, and say what the lines of a long run are."""
    from matplotlib.lines import Line2D

    names = [plain_label(log.name) for log in logs]
    title = f"Training curves of {names[0]}" if len(names) == 1 else f"Training curves of {len(names)} runs"
    runs = [Line2D([], [], color=colour, linewidth=2) for colour in colours(len(logs))] if len(logs) > 1 else []
    entries = [*zip(runs, names, strict=False), *((mark, mark.get_label()) for mark in marks)]
    columns = max(1, min(len(entries), _LEGEND_WIDTH // (8 + max((len(label) for _, label in entries), default=0))))
    handles, labels = [handle for handle, _ in entries], [label for _, label in entries]
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title, frameon=False)
    legend.get_title().set(fontsize=12, fontweight="bold")
    most = max(len(series.values) for log in logs for series in log.columns.values())
    if most > MOST_POINTS:
        text = f"Of more than {MOST_POINTS} logged values, a line shows the means of groups, and a band their range."
        figure.supxlabel(text, fontsize=8)
