"""Tables of a report: as text for a terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from d2csr.data.lists import ImagePair
from d2csr.errors import printable, shown_name
from d2csr.evaluation.baselines import ORACLES
from d2csr.evaluation.report import BICUBIC, FUSION, MethodScores, Report, Scores, write_csv
from d2csr.files import atomic_write

GAIN = "over bicubic"  # title of the column behind the PSNR
ORACLE_NOTE = "An oracle is no method: it chooses the best leaf by the HR image."
PROTOCOLS_NOTE = "Scores of different protocols are not comparable."
SEEDS_NOTE = "± is the sample standard deviation over the seeds."

_WORST = 3  # images listed below the table
_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
}


def text(report: Report) -> str:
    """Return the text to print: the means by each protocol, the worst images."""
    sections = [_means_table(report, protocol) for protocol in report.images]
    notes = (leaves_note(report), SEEDS_NOTE if report.seeds else "")
    sections[0] += [f"({note})" for note in notes if note]
    if len(report.images) > 1:
        sections.append([f"({PROTOCOLS_NOTE})"])
    if len(report.pairs) > 1:
        sections.append(_worst_table(report))
    return "\n\n".join("\n".join(lines) for lines in sections)


def write_tables(report: Report, folder: str | Path) -> None:
    """Write the means as ``table.csv``, ``table.md`` and ``table.tex``."""
    write_csv(Path(folder) / "table.csv", csv_rows(report))
    for suffix, content in ((".md", markdown(report)), (".tex", latex(report))):
        with atomic_write(Path(folder) / f"table{suffix}") as partial:
            partial.write_text(content, encoding="utf-8", errors="backslashreplace")


class ScoreRow(NamedTuple):
    """Scores of a method, means over several runs (``seeds``) with their standard deviations, or an oracle's."""

    label: str
    kind: str  # method, seeds or oracle
    scores: Scores
    std: Scores | None = None


def method_rows(scores: MethodScores) -> list[ScoreRow]:
    """Return a row for each method; the oracles are last in an evaluation."""
    return [ScoreRow(name, "oracle" if name in ORACLES else "method", one) for name, one in scores.items()]


def mean_rows(report: Report, protocol: str) -> list[ScoreRow]:
    """Return the means over the images by one protocol, those over seeds last."""
    seeds = [
        ScoreRow(f"{', '.join(group.methods)} ({len(group.seeds)} seeds)", "seeds", mean, std)
        for group, mean, std in report.over_seeds(protocol)
    ]
    return [*method_rows(report.means(protocol)), *seeds]


def csv_rows(report: Report) -> list[dict[str, Any]]:
    """Return the rows of ``table.csv``; further protocols and standard deviations are in columns of their own."""
    rows: dict[str, dict[str, Any]] = {}
    for protocol in report.images:
        for row in mean_rows(report, protocol):
            cells = rows.setdefault(row.label, {"method": row.label})
            cells |= {report.column(metric, protocol): value for metric, value in row.scores.items()}
            cells |= {f"{report.column(metric, protocol)}_std": value for metric, value in (row.std or {}).items()}
    return list(rows.values())


def markdown(report: Report) -> str:
    """Return the table as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    header, rows, oracles = _cells(report)
    rule = line(["---", *["---:"] * (len(header) - 1)])
    lines = [line(header), rule, *map(line, rows), *map(line, oracles)]
    return "\n".join([printable(_title(report, *report.images)), "", *lines, ""])


def latex(report: Report) -> str:
    """Return the table as LaTeX; it needs the package ``booktabs``."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join("".join(_LATEX.get(char, char) for char in cell) for cell in cells) + r" \\"

    header, rows, oracles = _cells(report)
    body = [line(header), r"\midrule", *map(line, rows)]
    if oracles:
        body += [r"\midrule", *map(line, oracles)]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    title = f"% {printable(_title(report, *report.images))}; \\usepackage{{booktabs}}"
    return "\n".join([title, begin, r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def _title(report: Report, *protocols: str) -> str:
    count = len(report.pairs)
    named = ", ".join(f"{protocol} ({report.scored_on(protocol)})" for protocol in protocols)
    return f"×{report.scale}, {count} image{'s' * (count > 1)}, protocol{'s' * (len(protocols) > 1)} {named}"


def _cells(report: Report) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the header, the methods and the oracles of an exported table, with columns for each protocol."""
    main = mean_rows(report, report.protocol)
    header, lines = ["method"], [[shown_name(row.label, None)] for row in main]
    for protocol in report.images:
        rows = {row.label: (row.scores, row.std) for row in mean_rows(report, protocol)}
        for metric in dict.fromkeys(metric for scores, _ in rows.values() for metric in scores):
            header.append(metric_title(report, metric) + (f", {protocol}" if protocol != report.protocol else ""))
            for line, row in zip(lines, main, strict=True):
                line.append(score_text(metric, *rows.get(row.label, ({}, None))))
    methods = sum(row.kind != "oracle" for row in main)
    return header, lines[:methods], lines[methods:]


def score_text(metric: str, scores: Scores, std: Scores | None = None) -> str:
    """Return a score as the tables show it, with its standard deviation if there is one."""
    if metric not in scores:
        return "–"
    decimals = 2 if metric == "psnr" else 4
    return f"{scores[metric]:.{decimals}f}" + (f" ± {std[metric]:.{decimals}f}" if std else "")


def _means_table(report: Report, protocol: str) -> list[str]:
    rows = mean_rows(report, protocol)
    lines = [_title(report, protocol), *_aligned(report, "", rows, [rows[0].scores] * len(rows))]
    if oracles := sum(row.kind == "oracle" for row in rows):
        lines = [*lines[:-oracles], "", *lines[-oracles:], f"({ORACLE_NOTE})"]
    return lines


def leaves_note(report: Report) -> str:
    """Return a note on images that are too large for a comparison of the leaves, empty if there are none."""
    counts = [len(image) for image in report.images[report.protocol]]
    left_out = sum(count < max(counts) for count in counts)
    return f"Leaves left out: {left_out} of the images are too large; compare=true includes them." if left_out else ""


def _worst_table(report: Report) -> list[str]:
    def quality(image: tuple[ImagePair, MethodScores]) -> float:
        psnr = image[1][report.method]["psnr"]
        return -math.inf if math.isnan(psnr) else psnr

    worst = sorted(zip(report.pairs, report.images[report.protocol], strict=True), key=quality)[:_WORST]
    rows = [ScoreRow(pair.lr.name, "method", scores[report.method]) for pair, scores in worst]
    title = "worst" if report.method == FUSION else f"worst of {report.method}"
    return _aligned(report, shown_name(title, None), rows, [scores[BICUBIC] for _, scores in worst])


def metric_title(report: Report, metric: str) -> str:
    """Return the header of a metric's column, with an arrow if lower is better."""
    name = "PSNR (dB)" if metric == "psnr" else metric.upper()
    return f"{name} ↓" if report.metrics.get(metric, {}).get("lower_is_better") else name


def _aligned(report: Report, title: str, rows: Sequence[ScoreRow], baselines: Sequence[Scores]) -> list[str]:
    """Return a header and a line for each row; ``baselines`` are the scores of bicubic."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in row.scores))
    psnr, *others = [metric_title(report, metric) for metric in metrics]
    table = [[title, psnr, GAIN, *others]]
    for row, bicubic in zip(rows, baselines, strict=True):
        psnr, *others = [score_text(metric, row.scores, row.std) for metric in metrics]
        gain = f"{row.scores['psnr'] - bicubic['psnr']:+.2f}"
        table.append([shown_name(row.label, None), psnr, gain, *others])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in table]
