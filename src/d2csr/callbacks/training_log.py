"""What goes to the loggers while training: one row every ``trainer.log_every_n_steps`` steps.

Between these rows nothing is computed and nothing is waited for. docs/logging.md says what each name means.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.data.sampler import Batch

if TYPE_CHECKING:
    from d2csr.training.task import D2CSRTask


class TrainingLog(Callback):
    """Writes losses, figures of leaves and weights, learning rate, divergence weight, pace and memory.

    Losses and figures are those of the step's batch, the mean over all processes. Each row is one call of each logger.
    """

    def __init__(self) -> None:
        self._pace = Throughput()
        self._written = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._pace.restart()
        self._written = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave validation out of the pace."""
        self._pace.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the clock run on."""
        self._pace.go_on()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: D2CSRTask, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Ask the task for its figures, if this step is one to be written."""
        pl_module.figures = {} if self._due(trainer, trainer.global_step + 1) else None

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: D2CSRTask, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Write them."""
        self._pace.count(len(batch["lr"]))
        figures, pl_module.figures = pl_module.figures, None
        step = trainer.global_step
        if figures is None or step == self._written or not self._due(trainer, step):  # as where a step was skipped
            return
        self._written = step
        row = {
            **_means(figures, trainer),
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/divergence_weight": pl_module.divergence.schedule(pl_module.current_epoch),
            "train/samples_per_second": self._pace.samples_per_second * trainer.world_size,
            "train/memory_gb": memory_in_use(pl_module.device) / 1e9,
        }
        self._pace.restart()
        for logger in trainer.loggers:
            logger.log_metrics({**row, "epoch": trainer.current_epoch}, step=step - 1)  # as Lightning counts: from 0
            logger.save()

    @staticmethod
    def _due(trainer: pl.Trainer, step: int) -> bool:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        return bool(trainer.loggers) and every > 0 and step % every == 0


class SettingsLog(Callback):
    """Hands the settings of a run to the loggers.

    Args:
        settings: plain values, in dicts.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do so, once the data is known to be good."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)


def _means(figures: dict[str, Tensor], trainer: pl.Trainer) -> dict[str, float]:
    """Return the figures' means over all processes, fetched from the device at once."""
    if not figures:
        return {}
    values = torch.stack([value.detach().float() for value in figures.values()])
    if trainer.world_size > 1:
        values = trainer.strategy.reduce(values, reduce_op="mean")
    return dict(zip(figures, values.tolist(), strict=True))


class Throughput:
    """Counts samples and steps against the clock, which stands still while it is paused.

    Attributes:
        samples: since the clock was started.
        steps: likewise.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Set everything to nothing, and let the clock run."""
        self.samples = 0
        self.steps = 0
        self._before = 0.0
        self._since: float | None = time.perf_counter()

    def count(self, samples: int) -> None:
        """Count a step."""
        self.samples += samples
        self.steps += 1

    def pause(self) -> None:
        """Stop the clock."""
        self._before = self.seconds
        self._since = None

    def go_on(self) -> None:
        """Let the clock run on."""
        if self._since is None:
            self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """What the clock shows."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def samples_per_second(self) -> float:
        """Return the samples a second, 0 before the first one."""
        return self.samples / self.seconds if self.samples else 0.0


def memory_in_use(device: torch.device) -> int:
    """Return bytes: the most that tensors have taken so far on a GPU; on the CPU what the process takes now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # not Linux: the most so far; macOS counts bytes, others kilobytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
