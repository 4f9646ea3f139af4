"""The three modes of optimization: alternating, joint and sequential."""

from __future__ import annotations

from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from d2csr.data.batch import Batch
from d2csr.errors import ConfigError
from d2csr.training.task import D2CSRTask


class AlternatingTask(D2CSRTask):
    """The official order, with two optimizers: each batch trains both networks, one after the other.

    The convergence network sees the predictions of the divergence network after its step. This needs a second forward.
    """

    optimization = "alternating"
    steps_itself = True

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one optimizer for each network."""
        return self.build_optimizers(self.network.divergence, self.network.convergence)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Train both networks on a batch."""
        divergence_optimizer, convergence_optimizer = cast(list[LightningOptimizer], self.optimizers())

        predictions = self.network.divergence(batch["lr"])
        losses = self.divergence_losses(predictions, batch["hr"])
        self.manual_backward(_total(losses))
        losses = {name: loss.detach() for name, loss in losses.items()}  # releases the graph while it is in the cache
        # Uncounted: a step is a batch in trainer.global_step.
        self.trainer.strategy.optimizer_step(divergence_optimizer.optimizer, closure=lambda: None)
        divergence_optimizer.optimizer.zero_grad()  # now: under DDP, the next backward pass would send them again

        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        sr, weights = self.network.convergence(predictions)
        fusion = self.convergence_losses(sr, batch["hr"])
        self.manual_backward(_total(fusion))
        convergence_optimizer.step()
        convergence_optimizer.optimizer.zero_grad()  # with CUDA graphs, the next batch overwrites these gradients
        return self.step_outputs(losses | fusion, predictions, sr, weights)


class JointTask(D2CSRTask):
    """One optimizer over both networks: the convergence network sees the predictions before the divergence step.

    This saves the second forward. The step of the divergence network is that of ``alternating``.
    """

    optimization = "joint"
    whole_backward = True

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the optimizer."""
        return self.build_optimizers(self.network)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the sum of all losses as ``loss``, and the outputs of the step."""
        predictions = self.network.divergence(batch["lr"])
        losses = self.divergence_losses(predictions, batch["hr"])
        sr, weights = self.network.convergence(predictions.detach())
        losses |= self.convergence_losses(sr, batch["hr"])
        return {"loss": _total(losses), **self.step_outputs(losses, predictions, sr, weights)}


class SequentialTask(D2CSRTask):
    """One optimizer, first for the divergence network, then with a new schedule for the convergence network."""

    optimization = "sequential"

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the optimizer, and determine the start of the second stage."""
        if self.divergence_epochs is None:
            epochs = self.trainer.max_epochs or -1
            if epochs < 2:
                raise ConfigError(
                    "optimization=sequential: the start of the second stage is unknown. Set model.divergence_epochs, "
                    "or trainer.max_epochs to at least 2, of which the first half is used."
                )
            self.divergence_epochs = epochs // 2
        return self.build_optimizers(self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the start of the second stage: it stays where it is if a resumed run has more epochs."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["divergence_epochs"] = self.divergence_epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Use the checkpoint's start of the second stage, unless the settings name one."""
        super().on_load_checkpoint(checkpoint)
        if self.divergence_epochs is None:
            self.divergence_epochs = checkpoint.get("divergence_epochs")

    def stage(self) -> tuple[int, int]:
        """Return the stage and the epoch within it, both from 0."""
        first = self.divergence_epochs or 0
        return (1, self.current_epoch - first) if self.current_epoch >= first else (0, self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the losses of the stage as ``loss``, and the outputs of the step."""
        if self.stage()[0] == 0:
            predictions = self.network.divergence(batch["lr"])
            losses = self.divergence_losses(predictions, batch["hr"])
            return {"loss": _total(losses), **self.step_outputs(losses, predictions)}
        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        sr, weights = self.network.convergence(predictions)
        losses = self.convergence_losses(sr, batch["hr"])
        return {"loss": _total(losses), **self.step_outputs(losses, predictions, sr, weights)}


def _total(losses: dict[str, Tensor]) -> Tensor:
    return cast(Tensor, sum(losses.values()))
