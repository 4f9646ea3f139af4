"""Non-finite loss detection without a host sync."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from d2csr.checks import one_of
from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import gather, gather_and_raise, is_distributed
from d2csr.errors import TrainingError

_log = logging.getLogger(__name__)

_PATIENCE = 100  # skipped steps in a row that end the run
_ADVICE = "model.optimizer.lr, set trainer.gradient_clip_val=…, or try trainer.precision=32-true"


class NonFiniteGuard(Callback):
    """Skips the optimizer's step on all ranks if the loss of any rank or any accumulated batch is not finite.

    ``raise`` then ends the run, and its last checkpoint is of the step before; ``skip`` warns and continues, until 100
    steps in a row were skipped. Infinite gradients from the loss scale of ``16-mixed`` are left to the scaler. The
    check is copied to the host during the backward pass and read before the step, so no host sync is needed.
    """

    def __init__(self, on_nonfinite: str) -> None:
        self.action = one_of("on_nonfinite", on_nonfinite, ("raise", "skip"))
        self._in_a_row = 0
        self._skipped_at = -1  # the last skipped step
        self._checks: list[_Check] = []
        self._errors: list[str] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Discard the checks of the previous step."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._checks, self._errors = [], []
        self._batch, self._batch_idx = batch if isinstance(batch, dict) else {}, batch_idx
        self._errors += self._batch.get("error", [])

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Tensor) -> None:
        """Start the check of the loss and of the batch."""
        self._checks.append(_Check(loss.detach(), "error" in self._batch, self._batch_idx, self._batch.get("index")))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Skip the step or raise an error if a loss was not finite, or if a rank could not read its batch."""
        if not self._errors and all(check.is_finite() for check in self._checks):
            return
        gather_and_raise(self._errors)
        # Without a gradient, Adam changes neither a parameter nor its state; with a zero it would.
        optimizer.zero_grad(set_to_none=True)
        if trainer.global_step != self._skipped_at:  # once for both optimizers of a batch
            second = optimizer is not trainer.optimizers[0] and getattr(pl_module, "optimization", "") == "alternating"
            self._report(trainer, pl_module, "The step of the convergence network" if second else "Its step")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Refuse a checkpoint of weights that are not finite: it would replace a usable one."""
        _require_finite(pl_module, trainer)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, skipped: str) -> None:
        own = dict.fromkeys(c.describe(trainer) for c in self._checks if not bool(torch.isfinite(c.loss)))
        found = [f"process {rank}, {what}" for rank, share in enumerate(gather(list(own))) for what in share]
        step, bad = trainer.global_step, "; ".join(found if trainer.world_size > 1 else own)
        what = f"the loss is not finite at step {step} (epoch {trainer.current_epoch}): {bad}."
        if self.action == "raise":
            raise TrainingError(
                f"{what} {skipped} was not taken. Check these images, lower {_ADVICE}; trainer.on_nonfinite=skip skips "
                "such steps.",
                everywhere=True,
            )
        _require_finite(pl_module, trainer)
        self._in_a_row = self._in_a_row + 1 if step == self._skipped_at + 1 else 1
        self._skipped_at = step
        if self._in_a_row >= _PATIENCE:
            raise TrainingError(
                f"{what} This is the same in {_PATIENCE} steps in a row, and none was taken. Lower {_ADVICE}.",
                everywhere=True,
            )
        if trainer.is_global_zero:
            _log.warning("%s %s was skipped.", what, skipped)


class _Check:
    """Sum of the losses of all ranks, copied to the host without a sync; NaN if a batch could not be read."""

    def __init__(self, loss: Tensor, broken: bool, batch_idx: int, index: Tensor | None) -> None:
        self.loss, self.batch_idx, self.index = loss, batch_idx, index
        self.value = torch.full_like(loss, math.nan) if broken else loss
        self.copied: torch.cuda.Event | None = None
        if is_distributed():
            self.value = self.value.float().clone()  # in half precision, a sum of finite losses may be infinite
            torch.distributed.all_reduce(self.value)
        if self.value.is_cuda:
            host = torch.empty(self.value.shape, dtype=self.value.dtype, pin_memory=True)
            self.value, self.copied = host.copy_(self.value, non_blocking=True), torch.cuda.Event()
            self.copied.record()

    def is_finite(self) -> bool:
        if self.copied is not None:
            self.copied.synchronize()
        return math.isfinite(self.value)

    def describe(self, trainer: pl.Trainer) -> str:
        data = PairDataModule.of(trainer)
        numbers = self.index.tolist() if self.index is not None else []
        files = dict.fromkeys(str(data.train_pairs[number].lr) for number in numbers) if data else {}
        return f"batch {self.batch_idx}{', of ' + ', '.join(files) if files else ''}: {self.loss.item()}"


def _require_finite(module: torch.nn.Module, trainer: pl.Trainer) -> None:
    if not bool(torch.stack([parameter.detach().isfinite().all() for parameter in module.parameters()]).all()):
        raise TrainingError(
            f"the weights are not finite any more, at step {trainer.global_step}; no checkpoint is written of them. "
            "Resume from an earlier one by resume=…, with a lower model.optimizer.lr or trainer.gradient_clip_val=….",
            everywhere=True,
        )
