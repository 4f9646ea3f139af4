"""Advice for a machine that is out of memory, disk space or processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from d2csr.data.datamodule import PairDataModule
from d2csr.data.worker_loader import WorkerLoader
from d2csr.errors import CheckpointError, TrainingError
from d2csr.files import write_checkpoint_file
from d2csr.training import build_trainer
from d2csr.training.resource_errors import resource_advice
from d2csr.training.trainer import AtomicCheckpointIO
from loader_items import Noise

QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}


@pytest.fixture
def advised(tmp_path):
    """Return the advice for an error in a run with a batch of 3, patches of 40 and 5 workers."""

    def run(fail, folder=tmp_path, **settings):
        settings |= {"batch_size": 3, "patch_size": 40, "num_workers": 5, "list_dir": str(tmp_path)}
        datamodule = PairDataModule(scale=2, **settings)
        trainer = build_trainer(optimization="joint", precision="bf16-mixed", **QUIET)
        with pytest.raises(TrainingError) as error, resource_advice(folder, datamodule, trainer):
            fail()
        return str(error.value)

    return run


def cuda_is_full():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …")


def python_is_full():
    raise MemoryError


@pytest.mark.parametrize(
    "fail", [lambda: torch.empty(2**50, dtype=torch.uint8), cuda_is_full, python_is_full], ids=["cpu", "cuda", "python"]
)
def test_out_of_memory_names_the_settings_to_change(advised, fail):
    message = advised(fail)
    assert "the memory of cpu is not enough for data.batch_size=3 with data.patch_size=40. Lower" in message
    assert "Lower data.batch_size or data.patch_size" in message


def test_cudnn_without_a_kernel_names_memory_and_precision(advised):
    def fail():
        raise RuntimeError("FIND was unable to find an engine to execute this computation")

    message = advised(fail)
    assert message.startswith("cuDNN cannot compute a convolution: most often the memory of cpu is not enough for data")
    assert "Lower data.batch_size or data.patch_size" in message
    assert message.endswith("this GPU does not support trainer.precision=bf16-mixed.")


def test_out_of_memory_names_the_training_set_on_the_device(advised):
    assert "data.cache=disk" in advised(cuda_is_full, cache="device")
    assert "data.cache" not in advised(cuda_is_full, cache="disk")


def test_a_full_disk_names_the_folder_and_how_to_resume(advised, tmp_path):
    def write():
        with open("/dev/full", "w") as file:  # noqa: PTH123  # it fails as a full disk does
            file.write("scores")

    assert advised(write) == f"{tmp_path}: no space left on this disk."
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert f"resume by resume={tmp_path}." in advised(write)


def test_a_full_disk_is_recognized_in_an_error_of_torch(advised, tmp_path, monkeypatch):
    """torch leaves out the error of the system."""
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, path: save(content, "/dev/full"))
    checkpoint = {"weights": torch.zeros(100_000)}
    message = advised(lambda: AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt"))
    assert message == f"{tmp_path}: no space left on this disk."


def test_a_full_disk_is_recognized_in_an_error_of_older_versions_of_torch(advised, tmp_path):
    def fail():
        raise RuntimeError("[enforce fail at inline_container.cc:595] . PytorchStreamWriter failed writing file data/0")

    assert advised(fail) == f"{tmp_path}: no space left on this disk."


def lose_worker(*_):
    raise RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. ")


def lose_worker_while_saving():
    with write_checkpoint_file(Path("unused") / "last.ckpt"):
        lose_worker()


def lose_worker_after_an_error():
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        lose_worker()


def lose_worker_without_memory():
    try:
        lose_worker()
    except RuntimeError as error:
        raise RuntimeError("CUDA error: out of memory") from error


@pytest.mark.parametrize(
    "fail", [lose_worker, lose_worker_while_saving, lose_worker_after_an_error, lose_worker_without_memory]
)
def test_a_killed_worker_is_reported_instead_of_later_errors(advised, fail, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "a worker process of the data loader was killed" in advised(fail)


class Dying(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_named(advised):
    message = advised(lambda: next(iter(WorkerLoader(Noise(1, killed=0), num_workers=1, persistent_workers=True))))
    assert message == (
        "a worker process of the data loader was killed, with data.num_workers=5: most often the memory is not enough. "
        "Lower data.num_workers, or give the job or container more."
    )


@pytest.mark.slow
def test_a_killed_worker_of_another_data_module_may_lack_shared_memory():
    trainer = build_trainer(optimization="joint", **QUIET)
    advice = resource_advice("run", pl.LightningDataModule(), trainer)
    with pytest.raises(TrainingError, match=r"shared memory of a container.*--shm-size=8g"), advice:
        next(iter(DataLoader(Dying(), num_workers=1)))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        FileNotFoundError(2, "x"),
        CheckpointError("x: missing"),
    ],
)
def test_other_errors_are_unchanged(error, tmp_path):
    trainer = build_trainer(optimization="joint", **QUIET)
    with pytest.raises(type(error)) as met, resource_advice(tmp_path, PairDataModule(scale=2), trainer):
        raise error
    assert met.value is error
