"""Rows of the training log, against the network that is trained."""

from __future__ import annotations

import os

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils.data import DataLoader

from d2csr.callbacks import training_log
from d2csr.callbacks.training_log import TrainingLog, memory_in_use
from d2csr.metrics.leaves import leaf_distances, weight_entropy
from d2csr.training import OPTIMIZATIONS
from helpers import build_task

MODES = list(OPTIMIZATIONS)
LOSSES = {"train/reconstruction", "train/divergence", "train/fusion"}
ALWAYS = {
    *(f"train/psnr_{leaf}" for leaf in ("11", "12", "21", "22")),
    "train/distance",
    "train/distance_same",
    "train/distance_diff",
    "train/lr",
    "train/divergence_weight",
    "train/samples_per_second",
    "train/memory_gb",
    "epoch",
}


class Rows(DummyLogger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))


@pytest.fixture
def rows(tiny, batches, fit):
    """Train for three epochs of three steps with a row every other step; returns the rows and the trainer."""

    def train(mode, callbacks=(), **settings):
        stage = {"divergence_epochs": 2} if mode == "sequential" else {}
        torch.manual_seed(0)
        divergence = {"weight": 0.5, "after": -1, "period": 2, "active": 1}
        optimizer = {"lr": 0.01, "decay_every": 1}
        task = build_task(optimization=mode, **tiny, divergence=divergence, optimizer=optimizer, **stage)
        logger = Rows()
        made = fit(
            task,
            batches,
            logger=logger,
            callbacks=[TrainingLog(), *callbacks],
            **{"max_epochs": 3, "log_every_n_steps": 2, **settings},
        )
        return logger.rows, made

    return train


@pytest.mark.parametrize("mode", MODES)
def test_each_due_step_and_the_last_one_have_one_row(mode, rows):
    written, _ = rows(mode)
    assert [step for step, _ in written] == [1, 3, 5, 7, 8]  # the last step has a row, too
    assert [row["epoch"] for _, row in written] == [0, 1, 1, 2, 2]
    last = 0 if mode == "sequential" else 2  # the second stage begins with the third epoch
    assert [row["train/lr"] for _, row in written] == [0.01 * 0.5**n for n in (0, 1, 1, last, last)]
    assert [row["train/divergence_weight"] for _, row in written] == [0.5, 0, 0, 0.5, 0.5]
    for _, row in written:
        assert row.keys() >= ALWAYS
        assert row["train/samples_per_second"] > 0
        assert all(isinstance(value, int | float) for value in row.values())


def test_each_stage_of_sequential_has_its_own_names(rows):
    written, _ = rows("sequential")
    divergence, convergence = (
        {"train/reconstruction", "train/divergence"},
        {"train/fusion", "train/psnr", "train/entropy"},
    )
    assert [row.keys() - ALWAYS for _, row in written] == [divergence] * 3 + [convergence] * 2


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_the_values_are_those_of_the_step(mode, rows, batches):
    """At a learning rate of zero they can be taken from the network afterwards."""
    captured = {}

    class Still(Callback):
        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = 0

        def on_train_end(self, trainer, task):
            captured["network"] = task.network

    [_, (_, row), *_, (_, last)], _ = rows(mode, [Still()])
    lr, hr = batches[0]["lr"], batches[0]["hr"]  # step 3 is the first one of the second epoch
    network = captured["network"]
    with torch.no_grad():
        predictions = network.divergence(lr)
        sr, weights = network.convergence(predictions)
    assert row["train/fusion"] == pytest.approx((sr - hr).square().mean().item(), rel=1e-5)
    assert row["train/reconstruction"] == pytest.approx(
        sum((leaf - hr).square().mean().item() for leaf in predictions.unbind(1)), rel=1e-5
    )
    assert row["train/entropy"] == pytest.approx(weight_entropy(weights).item(), rel=1e-5)
    for name, value in leaf_distances(predictions, network.tree).items():
        assert row[f"train/{name}"] == pytest.approx(value.item(), rel=1e-4)
    errors = (predictions[:, 2].clamp(0, 1) - hr).square().mean(dim=(1, 2, 3))
    assert row["train/psnr_21"] == pytest.approx(-10 * errors.log10().mean().item(), rel=1e-5)
    assert row.keys() >= LOSSES
    with torch.no_grad():
        sr, _ = network.convergence(network.divergence(batches[2]["lr"]))
    assert last["train/fusion"] == pytest.approx((sr - batches[2]["hr"]).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("every", [50, 3])
def test_the_last_step_is_logged_once(rows, every):
    written, _ = rows("joint", max_steps=6, log_every_n_steps=every)
    assert [(step, row["epoch"]) for step, row in written] == ([(5, 1)] if every == 50 else [(2, 0), (5, 1)])


def test_nothing_is_computed_between_rows(rows, monkeypatch):
    calls = []
    monkeypatch.setattr("d2csr.callbacks.training_log.weight_entropy", lambda weights: calls.append(1) or weights.sum())
    rows("joint", max_epochs=3, log_every_n_steps=4)
    assert len(calls) == 3  # with the last step


def test_a_batch_without_a_step_makes_no_row(rows):
    written, trainer = rows("joint", accumulate_grad_batches=3, log_every_n_steps=1)
    assert trainer.global_step == 3
    assert [step for step, _ in written] == [0, 1, 2]


def test_without_loggers_nothing_is_computed(tiny, batches, fit, monkeypatch):
    monkeypatch.setattr("d2csr.callbacks.training_log.leaf_distances", lambda *_: pytest.fail("computed"))
    fit(build_task(optimization="joint", **tiny), batches, callbacks=[TrainingLog()], log_every_n_steps=1)


def test_the_memory_is_that_of_this_process():
    psutil = pytest.importorskip("psutil")
    held = torch.ones(10_000_000)
    assert memory_in_use(torch.device("cpu")) == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.05)
    assert memory_in_use(torch.device("cpu")) > held.nbytes


def test_the_speed_is_that_of_the_training_without_validation(tiny, batches, trainer, monkeypatch):
    """Steps of two seconds, and a validation of fifty seconds after each epoch of three steps."""
    now = [100.0]
    monkeypatch.setattr(training_log.time, "perf_counter", lambda: now[0])

    class Clock(Callback):
        def on_train_batch_start(self, *_):
            now[0] += 2

        def on_validation_batch_start(self, *_):
            now[0] += 50

    logger = Rows()
    made = trainer(max_epochs=3, log_every_n_steps=2, logger=logger, callbacks=[TrainingLog(), Clock()])
    val = [{"lr": torch.rand(1, 3, 8, 8), "hr": torch.rand(1, 3, 16, 16)}]
    loaders = (DataLoader(batches, batch_size=None), DataLoader(val, batch_size=None))
    made.fit(build_task(optimization="joint", **tiny), *loaders)
    assert now[0] == 100 + 9 * 2 + 4 * 50  # Lightning validates once before the first step
    speeds = [row["train/samples_per_second"] for _, row in logger.rows if "train/samples_per_second" in row]
    assert speeds == [len(batches[0]["lr"]) / 2] * 5
