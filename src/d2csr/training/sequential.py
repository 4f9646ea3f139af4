"""One network after the other: first divergence, then, with that frozen, convergence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from d2csr.data.batches import Batch
from d2csr.errors import ConfigError
from d2csr.training.task import D2CSRTask


class SequentialTask(D2CSRTask):
    """One Adam; in each of the two stages only one network gets gradients, and Adam leaves the other alone.

    The learning rate starts afresh with the second stage.

    Args:
        network: this and the next four are those of :class:`d2csr.training.D2CSRTask`.
        optimizer: see there.
        divergence: see there.
        protocol: see there.
        ema_decay: see there.
        divergence_epochs: epochs of the divergence stage; ``None`` takes half of the trainer's ``max_epochs``.
    """

    optimization = "sequential"

    # Lightning's load_from_checkpoint passes the parameters that are named here, so no **settings.
    def __init__(
        self,
        network: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        divergence: dict[str, Any] | None = None,
        protocol: str = "d2csr",
        ema_decay: float | None = None,
        divergence_epochs: int | None = None,
    ) -> None:
        super().__init__(network, optimizer, divergence, protocol, ema_decay)
        self.save_hyperparameters("divergence_epochs")
        if divergence_epochs is not None and divergence_epochs < 1:
            raise ConfigError(f"model.divergence_epochs: must be at least 1, got {divergence_epochs}.")
        self.divergence_epochs = divergence_epochs

    def configure_optimizers(self) -> Optimizer:
        """Return the one Adam, and settle when the second stage begins."""
        if self.divergence_epochs is None:
            epochs = self.trainer.max_epochs or -1
            if epochs < 2:
                raise ConfigError(
                    "optimization=sequential needs to know when its second stage begins: set model.divergence_epochs, "
                    "or trainer.max_epochs to at least 2, of which the first half is then taken."
                )
            self.divergence_epochs = epochs // 2
        return self.adam.build(self.network.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep when the second stage begins: resumed with more epochs, it should not begin later."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["divergence_epochs"] = self.divergence_epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it from there, unless the settings name it."""
        super().on_load_checkpoint(checkpoint)
        if self.divergence_epochs is None:
            self.divergence_epochs = checkpoint.get("divergence_epochs")

    @property
    def converging(self) -> bool:
        """Whether the second stage has begun."""
        return self.current_epoch >= (self.divergence_epochs or 0)

    def schedule_epoch(self) -> int:
        """Return the epoch of the stage."""
        return self.current_epoch - (self.divergence_epochs or 0) if self.converging else self.current_epoch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the objective of the stage."""
        if not self.converging:
            predictions = self.network.divergence(batch["lr"])
            self.note_figures(predictions, batch["hr"])
            return self.divergence_objective(predictions, batch["hr"])
        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        return self.convergence_objective(predictions, batch["hr"])
