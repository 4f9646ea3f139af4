"""Tables of a report: as text for a terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from d2csr.data.lists import ImagePair
from d2csr.errors import printable
from d2csr.evaluation.baselines import ORACLES
from d2csr.evaluation.report import BICUBIC, FUSION, MethodScores, Report, Scores, write_csv
from d2csr.files import atomic_write

ORACLE_NOTE = "An oracle is no method: it chooses the best leaf by the HR image."
PROTOCOLS_NOTE = "Scores of different protocols are not comparable."

_WORST = 3  # images listed below the table
_LABEL = 12  # least width of the first column
_PROTOCOL_METRICS = ("psnr", "ssim")  # the others have no protocol
_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
}


def text(report: Report) -> str:
    """Return the text to print: the mean of each method, other protocols, seeds, the worst images."""
    sections = [[_title(report), *_methods_table(report)], *_other_protocols(report)]
    if report.seeds:
        sections.append(_seeds_table(report))
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
    """Return a row for each method, oracles last."""
    names = sorted(scores, key=lambda name: name in ORACLES)
    return [ScoreRow(name, "oracle" if name in ORACLES else "method", scores[name]) for name in names]


def mean_rows(report: Report, protocol: str) -> list[ScoreRow]:
    """Return the means over the images by one protocol; each group of seeds is behind its last run."""
    seeds = {
        group.methods[-1]: ScoreRow(f"{', '.join(group.methods)} ({len(group.seeds)} seeds)", "seeds", mean, std)
        for group, mean, std in report.over_seeds(protocol)
    }
    methods = method_rows(report.means(protocol))
    return [row for method in methods for row in (method, seeds.get(method.label)) if row is not None]


def csv_rows(report: Report) -> list[dict[str, Any]]:
    """Return the rows of ``table.csv``; further protocols and standard deviations are in columns of their own."""
    return [
        {"method": row.label, **row.scores, **{f"{name}_std": value for name, value in (row.std or {}).items()}}
        for row in _exported_rows(report)
    ]


def markdown(report: Report) -> str:
    """Return the table as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    header, rows, oracles = _cells(report)
    rule = line(["---", *["---:"] * (len(header) - 1)])
    lines = [line(header), rule, *map(line, rows), *map(line, oracles)]
    return "\n".join([printable(_title(report)), "", *lines, ""])


def latex(report: Report) -> str:
    """Return the table as LaTeX; it needs the package ``booktabs``."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join("".join(_LATEX.get(char, char) for char in cell) for cell in cells) + r" \\"

    header, rows, oracles = _cells(report)
    body = [line(header), r"\midrule", *map(line, rows)]
    if oracles:
        body += [r"\midrule", *map(line, oracles)]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    title = f"% {printable(_title(report))}; \\usepackage{{booktabs}}"
    return "\n".join([title, begin, r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def _title(report: Report) -> str:
    count = len(report.pairs)
    return f"×{report.scale}, {count} image{'s' * (count > 1)}, {_protocol(report, report.protocol)}"


def _protocol(report: Report, protocol: str) -> str:
    return f"protocol {protocol} ({report.scored_on(protocol)})"


def _exported_rows(report: Report) -> list[ScoreRow]:
    """Return the rows of the main protocol, with the scores of further protocols in columns that end in their names."""
    merged: dict[tuple[str, str], tuple[Scores, Scores]] = {}
    for protocol in report.images:
        suffix = "" if protocol == report.protocol else f"_{protocol}"
        for row in mean_rows(report, protocol):
            scores, std = merged.setdefault((row.label, row.kind), ({}, {}))
            scores |= {f"{metric}{suffix}": value for metric, value in row.scores.items()}
            std |= {f"{metric}{suffix}": value for metric, value in (row.std or {}).items()}
    return [ScoreRow(*key, scores, std or None) for key, (scores, std) in merged.items()]


def _cells(report: Report) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the header, the methods and the oracles of an exported table."""
    exported = _exported_rows(report)
    columns = list(dict.fromkeys(name for row in exported if row.kind != "oracle" for name in row.scores))

    def header(column: str) -> str:
        metric, _, protocol = column.partition("_")
        if protocol in report.images:
            return f"{metric_title(report, metric)}, {protocol}"
        return metric_title(report, column)

    def cells(row: ScoreRow) -> list[str]:
        return [one_line(row.label), *(score_text(column, row.scores, row.std) for column in columns)]

    methods = [cells(row) for row in exported if row.kind != "oracle"]
    return ["method", *map(header, columns)], methods, [cells(row) for row in exported if row.kind == "oracle"]


def score_text(column: str, scores: Scores, std: Scores | None = None) -> str:
    """Return a score as the tables show it, with its standard deviation if there is one."""
    if column not in scores:
        return "–"
    decimals = 2 if column.startswith("psnr") else 4
    return f"{scores[column]:.{decimals}f}" + (f" ± {std[column]:.{decimals}f}" if std else "")


def _methods_table(report: Report) -> list[str]:
    means = report.means(report.protocol)
    shown = {row.label: row.scores for row in mean_rows(report, report.protocol) if row.kind != "seeds"}
    lines = _lines(report, "", _over_bicubic(shown), list(means[report.method]))
    if oracles := sum(name in ORACLES for name in shown):
        lines = [*lines[:-oracles], "", *lines[-oracles:], f"({ORACLE_NOTE})"]
    if note := leaves_note(report):
        lines.append(f"({note})")
    return lines


def leaves_note(report: Report) -> str:
    """Return a note on images that are too large for a comparison of the leaves, empty if there are none."""
    counts = [len(image) for image in report.images[report.protocol]]
    without_leaves = sum(number < max(counts) for number in counts)
    if not without_leaves:
        return ""
    return f"Leaves left out: {without_leaves} of the images are too large; compare=true includes them."


def _other_protocols(report: Report) -> Iterator[list[str]]:
    """Yield a table for each further protocol or, of a single model, one of its fusion by all protocols."""
    means = {protocol: report.means(protocol) for protocol in report.images}
    others = list(means)[1:]
    if not others:
        return
    note = f"({PROTOCOLS_NOTE})"
    if report.method == FUSION and set(means[others[0]]) == {BICUBIC, FUSION}:
        rows = [(protocol, scores[FUSION], scores[BICUBIC]) for protocol, scores in means.items()]
        header, *lines = _lines(report, "fusion by", rows, _PROTOCOL_METRICS)
        yield [header, *(f"{line}  {report.scored_on(name)}" for line, name in zip(lines, means, strict=True)), note]
        return
    for protocol in others:
        yield [_protocol(report, protocol), *_lines(report, "", _over_bicubic(means[protocol]), _PROTOCOL_METRICS)]
    yield [note]


def _seeds_table(report: Report) -> list[str]:
    lines = ["mean ± sample standard deviation over seeds"]
    for row in mean_rows(report, report.protocol):
        if row.kind == "seeds":
            cells = [
                f"{metric_title(report, metric)} {score_text(metric, row.scores, row.std)}" for metric in row.scores
            ]
            lines.append(f"{one_line(row.label)}: {', '.join(cells)}")
    return lines


def _worst_table(report: Report) -> list[str]:
    def quality(image: tuple[ImagePair, MethodScores]) -> float:
        psnr = image[1][report.method]["psnr"]
        return -math.inf if math.isnan(psnr) else psnr

    worst = sorted(zip(report.pairs, report.images[report.protocol], strict=True), key=quality)[:_WORST]
    rows = [("", scores[report.method], scores[BICUBIC]) for _, scores in worst]
    header, *lines = _lines(report, "worst", rows, list(rows[0][1]))
    return [header, *(f"{line}  {one_line(pair.lr.name)}" for line, (pair, _) in zip(lines, worst, strict=True))]


def _over_bicubic(means: MethodScores) -> list[tuple[str, Scores, Scores]]:
    return [(name, scores, means[BICUBIC]) for name, scores in means.items()]


def one_line(label: str) -> str:
    """Return a label without control characters and line breaks."""
    return printable(label).replace("\n", "\\n")


def metric_title(report: Report, metric: str) -> str:
    """Return the header of a metric's column, with an arrow if lower is better."""
    name = "PSNR (dB)" if metric == "psnr" else metric.upper()
    return f"{name} ↓" if report.metrics.get(metric, {}).get("lower_is_better") else name


def _width(metric: str) -> int:
    return 10 if metric == "psnr" else max(9, len(metric) + 4)


def _lines(report: Report, title: str, rows: Sequence[tuple[str, Scores, Scores]], metrics: Sequence[str]) -> list[str]:
    """Return a header and a line for each label, its scores and the baseline."""
    width = max([_LABEL, *(len(one_line(label)) + 2 for label, *_ in rows)])
    first, *others = (f"{metric_title(report, metric):>{_width(metric)}}" for metric in metrics)
    lines = [f"{title:{width}}{first}{'over bicubic':>14}{''.join(others)}"]
    for label, scores, baseline in rows:
        first, *others = (f"{score_text(metric, scores):>{_width(metric)}}" for metric in metrics)
        lines.append(f"{one_line(label):{width}}{first}{scores['psnr'] - baseline['psnr']:+14.2f}{''.join(others)}")
    return lines
