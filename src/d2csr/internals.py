"""Private names of Lightning; those of torch are in ``torch_internals.py``, and no other module uses one.

If a new release moves one, ``tests/test_internals.py`` fails with its name.
"""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from functools import cache, partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loops.fetchers import _DataFetcher as DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.overrides.distributed import _sync_module_states
from pytorch_lightning.plugins import Precision
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector

__all__ = ["HOOK_NAME", "CSVWriter", "DataFetcher", "EpochLoop"]


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch: its public hooks are the only way to resume between batches."""

    names: Sequence[str] = ()  # of the arguments of training_step; none if they are not known yet

    @property
    def batches_that_stepped(self) -> int:
        """Batches that ended in a step."""
        return self._batches_that_stepped

    def is_accumulating(self) -> bool:
        """Return whether the present batch ends without a step."""
        return self._should_accumulate()

    def ends_training(self) -> bool:
        """Return whether the training ends after the present batch: by its steps, its epochs, or an early stop."""
        trainer, fit = self.trainer, self.trainer.fit_loop
        if 0 <= trainer.max_steps <= self.global_step:
            return True
        epochs = trainer.current_epoch + self._num_ready_batches_reached()
        if fit.max_epochs not in (None, -1) and epochs >= fit.max_epochs:
            return True
        return trainer.should_stop and epochs >= (fit.min_epochs or 0) and self.global_step >= (self.min_steps or 0)

    def validation_is_due(self, data_fetcher: DataFetcher) -> bool:
        """Return whether to validate now by the intervals of the trainer, also if the training goes on."""
        stop, self.trainer.should_stop = self.trainer.should_stop, False
        try:
            return super()._should_check_val_fx(data_fetcher)
        finally:
            self.trainer.should_stop = stop

    def should_validate(self, data_fetcher: DataFetcher) -> bool:
        """Return whether to validate after the present batch."""
        return self.validation_is_due(data_fetcher)

    def stops_after_epoch(self) -> bool:
        """Return whether an early stop ends the training, after the end of an epoch."""
        return self.trainer.should_stop and self.trainer.fit_loop._can_stop_early

    def validate_after_epoch(self) -> None:
        """Validate after the end of an epoch."""
        self._batches_that_stepped -= 1  # Lightning's loggers count from 0
        self.trainer.validating = True
        self.val_loop.run()
        self.trainer.training = True
        self._batches_that_stepped += 1

    def _build_kwargs(self, kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
        """Name the arguments of ``training_step``. Lightning inspects its signature for each batch."""
        if not self.names:
            self.names = list(super()._build_kwargs(kwargs, batch, batch_idx))
        return OrderedDict(zip(self.names, (batch, batch_idx), strict=False))

    def _should_check_val_fx(self, data_fetcher: DataFetcher) -> bool:
        return self.should_validate(data_fetcher)

    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing: ``signals.py`` exchanges signals without a host sync."""


class CSVWriter(ExperimentWriter):
    """Lightning's writer of CSV files, which keeps existing rows and lets a subclass rewrite the file."""

    def rewrite(self, header: list[str]) -> None:
        """Give the file another header."""
        super()._rewrite_with_new_header(header)

    def _check_log_dir_exists(self) -> None:
        """Do nothing: Lightning deletes the rows of the run that is resumed."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self.rewrite(fieldnames)


def get_experiment(logger: Any) -> Any:
    """Return a logger's writer or run, or None: the public property would create it."""
    return logger._experiment


def set_experiment(logger: Any, value: Any) -> Any:
    """Set a logger's writer and return it."""
    logger._experiment = value
    return value


def wandb_arguments(logger: pl.loggers.WandbLogger) -> dict[str, Any]:
    """Return the arguments of ``wandb.init``, one of which makes W&B warn."""
    return logger._wandb_init


def cluster_environment(trainer: pl.Trainer) -> Any:
    """Return the environment of the processes: Lightning's requeueing of SLURM jobs has no public switch."""
    return trainer._accelerator_connector.cluster_environment


def checkpoint_content(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the content of a checkpoint: ``save_checkpoint`` would wait for other ranks."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


HOOK_NAME = "_current_fx_name"  # of a module: Lightning sets it before and after each hook

_BATCH_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def skip_empty_hooks(trainer: pl.Trainer) -> None:
    """Let Lightning skip the hooks of a batch that its classes and those of this package do not define.

    Lightning calls each hook of the module and of each callback, also the empty ones of its base classes, but none that
    is not callable. Other classes are left as they are: they may call their own empty hooks.
    """
    module, callbacks = trainer.lightning_module, trainer.callbacks  # type: ignore[attr-defined]  # not declared
    clipping = () if trainer.gradient_clip_val else ("configure_gradient_clipping",)
    _skip_empty(module, pl.LightningModule, (*_BATCH_HOOKS, *clipping))
    for callback in callbacks:
        _skip_empty(callback, Callback, _BATCH_HOOKS)
    selector: Any = trainer._data_connector._datahook_selector
    # Of data and module, which has a hook for the transfer of a batch: looked up once.
    selector.get_instance = cache(partial(type(selector).get_instance, selector))
    plugin = trainer.precision_plugin
    vars(plugin).pop("post_backward", None)
    unused = not any(callable(owner.on_after_backward) for owner in (module, *callbacks))
    if unused and type(plugin).post_backward is Precision.post_backward:  # calls these hooks, and detaches
        plugin.post_backward = lambda tensor, module: tensor.detach()  # type: ignore[method-assign]


def _skip_empty(owner: Any, base: type, names: tuple[str, ...]) -> None:
    if type(owner).__module__.partition(".")[0] in ("d2csr", "pytorch_lightning"):
        for name in names:
            if getattr(getattr(owner, name), "__func__", None) is getattr(base, name):
                setattr(owner, name, None)


def is_attached(module: pl.LightningModule) -> bool:
    """Return whether a module has a trainer: the public property raises an error without one."""
    return module._trainer is not None


def was_restoring(error: BaseException) -> bool:
    """Return whether an error was raised while the trainer restored a checkpoint; its type can be any."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == _CheckpointConnector.__module__ for frame, _ in frames)


def child_processes(trainer: pl.Trainer) -> list[Any]:
    """Return the processes of other ranks that Lightning started."""
    return getattr(trainer.strategy.launcher, "procs", [])


def stop_process_observer(trainer: pl.Trainer) -> None:
    """Let Lightning's observer no longer kill this process when one that Lightning started ends with an error."""
    launcher: Any = trainer.strategy.launcher
    if observed := child_processes(trainer):
        launcher.procs = list(observed)
        observed.clear()  # the list that the observer holds


def broadcast_module(module: torch.nn.Module) -> None:
    """Copy the parameters and buffers of rank 0 to all ranks, as DDP does at its start."""
    _sync_module_states(module)


def group_timeout(trainer: pl.Trainer) -> timedelta | None:
    """Return the time-out of the process group."""
    return getattr(trainer.strategy, "_timeout", None)
