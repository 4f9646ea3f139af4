"""State of a training between two batches, and the epoch loop that resumes from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from d2csr.internals import DataFetcher, EpochLoop, skip_empty_hooks
from d2csr.loggers import CSVLogger


@dataclass(frozen=True)
class TrainingState:
    """Progress of a training between two batches."""

    epoch: int = 0  # completed epochs
    batch: int = 0  # completed batches of the present epoch
    step: int = 0  # completed batches in all, as the loggers count them
    closed: bool = True  # the validation that is due after the batch is completed as well
    patches: int = 0  # in a batch of all ranks; 0 if unknown
    rows: int = 0  # of the CSV log
    random: list[dict[str, Any]] = field(default_factory=list)  # states of the generators, one entry for each rank

    def for_batches_of(self, patches: int) -> TrainingState:
        """Return the state for another batch size: at the first batch without an already used patch."""
        if not self.patches or not patches or self.patches == patches:
            return self
        return replace(self, batch=-(-self.batch * self.patches // patches), patches=patches)


def random_state() -> dict[str, Any]:
    """Return the states of all random number generators as plain values and tensors, for a checkpoint."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    words = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), words, int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        # torch.cuda.is_available() asks the driver, which takes longer than all of this.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned; CUDA's generators only on the same number of GPUs."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def _restored(trainer: pl.Trainer) -> Iterator[None]:
    """Restore what a validation changes and a longer run depends on: random numbers, and what stops a run early."""
    random = random_state()
    stops = [(c, c.state_dict()) for c in trainer.callbacks if isinstance(c, EarlyStopping)]  # type: ignore[attr-defined]
    yield
    set_random_state(random)
    for callback, state in stops:
        callback.load_state_dict(state)


_COUNTS = ("ready", "started", "processed", "completed")


class ResumableEpochLoop(EpochLoop):
    """Lightning's loop over the batches of an epoch, which resumes between any two of them.

    It validates after the last batch of the training, also if this is not due. Such an extra validation changes nothing
    that a longer run depends on, so a run that is extended equals one that was longer from the start.

    The loop replaces that of a trainer. A batch of all ranks has ``patches``, 0 if unknown; ``between_batches`` is
    called between two batches, after a validation.
    """

    def __init__(self, trainer: pl.Trainer, patches: int, between_batches: Callable[[], None]) -> None:
        super().__init__(trainer, trainer.fit_loop.min_steps, trainer.fit_loop.max_steps)
        self.val_loop = trainer.fit_loop.epoch_loop.val_loop  # it has its data already
        self.state: TrainingState | None = None  # where to resume; None while the weights change
        self.start: TrainingState | None = None  # where the next run begins; None for the first batch
        self.extra = False  # the present validation is an extra one
        self._validated = False  # after the present batch
        self.patches = patches
        self._between_batches = between_batches

    def reset(self) -> None:
        """Begin an epoch at its first batch: Lightning's own resuming is not exact."""
        self.restarting = False
        super().reset()

    def on_run_start(self, data_fetcher: DataFetcher) -> None:
        """Go to the first batch."""
        skip_empty_hooks(self.trainer)  # here, since all callbacks are there
        self.names = ()
        super().on_run_start(data_fetcher)
        start, self.start = self.start or TrainingState(), None
        if start.batch:
            batch = min(start.batch, int(self.trainer.num_training_batches))
            for name in _COUNTS:
                setattr(self.batch_progress.current, name, batch)
            self.batch_progress.is_last_batch = batch == self.trainer.num_training_batches
            data_fetcher.fetched = batch
        if self.trainer.global_rank < len(start.random):
            set_random_state(start.random[self.trainer.global_rank])
        self._record(closed=True)
        if start.batch and not start.closed:
            self._close(data_fetcher, stepped=True)

    def on_advance_end(self, data_fetcher: DataFetcher) -> None:
        """Validate if it is due, and count the step."""
        self._close(data_fetcher, stepped=not self.is_accumulating())

    def should_validate(self, data_fetcher: DataFetcher) -> bool:
        """Return whether to validate after the present batch: if it is due, or the last one."""
        return self._validated

    def on_epoch_end(self) -> None:
        """Validate if a callback has stopped the training at the end of an epoch without a validation."""
        if self.stops_after_epoch() and not self._validated and self.trainer.enable_validation:
            self.extra = True
            with _restored(self.trainer):
                self.validate_after_epoch()

    def resumable_state(self) -> TrainingState:
        """Return where to resume; after the end of an epoch, the beginning of the next one.

        A checkpoint that a hook writes at a batch's end counts the batch as completed.
        """
        current, epochs = self.batch_progress.current, self.trainer.fit_loop.epoch_progress.current.completed
        if self.state is None:
            return self._present(current.ready, closed=False)
        stopped_early = current.ready < self.trainer.num_training_batches  # by max_steps or trainer.should_stop
        if epochs == self.state.epoch or stopped_early:
            return replace(self.state, rows=self._rows()) if self.trainer.state.finished else self.state
        return replace(self._present(0, closed=True), epoch=epochs)

    def _close(self, data_fetcher: DataFetcher, *, stepped: bool) -> None:
        due = self.validation_is_due(data_fetcher)
        self.extra = not due and self.ends_training() and self.trainer.enable_validation
        self._validated = due or self.extra
        if stepped and self._validated:
            self._record(closed=False)
        with _restored(self.trainer) if self.extra else nullcontext():
            super().on_advance_end(data_fetcher)
        if stepped:
            self._record(closed=True)
            self._between_batches()

    def _record(self, *, closed: bool) -> None:
        self.state = self._present(self.batch_progress.current.completed, closed=closed)

    def _present(self, batch: int, *, closed: bool) -> TrainingState:
        return TrainingState(
            epoch=self.trainer.current_epoch,
            batch=batch,
            step=self.batches_that_stepped,
            closed=closed,
            patches=self.patches,
            rows=self._rows(),
            random=[random_state()],
        )

    def _rows(self) -> int:
        return next((logger.rows for logger in self.trainer.loggers if isinstance(logger, CSVLogger)), 0)


def set_loop_counters(loops: dict[str, Any], state: TrainingState) -> None:
    """Set Lightning's counters in a checkpoint as between two epochs: the training state counts the batches."""
    fit = loops["fit_loop"]
    for count in fit["epoch_progress"].values():
        count.update(dict.fromkeys(_COUNTS, state.epoch))
    batches, validation = fit["epoch_loop.batch_progress"], fit["epoch_loop.val_loop.batch_progress"]
    for progress, total in ((batches, batches["total"]["completed"]), (validation, 0)):
        progress["total"].update(dict.fromkeys(_COUNTS, total))
        progress["current"].update(dict.fromkeys(_COUNTS, 0))
        progress["is_last_batch"] = False
    automatic = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    manual = fit["epoch_loop.manual_optimization.optim_step_progress"]
    for progress in (automatic["step"], automatic["zero_grad"], manual):
        progress["current"].update(dict.fromkeys(progress["current"], 0))
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = state.step
