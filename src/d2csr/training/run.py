"""One training run, from its parts to the last checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException

from d2csr.checkpoints import read_checkpoint
from d2csr.checkpoints.files import BEST, LAST, WholeCheckpointIO, remove_partial
from d2csr.errors import Stopped
from d2csr.training.advice import advice
from d2csr.training.survival.keeping import BestCheckpoint, LastCheckpoint
from d2csr.training.survival.ranks import is_first_process
from d2csr.training.survival.resume import Resumable, carry_over, check_exclusive, find_resumable, report, set_aside
from d2csr.training.survival.signals import StopSignals, stopped
from d2csr.training.task import D2CSRTask

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
        every_n_steps: for this and what follows see :class:`d2csr.training.survival.keeping.LastCheckpoint`.
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
    if is_first_process():
        _prepare(run_dir, resumable, trainer)
    leave_requeueing_to_others(trainer)
    trainer.strategy.checkpoint_io = WholeCheckpointIO()
    with StopSignals(quiet=not is_first_process(), before_the_end=lambda: _kill_others(trainer)) as signals:
        keeper.signals = signals
        try:
            ckpt_path = resumable.path if resumable else None
            with advice(run_dir, datamodule, trainer):
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
