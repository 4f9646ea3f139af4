"""Rows that a training logged, from ``csv/metrics.csv`` of a run folder.

The file may be that of another program, of a training that still runs, or damaged: bad rows and cells are skipped, and
a warning counts them.
"""

from __future__ import annotations

import csv
import logging
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2csr.errors import ConfigError, DataError, printable
from d2csr.files import require_regular_file, user_path

_log = logging.getLogger(__name__)

LOG = Path("csv") / "metrics.csv"  # in a run folder
MAX_BYTES = 256 * 2**20  # of a log; one of 100,000 rows has about 50 MB
MAX_COLUMNS = 1000
_STEP, _EPOCH = "step", "epoch"


@dataclass(frozen=True)
class Series:
    """A column: values by step, in the order of the steps. A value may be NaN or infinite."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class RunLog:
    """The log of a training run."""

    name: str  # for a legend
    file: Path
    columns: dict[str, Series]  # with at least one number, by name; ``step`` is none of them

    @property
    def epochs(self) -> Series:
        """The epoch of each logged step, from 0; empty if the log has no epochs."""
        empty = np.empty(0)
        found = self.columns.get(_EPOCH, Series(empty, empty))
        known = np.isfinite(found.values) & (found.values >= 0)
        return Series(found.steps[known], found.values[known])

    @property
    def last_step(self) -> float:
        """The last step with a value."""
        return max(float(series.steps[-1]) for series in self.columns.values())


def find_logs(path: str | Path) -> list[Path]:
    """Return the log of a run folder, those of a sweep's folder, or the named file; raise a DataError without any."""
    path = user_path(path)
    if path.is_file():
        return [path]
    for candidate in (path / LOG, path / LOG.name):
        if candidate.is_file():
            return [candidate]
    if not path.exists():
        raise DataError(f"run: {path}: no such run folder.")
    if not path.is_dir():
        raise DataError(f"run: {path}: neither a regular file nor a folder.")
    jobs = [folder / LOG for folder in path.iterdir() if (folder / LOG).is_file()]
    if not jobs:
        raise DataError(f"run: {path}: holds no {LOG}. Name the folder of a training, run=outputs/train/RUN.")
    return sorted(jobs, key=lambda log: (len(log.parts[-3]), log.parts[-3]))  # job 10 after job 9


def shortest_names(logs: Sequence[Path]) -> list[str]:
    """Return the name of the run folder of each log, with as many folders above it as all need to differ.

    Raises:
        ConfigError: a log is there twice.
    """
    folders = [_run_folder(log.resolve()).parts for log in logs]
    for count in range(1, max(map(len, folders)) + 1):
        names = ["/".join(parts[-count:]) for parts in folders]
        if len(set(names)) == len(names):
            return names
    files = [log.resolve() for log in logs]
    twice = next((file for file in files if files.count(file) > 1), None)
    if twice is not None:
        raise ConfigError(f"run: {twice} is named twice.")
    return [str(file) for file in files]


def _run_folder(log: Path) -> Path:
    return log.parent.parent if log.parent.name == LOG.parent.name else log.parent


def read_run_log(file: Path, name: str) -> RunLog:
    """Read a log.

    Raises:
        DataError: the file is missing, too large, not regular, no CSV file, or has no number.
    """
    require_regular_file(file, MAX_BYTES)
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as lines:
            columns = _read_columns(csv.reader(line.replace("\0", "") for line in lines), file)
    except csv.Error as error:
        raise DataError(f"{file}: is not a CSV file ({error}).") from None
    if not set(columns) - {_EPOCH}:
        raise DataError(f"{file}: holds no values yet. A training writes a row every trainer.log_every_n_steps steps.")
    return RunLog(name, file, columns)


def _read_columns(rows: Iterator[list[str]], file: Path) -> dict[str, Series]:
    """Return the columns that hold numbers; warn of what was skipped."""
    header = next(rows, [])
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{file}: has {len(header):,} columns, above the limit of {MAX_COLUMNS:,}.")
    if header and _STEP not in header:
        raise DataError(f"{file}: has no column named step. Name the metrics.csv of a training.")
    found = {column: (array("d"), array("d")) for column in header if column != _STEP}
    skipped, bad = 0, dict.fromkeys(header, 0)
    for row in rows:
        cells = dict(zip(header, row, strict=False))
        step = _number(cells.pop(_STEP, ""))
        if len(row) != len(header) or step is None or not 0 <= step < math.inf:
            skipped += bool(row)  # a blank line is no row
            continue
        for column, cell in cells.items():
            value = _number(cell)
            if value is not None:
                found[column][0].append(step)
                found[column][1].append(value)
            elif cell.strip():
                bad[column] += 1
    if skipped:
        _log.warning("%s: skipped %d rows that do not fit the header.", file, skipped)
    for column, count in bad.items():
        if count:
            _log.warning("%s: skipped %d cells of %s that are no numbers.", file, count, printable(column))
    return {column: _series(*pair) for column, pair in found.items() if pair[0]}


def _series(steps: array[float], values: array[float]) -> Series:
    """Return a series in the order of its steps; of several values for a step, the last one counts."""
    order = np.argsort(np.frombuffer(steps), kind="stable")
    at, value = np.frombuffer(steps)[order], np.frombuffer(values)[order]
    last = np.append(at[1:] != at[:-1], True)
    return Series(at[last], value[last])


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


@dataclass(frozen=True)
class EpochStarts:
    """First steps of epochs, both from 0.

    With the same number of steps in each epoch, a row of step s in epoch e says e · n ≤ s < (e + 1) · n. The smallest
    n that all rows allow is exact if one of them is the last step of an epoch, as in each validation.
    """

    length: int | None  # steps of an epoch; None if it changed, as after a resume with another batch size
    count: int  # epochs that have begun
    logged: Series  # the epoch of each logged step

    def step(self, epoch: int) -> float:
        """Return the first step of an epoch. Without ``length``, it is the step after the last one logged before it."""
        if self.length is not None:
            return float(epoch * self.length)
        before = int(np.searchsorted(self.logged.values, epoch))  # rows of earlier epochs
        return float(self.logged.steps[before - 1] + 1) if before else 0.0


def epoch_starts(logged: Series) -> EpochStarts:
    """Estimate the starts of epochs from the epoch of each logged step, in the order of the steps."""
    epochs = np.maximum.accumulate(np.floor(logged.values)) if len(logged.values) else logged.values
    steps, count = logged.steps, int(epochs[-1]) + 1 if len(epochs) else 0
    least = int(np.max(steps // (epochs + 1), initial=-1)) + 1
    later = epochs > 0
    most = np.min(steps[later] // epochs[later], initial=np.inf)
    length = least if count and 0 < least <= most else None
    return EpochStarts(length, count, Series(steps, epochs))
