"""Table of the results of ``time_to_quality.py``."""

from __future__ import annotations

import statistics
from typing import Any

from quality_settings import BICUBIC, PLAIN, RECIPE


def table(runs: list[dict[str, Any]], clock: str = "cpu") -> list[str]:
    """Return a Markdown table with a row for each candidate: means over the seeds, and ranges in brackets.

    Seconds are those of the processor (``cpu``) or of the clock (``wall``).
    """
    lines = [
        "| | seeds | validation, dB | test, dB | test − recipe, dB | training, s | to bicubic, s "
        "| to 0.1 dB below the end, s | to the end, s | times sooner |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in dict.fromkeys(run["name"] for run in runs):
        own = [run for run in runs if run["name"] == name]
        scores = [_mean([run["psnr"][-1] for run in own], 2), _mean([run["test"] for run in own], 2)]
        cells = [name, "", *scores] if name == BICUBIC else [name, str(len(own)), *scores, *_compared(own, runs, clock)]
        lines.append(f"| {' | '.join(cells + [''] * (10 - len(cells)))} |")
    return lines


def _compared(own: list[dict[str, Any]], runs: list[dict[str, Any]], clock: str) -> list[str]:
    """Return the cells that compare the runs of a candidate with bicubic, the recipe and the plain loop."""
    seeds = [run["seed"] for run in own]
    of = {(run["name"], run["seed"]): run for run in runs}
    plain, recipe = ([of[name, seed] for seed in seeds] for name in (PLAIN, RECIPE))
    targets = [run["psnr"][-1] for run in plain]
    interpolated = [seconds_to(of[BICUBIC, 0]["psnr"][-1], run, clock) for run in own]
    near, ends = (
        [seconds_to(target - below, run, clock) for target, run in zip(targets, own, strict=True)] for below in (0.1, 0)
    )
    sooner = [reference[clock][-1] / end for reference, end in zip(plain, ends, strict=True) if end]
    differences = [run["test"] - reference["test"] for run, reference in zip(own, recipe, strict=True)]
    return [
        "" if own == recipe else _range(differences, "+.2f"),
        _mean([run[clock][-1] for run in own], 1),
        *(_mean(times, 1) for times in (interpolated, near, ends)),
        "" if None in ends or own == plain else _range(sooner, ".0f"),
    ]


def seconds_to(target: float, run: dict[str, Any], clock: str) -> float | None:
    """Return the seconds until the first validation that reached a PSNR; None if there is none."""
    return next((time for time, value in zip(run[clock], run["psnr"], strict=True) if value >= target), None)


def _mean(values: list[Any], digits: int) -> str:
    return "not reached" if None in values else f"{statistics.mean(values):.{digits}f}"


def _range(values: list[float], form: str) -> str:
    mean, least, most = (
        f"{value:{form}}".replace("-", "−") for value in (statistics.mean(values), min(values), max(values))
    )
    return f"{mean} ({least} to {most})"
