"""Progress of a training and of an evaluation: a bar on a terminal, lines otherwise."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, Timer
from tqdm import tqdm

from d2csr.callbacks.best_checkpoint import best_psnr
from d2csr.callbacks.training_log import Throughput
from d2csr.data.batch import Batch
from d2csr.log_file import log_to_file

_UPDATE_EVERY = 1.0  # seconds
_LOSSES = 20  # the bar shows the mean of this number of losses
_SPEED_OVER = 5.0  # seconds

# Without a terminal, a line is due when this share of the time so far has passed since the last one, within these
# bounds in seconds.
_SHARE, _SHORTEST, _LONGEST = 0.1, 10.0, 600.0


class _BarOrLines(ProgressBar):
    """Base of both: the bar, which is disabled without a terminal, and lines at growing intervals."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar = tqdm(disable=True)

    def disable(self) -> None:
        """Show nothing: Lightning calls this on all ranks but the first."""
        self._enabled = False

    def on_exception(self, *_: Any) -> None:
        """Close the bar."""
        self._bar.close()

    def _start(self, **bar: Any) -> None:
        self._bar = self._new_bar(**bar)
        self._started = self._last_line = time.monotonic()

    def _new_bar(self, **settings: Any) -> tqdm[Any]:
        shown = self._enabled and sys.stdout.isatty()
        return tqdm(disable=not shown, dynamic_ncols=True, file=sys.stdout, **settings)

    def _line_is_due(self, now: float) -> bool:
        """Return whether a line is due; it then counts as written."""
        interval = min(max(_SHARE * (self._last_line - self._started), _SHORTEST), _LONGEST)
        due = self._bar.disable and now - self._last_line >= interval
        if due:
            self._last_line = now
        return due

    def _write(self, line: str) -> None:
        """Write a line to the terminal, above the bar, and to the log file."""
        if self._enabled:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
            log_to_file(line)


class EvaluationProgressBar(_BarOrLines):
    """Shows how many images of the first process are evaluated."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar or the clock."""
        self._total, self._done = int(sum(trainer.num_test_batches)), 0
        self._start(total=self._total, desc="evaluation", unit="image")
        self._write(f"evaluating {self._total} image{'s' * (self._total != 1)}")

    def on_test_batch_end(self, *_: Any) -> None:
        """Count an image."""
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if self._done < self._total and self._line_is_due(now):
            speed = self._done / (now - self._started)
            left = (self._total - self._done) / speed
            self._write(f"image {self._done}/{self._total}, {speed:.3g} images/s, {left:.0f} s left")

    def on_test_end(self, *_: Any) -> None:
        """Close the bar."""
        self._bar.close()


class TrainingProgressBar(_BarOrLines):
    """One bar over all steps, and a line for each validation; without a terminal, lines alone.

    The loss is that of the fused image, or of the leaves where only these are trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self._validation_bar = tqdm(disable=True)
        self._psnr: float | None = None

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start clocks and bar."""
        steps = trainer.estimated_stepping_batches
        self._total = int(steps) if math.isfinite(steps) else None
        self._best = best_psnr(trainer)
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._training, self._validating = Throughput(), Throughput()
        self._validating.pause()
        self._first, self._speed, self._speed_since = True, 0.0, (0.0, 0)  # seconds and samples before
        self._start(total=self._total, initial=trainer.global_step, bar_format=self._format())
        self._read = self._started
        if self._bar.disable:
            self._write(f"training from step {trainer.global_step} to {self._total or 'no end'}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: int) -> None:
        """Count the step, and update the display."""
        if not self._enabled:
            return
        if self._first:  # it includes the warm-up
            self._first = False
            self._training.restart()
            return
        self._training.count(len(batch["lr"]) * trainer.world_size)
        now = time.monotonic()
        if now - self._read >= _UPDATE_EVERY:
            self._read = now
            self._update(trainer, now)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the last state."""
        self._update(trainer, math.inf)
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Close the bars."""
        self._validation_bar.close()
        self._bar.close()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a second bar."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        total = sum(batches) if isinstance(batches, list) else batches
        self._validation_bar = self._new_bar(total=total, desc="validation", leave=False, position=1)
        if _is_training(trainer):
            self._training.pause()
            self._validating.resume()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count the batch."""
        self._validation_bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores."""
        self._validation_bar.close()
        if not _is_training(trainer):
            return
        self._validating.count(1)
        self._validating.pause()
        self._training.resume()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if "val/psnr" in metrics:
            self._psnr = metrics["val/psnr"]
            is_best = math.isnan(self._best) or self._psnr > self._best
            if is_best:
                self._best = self._psnr
            self._write(f"{_where(trainer)}: {_scores(metrics)}{', the best so far' * is_best}")

    def _update(self, trainer: pl.Trainer, now: float) -> None:
        """Read the loss, which waits for the GPU, and show the state in the bar or as a line."""
        metrics = trainer.callback_metrics
        loss = metrics.get("train/fusion", metrics.get("train/reconstruction"))
        if loss is not None:
            self._losses.append(float(loss))
        clock = self._training
        seconds, samples = clock.seconds - self._speed_since[0], clock.samples - self._speed_since[1]
        if samples and (seconds >= _SPEED_OVER or not self._speed):
            self._speed, self._speed_since = samples / seconds, (clock.seconds, clock.samples)
        where, state = _where(trainer, self._total), self._state(trainer)
        self._bar.n = trainer.global_step
        self._bar.bar_format = self._format(state)
        self._bar.set_description_str(f"{where} ")
        if self._line_is_due(now):
            self._write(f"{where}, {state}")

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
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        limits = [left for timer in timers if (left := timer.time_remaining()) is not None]
        if self._total is not None and self._training.steps:
            steps = (self._total - trainer.global_step) * self._training.seconds / self._training.steps
            limits.append(steps + self._validation_seconds_left(trainer))
        return max(min(limits), 0) if limits else None

    def _validation_seconds_left(self, trainer: pl.Trainer) -> float:
        every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
        if not every or not epochs or epochs < 0 or not self._validating.steps:
            return 0.0
        validations = epochs // every - trainer.current_epoch // every
        return validations * self._validating.seconds / self._validating.steps


def _is_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


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
