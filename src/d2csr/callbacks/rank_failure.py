"""End of all ranks when one of them fails."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from d2csr.distributed import is_distributed, leave_after
from d2csr.errors import Stopped, UserError
from d2csr.internals import stop_process_observer


class RankFailure(Callback):
    """Lets a failing rank leave the process group, unless all ranks have the same error.

    It has to come before callbacks that save after an error.
    """

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave, and decide which rank reports the error."""
        on_all_ranks = isinstance(exception, Stopped) or (isinstance(exception, UserError) and exception.everywhere)
        if is_distributed() and not on_all_ranks:
            leave_after(exception)
            stop_process_observer(trainer)  # this process still has to save and to report the error
