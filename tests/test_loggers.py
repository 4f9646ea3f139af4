"""A log outlives a second run in its folder."""

from __future__ import annotations

import csv
from pathlib import Path

from d2csr.loggers import CSVLogger


def log(folder: Path, value: float) -> None:
    logger = CSVLogger(folder, name="csv", version="")
    logger.log_metrics({"loss": value}, step=0)
    logger.finalize("success")


def test_the_log_of_an_earlier_run_is_kept(tmp_path: Path) -> None:
    for value in (1.5, 2.5, 3.5):
        log(tmp_path, value)
    kept = {path.name: path.read_text().splitlines()[1] for path in (tmp_path / "csv").glob("*.csv")}
    assert kept == {"metrics.1.csv": "1.5,0", "metrics.2.csv": "2.5,0", "metrics.csv": "3.5,0"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_log_loses_what_came_after_the_checkpoint_and_goes_on(tmp_path: Path) -> None:
    for value in (1.5, 2.5):
        before = CSVLogger(tmp_path / "a", name="csv", version="")
        for step in range(5):
            before.log_metrics({"loss": value + step}, step=step)
        before.save()
    with (tmp_path / "a" / "csv" / "metrics.csv").open("a") as file:
        file.write("0.1")  # killed in the middle of a row
    for folder in ("a", "b"):  # in the same run folder, and in another
        after = CSVLogger(tmp_path / "b" if folder == "a" else tmp_path / "a", name="csv", version="")
        after.continue_from(tmp_path / "a", rows=3)
        after.log_metrics({"loss": 9, "psnr": 30}, step=3)
        after.finalize("success")
        assert after.rows == 4
        log = Path(after.log_dir) / "metrics.csv"
        assert [(row["step"], row["loss"], row["psnr"]) for row in rows(log)] == [
            ("0", "2.5", ""),
            ("1", "3.5", ""),
            ("2", "4.5", ""),
            ("3", "9", "30"),
        ]
        if folder == "a":
            assert len(rows(tmp_path / "a" / "csv" / "metrics.csv")) == 6, "the other run's log is left alone"
    assert len(rows(tmp_path / "a" / "csv" / "metrics.1.csv")) == 5


def test_a_log_that_is_shorter_than_it_was_is_named(tmp_path: Path, caplog) -> None:
    log(tmp_path, 1.5)
    CSVLogger(tmp_path, name="csv", version="").continue_from(tmp_path, rows=3)
    assert f"{tmp_path / 'csv' / 'metrics.csv'}: lacks 2 of the 3 rows before the checkpoint" in caplog.text


def test_a_new_column_replaces_the_log_at_once(tmp_path: Path, monkeypatch) -> None:
    logger = CSVLogger(tmp_path, name="csv", version="")
    logger.log_metrics({"loss": 1.5}, step=0)
    logger.save()
    path = tmp_path / "csv" / "metrics.csv"
    seen = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (seen.append(rows(path)), replace(self, target))[1])
    logger.log_metrics({"psnr": 30}, step=1)
    logger.save()
    assert seen == [[{"loss": "1.5", "step": "0"}]]
    assert rows(path) == [{"loss": "1.5", "psnr": "", "step": "0"}, {"loss": "", "psnr": "30", "step": "1"}]
