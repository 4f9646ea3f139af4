"""Plots of the study: effect of the divergence weight, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from study_tables import GREY_LEVELS, TABLES, Arm, Runs, Table, arms_of, difference_of, mean_of, mean_psnr

from d2csr.plotting.styles import REFERENCE, chart_style, colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ROW = 10.0, 0.24  # inches
_LINES = {  # sweep: label
    "divergence_weight": "paper's margins",
    "divergence_margins": "margins × 1000",
    "divergence_hinge": "margins × 1000, without the error term",
    "divergence_kinship": "uniform margins",
    "divergence_windows": "always on",
    "divergence_windows_hinge": "always on, margins × 1000, without the error term",
}
_MARKERS = "os^Dv*"


def divergence_figure(runs: Runs) -> Figure:
    """Draw PSNR, distance of the leaves, correlation of their errors and gain of the oracle over the weight."""
    from matplotlib.figure import Figure

    weights = sorted({float(rows[0]["weight"]) for arm, rows in runs.items() if arm[0] in _LINES})
    with chart_style():
        figure = Figure(figsize=(_WIDTH, 6.8), layout="constrained")
        axes = list(figure.subplots(2, 2).flat)
        for number, (sweep, label) in enumerate(_LINES.items()):
            arms = sorted((arm for arm in runs if arm[0] == sweep), key=lambda arm: float(runs[arm][0]["weight"]))
            if not arms:
                continue
            places = [weights.index(float(runs[arm][0]["weight"])) for arm in arms]
            style = {"color": colours(len(_LINES))[number], "marker": _MARKERS[number], "label": label}
            shifted = [place + 0.09 * (number - 2) for place in places]
            _differences(axes[0], runs, arms, shifted, style)
            axes[1].plot(places, [(mean_of(runs[arm], "distance") or 0) * GREY_LEVELS for arm in arms], **style)
            axes[2].plot(places, [mean_of(runs[arm], "error_correlation") for arm in arms], **style)
            gains = [mean_psnr(runs[arm], "oracle per pixel") - mean_psnr(runs[arm], "fusion") for arm in arms]
            axes[3].plot(places, gains, **style)
        titles = (
            "PSNR of the fusion, difference to the paper (dB)",
            "Distance of the leaves (grey levels)",
            "Correlation of the leaves' errors",
            "Oracle per pixel over the fusion (dB)",
        )
        for at, title in zip(axes, titles, strict=True):
            at.set_title(title)
            at.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
            at.set_xlabel("weight of the divergence loss")
        axes[0].set_yscale("symlog", linthresh=0.3)  # linear around zero: a large loss would hide the small gains
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].set_yticks([-3, -1, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3])
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _differences(at: Axes, runs: Runs, arms: Sequence[Arm], places: Sequence[float], style: dict[str, str]) -> None:
    at.axhline(0, color=REFERENCE, linewidth=0.8)
    for arm, place in zip(arms, places, strict=True):
        if interval := difference_of(TABLES[0], runs, arm):
            ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
            at.errorbar(place, interval.mean, ends, **{**style, "label": None}, linestyle="", capsize=2, markersize=5)


def differences_figure(tables: Sequence[Table], runs: Runs) -> Figure:
    """Draw the difference of each arm to its reference, with its interval, one chart a table."""
    from matplotlib.figure import Figure

    drawn = {table: _drawable(table, runs) for table in tables}
    drawn = {table: arms for table, arms in drawn.items() if arms}
    heights = [len(arms) + 2 for arms in drawn.values()]
    with chart_style():
        figure = Figure(figsize=(_WIDTH, 0.6 + _ROW * sum(heights)), layout="constrained")
        axes = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0] if drawn else []
        for at, (table, arms) in zip(axes, drawn.items(), strict=True):
            at.axvline(0, color=REFERENCE, linewidth=0.8)
            for place, arm in enumerate(arms):
                interval = difference_of(table, runs, arm)
                assert interval is not None
                ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
                colour = colours(2)[0] if interval.excludes_zero else REFERENCE
                at.errorbar(interval.mean, place, xerr=ends, color=colour, marker="o", capsize=2, markersize=4)
            at.set_yticks(range(len(arms)), [table.label(runs[arm][0]).replace("`", "") for arm in arms])
            at.set_ylim(len(arms) - 0.4, -0.6)
            at.set_title(f"{table.title}, difference to {table.against} (dB)")
    return figure


def _drawable(table: Table, runs: Runs) -> list[Arm]:
    return [arm for arm in arms_of(table, runs) if difference_of(table, runs, arm) is not None]
