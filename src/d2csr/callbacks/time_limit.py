"""Time limit of a training."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer


class TimeLimit(Timer):
    """Lightning's Timer, which several ranks check only in the steps that are logged.

    Lightning broadcasts the time of rank zero after each batch, for which the host waits. In the steps that are logged
    it waits anyway.
    """

    @property
    def state_key(self) -> str:
        """The name of Lightning's Timer, whose checkpoints are read too."""
        return Timer.__qualname__

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop the training if the time is over."""
        every = trainer.log_every_n_steps or 50  # type: ignore[attr-defined]  # not declared
        if trainer.world_size == 1 or trainer.global_step % every == 0:
            super().on_train_batch_end(trainer, *args, **kwargs)
