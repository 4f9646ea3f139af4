from __future__ import annotations

import logging

import pytest
import torch
from torch.utils.data import DataLoader

from d2csr.callbacks import BatchReport
from d2csr.errors import ConfigError
from helpers import build_task


@pytest.fixture
def messages(caplog, trainer, tiny):
    """Train on 12 images, and return the level and the text of what the report logs."""
    images = [{"lr": torch.rand(3, 6, 6), "hr": torch.rand(3, 12, 12)} for _ in range(12)]

    def train(expected, batch_size, **settings):
        with caplog.at_level(logging.INFO, logger="d2csr"):
            made = trainer(callbacks=[BatchReport(expected)], **settings)
            made.fit(build_task(optimization="joint", **tiny), DataLoader(images, batch_size=batch_size))
        assert made.global_step == 12 // (batch_size * settings.get("accumulate_grad_batches", 1))
        return [(r.levelname, r.getMessage()) for r in caplog.records if r.name.endswith("batch_report")]

    return train


def test_the_global_batch_and_the_steps_of_an_epoch_are_logged(messages):
    assert messages(4, 4) == [("INFO", "global batch 4 (data.batch_size=4 × 1 device(s)), 3 steps an epoch")]


def test_accumulated_batches_count(messages):
    expected = "global batch 6 (data.batch_size=2 × 1 device(s) × 3 batches), 2 steps an epoch"
    assert messages(None, 2, accumulate_grad_batches=3) == [("INFO", expected)]


def test_another_global_batch_than_the_expected_one_is_warned_of(messages):
    (_, warning) = messages(4, 2)
    assert warning[0] == "WARNING"
    assert warning[1].startswith(
        "the global batch is 2, but this experiment's learning rate and schedules are meant for 4"
    )


def test_an_impossible_expectation_is_named():
    with pytest.raises(ConfigError, match=r"^expected_batch: must be a whole number from 1 up, got 0"):
        BatchReport(0)
