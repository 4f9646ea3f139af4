"""Charts of the quantities that a training logs. docs/logging.md defines their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from d2csr.plotting.run_log import RunLog

MAX_OTHERS = 8  # charts of columns that this package does not log
_LEAF = re.compile(r"((?:train|val)/psnr)_([1-9]+)")
_NOT_DRAWN = {"epoch", "train/samples_per_second", "train/memory_gb", "train/divergence_weight"}


@dataclass(frozen=True)
class Curve:
    """A column of the log, the label of its line, its dashes, and whether it is a leaf's."""

    column: str
    label: str
    dash: str = "-"
    leaf: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves of one unit. ``log``: logarithmic, where all values are above 0; zeros are gaps."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    log: bool = False


_RECONSTRUCTION = Curve("train/reconstruction", "reconstruction, sum over the leaves")
_CHARTS = (
    Chart("Losses", "loss", (_RECONSTRUCTION, Curve("train/fusion", "fusion", "--")), log=True),
    Chart("Divergence loss times its weight", "loss", (Curve("train/divergence", "divergence"),), log=True),
    Chart("PSNR, validation", "dB", (Curve("val/psnr", "fusion"), Curve("val/psnr_bicubic", "bicubic", ":"))),
    Chart("PSNR, training patches", "dB", (Curve("train/psnr", "fusion"),)),
    Chart(
        "Distance of the leaves",
        "RMS difference, RGB in [0, 1]",
        (
            Curve("train/distance", "all pairs"),
            Curve("train/distance_same", "pairs with one parent", "--"),
            Curve("train/distance_diff", "other pairs", ":"),
        ),
        log=True,
    ),
    Chart("Entropy of the fusion weights", "entropy (1: equal weights)", (Curve("train/entropy", "entropy"),)),
    Chart("SSIM, validation", "SSIM", (Curve("val/ssim", "fusion"),)),
    Chart("Learning rate", "learning rate", (Curve("train/lr", "learning rate"),)),
)
_LEAF_DASHES = ("--", "-.", ":")


def charts_of(logs: Sequence[RunLog]) -> tuple[list[Chart], list[str]]:
    """Return the charts of columns that one of the logs has, and the names of the columns that have no place.

    A column that this package does not log, such as ``train/loss`` of another task, gets a chart of its own.
    """
    present = list(dict.fromkeys(column for log in logs for column in log.columns))
    charts = [replace(chart, curves=_present_curves(chart, present)) for chart in _CHARTS]
    charts = [chart for chart in charts if chart.curves]
    drawn = {curve.column for chart in charts for curve in chart.curves} | _NOT_DRAWN
    others = [column for column in present if column not in drawn]
    charts += [Chart(column, column.rpartition("/")[2], (Curve(column, column),)) for column in others[:MAX_OTHERS]]
    return charts, others[MAX_OTHERS:]


def _present_curves(chart: Chart, present: Sequence[str]) -> tuple[Curve, ...]:
    """Return the curves of a chart that are logged, with those of the leaves beside the PSNR of the fusion."""
    curves = [curve for curve in chart.curves if curve.column in present]
    beside = {curve.column for curve in chart.curves}
    leaves = [match for match in map(_LEAF.fullmatch, present) if match and match[1] in beside]
    leaves.sort(key=lambda match: (len(match[2]), match[2]))
    curves += [
        Curve(match[0], f"leaf {match[2]}", _LEAF_DASHES[index % len(_LEAF_DASHES)], leaf=True)
        for index, match in enumerate(leaves)
    ]
    return tuple(curves)
