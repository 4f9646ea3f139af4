"""Both networks at once: one backward, the convergence network on detached predictions."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from d2csr.data.batches import Batch
from d2csr.training.task import D2CSRTask


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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of both objectives; Lightning does the rest."""
        predictions = self.network.divergence(batch["lr"])
        return self.divergence_objective(predictions, batch["hr"]) + self.convergence_objective(
            predictions, batch["hr"]
        )
