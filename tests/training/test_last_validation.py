"""The validation at the end of a training, and runs that are extended after it."""

from __future__ import annotations

import csv
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, Timer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from d2csr.callbacks import TrainingLog
from d2csr.data.datamodule import PairDataModule
from d2csr.loggers import CSVLogger
from d2csr.training import build_trainer
from d2csr.training.fit import train
from helpers import build_task, checkpoint_callbacks
from pair_files import write_list_of, write_pairs

MODES = ["alternating", "joint", "sequential"]
SLOW_MODES = ["joint", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("alternating", "sequential"))]


@pytest.fixture
def run(tmp_path, tiny):
    """Train on six pairs, three batches an epoch, with a validation every 20 epochs; returns task and log rows."""
    write_pairs(tmp_path, 6, 12, 12)
    write_list_of(tmp_path / "val.txt", [0])

    def start(name, mode="joint", callbacks=(), scheduler=None, resume=None, **settings):
        torch.manual_seed(0)
        stages = {"divergence_epochs": 1} if mode == "sequential" else {}
        task = build_task(optimization=mode, **tiny, **stages, optimizer={"lr": 0.02})
        task.scheduler_factory = scheduler or task.scheduler_factory
        folder = tmp_path / name
        trainer = build_trainer(
            optimization=mode,
            accelerator="cpu",
            devices=1,
            logger=CSVLogger(folder, "csv", ""),
            callbacks=[TrainingLog(), *callbacks, *checkpoint_callbacks(folder)],
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 9, "check_val_every_n_epoch": 20, "num_sanity_val_steps": 0, **settings},
        )
        lists = {"train_list": str(tmp_path / "train.txt"), "val_list": str(tmp_path / "val.txt")}
        data = PairDataModule(scale=2, batch_size=2, patch_size=8, **lists)
        train(task, data, trainer, run_dir=folder, resume=resume)
        with (folder / "csv" / "metrics.csv").open(newline="") as file:
            return task, list(csv.DictReader(file))

    return start


def validated(rows):
    return [(int(row["epoch"]), int(row["step"])) for row in rows if row.get("val/psnr")]


def logged(rows):
    return [(int(row["epoch"]), int(row["step"])) for row in rows if row.get("train/lr")]


class Stop(Callback):
    """Stops in a hook of the second epoch."""

    def __init__(self, hook):
        setattr(self, hook, self.stop)

    def stop(self, trainer, *_):
        trainer.should_stop = trainer.current_epoch >= 1


class TimeLimit(Timer):
    """A limit that is reached after four steps."""

    def __init__(self):
        super().__init__({"seconds": 5})
        self.steps = 0

    def time_elapsed(self, stage="train"):
        return float(self.steps + 1)

    def on_train_batch_end(self, trainer, *args):
        self.steps = trainer.global_step
        super().on_train_batch_end(trainer, *args)


@pytest.mark.parametrize("mode", SLOW_MODES)
@pytest.mark.parametrize(
    ("settings", "stop", "end"),
    [
        ({"max_epochs": 1}, None, (0, 2)),
        ({"max_steps": 4}, None, (1, 3)),
        ({"max_steps": 6}, None, (1, 5)),
        ({}, lambda: Stop("on_train_batch_end"), (1, 3)),
        ({}, lambda: Stop("on_train_epoch_end"), (1, 5)),
        ({"min_epochs": 3}, lambda: Stop("on_train_batch_end"), (2, 8)),
        ({}, lambda: EarlyStopping("train/lr", patience=1, check_on_train_epoch_end=True), (1, 5)),
        ({}, TimeLimit, (1, 3)),
    ],
    ids=["epochs", "steps", "steps-epoch-end", "stop", "stop-epoch-end", "min-epochs", "early-stopping", "time"],
)
def test_the_last_step_is_logged_and_validated_once(run, tmp_path, mode, settings, stop, end):
    _, rows = run("a", mode, [stop()] if stop else [], **settings)
    assert validated(rows) == [end]
    assert logged(rows) == [end]
    assert (tmp_path / "a" / "checkpoints" / "best.ckpt").is_file()
    state = torch.load(tmp_path / "a" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == end[1] + 1


def test_a_validation_that_is_due_at_the_end_is_not_repeated(run):
    for interval in ({"check_val_every_n_epoch": 1}, {"check_val_every_n_epoch": None, "val_check_interval": 3}):
        _, rows = run("a", max_epochs=2, **interval)
        assert validated(rows) == [(0, 2), (1, 5)]


def test_without_validation_there_is_none_at_the_end(run, tmp_path):
    _, rows = run("a", max_epochs=1, limit_val_batches=0)
    assert validated(rows) == []
    assert not (tmp_path / "a" / "checkpoints" / "best.ckpt").exists()


PLATEAU = partial(ReduceLROnPlateau, mode="max", patience=0, threshold=9.0)  # each validation but the first lowers it


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("first", "scheduler"),
    [({"max_epochs": 1}, None), ({"max_steps": 4}, None), ({"max_epochs": 1}, PLATEAU), ({"max_steps": 5}, PLATEAU)],
)
def test_a_run_that_is_extended_after_its_last_validation_equals_a_longer_one(run, tmp_path, mode, first, scheduler):
    """The learning rate falls, and the run ends early, after a validation that is not better."""
    always = {"mode": mode, "scheduler": scheduler, "check_val_every_n_epoch": 2}

    def stop():
        return [EarlyStopping("val/psnr", mode="max", min_delta=99, patience=2, check_on_train_epoch_end=False)]

    whole, whole_rows = run("whole", **always, callbacks=stop())
    _, first_rows = run("first", **always, callbacks=stop(), **first)
    second, second_rows = run("second", **always, callbacks=stop(), resume=tmp_path / "first")
    assert validated(whole_rows) == [(1, 5), (3, 11), (5, 17)]
    assert len(validated(first_rows)) == 1
    assert validated(second_rows) == [*validated(first_rows), *validated(whole_rows)]
    assert logged(second_rows) == [*logged(first_rows), *logged(whole_rows)]
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.state_dict().items())
