"""Exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.checkpoints.own import AVERAGE, PREFIX
from d2csr.checks import number
from d2csr.torch_internals import foreach_lerp_


class EMA(Callback):
    """average ← decay × average + (1 − decay) × weights, after each step; before the first one it is the weights.

    The network holds the average during validation and after the training, and the trained weights otherwise. In a
    checkpoint the trained weights are under ``state_dict``, from which Lightning resumes, and the average is under
    ``average``, which :func:`d2csr.load_model` prefers.

    Lightning's WeightAveraging has no trained weights in its last checkpoint, and waits for the GPU in each step.

    The decay is between 0 and 1; 0.999 averages over about 1,000 steps.
    """

    def __init__(self, ema_decay: float) -> None:
        self.decay = number("ema_decay", ema_decay, above=0, below=1)
        self._weights: dict[str, Tensor] = {}  # those of the network, which takes longer to list than to average
        self._other: dict[str, Tensor] = {}  # the average; the trained weights while the network holds the average
        self._swapped = False
        self._step = 0

    @torch.no_grad()
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start from the average of the checkpoint that is resumed, else from the weights."""
        self._swap(False)  # after an earlier fit
        self._weights = dict(pl_module.network.named_parameters())
        start = self._other or self._weights
        self._other = {name: torch.empty_like(held).copy_(start[name]) for name, held in self._weights.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the first step."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Update the average if the batch ended in a step."""
        self._update(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        self._swap(True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the trained weights."""
        if trainer.state.fn == "fit":
            self._swap(False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average into the network as the result."""
        self._swap(True)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Save trained weights and average, whichever of them the network holds."""
        if not self._other:  # nothing was trained
            return
        self._update(trainer)  # a callback before this one may save
        held = {name: value.detach() for name, value in self._weights.items()}
        trained, average = (self._other, held) if self._swapped else (held, self._other)
        checkpoint["state_dict"].update({PREFIX + name: value for name, value in trained.items()})
        checkpoint[AVERAGE] = average

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the average for the start; Lightning restores the trained weights."""
        self._other, self._swapped = checkpoint.get(AVERAGE) or {}, False

    @torch.no_grad()
    def _update(self, trainer: pl.Trainer) -> None:
        if trainer.global_step > self._step and not self._swapped:
            self._step = trainer.global_step
            foreach_lerp_(list(self._other.values()), list(self._weights.values()), 1 - self.decay)

    @torch.no_grad()
    def _swap(self, average: bool) -> None:
        """Put the average or the trained weights into the network, in place: optimizers and DDP hold its parameters."""
        if not self._other or average == self._swapped:
            return
        for name, held in self._weights.items():
            value = held.clone()
            held.copy_(self._other[name])
            self._other[name].copy_(value)
        self._swapped = average
