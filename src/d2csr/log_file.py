"""Text for the log file of a run, which holds the lines that the terminal shows; and quiet loggers."""

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
