"""Logs of training runs, written by hand."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2csr.plotting import RunLog, read_run_log

WriteRun = Callable[..., RunLog]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Return a function that writes rows as the log of a run, with settings beside it, and reads it."""

    def write(rows: Sequence[dict[str, Any]], settings: dict[str, Any] | None = None, name: str = "run") -> RunLog:
        folder = tmp_path / name / "csv"
        folder.mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, sorted({column for row in rows for column in row}))
            writer.writeheader()
            writer.writerows(rows)
        if settings is not None:
            (folder / "hparams.yaml").write_text(yaml.safe_dump(settings))
        return read_run_log(folder / "metrics.csv", name)

    return write
