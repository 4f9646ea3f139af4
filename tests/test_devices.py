"""Several devices, as arguments of Lightning's Trainer ask for them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytorch_lightning as pl
import torch

from d2csr.devices import check_visible_gpus, inference_strategy, needs_ddp
from d2csr.errors import ConfigError
from d2csr.internals import group_timeout


@pytest.mark.parametrize(
    ("devices", "gpus", "several"),
    [
        *[([0, 1], 4, True), ([2], 4, False), ("0,1", 4, True), ("3,", 4, False)],
        *[(-1, 4, True), ("-1", 4, True), ("auto", 4, True), ("auto", 1, False), (-1, 0, False)],
    ],
)
def test_several_gpus_are_recognised(devices, gpus, several, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert needs_ddp({"devices": devices}) is several
    assert not needs_ddp({"devices": "auto", "accelerator": "cpu"})


@pytest.mark.parametrize("devices", [True, 0, 1.5, -2, "all", "-3", None])
@pytest.mark.parametrize("check", [check_visible_gpus, inference_strategy])
def test_an_impossible_number_of_devices_is_refused(check, devices) -> None:
    with pytest.raises(ConfigError, match=r"^devices: must be a whole number from 1 up, a list of GPUs .*, got "):
        check({"devices": devices, "accelerator": "cpu"})


def test_slurm_that_shows_each_task_one_gpu_is_explained(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_visible_gpus({"devices": 4})  # Lightning has a message of its own
    monkeypatch.setenv("SLURM_PROCID", "0")
    check_visible_gpus({"devices": 1})
    check_visible_gpus({"devices": 4, "accelerator": "cpu"})
    with pytest.raises(
        ConfigError, match=r"SLURM shows this task only one of them\. Ask for them by --gpus-per-node=4"
    ):
        check_visible_gpus({"devices": 4, "accelerator": "gpu"})
    with pytest.raises(ConfigError, match="SLURM shows this task only one"):
        inference_strategy({"devices": 4, "accelerator": "gpu"})


@pytest.mark.parametrize("nodes", [None, "abc", [1, 2], 10**10])
def test_an_impossible_number_of_nodes_is_refused(nodes) -> None:
    with pytest.raises(ConfigError, match=r"^num_nodes: must be a whole number from 1 to 100000, got "):
        inference_strategy({"num_nodes": nodes, "accelerator": "cpu", "devices": 1})


@pytest.mark.parametrize("settings", [{"strategy": "ddp"}, {"devices": 2, "strategy": "auto"}])
def test_in_an_evaluation_a_finished_rank_waits_for_days(settings) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, **{**settings, "devices": 2, "strategy": inference_strategy(settings)}
    )
    assert group_timeout(trainer) == timedelta(days=7)
    assert inference_strategy({"devices": 1}) == "auto"
