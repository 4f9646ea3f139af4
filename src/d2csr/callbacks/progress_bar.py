"""Progress bar of a training: loss, PSNR, samples per second, time left."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar, Timer
from tqdm import tqdm

from d2csr.callbacks.training_log import Throughput
from d2csr.data.batch import Batch
from d2csr.log_file import log_to_file

_UPDATE_EVERY = 1.0  # seconds
_LOSSES = 20  # the bar shows the mean of this number of losses
_SPEED_OVER = 5.0  # seconds

# Without a terminal, a line is due when this share of the time so far has passed since the last one, within these
# bounds in seconds.
_SHARE, _SHORTEST, _LONGEST = 0.1, 10.0, 600.0


class LinePace:
    """Growing intervals between the lines of a log; ``start`` is the time of its start in seconds."""

    def __init__(self, start: float) -> None:
        self._start = self._last = start

    def is_due(self, now: float) -> bool:
        """Return whether a line is due; it then counts as written."""
        due = now - self._last >= min(max(_SHARE * (self._last - self._start), _SHORTEST), _LONGEST)
        if due:
            self._last = now
        return due


class TrainingProgressBar(ProgressBar):
    """One bar over all steps, and a line for each validation; without a terminal, lines alone.

    The loss is that of the fused image, or of the leaves where only these are trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._terminal = sys.stdout.isatty()
        self._bar: tqdm[Any] | None = None
        self._validation_bar: tqdm[Any] | None = None
        self._psnr: float | None = None

    def disable(self) -> None:
        """Show nothing: Lightning calls this on all ranks but the first."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start clocks and bar."""
        steps = trainer.estimated_stepping_batches
        self._total = int(steps) if math.isfinite(steps) else None
        self._best = _best_psnr(trainer)
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._training, self._recent, self._validating = Throughput(), Throughput(), Throughput()
        self._validating.pause()
        self._first, self._speed = True, 0.0
        self._read = time.monotonic()
        self._pace = LinePace(self._read)
        if self._enabled and self._terminal:
            self._bar = _new_bar(total=self._total, initial=trainer.global_step, bar_format=self._format())
        elif self._enabled:
            _write_line(f"training from step {trainer.global_step} to {self._total or 'no end'}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: int) -> None:
        """Count the step, and update the display."""
        if not self._enabled:
            return
        if self._first:  # it includes the warm-up
            self._first = False
            self._training.restart()
            self._recent.restart()
            return
        for clock in (self._training, self._recent):
            clock.count(len(batch["lr"]) * trainer.world_size)
        now = time.monotonic()
        if now - self._read >= _UPDATE_EVERY:
            self._read = now
            self._update(trainer, now)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the last state."""
        if self._enabled:
            self._update(trainer, math.inf)
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Close the bars."""
        self._close()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a second bar."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        if self._enabled and self._terminal:
            total = sum(batches) if isinstance(batches, list) else batches
            self._validation_bar = _new_bar(total=total, desc="validation", leave=False, position=1)
        if _is_training(trainer):
            self._training.pause()
            self._recent.pause()
            self._validating.resume()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count the batch."""
        if self._validation_bar is not None:
            self._validation_bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores."""
        if self._validation_bar is not None:
            self._validation_bar.close()
        if not _is_training(trainer):
            return
        self._validating.count(1)
        self._validating.pause()
        self._training.resume()
        self._recent.resume()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if "val/psnr" in metrics:
            self._psnr = metrics["val/psnr"]
            best, self._best = self._psnr > self._best, max(self._psnr, self._best)
            if self._enabled:
                _write_line(f"{_where(trainer)}: {_scores(metrics)}{', the best so far' if best else ''}")

    def _update(self, trainer: pl.Trainer, now: float) -> None:
        """Read the loss, which waits for the GPU, and show the state in the bar or as a line."""
        metrics = trainer.callback_metrics
        loss = metrics.get("train/fusion", metrics.get("train/reconstruction"))
        if loss is not None:
            self._losses.append(float(loss))
        if self._recent.seconds >= _SPEED_OVER or not self._speed:
            self._speed = self._recent.samples_per_second
            self._recent.restart()
        state = self._state(trainer)
        if self._bar is not None:
            self._bar.n = trainer.global_step
            self._bar.set_description_str(_where(trainer, self._total) + " ", refresh=False)
            self._bar.bar_format = self._format(state)
            self._bar.refresh()
        elif self._pace.is_due(now):
            _write_line(f"{_where(trainer, self._total)}, {state}")

    def _format(self, state: str = "") -> str:
        return ("{desc}{percentage:3.0f}%|{bar}| " if self._total else "{desc}") + state

    def _state(self, trainer: pl.Trainer) -> str:
        left = self._seconds_left(trainer)
        loss = f"loss {sum(self._losses) / len(self._losses):.3g}" if self._losses else ""
        psnr = f"PSNR {self._psnr:.2f} dB" if self._psnr is not None else ""
        speed = f"{self._speed:.3g} samples/s" if self._speed else ""
        time_left = f"{_duration(left)} left" if left is not None else ""
        return ", ".join(filter(None, (loss, psnr, speed, time_left)))

    def _seconds_left(self, trainer: pl.Trainer) -> float | None:
        limits = []
        if self._total is not None and self._training.steps:
            steps = (self._total - trainer.global_step) * self._training.seconds / self._training.steps
            limits.append(steps + self._validation_seconds_left(trainer))
        timers = (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
        limits += [left for timer in timers if (left := timer.time_remaining()) is not None]
        return max(min(limits), 0) if limits else None

    def _validation_seconds_left(self, trainer: pl.Trainer) -> float:
        every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
        if not every or not epochs or epochs < 0 or not self._validating.steps:
            return 0.0
        validations = epochs // every - trainer.current_epoch // every
        return validations * self._validating.seconds / self._validating.steps

    def _close(self) -> None:
        for bar in (self._validation_bar, self._bar):
            if bar is not None:
                bar.close()


def _new_bar(**settings: Any) -> tqdm[Any]:
    return tqdm(dynamic_ncols=True, file=sys.stdout, **settings)


def _write_line(text: str) -> None:
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
    log_to_file(text)


def _is_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _best_psnr(trainer: pl.Trainer) -> float:
    best = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor == "val/psnr"]
    return max((float(c.best_model_score) for c in best if c.best_model_score is not None), default=-math.inf)


def _where(trainer: pl.Trainer, total: int | None = None) -> str:
    epoch, epochs = trainer.current_epoch + trainer.is_last_batch, ""
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        epoch, epochs = min(epoch, trainer.max_epochs), f"/{trainer.max_epochs}"
    return f"epoch {epoch}{epochs}, step {trainer.global_step}{f'/{total}' if total else ''}"


def _scores(metrics: dict[str, float]) -> str:
    leaves = [value for name, value in metrics.items() if name.startswith("val/psnr_")]
    spread = f" (leaves {min(leaves):.2f} to {max(leaves):.2f})" if len(leaves) > 1 else ""
    return f"PSNR {metrics['val/psnr']:.2f} dB{spread}, SSIM {metrics['val/ssim']:.4f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours or days else f"{minutes}:{seconds:02d}"
    return f"{days} d {clock}" if days else clock
