"""The official order: a step of the divergence network, fresh predictions, a step of the convergence network."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from d2csr.data.sampler import Batch
from d2csr.errors import ConfigError
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

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Train both networks on a batch."""
        divergence_adam, convergence_adam = self._optimizers()

        divergence_adam.zero_grad()
        predictions = self.network.divergence(batch["lr"])
        loss, losses = self.divergence_objective(predictions, batch["hr"])
        self.manual_backward(loss)
        self._step_uncounted(divergence_adam)

        convergence_adam.zero_grad()
        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        loss, outputs = self.convergence_objective(predictions, batch["hr"])
        self.manual_backward(loss)
        convergence_adam.step()
        return {**outputs, "losses": losses | outputs["losses"], "predictions": predictions}

    def _step_uncounted(self, optimizer: Any) -> None:
        """Step an optimizer without moving ``trainer.global_step``.

        Lightning counts the steps of every optimizer. Counting one of the two keeps ``max_steps``, the names of
        checkpoints and whatever else reads ``global_step`` at what a user means by a step: a batch.
        """
        self.trainer.strategy.optimizer_step(optimizer.optimizer, closure=lambda: None)


class JointTask(D2CSRTask):
    """One Adam over both networks, which share no parameter.

    The divergence network takes exactly the step of :class:`d2csr.training.AlternatingTask`. The convergence network
    learns from the predictions before that step, not after it, which saves a whole forward.
    """

    optimization = "joint"
    whole_backward = True

    def configure_optimizers(self) -> Optimizer:
        """Return the one Adam."""
        return self.adam.build(self.network.parameters())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the sum of both objectives; Lightning does the rest."""
        predictions = self.network.divergence(batch["lr"])
        divergence, losses = self.divergence_objective(predictions, batch["hr"])
        convergence, outputs = self.convergence_objective(predictions, batch["hr"])
        losses |= outputs["losses"]
        return {**outputs, "loss": divergence + convergence, "losses": losses, "predictions": predictions.detach()}


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

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the objective of the stage."""
        if not self.converging:
            predictions = self.network.divergence(batch["lr"])
            loss, losses = self.divergence_objective(predictions, batch["hr"])
            return {"loss": loss, "losses": losses, "predictions": predictions.detach(), "sr": None, "weights": None}
        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        loss, outputs = self.convergence_objective(predictions, batch["hr"])
        return {**outputs, "loss": loss, "predictions": predictions}
