"""End of all ranks when one of them fails."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from d2csr.distributed import is_distributed, leave_after
from d2csr.errors import Stopped, UserError


class RankFailure(Callback):
    """Has a process that fails leave the others at once, instead of waiting for them in its last moments.

    Unless all processes have met the same error. It has to come before callbacks that save when a run fails.
    """

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave, and settle who tells why."""
        if (
            not is_distributed()
            or isinstance(exception, Stopped)
            or (isinstance(exception, UserError) and exception.everywhere)
        ):
            return
        leave_after(exception)
