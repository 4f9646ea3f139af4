"""One training run, from its parts to the last checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from d2csr.checkpoints import read_checkpoint
from d2csr.checkpoints.load import find_checkpoint
from d2csr.errors import CheckpointError
from d2csr.training.advice import advice
from d2csr.training.task import D2CSRTask

LAST, BEST = "last.ckpt", "best.ckpt"


def checkpoint_callbacks(run_dir: str | Path, every_n_epochs: int) -> list[Callback]:
    """Return what keeps ``checkpoints/best.ckpt`` (by validation PSNR) and ``checkpoints/last.ckpt``.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often the last one is renewed; the best one is looked at after each validation.
    """
    folder = Path(run_dir) / "checkpoints"
    best = ModelCheckpoint(
        folder,
        filename=Path(BEST).stem,
        monitor="val/psnr",
        mode="max",
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        folder,
        filename=Path(LAST).stem,
        every_n_epochs=every_n_epochs,
        save_on_train_epoch_end=True,
        save_on_exception=True,
        enable_version_counter=False,
    )
    return [best, last]


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
        resume: a run folder or a training checkpoint to go on from, with optimizers and epoch.
        init_from: any checkpoint to take weights from, nothing else.

    Returns:
        The checkpoint to evaluate: the best one, or the last one if there was no validation.

    Raises:
        CheckpointError: ``resume`` or ``init_from`` is missing, broken, or of another architecture.
        DataError: a list or a pair cannot be used.
        TrainingError: the run cannot go on: a loss that is not finite, or a machine that is full.
    """
    if resume and init_from:
        raise CheckpointError("resume=… and init_from=… exclude each other: to resume brings its own weights.")
    if init_from:
        read_checkpoint(init_from).load_into(task.network)
    ckpt_path = _resumable(resume, task) if resume else None
    checkpoints = Path(run_dir) / "checkpoints"
    with advice(run_dir, datamodule, trainer):
        trainer.fit(task, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        if not trainer.interrupted:
            trainer.save_checkpoint(checkpoints / LAST)
    best = checkpoints / BEST
    return best if best.is_file() else checkpoints / LAST


def _resumable(path: str | Path, task: D2CSRTask) -> Path:
    """Return the training checkpoint that a path means, once it is known to fit the task."""
    found = find_checkpoint(path, preferred=(LAST, BEST))
    checkpoint = read_checkpoint(found)
    if checkpoint.official:
        raise CheckpointError(
            f"{found}: an official checkpoint holds weights alone; use init_from=… instead of resume=…."
        )
    checkpoint.load_into(task.network)
    state = torch.load(found, map_location="cpu", weights_only=True)
    if "optimizer_states" not in state:
        raise CheckpointError(f"{found}: holds weights alone; use init_from=… instead of resume=….")
    before, now = state.get("hyper_parameters", {}).get("optimization"), task.optimization
    if before != now:
        raise CheckpointError(f"{found}: was trained with optimization={before}; resume with that, not with {now}.")
    return found
