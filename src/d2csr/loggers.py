"""CSV and Weights & Biases loggers that continue the log of a resumed run."""

from __future__ import annotations

import csv
import logging
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as pl_loggers
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from d2csr.errors import ConfigError
from d2csr.files import require_regular_file, write_checkpoint_file
from d2csr.internals import CSVWriter, get_experiment, set_experiment, wandb_arguments

_log = logging.getLogger(__name__)

METRICS = "metrics.csv"
_MAX_BYTES = 2**30  # of a log that is continued
_MAX_ID = 200  # characters of the id of a W&B run, which has 8


class CSVLogger(pl_loggers.CSVLogger):
    """Lightning's CSV logger, which renames ``metrics.csv`` of an earlier run in the folder to ``metrics.1.csv``."""

    rows = 0  # that are logged, by rank 0

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, created at the first access."""
        if (writer := get_experiment(self)) is not None:
            return writer
        _set_aside(Path(self.log_dir) / METRICS)
        return set_experiment(self, _Writer(log_dir=self.log_dir))

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log a row, and count it."""
        super().log_metrics(metrics, step)
        self.rows += 1

    @rank_zero_only
    def continue_from(self, run_dir: Path, rows: int) -> None:
        """Begin with the rows before the checkpoint of a run, or raise CheckpointError: the later ones come again."""
        log = Path(self.log_dir) / METRICS
        source = Path(run_dir) / log.relative_to(self.save_dir)
        header, found = _read(source)
        if len(found) < rows:
            _log.warning("%s: lacks %d of the %d rows before the checkpoint", source, rows - len(found), rows)
        if source.resolve() != log.resolve():
            _set_aside(log)
        if header:
            with write_checkpoint_file(log) as partial, partial.open("w", newline="") as file:
                csv.writer(file).writerows([header, *found[:rows]])
        self.rows = min(rows, len(found))
        set_experiment(self, _Writer(log_dir=self.log_dir)).metrics_keys = header


class _Writer(CSVWriter):
    """Appends to existing rows, and replaces the file atomically if its header changes."""

    def rewrite(self, header: list[str]) -> None:
        path = Path(self.metrics_file_path)
        old, rows = _read(path)
        with write_checkpoint_file(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(dict(zip(old, row, strict=True)) for row in rows)


def _read(log: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows, without an incomplete last row and rows of another length; DataError beyond 1 GB."""
    if not log.is_file():
        return [], []
    require_regular_file(log, _MAX_BYTES)
    with log.open(newline="", encoding="utf-8", errors="replace") as file:
        text = file.read()
    try:
        rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    except csv.Error as error:
        _log.warning("%s: not a log of this package (%s); its rows are not continued.", log, error)
        rows = []
    header = rows[0] if rows else []
    return header, [row for row in rows[1:] if len(row) == len(header)]


def _set_aside(log: Path) -> None:
    if log.is_file():
        log.rename(next(path for n in count(1) if not (path := log.with_suffix(f".{n}.csv")).exists()))


class WandbLogger(pl_loggers.WandbLogger):
    """Lightning's Weights & Biases logger, which continues the W&B run if a run is resumed in its folder.

    In ``save_dir``, the run folder, ``wandb/id.txt`` holds the id of the W&B run. ``resume_from`` is the run that is
    resumed. The first access to W&B raises a ConfigError if it cannot be reached or nobody is logged in.
    """

    def __init__(self, save_dir: str | Path, resume_from: str | None = None, **settings: Any) -> None:
        self._id_file = Path(save_dir) / "wandb" / "id.txt"
        if resume_from and self._id_file.is_file() and not settings.get("id"):
            with self._id_file.open(encoding="utf-8", errors="replace") as file:
                settings["id"] = file.read(_MAX_ID).strip()
        super().__init__(save_dir=save_dir, **settings)
        wandb_arguments(self).pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at the first access."""
        if (run := get_experiment(self)) is not None:
            return run
        from wandb.errors import Error

        try:
            self._id_file.parent.mkdir(parents=True, exist_ok=True)  # else W&B uses another folder
            run = super().experiment
        except Error as error:
            raise ConfigError(
                f"logger=wandb: {str(error).rstrip('.')}. Set WANDB_MODE=offline to keep everything on this machine, "
                "or use logger=csv."
            ) from None
        self._id_file.write_text(f"{run.id}\n", encoding="utf-8")
        return run
