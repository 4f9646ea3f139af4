"""Training log: rows every ``trainer.log_every_n_steps`` steps and at the end. docs/logging.md explains each name."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.data.batch import Batch
from d2csr.metrics.leaves import leaf_distances, patch_psnr, weight_entropy
from d2csr.models.tree import Tree


class TrainingLog(Callback):
    """Logs losses, statistics of leaves and weights, learning rate, divergence weight, speed and memory.

    Losses and statistics are those of the step's batch, averaged over the ranks. The settings of the run, plain values,
    are logged once before the first step.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self.settings = settings
        self._samples, self._since = 0, 0.0  # of the speed
        self._validation_start = 0.0
        self._step = 0
        self._not_logged: tuple[int, float, dict[str, Any], Tensor] | None = None  # epoch and others of the last step

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the settings, after the data has been checked."""
        for logger in trainer.loggers if self.settings and trainer.enable_autolog_hparams else ():
            logger.log_hyperparams(self.settings)  # type: ignore[arg-type]

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start the clock."""
        self._start_clock()
        self._step, self._not_logged = trainer.global_step, None

    def on_validation_start(self, *_: Any) -> None:
        """Exclude the validation from the speed."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Continue the clock."""
        self._since += time.perf_counter() - self._validation_start

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: int) -> None:
        """Log a row if it is due; keep the step for the end otherwise."""
        self._samples += len(batch["lr"])
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]  # not declared
        if not trainer.loggers or not every or step == self._step or not outputs:
            return
        self._step = step
        self._not_logged = trainer.current_epoch, trainer.optimizers[0].param_groups[0]["lr"], outputs, batch["hr"]
        if step % every == 0:
            self._log(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log a row for the last step."""
        self._log(trainer, pl_module)

    def _log(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._not_logged is None:
            return
        (epoch, rate, outputs, hr), self._not_logged = self._not_logged, None
        row = {
            "epoch": epoch,
            "train/lr": rate,
            "train/divergence_weight": pl_module.divergence(epoch),
            **_means(statistics(outputs, hr, pl_module.network.tree), trainer),
            "train/samples_per_second": self._samples * trainer.world_size / (time.perf_counter() - self._since),
            "train/memory_gb": memory_in_use(pl_module.device) / 1e9,
        }
        self._start_clock()
        for logger in trainer.loggers:
            logger.log_metrics(row, step=self._step - 1)  # Lightning counts from 0
            logger.save()

    def _start_clock(self) -> None:
        self._samples, self._since = 0, time.perf_counter()


@torch.no_grad()
def statistics(outputs: dict[str, Any], hr: Tensor, tree: Tree) -> dict[str, Tensor]:
    """Return the losses of a step and the statistics of its leaves, fused images and weights, as scalars.

    ``outputs`` are those of :meth:`D2CSRTask.step_outputs`.
    """
    predictions, sr, weights = outputs["predictions"], outputs.get("sr"), outputs.get("weights")
    found = {**outputs["losses"], **leaf_distances(predictions, tree)}
    found |= {f"psnr_{leaf}": patch_psnr(p, hr) for leaf, p in zip(tree.leaves, predictions.unbind(dim=1), strict=True)}
    if sr is not None:
        found["psnr"] = patch_psnr(sr, hr)
    if weights is not None:
        found["entropy"] = weight_entropy(weights)
    return {f"train/{name}": value for name, value in found.items()}


def _means(values: dict[str, Tensor], trainer: pl.Trainer) -> dict[str, float]:
    """Return the means of scalars over all ranks, copied from the device at once."""
    stacked = torch.stack([value.detach().float() for value in values.values()])
    if trainer.world_size > 1:
        stacked = trainer.strategy.reduce(stacked, reduce_op="mean")
    return dict(zip(values, stacked.tolist(), strict=True))


def memory_in_use(device: torch.device) -> int:
    """Return bytes: the peak of all tensors on a GPU; the present memory of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    pages = Path("/proc/self/statm")
    if pages.is_file():  # Linux
        return int(pages.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: the peak in bytes
