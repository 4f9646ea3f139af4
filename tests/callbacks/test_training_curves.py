"""Curves at the end of a training: drawn from its log, and never the reason why it fails."""

from __future__ import annotations

import csv
import importlib.util
import logging
from pathlib import Path

import pytest
from PIL import Image
from pytorch_lightning.callbacks import LambdaCallback

from d2csr.callbacks import TrainingCurves, TrainingLog, training_curves
from d2csr.loggers import CSVLogger
from helpers import build_task


@pytest.fixture(autouse=True)
def without_curves() -> None:
    """Draw them here."""


@pytest.fixture
def train(tiny, batches, fit, tmp_path: Path):
    """Train three steps into the folder of the test, with a CSV logger unless another one is given."""

    def run(**settings) -> None:
        logger = CSVLogger(save_dir=tmp_path, name="csv", version="")
        callbacks = [TrainingLog(), TrainingCurves(tmp_path)]
        task = build_task(optimization="joint", **tiny)
        fit(task, batches, **{"logger": logger, "callbacks": callbacks, "log_every_n_steps": 2, **settings})

    return run


@pytest.mark.slow
def test_the_curves_of_all_rows_are_drawn(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = training_curves.draw_curves
    monkeypatch.setattr(training_curves, "draw_curves", lambda logs: drawn.append(logs) or draw(logs))
    train()
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    ((log,),) = drawn
    assert log.name == tmp_path.name
    assert log.columns["train/fusion"].steps.tolist() == [1, 2]  # the last row, too, which no interval ends
    assert log.columns["train/fusion"].values.tolist() == [float(row["train/fusion"]) for row in rows]
    with Image.open(tmp_path / "curves.png") as image:
        image.load()
    assert "</svg>" in (tmp_path / "curves.svg").read_text()


def test_without_matplotlib_one_line_says_how_to_get_them(train, tmp_path: Path, monkeypatch, caplog) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    with caplog.at_level(logging.INFO, "d2csr"):
        train()
    assert [record.message for record in caplog.records if record.name.startswith("d2csr")] == [
        "No curves were drawn: A figure needs matplotlib; install it by: pip install 'd2csr[report]'. "
        f"To draw them later: d2csr-plot run={tmp_path}"
    ]
    assert not list(tmp_path.glob("curves.*"))


@pytest.mark.slow
def test_rows_that_are_not_on_the_disk_yet_are_drawn_too(train, tmp_path: Path) -> None:
    """As those of a LightningModule of another package: Lightning writes every 100 rows."""
    logger = CSVLogger(save_dir=tmp_path, name="csv", version="")
    log = LambdaCallback(on_train_batch_end=lambda trainer, *_: logger.log_metrics({"mine": 1.0}, trainer.global_step))
    train(logger=logger, callbacks=[log, TrainingCurves(tmp_path)])
    assert "<!-- mine -->" in (tmp_path / "curves.svg").read_text()


@pytest.mark.slow
def test_an_error_does_not_end_the_training(train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "curves.svg").mkdir()
    train()
    assert "No curves were drawn: " in caplog.text
    assert (tmp_path / "curves.png").is_file()


def test_nothing_is_drawn_without_a_log(train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(logger=False)
    train(fast_dev_run=True)  # Lightning replaces the loggers
    assert not list(tmp_path.glob("curves.*"))
    assert "curves" not in caplog.text
