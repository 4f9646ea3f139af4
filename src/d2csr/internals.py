"""Private names of Lightning; those of torch are in ``torch_internals.py``, and no other module uses one.

If a new release moves one, ``tests/test_internals.py`` fails with its name.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loops.fetchers import _DataFetcher as DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

__all__ = ["CSVWriter", "DataFetcher", "EpochLoop"]


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch: its public hooks are the only way to resume between batches."""

    @property
    def batches_that_stepped(self) -> int:
        """Batches that ended in a step."""
        return self._batches_that_stepped

    @batches_that_stepped.setter
    def batches_that_stepped(self, count: int) -> None:
        self._batches_that_stepped = count

    def is_accumulating(self) -> bool:
        """Return whether the present batch ends without a step."""
        return self._should_accumulate()

    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing: ``signals.py`` exchanges signals without a host sync."""


class CSVWriter(ExperimentWriter):
    """Lightning's writer of CSV files, which keeps existing rows and lets a subclass rewrite the file."""

    def rewrite(self, header: list[str]) -> None:
        """Give the file another header."""
        super()._rewrite_with_new_header(header)

    def _check_log_dir_exists(self) -> None:
        """Do nothing: Lightning deletes the rows of the run that is resumed."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self.rewrite(fieldnames)


def get_experiment(logger: Any) -> Any:
    """Return a logger's writer or run, or None: the public property would create it."""
    return logger._experiment


def set_experiment(logger: Any, value: Any) -> Any:
    """Set a logger's writer and return it."""
    logger._experiment = value
    return value


def wandb_arguments(logger: pl.loggers.WandbLogger) -> dict[str, Any]:
    """Return the arguments of ``wandb.init``, one of which makes W&B warn."""
    return logger._wandb_init


def cluster_environment(trainer: pl.Trainer) -> Any:
    """Return the environment of the processes: Lightning's requeueing of SLURM jobs has no public switch."""
    return trainer._accelerator_connector.cluster_environment


def checkpoint_content(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the content of a checkpoint: ``save_checkpoint`` would wait for other ranks."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def child_processes(trainer: pl.Trainer) -> list[Any]:
    """Return the processes of other ranks that Lightning started."""
    return getattr(trainer.strategy.launcher, "procs", [])


def group_timeout(trainer: pl.Trainer) -> timedelta | None:
    """Return the time-out of the process group."""
    return getattr(trainer.strategy, "_timeout", None)
