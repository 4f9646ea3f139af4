"""Text for the log file of a run, which holds the lines that the terminal shows; and messages that are not shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def log_to_file(text: str, level: int = logging.INFO) -> None:
    """Write a text that the terminal shows to the log files of the root logger, as Hydra's ``d2csr-train.log``."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    for handler in handlers:
        for line in text.strip().splitlines():
            handler.handle(logging.LogRecord("d2csr", level, "", 0, line, None, None))


def print_and_log(text: str) -> None:
    """Print a text below an empty line, and write it to the log files."""
    print(f"\n{text}")
    log_to_file(text)


@contextmanager
def logged_warnings() -> Iterator[None]:
    """Write the warnings of Python to the log files, too."""
    show = warnings.showwarning

    def show_and_log(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        show(message, category, filename, lineno, *rest)
        log_to_file(f"{filename}:{lineno}: {category.__name__}: {message}", logging.WARNING)

    warnings.showwarning = show_and_log  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = show


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Hide messages below errors of other packages, by the names of their loggers."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quieten() -> None:
    """Silence messages of Hydra and Lightning that a user cannot act on."""
    for name in (
        "lightning_fabric.utilities.distributed",
        "pytorch_lightning.utilities.rank_zero",
        "pytorch_lightning.trainer.connectors.checkpoint_connector",
        "pytorch_lightning.accelerators.cuda",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "is validated against ConfigStore schema with the same name",  # submitit_slurm is, on purpose
        "isinstance.treespec",
        "does not have many workers",
        "Checkpoint directory",
        "dirpath has changed",
        "You.re resuming from a checkpoint that ended before the epoch ended",
        "Experiment logs directory",
        "smaller than the logging interval",
        "predict returned None",
        "overridden .transfer_batch_to_device",  # D2CSRTask checks batches of other data modules there
        "recommended to use .self.log.*sync_dist=True",  # what is logged so is equal on all ranks
        "Detected call of .lr_scheduler.step",  # after a step that was skipped
    ):
        warnings.filterwarnings("ignore", message=f"(?s).*{text}")
