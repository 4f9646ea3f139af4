"""The official order: a step of the divergence network, fresh predictions, a step of the convergence network."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from d2csr.data.batches import Batch
from d2csr.training.task import D2CSRTask


class AlternatingTask(D2CSRTask):
    """Two Adams; each batch trains both networks, one after the other.

    The convergence network sees the predictions of the divergence network as it is after its step, which takes a second
    forward, as in the official code.
    """

    optimization = "alternating"
    steps_itself = True

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one Adam for each network."""
        return [
            self.adam.build(self.network.divergence.parameters()),
            self.adam.build(self.network.convergence.parameters()),
        ]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Train both networks on a batch."""
        divergence_adam, convergence_adam = self._optimizers()

        divergence_adam.zero_grad()
        predictions = self.network.divergence(batch["lr"])
        self.manual_backward(self.divergence_objective(predictions, batch["hr"]))
        self._step_uncounted(divergence_adam)

        convergence_adam.zero_grad()
        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        self.manual_backward(self.convergence_objective(predictions, batch["hr"]))
        convergence_adam.step()

    def _step_uncounted(self, optimizer: Any) -> None:
        """Step an optimizer without moving ``trainer.global_step``.

        Lightning counts the steps of every optimizer. Counting one of the two keeps ``max_steps``, the names of
        checkpoints and whatever else reads ``global_step`` at what a user means by a step: a batch.
        """
        self.trainer.strategy.optimizer_step(optimizer.optimizer, closure=lambda: None)
