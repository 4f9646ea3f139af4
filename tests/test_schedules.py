from __future__ import annotations

import csv

import pytest

from d2csr.errors import ConfigError
from d2csr.schedules import DivergenceWeightSchedule, LearningRateSchedule


@pytest.fixture
def rows(golden):
    with (golden / "schedules.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_learning_rate_is_the_official_one_in_every_epoch(rows):
    schedule = LearningRateSchedule()
    assert len(rows) > 400
    assert [schedule(int(row["epoch"])) for row in rows] == [row["lr"] for row in rows]


def test_the_divergence_weight_is_the_official_one_in_every_epoch(rows):
    schedule = DivergenceWeightSchedule()
    assert {row["divergence_weight"] > 0 for row in rows} == {True, False}
    assert [schedule(int(row["epoch"])) for row in rows] == [row["divergence_weight"] for row in rows]


def test_the_learning_rate_is_halved_as_often_as_asked():
    schedule = LearningRateSchedule(initial=0.8, halve_every=3)
    assert [schedule(epoch) for epoch in range(8)] == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]


def test_the_divergence_loss_works_in_windows_after_a_first_stretch():
    schedule = DivergenceWeightSchedule(weight=1.0, after=1, period=4, active=3, halve_every=6)
    assert [schedule(epoch) for epoch in range(12)] == [0, 0, 1, 0, 1, 1, 0.5, 0, 0.5, 0.5, 0.5, 0]


def test_the_divergence_loss_can_work_from_the_first_epoch_on():
    schedule = DivergenceWeightSchedule(weight=3.0, after=-1)
    assert (schedule(0), schedule(199), schedule(200)) == (3.0, 3.0, 0.0)


def test_the_divergence_loss_can_work_always():
    schedule = DivergenceWeightSchedule(weight=1.0, after=-1, period=1, active=1, halve_every=100)
    assert {schedule(epoch) for epoch in range(100)} == {1.0}


@pytest.mark.parametrize("epochs", [0, -5, 1.5, "2000"])
def test_impossible_numbers_of_epochs_are_named(epochs):
    with pytest.raises(ConfigError, match=r"optimizer.halve_every: must be a positive whole number of epochs"):
        LearningRateSchedule(halve_every=epochs)
    with pytest.raises(ConfigError, match=r"divergence.halve_every: must be a positive whole number of epochs"):
        DivergenceWeightSchedule(halve_every=epochs)
    with pytest.raises(ConfigError, match=r"divergence.period: must be a positive whole number of epochs"):
        DivergenceWeightSchedule(period=epochs)
