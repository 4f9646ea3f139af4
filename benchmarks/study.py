"""The study of the method on a small network: results of the finished runs, tables and plots of docs/evidence.md.

    d2csr-train +experiment=study/divergence_weight      one sweep; docs/evidence.md lists all
    python benchmarks/study.py runs/study                evaluates its finished runs, adds them to results/, and draws
    python benchmarks/study.py                           draws again from results/

A run is evaluated once, by its last checkpoint on the test images. results/SWEEP.csv has one row a run. The tables
replace those between the marks in docs/evidence.md.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from study_plots import differences_figure, divergence_figure
from study_runs import evaluate_run, finished_runs, results_row, write_results
from study_tables import PAPER, TABLES, Runs, fusion_markdown, markdown, read_runs

from d2csr.errors import UserError
from d2csr.files import atomic_write
from d2csr.plotting.curves import write_figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"
FUSED = (
    PAPER,
    ("divergence_weight", "weight-2.0"),
    ("divergence_windows", "weight-0.2"),
    ("divergence_windows", "weight-0.5"),
)
_MARKED = re.compile(r"(<!-- table (\w+) -->\n)(.*?)(\n<!-- end of the table -->)", re.DOTALL)


def main() -> None:
    arguments = _parser().parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # of each trainer
    try:
        if arguments.runs is not None:
            gather(arguments.runs, arguments.results)
        draw(arguments.results, arguments.docs)
    except (UserError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="the folder of the sweeps, runs/study")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the CSV files (default: results)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of evidence.md (default: docs)")
    return parser


def gather(runs: Path, results: Path) -> None:
    """Evaluate the finished runs that are not evaluated yet, and write the rows of all into the results.

    Raises:
        UserError: no run is finished.
    """
    finished = finished_runs(runs)
    if not finished:
        raise UserError(f"{runs}: holds no finished run; start with d2csr-train +experiment=study/divergence_weight.")
    for number, run in enumerate(finished, start=1):
        evaluate_run(run)
        print(f"{number} of {len(finished)}: {run}", flush=True)
    for path in write_results([results_row(run) for run in finished], results):
        print(path)


def draw(results: Path, docs: Path) -> None:
    """Write the tables into evidence.md, and the plots beside it."""
    runs = read_runs(results)
    if not runs:
        raise UserError(f"{results}: holds no results; run python benchmarks/study.py runs/study first.")
    page = docs / "evidence.md"
    text = with_tables(page.read_text(encoding="utf-8"), runs)
    with atomic_write(page) as partial:
        partial.write_text(text, encoding="utf-8")
    write_figure(divergence_figure(runs), docs / "evidence-divergence.png")
    write_figure(differences_figure(TABLES[1:], runs), docs / "evidence-differences.png")


def with_tables(text: str, runs: Runs) -> str:
    """Return a page with the tables of these results between its marks."""
    tables = {table.name: markdown(table, runs) for table in TABLES} | {"fusion": fusion_markdown(runs, FUSED)}
    return _MARKED.sub(lambda match: f"{match[1]}{tables[match[2]]}{match[4]}", text)


if __name__ == "__main__":
    main()
