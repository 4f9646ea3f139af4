"""Global batch size and number of steps, logged at the start of training."""

from __future__ import annotations

import logging
import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from d2csr.checks import whole_number
from d2csr.distributed import is_rank_zero

_log = logging.getLogger(__name__)


class BatchReport(Callback):
    """Logs the global batch, the patches in a step on all devices, and the steps in an epoch.

    Warns of another global batch than the expected one, which the other settings are meant for.
    """

    def __init__(self, expected: int | None = None) -> None:
        self.expected = None if expected is None else whole_number("expected_batch", expected)

    def on_train_start(self, trainer: pl.Trainer, *_: pl.LightningModule) -> None:
        """Log them, on rank 0."""
        batch_size = getattr(trainer.train_dataloader, "batch_size", None)
        if not is_rank_zero() or not isinstance(batch_size, int) or not math.isfinite(trainer.num_training_batches):
            return
        accumulate, devices = trainer.accumulate_grad_batches, trainer.world_size
        batch, steps = batch_size * devices * accumulate, math.ceil(trainer.num_training_batches / accumulate)
        factors = f"data.batch_size={batch_size} × {devices} device(s)" + f" × {accumulate} batches" * (accumulate > 1)
        _log.info("global batch %d (%s), %d steps an epoch", batch, factors, steps)
        if self.expected not in (None, batch):
            _log.warning(
                "the global batch is %d, but this experiment's learning rate and schedules are meant for %d. "
                "data.batch_size is per device.",
                *(batch, self.expected),
            )
