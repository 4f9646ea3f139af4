from __future__ import annotations

import csv
import math

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.schedules import CosineWithWarmup, DivergenceWeightSchedule, StepDecay

PAPER = {"weight": 2e-5, "after": 200, "period": 1000, "active": 200, "decay_every": 2000, "decay_factor": 0.5}


def rates(kind, epochs, lr=1e-4, **settings):
    """Return the learning rate of each epoch, with a fresh optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, seen = kind(optimizer, **settings), []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.fixture
def rows(golden):
    with (golden / "schedules.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_learning_rate_is_the_official_one_in_every_epoch(rows):
    epochs = [int(row["epoch"]) for row in rows]
    seen = rates(StepDecay, max(epochs) + 1, decay_every=2000, decay_factor=0.5)
    assert len(rows) > 400
    assert [seen[epoch] for epoch in epochs] == [row["lr"] for row in rows]


def test_the_divergence_weight_is_the_official_one_in_every_epoch(rows):
    schedule = DivergenceWeightSchedule(**PAPER)
    assert {row["divergence_weight"] > 0 for row in rows} == {True, False}
    assert [schedule(int(row["epoch"])) for row in rows] == [row["divergence_weight"] for row in rows]


def test_the_learning_rate_decays_at_the_set_interval():
    assert rates(StepDecay, 8, lr=0.8, decay_every=3, decay_factor=0.5) == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]


def test_the_factors_of_both_decays_are_settings():
    assert rates(StepDecay, 5, lr=1.0, decay_every=2, decay_factor=0.1) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    schedule = DivergenceWeightSchedule(weight=8.0, after=-1, period=1, active=1, decay_every=2, decay_factor=0.25)
    assert [schedule(epoch) for epoch in range(5)] == [8, 8, 2, 2, 0.5]
    with pytest.raises(ConfigError, match=r"^decay_factor: must be a number above 0, got 0"):
        rates(StepDecay, 1, decay_every=2, decay_factor=0)
    with pytest.raises(ConfigError, match=r"^decay_factor: must be a number at least 0, got -1"):
        DivergenceWeightSchedule(**{**PAPER, "decay_factor": -1})


def test_the_cosine_rises_linearly_and_falls_to_the_minimum():
    found = rates(CosineWithWarmup, 10, lr=0.8, warmup=3, total=7, minimum=0.25)
    cosine = [0.2 + 0.6 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert found == pytest.approx([0.2, 0.4, 0.6, *cosine, 0.2, 0.2, 0.2])


def test_a_loaded_scheduler_uses_its_own_settings_at_the_saved_count():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = StepDecay(optimizer, decay_every=2, decay_factor=0.5)
    scheduler.load_state_dict({"last_epoch": 5})
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.state_dict() == {"last_epoch": 5}


@pytest.mark.parametrize(
    ("setting", "value"), [("warmup", -1), ("warmup", 1.0), ("total", 3), ("minimum", -0.1), ("minimum", "0")]
)
def test_impossible_settings_of_the_cosine_are_named(setting, value):
    with pytest.raises(ConfigError, match=f"^{setting}: must be a"):
        rates(CosineWithWarmup, 1, **{"warmup": 3, "total": 7, "minimum": 0.0, setting: value})


def test_the_divergence_loss_is_active_in_windows_after_the_initial_pause():
    schedule = DivergenceWeightSchedule(weight=1.0, after=1, period=4, active=3, decay_every=6, decay_factor=0.5)
    assert [schedule(epoch) for epoch in range(12)] == [0, 0, 1, 0, 1, 1, 0.5, 0, 0.5, 0.5, 0.5, 0]


def test_the_divergence_loss_can_be_active_from_the_first_epoch():
    schedule = DivergenceWeightSchedule(**{**PAPER, "weight": 3.0, "after": -1})
    assert (schedule(0), schedule(199), schedule(200)) == (3.0, 3.0, 0.0)


def test_the_divergence_loss_can_be_active_always():
    schedule = DivergenceWeightSchedule(weight=1.0, after=-1, period=1, active=1, decay_every=100, decay_factor=0.5)
    assert {schedule(epoch) for epoch in range(100)} == {1.0}


@pytest.mark.parametrize("epochs", [0, -5, 1.5, "2000", True])
def test_impossible_numbers_of_epochs_are_named(epochs):
    with pytest.raises(ConfigError, match=r"^decay_every: must be a whole number from 1 up"):
        rates(StepDecay, 1, decay_every=epochs, decay_factor=0.5)
    for name in ("decay_every", "period"):
        with pytest.raises(ConfigError, match=f"^{name}: must be a whole number from 1 up"):
            DivergenceWeightSchedule(**{**PAPER, name: epochs})
