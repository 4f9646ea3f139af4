"""What to do about a machine that is full: its memory or its disk."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch

from d2csr.data.datamodule import PairDataModule
from d2csr.errors import TrainingError

_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@contextmanager
def advice(run_dir: str | Path, datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> Iterator[None]:
    """Turn errors of a machine that is full into advice.

    Args:
        run_dir: the run folder.
        datamodule: whose batches are trained on.
        trainer: Lightning's.

    Raises:
        TrainingError: the memory is not enough, a process that prepares batches was killed, or the disk is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        text = _no_memory(error, datamodule, trainer) or _no_worker(error, datamodule) or _no_space(error, run_dir)
        if text is None:
            raise
        raise TrainingError(text) from error


def _no_memory(error: BaseException, datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> str | None:
    accelerator_is_full = isinstance(error, torch.cuda.OutOfMemoryError)
    if not (accelerator_is_full or isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY)):
        return None
    asked = re.search(r"tried to allocate ([\d.]+ ?\w+)", str(error), re.IGNORECASE)
    settings: dict[str, object] = {"trainer.precision": trainer.precision}
    if isinstance(datamodule, PairDataModule):
        settings |= {"data.batch_size": datamodule.batch_size, "data.patch_size": datamodule.patch_size}
    now = ", ".join(f"{name}={value}" for name, value in settings.items())
    return (
        f"the memory of {trainer.strategy.root_device} is not enough{f' for {asked[1]} more' if asked else ''}, with "
        f"{now}. Lower data.batch_size or data.patch_size (what is needed grows with batch_size × patch_size²), take "
        "trainer.precision=bf16-mixed, or a smaller network: model.features, model.blocks."
    )


def _no_worker(error: BaseException, datamodule: pl.LightningDataModule) -> str | None:
    if not re.search(
        r"DataLoader worker .*(killed by signal|exited unexpectedly)|torch_\d+.*No space left", str(error)
    ):
        return None
    number = f"={datamodule.num_workers}" if isinstance(datamodule, PairDataModule) else ""
    return (
        f"a process that prepares batches was killed, with data.num_workers{number}: most often the memory, or the "
        "shared memory of a container, is not enough. Lower data.num_workers, or give the container more (docker run "
        "--shm-size=8g)."
    )


def _no_space(error: BaseException, run_dir: str | Path) -> str | None:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and "PytorchStreamWriter failed writing" not in str(error):
        return None
    last = Path(run_dir) / "checkpoints" / "last.ckpt"
    resume = f" What was last saved is whole: free some space, and go on by resume={run_dir}." if last.is_file() else ""
    return f"{run_dir}: no space left on this disk.{resume}"
