"""Lightning's loop over the batches of an epoch, able to begin in the middle of one.

Lightning can do that itself, but guesses from its counters what was done when the checkpoint was written, and leaves
out what belongs to the start of an epoch, the learning rate for one. Here the checkpoint says it, see
:class:`d2csr.training.survival.position.Position`, and Lightning's counters always tell of a whole number of epochs.
(Lightning's Trainer puts its own loop into ``fit_loop.epoch_loop`` in the same way.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from d2csr.training.survival.position import Position, random_state, set_random_state

_COUNTS = ("ready", "started", "processed", "completed")


class ResumableEpochLoop(_TrainingEpochLoop):
    """Begins where it is told to, and knows at any time where it is.

    Args:
        trainer: Lightning's.
        patches: patches in a batch of all processes; 0 if unknown.
        between_batches: called between two batches, when everything that follows the first one is done.

    Attributes:
        position: where to go on from; None while a batch is changing the weights.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        patches: int = 0,
        between_batches: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(trainer, trainer.fit_loop.min_steps, trainer.fit_loop.max_steps)
        self.val_loop = trainer.fit_loop.epoch_loop.val_loop  # which knows the data already
        self.position: Position | None = None
        self._start: Position | None = None
        self._patches = patches
        self._between_batches = between_batches

    def begin_at(self, start: Position) -> None:
        """Begin the next run there."""
        self._start = start

    def reset(self) -> None:
        """Begin an epoch, always from its first batch: Lightning is not to find out by itself where it was."""
        self.restarting = False
        super().reset()

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Go to the place where to begin."""
        super().on_run_start(data_fetcher)
        start, self._start = self._start, None
        if start is None:
            self._arrive(closed=True)
            return
        batch = min(start.batch, int(self.trainer.num_training_batches))
        for name in _COUNTS:
            setattr(self.batch_progress.current, name, batch)
        self.batch_progress.is_last_batch = batch == self.trainer.num_training_batches
        self._batches_that_stepped = start.step
        data_fetcher.fetched = batch
        if self.trainer.global_rank < len(start.random):
            set_random_state(start.random[self.trainer.global_rank])
        self._arrive(closed=True)
        if batch and not start.closed:
            self._close(data_fetcher)

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Do what follows a batch."""
        if self._should_accumulate():
            super().on_advance_end(data_fetcher)
        else:
            self._close(data_fetcher)

    def _close(self, data_fetcher: _DataFetcher) -> None:
        self._arrive(closed=False)
        super().on_advance_end(data_fetcher)
        self._arrive(closed=True)
        self._between_batches()

    def _arrive(self, *, closed: bool) -> None:
        self.position = self._here(self.batch_progress.current.completed, closed=closed)

    def _here(self, batch: int, *, closed: bool) -> Position:
        return Position(
            epoch=self.trainer.current_epoch,
            batch=batch,
            step=self._batches_that_stepped,
            closed=closed,
            patches=self._patches,
            rows=next((logger.rows for logger in self.trainer.loggers if hasattr(logger, "rows")), 0),
            random=[random_state()],
        )

    def leave(self) -> None:
        """Forget the position: the weights begin to change."""
        self.position = None

    def resting_place(self) -> Position:
        """Return where to go on from: after the end of an epoch, the beginning of the next one.

        Whoever saves while a batch changes the weights, in a hook at its end, is taken to mean that it is done.
        """
        current, done = self.batch_progress.current, self.trainer.fit_loop.epoch_progress.current.completed
        if self.position is None:
            return self._here(current.ready, closed=False)
        if done == self.position.epoch or current.ready < self.trainer.num_training_batches:
            return self.position
        return replace(self._here(0, closed=True), epoch=done)

    def _broadcast_sigterm_tensor(self) -> None:
        """Leave signals to ``signals.py`` here; Lightning makes a GPU wait for this at each batch."""


def whole_epochs(loops: dict[str, Any], position: Position) -> None:
    """Rewrite Lightning's counters in a checkpoint, in place: as if it had been written between two epochs."""
    fit = loops["fit_loop"]
    for count in fit["epoch_progress"].values():
        count.update(dict.fromkeys(_COUNTS, position.epoch))
    batches = fit["epoch_loop.batch_progress"]
    batches["total"].update(dict.fromkeys(_COUNTS, batches["total"]["completed"]))
    batches["current"].update(dict.fromkeys(_COUNTS, 0))
    batches["is_last_batch"] = False
    validation = fit["epoch_loop.val_loop.batch_progress"]
    for count in (validation["total"], validation["current"]):
        count.update(dict.fromkeys(_COUNTS, 0))
    validation["is_last_batch"] = False
    automatic = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    manual = fit["epoch_loop.manual_optimization.optim_step_progress"]
    for progress in (automatic["step"], automatic["zero_grad"], manual):
        progress["current"].update(dict.fromkeys(progress["current"], 0))
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = position.step
