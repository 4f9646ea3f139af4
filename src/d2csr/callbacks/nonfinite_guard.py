"""What watches over a loss that is not finite, without making the device wait."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import gather_and_raise, is_distributed
from d2csr.errors import ConfigError, TrainingError

_log = logging.getLogger(__name__)

ACTIONS = ("raise", "skip")

# How bad a batch is, so that the worst of all processes counts.
_GOOD, _NOT_FINITE, _BROKEN = 0.0, 1.0, 2.0

# So many skipped steps in a row are no accident any more.
_PATIENCE = 100


class NonFiniteGuard(Callback):
    """Keeps a loss that is not finite away from the weights.

    A step whose loss is NaN or infinite, in any process or accumulated batch, is not taken: the weights and the
    optimizers stay as they were. ``raise`` then ends the run, and its last checkpoint is of the step before; ``skip``
    says so and goes on, until :data:`_PATIENCE` steps in a row were skipped. All processes decide alike. Gradients that
    are infinite only for the scale that ``16-mixed`` multiplies the loss by are the scaler's business, not this one's.

    The verdict on a loss travels to the host while the device is busy with the backward pass, and is read before the
    optimizer's step: nothing waits for it.

    Args:
        action: ``raise`` or ``skip``.

    Attributes:
        skipped: how many steps were skipped.

    Raises:
        ConfigError: the action is neither.
    """

    def __init__(self, action: str = "raise") -> None:
        if action not in ACTIONS:
            raise ConfigError(f"trainer.on_nonfinite: must be {' or '.join(ACTIONS)}, got {action!r}.")
        self.action = action
        self.skipped = 0
        self._in_a_row = 0
        self._told = False
        self._verdicts: list[_Verdict] = []
        self._errors: list[str] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Forget the verdicts of the step before."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            if not self._told:
                self._in_a_row = 0
            self._verdicts, self._errors, self._told = [], [], False
        self._batch, self._batch_idx = batch, batch_idx
        self._errors += batch.get("error", [])

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Tensor) -> None:
        """Ask whether every process could read its batch, and has a loss that is finite."""
        broken = "error" in self._batch
        self._verdicts.append(_Verdict.ask(loss.detach(), broken, self._batch_idx, self._batch.get("index")))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Leave the step out if a loss was not finite.

        Raises:
            DataError: a process could not read its batch; it names the files, in every process.
            TrainingError: a loss was not finite, and is not to be skipped.
        """
        worst = max((verdict.badness() for verdict in self._verdicts), default=_GOOD)
        if worst == _GOOD:
            return
        if worst == _BROKEN:
            gather_and_raise(self._errors)
        # Without a gradient, Adam touches neither a parameter nor what it keeps of it; a zero would.
        optimizer.zero_grad(set_to_none=True)
        if not self._told:  # the second optimizer's step of one batch is not a second step
            self._told = True
            self._tell(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Write no checkpoint of weights that are not finite: it would take the place of one that can be used.

        Raises:
            TrainingError: a weight is not finite.
        """
        if not _finite(pl_module):
            raise _weights_lost(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how many steps are missing."""
        if self.skipped and trainer.is_global_zero:
            _log.warning("%d of %d steps were skipped: their loss was not finite.", self.skipped, trainer.global_step)

    def _tell(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        what = (
            f"the loss is not finite at step {trainer.global_step} (epoch {trainer.current_epoch}): "
            f"{'; '.join(self._gather(trainer))}."
        )
        if self.action == "raise":
            raise TrainingError(
                f"{what} The step was not taken. Look at these images, lower model.optimizer.lr, set "
                "trainer.gradient_clip_val=…, or try trainer.precision=32-true; trainer.on_nonfinite=skip leaves such "
                "steps out.",
                everywhere=True,
            )
        if not _finite(pl_module):
            raise _weights_lost(trainer)
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= _PATIENCE:
            raise TrainingError(
                f"{what} So it was in {_PATIENCE} steps in a row: none was taken, and more would not help. Lower "
                "model.optimizer.lr, set trainer.gradient_clip_val=…, or try trainer.precision=32-true.",
                everywhere=True,
            )
        if trainer.is_global_zero:
            _log.warning("%s The step was skipped.", what)

    def _gather(self, trainer: pl.Trainer) -> list[str]:
        """Return what is not finite, and from which files, of all processes."""
        mine = [verdict.describe(trainer) for verdict in self._verdicts if verdict.mine_is_bad()]
        everyones: list[list[str]] = [mine] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(everyones, mine)
            return [f"process {rank}, {what}" for rank, share in enumerate(everyones) for what in dict.fromkeys(share)]
        return list(dict.fromkeys(mine))


@dataclass(frozen=True)
class _Verdict:
    """How bad a batch is in the worst of all processes: on its way to the host, or there.

    Attributes:
        flag: how bad; a scalar on the host, or on a device whose every value has to be waited for.
        arrived: when the flag is on the host; None if it needs no waiting.
        loss: of this process.
        batch_idx: its batch.
        index: the numbers of the pairs in the batch, if it has them.
    """

    flag: Tensor
    arrived: torch.cuda.Event | None
    loss: Tensor
    batch_idx: int
    index: Tensor | None

    @classmethod
    def ask(cls, loss: Tensor, broken: bool, batch_idx: int, index: Tensor | None) -> _Verdict:
        flag = torch.full_like(loss, _BROKEN) if broken else (~torch.isfinite(loss)).to(loss.dtype) * _NOT_FINITE
        if is_distributed():
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        if not flag.is_cuda:
            return cls(flag, None, loss, batch_idx, index)
        host = torch.empty(flag.shape, dtype=flag.dtype, pin_memory=True)
        host.copy_(flag, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return cls(host, arrived, loss, batch_idx, index)

    def badness(self) -> float:
        if self.arrived is not None:
            self.arrived.synchronize()
        return float(self.flag)

    def mine_is_bad(self) -> bool:
        return not bool(torch.isfinite(self.loss))

    def describe(self, trainer: pl.Trainer) -> str:
        files = _files(trainer, self.index)
        return f"batch {self.batch_idx}{', of ' + ', '.join(files) if files else ''}: {self.loss.item()}"


def _files(trainer: pl.Trainer, index: Tensor | None) -> list[str]:
    """Return the LR images of the pairs with these numbers."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
    if index is None or not isinstance(datamodule, PairDataModule):
        return []
    return list(dict.fromkeys(str(datamodule.train_pairs[number].lr) for number in index.tolist()))


def _finite(module: torch.nn.Module) -> bool:
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in module.parameters()]).all())


def _weights_lost(trainer: pl.Trainer) -> TrainingError:
    return TrainingError(
        f"the weights are not finite any more, at step {trainer.global_step}; no checkpoint is written of them. Those "
        "written before are whole: go on from one by resume=…, with a lower model.optimizer.lr or "
        "trainer.gradient_clip_val=….",
        everywhere=True,
    )
