"""Progress of a training and of an evaluation: a bar on a terminal, lines otherwise."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from datetime import timedelta
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from d2csr.callbacks.best_checkpoint import best_psnr
from d2csr.data.batch import Batch
from d2csr.log_file import log_to_file

_READ_EVERY = 1.0  # seconds
_READINGS = 20  # loss and speed are means of this number of readings

# Without a terminal, a line is due when this share of the time so far has passed since the last one, within these
# bounds in seconds.
_SHARE, _SHORTEST, _LONGEST = 0.1, 10.0, 600.0


class _BarOrLines(ProgressBar):
    """Base of both: the bars, which are disabled without a terminal, and lines at growing intervals."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar = self._validation_bar = tqdm(disable=True)

    def disable(self) -> None:
        """Show nothing: Lightning calls this on all ranks but the first."""
        self._enabled = False

    def on_exception(self, *_: Any) -> None:
        """Close the bars."""
        self._validation_bar.close()
        self._bar.close()

    def _start(self, **bar: Any) -> None:
        self._bar = self._new_bar(**bar)
        self._started = self._last_line = time.monotonic()

    def _new_bar(self, **settings: Any) -> tqdm[Any]:
        shown = self._enabled and sys.stdout.isatty()
        return tqdm(disable=not shown, dynamic_ncols=True, file=sys.stdout, **settings)

    def _write_if_due(self, line: str, now: float) -> None:
        interval = min(max(_SHARE * (self._last_line - self._started), _SHORTEST), _LONGEST)
        if self._bar.disable and now - self._last_line >= interval:
            self._last_line = now
            self._write(line)

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
        if self._done < self._total:
            speed = self._done / (now - self._started)
            left = (self._total - self._done) / speed
            self._write_if_due(f"image {self._done}/{self._total}, {speed:.3g} images/s, {left:.0f} s left", now)

    def on_test_end(self, *_: Any) -> None:
        """Close the bar."""
        self._bar.close()


class TrainingProgressBar(_BarOrLines):
    """One bar over all steps, and a line for each validation; without a terminal, lines alone.

    The loss is that of the fused image, or of the leaves where only these are trained.
    """

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start clocks and bar."""
        steps = trainer.estimated_stepping_batches
        self._total = int(steps) if math.isfinite(steps) else None
        self._best = best_psnr(trainer)
        self._psnr: float | None = None
        self._losses: deque[float] = deque(maxlen=_READINGS)
        self._speeds: deque[float] = deque(maxlen=_READINGS)
        self._samples = 0  # since the last reading
        self._first: tuple[float, int] | None = None  # time and step of the first reading, after the warm-up
        self._seconds = 0.0  # of a step, with its share of the validations
        self._start(total=self._total, initial=trainer.global_step, bar_format=self._format())
        self._read = self._started
        if self._bar.disable:
            self._write(f"training from step {trainer.global_step} to {self._total or 'no end'}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: int) -> None:
        """Count the step, and update the display."""
        if not self._enabled:
            return
        self._samples += len(batch["lr"]) * trainer.world_size
        if time.monotonic() - self._read >= _READ_EVERY:
            self._update(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the last state."""
        self._update(trainer, last=True)
        self._bar.close()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a second bar."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._validation_bar = self._new_bar(total=sum(batches), desc="validation", leave=False, position=1)
        self._validation_start = time.monotonic()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count the batch."""
        self._validation_bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores."""
        self._validation_bar.close()
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._read += time.monotonic() - self._validation_start
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if "val/psnr" in metrics:
            self._psnr = metrics["val/psnr"]
            is_best = not self._psnr <= self._best  # which is NaN at first
            if is_best:
                self._best = self._psnr
            self._write(f"{_where(trainer)}: {_scores(metrics)}{', the best so far' * is_best}")

    def _update(self, trainer: pl.Trainer, *, last: bool = False) -> None:
        """Read the loss, which waits for the GPU, and the speed, and show the state in the bar or as a line."""
        metrics = trainer.callback_metrics
        loss = metrics.get("train/fusion", metrics.get("train/reconstruction"))
        if loss is not None:
            self._losses.append(float(loss))
        now, step = time.monotonic(), trainer.global_step
        if self._first is None:
            self._first = now, step
        elif self._samples:
            self._speeds.append(self._samples / (now - self._read))
            self._seconds = (now - self._first[0]) / max(step - self._first[1], 1)
        self._read, self._samples = now, 0
        where, state = _where(trainer, self._total), self._state(step)
        self._bar.n = step
        self._bar.bar_format = self._format(state)
        self._bar.set_description_str(f"{where} ")
        self._write_if_due(f"{where}, {state}", math.inf if last else now)

    def _format(self, state: str = "") -> str:
        return ("{desc}{percentage:3.0f}%|{bar}| " if self._total else "{desc}") + state

    def _state(self, step: int) -> str:
        loss = f"loss {fmean(self._losses):.3g}" if self._losses else ""
        psnr = f"PSNR {self._psnr:.2f} dB" if self._psnr is not None else ""
        speed = f"{fmean(self._speeds):.3g} samples/s" if self._speeds else ""
        left = round(max(self._total - step, 0) * self._seconds) if self._total and self._seconds else None
        time_left = f"{timedelta(seconds=left)} left" if left is not None else ""
        return ", ".join(filter(None, (loss, psnr, speed, time_left)))


def _where(trainer: pl.Trainer, total: int | None = None) -> str:
    epoch, epochs = trainer.current_epoch + trainer.is_last_batch, ""
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        epoch, epochs = min(epoch, trainer.max_epochs), f"/{trainer.max_epochs}"
    return f"epoch {epoch}{epochs}, step {trainer.global_step}{f'/{total}' if total else ''}"


def _scores(metrics: dict[str, float]) -> str:
    leaves = [value for name, value in metrics.items() if name.startswith("val/psnr_")]
    spread = f" (leaves {min(leaves):.2f} to {max(leaves):.2f})" if len(leaves) > 1 else ""
    return f"PSNR {metrics['val/psnr']:.2f} dB{spread}, SSIM {metrics['val/ssim']:.4f}"
