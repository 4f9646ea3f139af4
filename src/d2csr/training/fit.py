"""One training run, from its parts to the last checkpoint."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException

from d2csr.callbacks.best_checkpoint import BEST
from d2csr.callbacks.last_checkpoint import LAST, LastCheckpoint
from d2csr.checkpoints import read_checkpoint
from d2csr.checks import exclusive, flag
from d2csr.distributed import is_rank_zero, is_timeout
from d2csr.errors import ConfigError, Stopped
from d2csr.internals import child_processes, cluster_environment
from d2csr.signals import StopSignals, stopped
from d2csr.training.build import check_accumulation, require_own
from d2csr.training.resource_errors import resource_advice
from d2csr.training.resume import Resumable, carry_over, find_resumable, log_resume, restoring, set_aside
from d2csr.training.run_lock import lock_run_folder
from d2csr.training.trainer import AtomicCheckpointIO, remove_partial

_log = logging.getLogger(__name__)


def train(
    task: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    trainer: pl.Trainer,
    *,
    run_dir: str | Path,
    resume: str | Path | None = None,
    init_from: str | Path | None = None,
    init_strict: bool = True,
) -> Path:
    """Train, and write ``checkpoints/last.ckpt`` at the end.

    Args:
        task: the task to train, a :class:`D2CSRTask` or any LightningModule.
        datamodule: its data.
        trainer: its callbacks include a :class:`d2csr.callbacks.LastCheckpoint`.
        run_dir: the run folder.
        resume: a run folder or a training checkpoint to resume from exactly; ``auto`` resumes from ``run_dir`` if it
            holds a run, and starts one otherwise.
        init_from: a checkpoint to load the weights from.
        init_strict: False loads the weights that fit by name and shape, and logs the others.

    Returns:
        The checkpoint to evaluate: the best one, or the last one if there was no validation.

    Raises:
        ConfigError: ``resume`` and ``init_from`` are given, or ``init_from`` for a task of another package; or compiled
            networks cannot train with these settings.
        CheckpointError: ``resume`` or ``init_from`` is missing, broken, or of another architecture, or no weight fits.
        DataError: a list or a pair cannot be used.
        TrainingError: the run cannot continue, or another process trains in the folder.
        Stopped: a signal ended the run; everything is saved.
    """
    exclusive(resume, init_from)
    if init_from:
        require_own(task, "init_from")
    check_accumulation(task, trainer)
    run_dir = Path(run_dir)
    with lock_run_folder(run_dir) if is_rank_zero() else nullcontext():
        resumable = find_resumable(resume, run_dir, task)
        if resumable is None and init_from:
            _load_weights(task, init_from, flag("init_strict", init_strict))
        last = next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint))
        if resumable is not None:
            log_resume(resumable, last.settings)
            if resumable.is_finished(trainer):
                _log_finished(resumable, trainer)
                return _to_evaluate(resumable.run_dir)
        if is_rank_zero():
            remove_partial(run_dir / "checkpoints")
            if resumable is None:  # once the data is checked: a failed start leaves an earlier run as it is
                aside = LambdaCallback(on_fit_start=lambda *_: set_aside(run_dir))
                trainer.callbacks.insert(0, aside)  # type: ignore[attr-defined]  # not declared
            else:
                carry_over(resumable, run_dir, trainer.loggers)
        disable_requeueing(trainer)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        _fit(task, datamodule, trainer, last, run_dir, resumable.path if resumable else None)
    return _to_evaluate(run_dir)


def _log_finished(resumable: Resumable, trainer: pl.Trainer) -> None:
    _log.info(
        "resume: %s is finished already: epoch %d (trainer.max_epochs=%s), step %d (trainer.max_steps=%s). "
        "Raise these to continue.",
        *(resumable.run_dir, resumable.state.epoch, trainer.max_epochs, resumable.step, trainer.max_steps),
    )


def _load_weights(task: Any, init_from: str | Path, strict: bool) -> None:
    checkpoint = read_checkpoint(init_from)
    if strict:
        checkpoint.load_into(task.network)
        return
    for sentence in checkpoint.load_matching(task.network):
        if is_rank_zero():
            _log.info("init_from: %s", sentence)


def _fit(task: Any, data: Any, trainer: pl.Trainer, last: LastCheckpoint, run_dir: Path, path: Path | None) -> None:
    """Train from the checkpoint at a path, if there is one, and save at the end or after a signal."""
    with StopSignals(quiet=not is_rank_zero()) as signals:
        last.signals = signals
        try:
            with resource_advice(run_dir, data, trainer), restoring(path):
                trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
                trainer.save_checkpoint(run_dir / "checkpoints" / LAST)
        except Stopped as stop:
            signals.hand_over(stop)
            raise
        except (Exception, SIGTERMException) as error:
            if isinstance(error, ValueError) and "`val_check_interval`" in str(error):
                raise ConfigError(f"trainer.{str(error).strip().replace('`', '')}") from None
            if is_timeout(error.__cause__ or error):  # a hanging rank does not end
                for process in child_processes(trainer):
                    process.kill()
            # Another rank that stops before this one looks like a lost connection.
            if signals.received is None or not (trainer.world_size > 1 or isinstance(error, SIGTERMException)):
                raise
            raise stopped(signals.received, trainer.global_step, last.path) from error


def disable_requeueing(trainer: pl.Trainer) -> None:
    """Leave the requeueing of a SLURM job to submitit or its script: Lightning would save in the middle of a step."""
    environment = cluster_environment(trainer)
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False


def _to_evaluate(run_dir: Path) -> Path:
    checkpoints = run_dir / "checkpoints"
    return checkpoints / (BEST if (checkpoints / BEST).is_file() else LAST)
