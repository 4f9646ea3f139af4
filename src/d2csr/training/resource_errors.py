"""Advice for errors of a machine that is out of memory, disk space or processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl

from d2csr.callbacks.last_checkpoint import LAST
from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import is_timeout
from d2csr.errors import CheckpointError, TrainingError, is_disk_full, is_out_of_memory
from d2csr.internals import group_timeout

_LOST_WORKER = r"DataLoader worker .*(killed by signal|exited unexpectedly)|torch_\d+.*No space left"

# What cuDNN says if no kernel fits into the memory, but also if a GPU cannot compute in a type, such as bfloat16.
_NO_ENGINE = "was unable to find an engine to execute this computation"


@contextmanager
def resource_advice(run_dir: str | Path, datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> Iterator[None]:
    """Raise :class:`TrainingError` with advice if memory or disk are full, a worker was killed, or a rank hangs."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError, CheckpointError) as error:
        text = _lost_worker(error, datamodule) or _no_memory(error, datamodule, trainer)
        text = text or _no_space(error, run_dir) or _no_answer(error, trainer)
        if text is None:
            raise
        raise TrainingError(text) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts: a killed worker can interrupt anything."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def _lost_worker(error: BaseException, datamodule: pl.LightningDataModule) -> str | None:
    if not any(re.search(_LOST_WORKER, str(met)) for met in _chain(error)):
        return None
    if isinstance(datamodule, PairDataModule):
        number, shared, more = f"={datamodule.num_workers}", "", ""
    else:  # torch's workers pass their batches through /dev/shm
        number, shared, more = "", ", or the shared memory of a container,", " (docker run --shm-size=8g)"
    return (
        f"a worker process of the data loader was killed, with data.num_workers{number}: most often the memory{shared} "
        f"is not enough. Lower data.num_workers, or give the job or container more{more}."
    )


def _no_memory(error: BaseException, datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> str | None:
    no_engine = _NO_ENGINE in str(error)
    if not (no_engine or is_out_of_memory(error)):
        return None
    now = free = ""
    if isinstance(datamodule, PairDataModule):
        now = f" for data.batch_size={datamodule.batch_size} with data.patch_size={datamodule.patch_size}"
        if datamodule.cache == "device":
            free = " data.cache=disk frees the memory of the training set."
    advice = (
        f"the memory of {trainer.strategy.root_device} is not enough{now}. Lower data.batch_size or data.patch_size "
        "(memory grows with batch_size × patch_size²), use trainer.precision=bf16-mixed, or a smaller network "
        f"(model.network.features).{free}"
    )
    if not no_engine:
        return advice
    return (
        f"cuDNN cannot compute a convolution: most often {advice} If less memory does not help, this GPU does not "
        f"support trainer.precision={trainer.precision}."
    )


def _no_space(error: BaseException, run_dir: str | Path) -> str | None:
    if not any(map(is_disk_full, _chain(error))):
        return None
    saved = (Path(run_dir) / "checkpoints" / LAST).is_file()
    resume = f" The last checkpoint is complete: free some space, and resume by resume={run_dir}." if saved else ""
    return f"{run_dir}: no space left on this disk.{resume}"


def _no_answer(error: BaseException, trainer: pl.Trainer) -> str | None:
    timeout = group_timeout(trainer)
    if not is_timeout(error) or timeout is None:
        return None
    return (
        f"another process has not answered for {timeout.total_seconds() / 60:g} minutes: it, or its machine, hangs. "
        "Resume by resume=…; trainer.rank_timeout sets another time."
    )
