"""Scores of a report as the rows and cells of the page's tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from d2csr.errors import shown_name
from d2csr.evaluation.baselines import ORACLES
from d2csr.evaluation.report import BICUBIC, FUSION, MEAN, MethodScores, Report, Scores
from d2csr.evaluation.tables import GAIN, ScoreRow, mean_rows, method_rows, metric_title, score_text

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Cell:
    """A score."""

    text: str  # as the printed tables show it
    sort: str = ""  # the number to sort by, empty without one
    best: bool = False  # no other method has a better one


def mean_table(report: Report, protocol: str) -> dict[str, Any]:
    """Return the means over all images: methods, means over seeds, oracles."""
    return _table(report, protocol, report.means(protocol), mean_rows(report, protocol))


def image_scores(report: Report, protocol: str, index: int) -> dict[str, Any]:
    """Return the scores of all methods on one image."""
    scores = report.images[protocol][index]
    return _table(report, protocol, scores, method_rows(scores))


def image_table(report: Report, protocol: str) -> dict[str, Any]:
    """Return the scores of all images, without leaves, their mean and oracles: a row of cells for each image.

    ``methods`` holds each method with the number of its columns.
    """
    images = report.images[protocol]
    metrics = {name: list(scores) for name, scores in images[0].items() if _is_method(report, name)}
    titles = {
        name: _optional_gain(name, [metric_title(report, one) for one in columns], GAIN)
        for name, columns in metrics.items()
    }
    rows = [
        [
            cell
            for name, columns in metrics.items()
            for cell in _optional_gain(
                name, [_cell(one, scores[name]) for one in columns], _gain(scores[name], scores[BICUBIC])
            )
        ]
        for scores in images
    ]
    groups = [(shown_name(name, None), len(columns)) for name, columns in titles.items()]
    header = [title for columns in titles.values() for title in columns]
    return {"protocol": protocol, "methods": groups, "header": header, "rows": rows}


def _is_method(report: Report, name: str) -> bool:
    """Return whether a name is that of a method: no leaf, mean of leaves or oracle."""
    of_leaves = report.method == FUSION and (name == MEAN or re.fullmatch(r"leaf \d+", name))
    return name not in ORACLES and not of_leaves


def _table(report: Report, protocol: str, scores: MethodScores, rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """Return a table, with the best score of each metric marked: rows have a label, a kind and cells."""
    best = {metric: _best(report, scores, metric) for metric in scores[report.method]}
    shown = []
    for row in rows:
        cells = [_cell(metric, row.scores, row.std, row.label in best[metric]) for metric in best]
        cells.insert(1, _gain(row.scores, scores[BICUBIC]))
        shown.append({"label": shown_name(row.label, None), "kind": row.kind, "cells": cells})
    header = [metric_title(report, metric) for metric in best]
    header.insert(1, GAIN)
    return {"protocol": protocol, "scored_on": report.scored_on(protocol), "header": header, "rows": shown}


def _optional_gain(method: str, cells: Sequence[_Item], gain: _Item) -> list[_Item]:
    return list(cells) if method == BICUBIC else [cells[0], gain, *cells[1:]]


def _best(report: Report, scores: MethodScores, metric: str) -> set[str]:
    """Return the methods with the best score as it is shown: equal texts are equally good."""
    sign = -1 if report.metrics.get(metric, {}).get("lower_is_better") else 1
    values = {name: sign * one[metric] for name, one in scores.items() if name not in ORACLES and metric in one}
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if len(known) < 2:
        return set()
    text = score_text(metric, scores[max(known, key=lambda name: known[name])])
    return {name for name in known if score_text(metric, scores[name]) == text}


def _cell(metric: str, scores: Scores, std: Scores | None = None, best: bool = False) -> Cell:
    value = scores.get(metric, math.nan)
    return Cell(score_text(metric, scores, std), "" if std or math.isnan(value) else repr(value), best)


def _gain(scores: Scores, baseline: Scores) -> Cell:
    gain = scores["psnr"] - baseline["psnr"]
    return Cell(f"{gain:+.2f}", "" if math.isnan(gain) else repr(gain))
