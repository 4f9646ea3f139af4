"""Lightning's CSV logger, made to survive: whatever stops a run, its log can go on where the run does."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as pl_loggers
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from d2csr.errors import ConfigError
from d2csr.files import write_checkpoint_file

_log = logging.getLogger(__name__)

METRICS = "metrics.csv"


class CSVLogger(pl_loggers.CSVLogger):
    """Writes ``metrics.csv``; that of an earlier run in the same folder is kept as ``metrics.1.csv``.

    A run that goes on goes on in its log: what was logged after the checkpoint is logged again, so it is cut off first.
    All arguments are those of Lightning's.

    Attributes:
        rows: how many were logged; 0 on other processes than the first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = 0
        self._goes_on = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer; made when it is first asked for."""
        if self._experiment is None:
            log = Path(self.log_dir) / METRICS
            if not self._goes_on:
                _keep(log)
            self._experiment = _Writer(log_dir=self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log a row, and count it."""
        super().log_metrics(metrics, step)
        self.rows += 1

    @rank_zero_only
    def go_on(self, run_dir: Path, rows: int) -> None:
        """Begin with the first rows of a run's log.

        Args:
            run_dir: of the run, which may be another one.
            rows: how many.

        Raises:
            CheckpointError: the log cannot be written.
        """
        log = Path(self.log_dir) / METRICS
        source = Path(run_dir) / log.relative_to(self.save_dir)
        header, kept = _read(source)
        if len(kept) < rows:
            _log.warning("%s: lacks %d of the %d rows before the checkpoint", source, rows - len(kept), rows)
        if source.resolve() != log.resolve():
            _keep(log)
        if header:
            with write_checkpoint_file(log) as partial, partial.open("w", newline="") as file:
                csv.writer(file).writerows([header, *kept[:rows]])
        self.rows = min(rows, len(kept))
        self._goes_on = True


class _Writer(ExperimentWriter):
    """Keeps the rows that are there, and replaces the file at once where its header changes."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.metrics_keys, _ = _read(Path(self.metrics_file_path))

    def _check_log_dir_exists(self) -> None:
        """Delete nothing."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        header, rows = _read(path)
        with write_checkpoint_file(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(dict(zip(header, row, strict=True)) for row in rows)


def _read(log: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; a last row that was cut in the middle is left out."""
    if not log.is_file():
        return [], []
    with log.open(newline="") as file:
        text = file.read()
    rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    header = rows[0] if rows else []
    return header, [row for row in rows[1:] if len(row) == len(header)]


def _keep(log: Path) -> None:
    if not log.is_file():
        return
    number = 1
    while (kept := log.with_suffix(f".{number}.csv")).exists():
        number += 1
    log.rename(kept)


class WandbLogger(pl_loggers.WandbLogger):
    """Logs to Weights & Biases.

    Args:
        save_dir: the run folder; W&B keeps its files in ``wandb/`` there, and ``wandb/id.txt`` names its run.
        resume_from: what is resumed, if anything is: then the W&B run that was logged from the same folder goes on.
        settings: all other arguments are those of Lightning's logger.

    Raises:
        ConfigError: when W&B is first needed, it cannot be reached, or nobody is logged in.
    """

    def __init__(self, save_dir: str | Path, resume_from: str | None = None, **settings: Any) -> None:
        self._id_file = Path(save_dir) / "wandb" / "id.txt"
        if resume_from and self._id_file.is_file() and not settings.get("id"):
            settings["id"] = self._id_file.read_text(encoding="utf-8").strip()
        super().__init__(save_dir=save_dir, **settings)
        self._wandb_init.pop("anonymous", None)  # Lightning still sets it; W&B warns that it means nothing any more

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; begun when it is first asked for."""
        if self._experiment is not None:
            return self._experiment
        from wandb.errors import Error

        try:
            self._id_file.parent.mkdir(parents=True, exist_ok=True)  # W&B takes another folder if it is not there
            run = super().experiment
        except Error as error:
            raise ConfigError(
                f"logger=wandb: {str(error).rstrip('.')}. WANDB_MODE=offline keeps everything on this machine; "
                "logger=csv does without W&B."
            ) from None
        self._id_file.write_text(f"{run.id}\n", encoding="utf-8")
        return run
