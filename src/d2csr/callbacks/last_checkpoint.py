"""Checkpoint from which a run resumes exactly."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from d2csr.checkpoints.own import POSITION, SETTINGS
from d2csr.checks import number, whole_number
from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import gather
from d2csr.errors import Stopped
from d2csr.internals import checkpoint_content, group_timeout
from d2csr.resumable_loop import ResumableEpochLoop, TrainingState, set_loop_counters
from d2csr.signals import SignalExchange, StopSignals, stopped

_log = logging.getLogger(__name__)

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"  # the former last.ckpt, should the disk damage the new one
_NOTHING, _SAVE, _STOP = 0, 1, 2  # requests; to stop, the number of the signal is added


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt``, and adds the training state to every checkpoint.

    It is also written after each validation, before a signal ends the run, and after an error between two batches.

    Args:
        folder: for ``last.ckpt``.
        every_n_steps: write after each n-th step; None after none.
        every_minutes: minutes between two writes; None sets no limit.
        settings: of the run, as plain values, to compare with when it is resumed.
    """

    def __init__(
        self,
        folder: str | Path,
        every_n_steps: int | None = None,
        every_minutes: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(folder) / LAST
        self.every_n_steps = None if every_n_steps is None else whole_number("every_n_steps", every_n_steps)
        self.every_minutes = math.inf if every_minutes is None else number("every_minutes", every_minutes, least=0)
        self.settings = settings or {}
        self.signals = StopSignals()
        self.loop: ResumableEpochLoop | None = None
        self._alone = False  # the present write is that of a rank without the others
        self._validated = False
        self._saved: TrainingState | None = None  # that of the last write

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replace the trainer's loop by the resumable one."""
        if stage == "fit" and not isinstance(trainer.fit_loop.epoch_loop, ResumableEpochLoop):
            data = PairDataModule.of(trainer)
            patches = data.batch_size * trainer.world_size if data else 0
            self.loop = ResumableEpochLoop(trainer, patches, partial(self._between_batches, trainer))
            trainer.fit_loop.epoch_loop = self.loop

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Start loop and data at the checkpoint."""
        if trainer.state.fn != TrainerFn.FITTING or self.loop is None or POSITION not in checkpoint:
            return
        start = TrainingState(**checkpoint[POSITION]).for_batches_of(self.loop.patches)
        self.loop.start = start
        if data := PairDataModule.of(trainer):
            data.start_at(start.epoch, start.batch)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers again, since Lightning has replaced them."""
        self._requests = SignalExchange(trainer.world_size, group_timeout(trainer))
        self._saved_at = time.monotonic()
        self.signals.install()

    def on_before_optimizer_step(self, *args: Any) -> None:
        """Forget the state: the weights begin to change."""
        if self.loop is not None:
            self.loop.state = None

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save after a signal; a single rank ends at once."""
        if trainer.sanity_checking or self.signals.received is None:
            return
        self._save(trainer, alone=True)
        if trainer.world_size == 1:
            raise self._stopped(self.signals.received)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Request a checkpoint."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate if a callback has stopped the training in this hook: Lightning calls checkpoint callbacks last."""
        if self.loop is not None:
            self.loop.on_epoch_end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state, unless the weights were changing."""
        state = self._state
        if isinstance(exception, Stopped) or state is None or state.batch == state.epoch == 0:
            return
        try:
            self._save(trainer, alone=True)
        except Exception as error:  # the first error is the one to report
            _log.warning("%s was not written: %s", self.path, error)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the training state and the settings."""
        if self.loop is None:
            return
        state = self.loop.resumable_state()
        set_loop_counters(checkpoint["loops"], state)
        checkpoint["epoch"] = state.epoch
        random = state.random if self._alone else gather(state.random[0])
        checkpoint[POSITION] = asdict(replace(state, random=random))
        checkpoint[SETTINGS] = self.settings

    def _between_batches(self, trainer: pl.Trainer) -> None:
        """Save if it is due; save and stop after a signal to any rank."""
        late = trainer.is_global_zero and (time.monotonic() - self._saved_at) / 60 >= self.every_minutes
        own = _SAVE if late else _NOTHING
        if self.signals.received is not None:
            own = _STOP + self.signals.received
        request = self._requests.exchange(own)
        every, state = self.every_n_steps, self._state
        due = every is not None and state is not None and state.step % every == 0
        if due or self._validated or request != _NOTHING:
            self._save(trainer)
        if request >= _STOP:
            raise self._stopped(request - _STOP)

    def _save(self, trainer: pl.Trainer, *, alone: bool = False) -> None:
        """Save the state once; ``alone`` on rank 0 without the other ranks, which may have ended."""
        self._validated = False
        self._saved_at = time.monotonic()
        state = self._state
        if (state and state is self._saved) or (alone and not trainer.is_global_zero):
            return
        if alone:
            self._alone = True
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint_content(trainer), self.path)
            self._alone = False
        else:
            trainer.save_checkpoint(self.path)
        self._saved = state

    @property
    def _state(self) -> TrainingState | None:
        return self.loop.state if self.loop is not None else None

    def _stopped(self, number: int) -> Stopped:
        return stopped(number, self._state.step if self._state else 0, self.path)
