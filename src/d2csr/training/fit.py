"""One training run, from its parts to the last checkpoint."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException

from d2csr.callbacks.last_checkpoint import BestCheckpoint, LastCheckpoint
from d2csr.callbacks.progress_bar import TrainingProgressBar
from d2csr.callbacks.training_log import SettingsLog
from d2csr.callbacks.validation_panels import ValidationPanels
from d2csr.checkpoints import read_checkpoint
from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import is_rank_zero
from d2csr.errors import Stopped, TrainingError
from d2csr.training.resume import (
    Resumable,
    carry_over,
    check_exclusive,
    find_resumable,
    report,
    restoring,
    set_aside,
)
from d2csr.training.signals import StopSignals, stopped
from d2csr.training.task import D2CSRTask
from d2csr.training.trainer import BEST, LAST, AtomicCheckpointIO, remove_partial

_log = logging.getLogger(__name__)


def checkpoint_callbacks(
    run_dir: str | Path,
    *,
    every_n_steps: int | None = None,
    every_minutes: float | None = None,
    settings: dict[str, Any] | None = None,
) -> list[Callback]:
    """Return what keeps ``checkpoints/best.ckpt`` (by validation PSNR) and ``checkpoints/last.ckpt``.

    Args:
        run_dir: the run folder.
        every_n_steps: for this and what follows see :class:`d2csr.callbacks.last_checkpoint.LastCheckpoint`.
        every_minutes: see there.
        settings: see there.
    """
    folder = Path(run_dir) / "checkpoints"
    return [BestCheckpoint(folder), LastCheckpoint(folder, every_n_steps, every_minutes, settings)]


def train(
    task: D2CSRTask,
    datamodule: pl.LightningDataModule,
    trainer: pl.Trainer,
    *,
    run_dir: str | Path,
    resume: str | Path | None = None,
    init_from: str | Path | None = None,
) -> Path:
    """Train, and leave ``checkpoints/last.ckpt`` as it is at the end.

    Args:
        task: what to train.
        datamodule: its batches.
        trainer: Lightning's, with the callbacks of :func:`checkpoint_callbacks`.
        run_dir: the run folder.
        resume: a run folder or a training checkpoint to go on from, exactly; ``auto``: from what ``run_dir`` holds, and
            from the beginning if that is nothing.
        init_from: any checkpoint to take weights from, nothing else.

    Returns:
        The checkpoint to evaluate: the best one, or the last one if there was no validation.

    Raises:
        CheckpointError: ``resume`` or ``init_from`` is missing, broken, or of another architecture.
        DataError: a list or a pair cannot be used.
        TrainingError: the run cannot go on: a loss that is not finite, or a machine that is full.
        Stopped: a signal asked for the end; everything is saved.
    """
    check_exclusive(resume, init_from)
    resumable = find_resumable(resume, run_dir, task)
    run_dir = Path(run_dir)
    if resumable is None and init_from:
        read_checkpoint(init_from).load_into(task.network)
    keeper = next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint))
    if resumable is not None:
        report(resumable, keeper.settings)
        if resumable.is_finished(trainer):
            return _finished(resumable, trainer)
    if is_rank_zero():
        _prepare(run_dir, resumable, trainer)
    leave_requeueing_to_others(trainer)
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    with StopSignals(quiet=not is_rank_zero(), before_the_end=lambda: _kill_others(trainer)) as signals:
        keeper.signals = signals
        try:
            ckpt_path = resumable.path if resumable else None
            with advice(run_dir, datamodule, trainer), restoring(ckpt_path):
                trainer.fit(task, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
                trainer.save_checkpoint(run_dir / "checkpoints" / LAST)
        except Stopped as stop:
            signals.hand_over(stop)
            raise
        except (Exception, SIGTERMException) as error:
            # Another process that stops before this one looks like a failure of the connection to it.
            if signals.received is None or not (trainer.world_size > 1 or isinstance(error, SIGTERMException)):
                raise
            raise stopped(signals.received, trainer.global_step, keeper.path) from error
    return _to_evaluate(run_dir)


def leave_requeueing_to_others(trainer: pl.Trainer) -> None:
    """Keep Lightning from putting a SLURM job into the queue again: submitit or the job's script does it.

    Lightning would save in the middle of a step.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False


def _prepare(run_dir: Path, resumable: Resumable | None, trainer: pl.Trainer) -> None:
    remove_partial(run_dir / "checkpoints")
    if resumable is None:
        set_aside(run_dir)
    else:
        carry_over(resumable, run_dir, trainer.loggers)


def _finished(resumable: Resumable, trainer: pl.Trainer) -> Path:
    _log.info(
        "resume: %s is trained to its end already: epoch %d (trainer.max_epochs=%s), step %d (trainer.max_steps=%s). "
        "Raise these to go on.",
        *(resumable.run_dir, resumable.position.epoch, trainer.max_epochs, resumable.step, trainer.max_steps),
    )
    return _to_evaluate(resumable.run_dir)


def _to_evaluate(run_dir: Path) -> Path:
    checkpoints = run_dir / "checkpoints"
    return checkpoints / (BEST if (checkpoints / BEST).is_file() else LAST)


def _kill_others(trainer: pl.Trainer) -> None:
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.kill()


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


def reporting_callbacks(
    run_dir: str | Path, *, settings: dict[str, Any], panels: dict[str, Any], progress: bool
) -> list[Callback]:
    """Return what hands the settings to the loggers, draws pictures and shows the progress.

    Args:
        run_dir: the run folder; pictures go to its ``panels/``.
        settings: of the whole run, as plain values.
        panels: the settings of :class:`d2csr.callbacks.validation_panels.ValidationPanels`.
        progress: show :class:`d2csr.callbacks.progress_bar.TrainingProgressBar`.

    Raises:
        ConfigError: a setting is out of its range.
    """
    callbacks: list[Callback] = [SettingsLog(settings), ValidationPanels(Path(run_dir) / "panels", **panels)]
    return [*callbacks, TrainingProgressBar()] if progress else callbacks
