"""Scores of a report as the rows and cells of the page's tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from d2csr.evaluation.oracle import ORACLES
from d2csr.evaluation.report import Report
from d2csr.evaluation.scores import BICUBIC, FUSION, MEAN, MethodScores, Scores
from d2csr.evaluation.tables import group_label, metric_title, one_line, score_text


@dataclass(frozen=True)
class Cell:
    """A score.

    Attributes:
        text: as the printed tables show it.
        sort: the number to sort by, empty without one.
        best: no other method has a better one.
    """

    text: str
    sort: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """The scores of a method, of a mean over seeds, or of an oracle."""

    label: str
    kind: str  # method, seeds or oracle
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """Scores by one protocol."""

    protocol: str
    scored_on: str
    header: Sequence[str]  # of the cells
    rows: Sequence[Row]


@dataclass(frozen=True)
class ImageTable:
    """Scores of all images by one protocol; a row is an image.

    Attributes:
        methods: each with the number of its columns.
        header: of the cells, by method after method.
        rows: of all images, in the order of the report.
    """

    protocol: str
    methods: Sequence[tuple[str, int]]
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def mean_table(report: Report, protocol: str) -> Table:
    """Return the means over all images: methods, means over seeds, oracles."""
    means = report.means(protocol)
    seeds = {group.methods[-1]: (group_label(group), mean, std) for group, mean, std in report.over_seeds(protocol)}
    rows = []
    for row in _method_rows(report, means):
        rows.append(row)
        if row.kind == "method" and row.label in seeds:
            label, mean, std = seeds[row.label]
            cells = [_gain(mean, means), *(Cell(score_text(metric, mean, std)) for metric in mean)]
            rows.append(Row(label, "seeds", _ordered(cells)))
    return Table(protocol, report.scored_on(protocol), _header(report, means), [_shown(row) for row in rows])


def image_scores(report: Report, protocol: str, index: int) -> Table:
    """Return the scores of all methods on one image."""
    scores = report.images[protocol][index]
    rows = [_shown(row) for row in _method_rows(report, scores)]
    return Table(protocol, report.scored_on(protocol), _header(report, scores), rows)


def image_table(report: Report, protocol: str) -> ImageTable:
    """Return the scores of all images, without leaves, their mean and oracles."""
    images = report.images[protocol]
    methods = [name for name in images[0] if is_method(report, name)]
    columns = [(method, metric) for method in methods for metric in images[0][method]]
    gains = [Cell(f"{gain:+.2f}", repr(gain)) for gain in (_over_bicubic(report, scores) for scores in images)]
    rows = [
        [*(_cell(metric, scores[method]) for method, metric in columns), gain]
        for scores, gain in zip(images, gains, strict=True)
    ]
    header = [*(metric_title(report, metric) for _, metric in columns), "over bicubic (dB)"]
    groups = [(one_line(method), len(images[0][method])) for method in methods]
    return ImageTable(protocol, [*groups, (one_line(report.method), 1)], header, rows)


def is_method(report: Report, name: str) -> bool:
    """Return whether a name is that of a method: no leaf, mean of leaves or oracle."""
    of_leaves = report.method == FUSION and (name == MEAN or re.fullmatch(r"leaf \d+", name))
    return name not in ORACLES and not of_leaves


def _over_bicubic(report: Report, scores: MethodScores) -> float:
    return scores[report.method]["psnr"] - scores[BICUBIC]["psnr"]


def _method_rows(report: Report, scores: MethodScores) -> list[Row]:
    """Return a row for each method, with oracles last, and the best score of each metric marked."""
    best = {metric: _best(report, scores, metric) for metric in scores[report.method]}
    rows = []
    for name in sorted(scores, key=lambda name: name in ORACLES):
        is_oracle = name in ORACLES
        cells = [_cell(metric, scores[name], not is_oracle and name in best[metric]) for metric in best]
        rows.append(Row(name, "oracle" if is_oracle else "method", _ordered([_gain(scores[name], scores), *cells])))
    return rows


def _ordered(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the gain over bicubic behind the PSNR, as in the printed table."""
    gain, psnr, *others = cells
    return [psnr, gain, *others]


def _header(report: Report, scores: MethodScores) -> list[str]:
    first, *others = (metric_title(report, metric) for metric in scores[report.method])
    return [first, "over bicubic", *others]


def _best(report: Report, scores: MethodScores, metric: str) -> set[str]:
    """Return the methods with the best score as it is shown: equal texts are equally good."""
    sign = -1 if report.metrics.get(metric, {}).get("lower_is_better") else 1
    values = {name: sign * one[metric] for name, one in scores.items() if name not in ORACLES and metric in one}
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if len(known) < 2:
        return set()
    text = score_text(metric, scores[max(known, key=lambda name: known[name])])
    return {name for name in known if score_text(metric, scores[name]) == text}


def _cell(metric: str, scores: Scores, best: bool = False) -> Cell:
    value = scores.get(metric, math.nan)
    return Cell(score_text(metric, scores), "" if math.isnan(value) else repr(value), best)


def _gain(scores: Scores, all_scores: MethodScores) -> Cell:
    gain = scores["psnr"] - all_scores[BICUBIC]["psnr"]
    return Cell(f"{gain:+.2f}", repr(gain))


def _shown(row: Row) -> Row:
    return Row(one_line(row.label), row.kind, row.cells)
