"""Tables of the study: which runs they compare, and their text as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from study_runs import read_results
from study_statistics import Interval, Row, paired_difference, photographs

Arm = tuple[str, str]  # sweep and arm
Runs = dict[Arm, list[Row]]

PAPER: Arm = ("divergence_weight", "weight-2e-05")  # the paper's settings, also of trees, bodies and modes
GREY_LEVELS = 255


@dataclass(frozen=True)
class Table:
    """Arms that are compared with a reference, all in the same columns.

    Attributes:
        name: of the table in the page.
        title: of the chart.
        against: what the reference is.
        sweeps: files of results; the arm with the paper's settings is added.
        columns: of :data:`COLUMNS`, or ``difference``.
        label: the text of an arm, from one of its rows.
        order: the key to sort arms by, from one of their rows.
        reference: the arm that the difference of an arm is taken to, from one of its rows.
    """

    name: str
    title: str
    against: str
    sweeps: tuple[str, ...]
    columns: tuple[str, ...]
    label: Callable[[Row], str]
    order: Callable[[Row], tuple[Any, ...]]
    reference: Callable[[Row], Arm] = lambda row: PAPER


def divergence_label(row: Row) -> str:
    """Return the settings of the divergence loss in which an arm differs from the paper."""
    parts = [f"weight {float(row['weight']):g}"]
    same, diff = float(row["margin_same"]), float(row["margin_diff"])
    if float(row["decay_rate"]) == 1 and same == diff:
        parts.append("uniform margins")
    elif same > 1e-3:
        parts.append(f"margins {same:g} and {diff:g}")
    if row["error_term"] == "False":
        parts.append("without the error term")
    if row["after"] == "-1":
        parts.append("always on")
    return ", ".join(parts)


def tree_label(row: Row) -> str:
    """Return the branching of a tree and its number of leaves."""
    levels = [int(level) for level in row["branching"].split()]
    return f"{levels}: {leaves_of(row)} {'leaves' if leaves_of(row) > 1 else 'leaf'}"


def leaves_of(row: Row) -> int:
    """Return the number of leaves of a tree."""
    return math.prod(int(level) for level in row["branching"].split())


def body_label(row: Row) -> str:
    """Return the body of a network and its kind; baselines are called ``BODY-KIND-MATCH`` in the sweep."""
    if row["architecture"] == "d2csr":
        return f"{row['body']}, tree [2, 2]"
    kind = "single path" if row["paths"] == "1" else f"ensemble of {row['paths']}"
    return f"{row['body']}, {kind}, equal {row['arm'].rpartition('-')[2]}".replace("flops", "FLOPs")


_DIVERGENCE = tuple(
    f"divergence_{factor}" for factor in ("weight", "margins", "hinge", "kinship", "windows", "windows_hinge")
)
_MODES = ("joint", "alternating", "sequential")
_LEAVES = ("psnr", "difference", "mean", "best leaf", "oracle 8x8", "oracle", "distance", "correlation", "entropy")
TABLES = (
    Table(
        "divergence",
        "Divergence loss",
        "the paper's settings",
        _DIVERGENCE,
        _LEAVES,
        divergence_label,
        lambda row: (_DIVERGENCE.index(row["sweep"]), float(row["weight"])),
    ),
    Table(
        "trees",
        "Trees of equal FLOPs",
        "[2, 2]",
        ("trees",),
        ("size", *_LEAVES),
        tree_label,
        lambda row: (leaves_of(row), len(row["branching"])),
    ),
    Table(
        "baselines",
        "Networks without a tree",
        "the tree of the same body",
        ("bodies", "baselines"),
        ("size", "flops", "psnr", "difference", "mean", "best leaf", "correlation", "seconds"),
        body_label,
        lambda row: (row["body"], row["architecture"] != "d2csr", row["paths"], row["arm"]),
        lambda row: PAPER if row["body"] == "rcab" else ("bodies", row["body"]),
    ),
    Table(
        "modes",
        "Modes of equal processor time",
        "joint",
        ("modes",),
        ("steps", "seconds", "psnr", "difference", "mean", "best leaf"),
        lambda row: f"`{row['optimization']}`",
        lambda row: (_MODES.index(row["optimization"]),),
    ),
)


def read_runs(folder: Path) -> Runs:
    """Return the rows of all files of results by sweep and arm."""
    runs: Runs = {}
    for path in sorted(folder.glob("*.csv")):
        for row in read_results(path):
            runs.setdefault((row["sweep"], row["arm"]), []).append(row)
    return runs


def arms_of(table: Table, runs: Runs) -> list[Arm]:
    """Return the arms of a table that have results, in its order."""
    arms = [arm for arm in runs if arm == PAPER or arm[0] in table.sweeps]
    return sorted(arms, key=lambda arm: table.order(runs[arm][0]))


def difference_of(table: Table, runs: Runs, arm: Arm) -> Interval | None:
    """Return the difference of an arm to its reference; None for the reference, or without common seeds."""
    reference = table.reference(runs[arm][0])
    return None if arm == reference else paired_difference(runs[arm], runs.get(reference, []))


def mean_psnr(rows: Sequence[Row], method: str) -> float:
    """Return the mean over runs and photographs, in dB."""
    return float(np.mean([np.mean(list(photographs(row, method).values())) for row in rows]))


def mean_of(rows: Sequence[Row], column: str) -> float | None:
    """Return the mean of a column over the runs that have a value, None without any."""
    values = [float(row[column]) for row in rows if row.get(column)]
    return float(np.mean(values)) if values else None


def _psnr(method: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: f"{mean_psnr(rows, method):.3f}"


def _number(column: str, form: str, factor: float = 1.0) -> Callable[[Sequence[Row]], str]:
    def text(rows: Sequence[Row]) -> str:
        value = mean_of(rows, column)
        return "" if value is None else format(value * factor, form)

    return text


def _least(column: str, form: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: format(min(float(row[column]) for row in rows), form)


#: Heading of each column but ``difference``, and its text for the runs of an arm.
COLUMNS: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "psnr": ("fusion, dB", _psnr("fusion")),
    "mean": ("mean", _psnr("mean")),
    "best leaf": ("best leaf", _psnr("best leaf")),
    "oracle": ("oracle, pixel", _psnr("oracle per pixel")),
    "oracle 8x8": ("oracle, 8×8", _psnr("oracle per 8x8 block")),
    "distance": ("distance, grey levels", _number("distance", ".2f", GREY_LEVELS)),
    "correlation": ("correlation of errors", _number("error_correlation", ".4f")),
    "entropy": ("entropy of weights", _number("weight_entropy", ".3f")),
    "size": ("parameters", _number("parameters", ",.0f")),
    "flops": ("MFLOP", _number("mflop", ",.0f")),
    "seconds": ("least CPU s", _least("cpu_seconds", ".0f")),  # other processes of the machine only add to it
    "steps": ("steps", _number("steps", ".0f")),
}


def interval_text(interval: Interval | None) -> str:
    """Return a difference in dB with its interval, in bold if zero is outside; empty without one."""
    if interval is None:
        return ""
    text = f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]".replace("-", "−")
    return f"**{text}**" if interval.excludes_zero else text


def markdown(table: Table, runs: Runs) -> str:
    """Return a table as Markdown; its first row is bicubic interpolation if the PSNR is a column."""
    arms = arms_of(table, runs)
    headings = ["difference" if name == "difference" else COLUMNS[name][0] for name in table.columns]
    lines = [_line(["", "seeds", *headings]), _line(["---", *["---:"] * (len(headings) + 1)])]
    if arms and "psnr" in table.columns:
        cells = [f"{mean_psnr(runs[arms[0]][:1], 'bicubic'):.3f}" if name == "psnr" else "" for name in table.columns]
        lines.append(_line(["bicubic", "", *cells]))
    for arm in arms:
        rows = runs[arm]
        difference = "reference" if arm == table.reference(rows[0]) else interval_text(difference_of(table, runs, arm))
        cells = [difference if name == "difference" else COLUMNS[name][1](rows) for name in table.columns]
        lines.append(_line([table.label(rows[0]), str(len(rows)), *cells]))
    return "\n".join(lines)


def fusion_markdown(runs: Runs, arms: Sequence[Arm]) -> str:
    """Return the table of ways to fuse the same leaves, each against the softmax weights of the same runs."""
    methods = ("mean", "best leaf", "oracle per 8x8 block", "oracle per pixel")
    lines = [_line(["", "softmax, dB", *(f"{method} − softmax" for method in methods)])]
    lines.append(_line(["---", *["---:"] * (len(methods) + 1)]))
    for arm in arms:
        if arm in runs:
            cells = [interval_text(paired_difference(runs[arm], runs[arm], method)) for method in methods]
            lines.append(_line([divergence_label(runs[arm][0]), f"{mean_psnr(runs[arm], 'fusion'):.3f}", *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
