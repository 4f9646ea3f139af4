"""What keeps ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` while a run goes on."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError, Stopped
from d2csr.training.signals import Agreement, StopSignals, stopped
from d2csr.training.state import KEY, ResumableEpochLoop, TrainingState, whole_epochs
from d2csr.training.trainer import BEST, LAST

_log = logging.getLogger(__name__)

SETTINGS = "settings"  # where a checkpoint keeps the settings of its run
_NOTHING, _SAVE, _STOP = 0, 1, 2  # wishes; to stop, the number of the signal is added


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the highest validation PSNR, also where a run goes on in another folder.

    Args:
        folder: for ``best.ckpt``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            filename=Path(BEST).stem,
            monitor="val/psnr",
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best: under its path here."""
        here = str(Path(self.dirpath or "") / BEST)
        state = {**state_dict, "dirpath": self.dirpath}
        state["best_k_models"] = dict.fromkeys(state_dict["best_k_models"] and [here], state_dict["best_model_score"])
        for name in ("best_model_path", "kth_best_model_path"):
            state[name] = here if state_dict[name] else ""
        super().load_state_dict(state)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, from which a run goes on exactly, and puts the position into every checkpoint.

    It is renewed by time, by number of batches, after each validation, before a signal ends the run, and after an error
    that left the weights whole.

    Args:
        folder: for ``last.ckpt``.
        every_n_steps: batches after which it is renewed; None goes by the other occasions alone.
        every_minutes: minutes after which it is renewed; likewise.
        settings: of the run, as plain dicts and values, to compare with when it is resumed.

    Raises:
        ConfigError: an interval is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        every_n_steps: int | None = None,
        every_minutes: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise ConfigError(
                f"checkpoint.every_n_steps: must be a whole number from 1 up or null, got {every_n_steps!r}."
            )
        if every_minutes is not None and (not isinstance(every_minutes, int | float) or every_minutes < 0):
            raise ConfigError(f"checkpoint.every_minutes: must be a number from 0 up or null, got {every_minutes!r}.")
        self.path = Path(folder) / LAST
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.settings = settings or {}
        self.signals: StopSignals | None = None
        self.loop: ResumableEpochLoop | None = None
        self._trainer: pl.Trainer | None = None
        self._agreement: Agreement | None = None
        self._alone = False  # saving without the other processes
        self._validated = False
        self._first_step = 0
        self._saved: TrainingState | None = None
        self._saved_at = time.monotonic()

    # Lightning's hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put the loop into the trainer that knows where it is."""
        if stage == "fit" and not isinstance(trainer.fit_loop.epoch_loop, ResumableEpochLoop):
            data = _pairs(trainer)
            patches = data.batch_size * trainer.world_size if data else 0
            self.loop = ResumableEpochLoop(trainer, patches, self.between_batches)
            trainer.fit_loop.epoch_loop = self.loop

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the loop and the data begin where the checkpoint ends."""
        if trainer.state.fn != TrainerFn.FITTING or self.loop is None or KEY not in checkpoint:
            return
        data = _pairs(trainer)
        start = TrainingState(**checkpoint[KEY]).in_batches_of(data.batch_size * trainer.world_size if data else 0)
        self.loop.begin_at(start)
        if data:
            data.start_at(start.epoch, start.batch)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back from Lightning, whose handlers wait for other processes."""
        self._trainer = trainer
        self._agreement = Agreement(trainer.world_size)
        self._saved_at = time.monotonic()
        self._first_step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if self.signals is not None:
            self.signals.install()

    def on_before_optimizer_step(self, *args: Any) -> None:
        """From here to the end of the batch there is nothing to go on from."""
        if self.loop is not None:
            self.loop.leave()

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save before the validation, if a signal comes during it; with other processes, go on until all can stop."""
        if trainer.sanity_checking or self.signals is None or self.signals.received is None:
            return
        if not self._is_saved():
            self._save_alone(trainer)
        if trainer.world_size == 1:
            raise self._stopped(self.signals.received)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that there was one."""
        self._validated = not trainer.sanity_checking

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what was reached, unless the error came while the weights were changing."""
        position = self._position()
        if (
            isinstance(exception, Stopped)
            or position is None
            or position.batch == position.epoch == 0
            or self._is_saved()
        ):
            return
        try:
            self._save_alone(trainer)
        except Exception as error:  # the first error is the one to tell of
            _log.warning("%s was not renewed: %s", self.path, error)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add position and settings."""
        if self.loop is None:
            return
        position = self.loop.resting_place()
        whole_epochs(checkpoint["loops"], position)
        checkpoint["epoch"] = position.epoch
        state = position.state()
        if trainer.world_size > 1 and not self._alone:
            everywhere: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everywhere, position.random[0])
            state["random"] = everywhere
        checkpoint[KEY] = state
        checkpoint[SETTINGS] = self.settings

    # Between two batches.

    def between_batches(self) -> None:
        """Save if it is time to; save and stop if a signal came, to any of the processes."""
        trainer, agreement = self._trainer, self._agreement
        assert trainer is not None
        assert agreement is not None
        wish = agreement.on(self._wish(trainer))
        if wish >= _STOP:
            self._save(trainer)
            raise self._stopped(wish - _STOP)
        if wish == _SAVE or self._validated or self._steps_since() >= (self.every_n_steps or float("inf")):
            self._save(trainer)

    def _wish(self, trainer: pl.Trainer) -> int:
        if self.signals is not None and self.signals.received is not None:
            return _STOP + self.signals.received
        minutes = (time.monotonic() - self._saved_at) / 60
        due = self.every_minutes is not None and trainer.is_global_zero and minutes >= self.every_minutes
        return _SAVE if due else _NOTHING

    def _save(self, trainer: pl.Trainer) -> None:
        self._validated = False
        self._saved_at = time.monotonic()
        if not self._is_saved():
            trainer.save_checkpoint(self.path)
            self._saved = self._position()

    def _save_alone(self, trainer: pl.Trainer) -> None:
        """Save without waiting for other processes, which may have ended."""
        if not trainer.is_global_zero:
            return
        self._alone = True
        try:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.path)
            self._saved = self._position()
        finally:
            self._alone = False

    def _position(self) -> TrainingState | None:
        return self.loop.position if self.loop is not None else None

    def _is_saved(self) -> bool:
        saved, position = self._saved, self._position()
        return saved is not None and position is not None and saved.place == position.place

    def _steps_since(self) -> int:
        position = self._position()
        return 0 if position is None else position.step - (self._saved.step if self._saved else self._first_step)

    def _stopped(self, number: int) -> Stopped:
        position = self._position()
        return stopped(number, position.step if position else 0, self.path)


def _pairs(trainer: pl.Trainer) -> PairDataModule | None:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
    return datamodule if isinstance(datamodule, PairDataModule) else None
