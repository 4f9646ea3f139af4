"""The place in a training from which it can go on as if it had never stopped."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

# Where a checkpoint keeps it.
KEY = "position"


@dataclass(frozen=True)
class TrainingState:
    """What is behind, between two batches.

    Attributes:
        epoch: epochs that are done.
        batch: batches of the present epoch that are done.
        step: batches that are done in all, as the loggers count them.
        closed: what follows a batch is done as well: the validation, where one is due.
        patches: patches in a batch of all processes; 0 if unknown.
        rows: rows of the CSV log that are behind.
        random: the state of each random number generator, one entry a process.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    closed: bool = True
    patches: int = 0
    rows: int = 0
    random: list[dict[str, Any]] = field(default_factory=list)

    @property
    def place(self) -> tuple[int, int, bool]:
        """What tells two positions of a run apart."""
        return self.epoch, self.batch, self.closed

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors, for a checkpoint."""
        return asdict(self)

    def in_batches_of(self, patches: int) -> TrainingState:
        """Return the position for another batch size: at the first batch that holds no patch which was seen already."""
        if not self.patches or not patches or self.patches == patches:
            return self
        return replace(self, batch=-(-self.batch * self.patches // patches), patches=patches)


def random_state() -> dict[str, Any]:
    """Return the state of the generators of Python, numpy and torch, CUDA's included, as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to a state that :func:`random_state` gave; on other GPUs, theirs are left alone."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


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
        self.position: TrainingState | None = None
        self._start: TrainingState | None = None
        self._patches = patches
        self._between_batches = between_batches

    def begin_at(self, start: TrainingState) -> None:
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

    def _here(self, batch: int, *, closed: bool) -> TrainingState:
        return TrainingState(
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

    def resting_place(self) -> TrainingState:
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


def whole_epochs(loops: dict[str, Any], position: TrainingState) -> None:
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
