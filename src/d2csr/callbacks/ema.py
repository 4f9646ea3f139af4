"""A running average of the weights: validated, kept as the result, and resumed, while training goes on from its own."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.checkpoints.own import AVERAGE, PREFIX
from d2csr.errors import ConfigError
from d2csr.models import D2CSR


class EMA(Callback):
    """average ← decay × average + (1 − decay) × weights, after each step; before the first one it is the weights.

    The network holds the average while it is validated and once the training has ended, and the trained weights
    otherwise. In a checkpoint the trained weights are under ``state_dict``, whence Lightning resumes, and the average
    under ``average``, which :func:`d2csr.load_model` prefers.

    Lightning's own WeightAveraging was not taken: it keeps the average for the trained weights at the end, so that a
    run cannot be continued; it saves them exchanged if validation is interrupted; it waits for the GPU in each step.

    Args:
        decay: above 0 and below 1; 0.999 averages over some thousand steps.

    Raises:
        ConfigError: the decay is out of its range.
    """

    def __init__(self, decay: float) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1:
            raise ConfigError(
                f"model.ema_decay: must be a number above 0 and below 1, such as 0.999, or null, got {decay!r}."
            )
        self.decay = decay
        self._loaded: dict[str, Tensor] | None = None
        self._other: list[Tensor] = []  # the average; the trained weights while the network holds the average
        self._exchanged = False
        self._step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the average of the checkpoint that is resumed, else with the weights as they are."""
        self._exchange(pl_module, False)  # after an earlier fit
        if not self._other:
            self._other = [value.detach().clone() for value in _network(pl_module).parameters()]
        if self._loaded is not None:
            for (name, _), average in zip(_network(pl_module).named_parameters(), self._other, strict=True):
                average.copy_(self._loaded[name])
            self._loaded = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where the steps begin."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Move the average, if the batch ended in a step."""
        self._keep_up(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        self._exchange(pl_module, True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on from the trained weights."""
        if trainer.state.fn == "fit":
            self._exchange(pl_module, False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the network, as the result."""
        self._exchange(pl_module, True)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep both, whichever the network holds at the moment."""
        if not self._other:  # nothing was trained
            return
        self._keep_up(trainer, pl_module)  # who saves may have been called before this callback
        names = [name for name, _ in _network(pl_module).named_parameters()]
        held = [value.detach() for value in _network(pl_module).parameters()]
        trained, average = (self._other, held) if self._exchanged else (held, self._other)
        checkpoint["state_dict"].update(zip((PREFIX + name for name in names), trained, strict=True))
        checkpoint[AVERAGE] = dict(zip(names, average, strict=True))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the average up, if the run had one; the trained weights are Lightning's to restore."""
        self._loaded = checkpoint.get(AVERAGE)
        self._other, self._exchanged = [], False

    def _keep_up(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self._step and not self._exchanged:
            self._step = trainer.global_step
            weights = [value.detach() for value in _network(pl_module).parameters()]
            torch._foreach_lerp_(self._other, weights, 1 - self.decay)

    def _exchange(self, pl_module: pl.LightningModule, exchanged: bool) -> None:
        """Exchange average and trained weights in place: whatever holds on to the parameters keeps what it has."""
        if not self._other or exchanged == self._exchanged:
            return
        with torch.no_grad():
            for held, other in zip(_network(pl_module).parameters(), self._other, strict=True):
                value = held.detach().clone()
                held.copy_(other)
                other.copy_(value)
        self._exchanged = exchanged


def _network(pl_module: pl.LightningModule) -> D2CSR:
    network = pl_module.network
    assert isinstance(network, D2CSR)
    return network
