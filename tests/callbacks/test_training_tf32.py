"""TF32 in a training, by the flags of torch. The callback acts on a GPU alone, so its trainer here is made up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.backends import cudnn

from d2csr.callbacks.training_tf32 import TrainingTF32
from d2csr.training import build_trainer

RESTORED = (True, "highest")


def flags():
    return cudnn.allow_tf32, torch.get_float32_matmul_precision()


def trainer_on(device):
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.mark.parametrize("end", ["teardown", "on_exception"])
@pytest.mark.parametrize(("tf32", "expected"), [(True, (True, "high")), (False, (False, "highest"))])
def test_the_flags_hold_during_a_training_on_a_gpu(tf32, expected, end):
    callback = TrainingTF32(tf32)
    callback.on_fit_start(trainer_on("cuda"), None)
    assert flags() == expected
    getattr(callback, end)(None, None, None)
    assert flags() == RESTORED
    callback.teardown(None, None, stage="fit")
    assert flags() == RESTORED


def test_on_a_cpu_nothing_changes():
    callback = TrainingTF32(False)
    callback.on_fit_start(trainer_on("cpu"), None)
    assert flags() == RESTORED


def test_the_key_of_the_trainer_chooses():
    def chosen(**settings):
        trainer = build_trainer(optimization="joint", accelerator="cpu", logger=False, **settings)
        return next(callback.allowed for callback in trainer.callbacks if isinstance(callback, TrainingTF32))

    assert chosen()
    assert not chosen(tf32=False)
