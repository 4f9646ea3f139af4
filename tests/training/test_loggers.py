"""A log outlives a second run in its folder."""

from __future__ import annotations

from pathlib import Path

from d2csr.training.loggers import CSVLogger


def log(folder: Path, value: float) -> None:
    logger = CSVLogger(folder, name="csv", version="")
    logger.log_metrics({"loss": value}, step=0)
    logger.finalize("success")


def test_the_log_of_an_earlier_run_is_kept(tmp_path: Path) -> None:
    for value in (1.5, 2.5, 3.5):
        log(tmp_path, value)
    kept = {path.name: path.read_text().splitlines()[1] for path in (tmp_path / "csv").glob("*.csv")}
    assert kept == {"metrics.1.csv": "1.5,0", "metrics.2.csv": "2.5,0", "metrics.csv": "3.5,0"}
