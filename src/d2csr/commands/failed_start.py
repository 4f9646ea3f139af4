"""Removal of the run folder of a command that fails before it writes a result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Files that a start writes before its first result: those of Hydra, of the lock and of the loggers.
_OF_THE_START = ("*.log", ".hydra", ".lock", "tensorboard")

_missing: list[Path] = []  # the run folder and its parents that did not exist, the innermost first


def remember_missing(run_dir: Path) -> None:
    """Remember which of the run folder and its parents do not exist yet."""
    run_dir = run_dir.absolute()
    _missing[:] = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]


def keep_run_folder(*_: Any) -> None:
    """Keep the run folder from now on: the training has started."""
    _missing.clear()


@contextmanager
def removed_if_failed() -> Iterator[None]:
    """Remove the folders that this process made, if the command fails and they hold no result."""
    try:
        yield
    except SystemExit as exit_:
        if exit_.code and _missing and not _results(_missing[0]):
            shutil.rmtree(_missing[0], ignore_errors=True)
            for parent in _missing[1:]:
                with suppress(OSError):  # another run is in it
                    parent.rmdir()
        raise


def _results(run_dir: Path) -> list[Path]:
    """Return the files in a run folder that are not of its start."""
    mine = [path for pattern in _OF_THE_START for path in run_dir.glob(pattern)]
    return [path for path in run_dir.rglob("*") if path.is_file() and not {path, *path.parents} & set(mine)]
