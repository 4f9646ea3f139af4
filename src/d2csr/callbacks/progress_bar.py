"""The progress of a whole training: loss, PSNR, samples a second, time left."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, Timer, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from d2csr.callbacks.training_log import Throughput
from d2csr.data.sampler import Batch

_LOOK = 1.0  # seconds from one look at the loss to the next: each one waits for the GPU
_LOOKS = 20  # how many of them make the loss that is shown
_WINDOW = 5.0  # seconds over which samples a second are taken

# Where there is no terminal, a line is written when this share of the time so far has gone by since the last one, but
# never sooner or later than so many seconds.
_SHARE, _SOONEST, _LATEST = 0.1, 10.0, 600.0


class TrainingProgressBar(TQDMProgressBar):
    """One bar over all steps of the training, and a line for each validation; without a terminal, lines alone.

    Epochs can be short, so a bar for each would say nothing. The loss is that of the fused image (of the leaves, where
    only these are trained), the mean of the last looks at it. The time left is what the remaining steps and validations
    take if they go on as so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self._terminal = sys.stdout.isatty()
        self._psnr: float | None = None

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start the clocks and the bar."""
        steps = trainer.estimated_stepping_batches
        self._total = int(steps) if math.isfinite(steps) else None
        self._best = _best_psnr(trainer)
        self._losses: deque[float] = deque(maxlen=_LOOKS)
        self._training, self._window, self._validating = Throughput(), Throughput(), Throughput()
        self._validating.pause()
        self._first, self._rate = True, 0.0
        self._started = self._looked = self._wrote = time.monotonic()
        self.train_progress_bar = self.init_train_tqdm()
        if self.is_enabled and not self._terminal:
            print(f"training from step {trainer.global_step} to {self._total or 'no end'}", flush=True)

    def on_train_epoch_start(self, *_: Any) -> None:
        """Change nothing: the bar is that of the training."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the step; now and then say how it goes."""
        if self.is_disabled:
            return
        if self._first:  # it holds what happens only once
            self._first = False
            self._training.restart()
            self._window.restart()
            return
        samples = len(batch["lr"]) * trainer.world_size
        self._training.count(samples)
        self._window.count(samples)
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            self._look(trainer)
            self._show(trainer, now)

    def on_train_epoch_end(self, *_: Any) -> None:
        """Change nothing."""

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Say how it went last, and end the bar."""
        if self.is_enabled:
            self._look(trainer)
            self._show(trainer, math.inf)
        self.train_progress_bar.close()

    def on_exception(self, *_: Any) -> None:
        """End the bar, so that the message gets a line of its own."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show a second bar while it lasts."""
        super().on_validation_start(trainer, pl_module)
        if _in_training(trainer):
            self._training.pause()
            self._window.pause()
            self._validating.go_on()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write its figures down."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()
        if not _in_training(trainer):
            return
        self._validating.count(1)
        self._validating.pause()
        self._training.go_on()
        self._window.go_on()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if "val/psnr" in metrics:
            self._psnr = metrics["val/psnr"]
            best, self._best = self._psnr > self._best, max(self._psnr, self._best)
            if self.is_enabled:
                self._line(f"{_where(trainer)}: {_figures(metrics)}{', the best so far' if best else ''}")

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar over all steps."""
        return Tqdm(
            total=self._total,
            initial=self.trainer.global_step,
            disable=self.is_disabled or not self._terminal,
            leave=True,
            dynamic_ncols=True,
            file=sys.stdout,
            bar_format=self._format(),
        )

    def init_validation_tqdm(self) -> Tqdm:
        """Return the bar over the validation images; none without a terminal."""
        return super().init_validation_tqdm() if self._terminal else Tqdm(disable=True)

    def init_sanity_tqdm(self) -> Tqdm:
        """Return none without a terminal."""
        return super().init_sanity_tqdm() if self._terminal else Tqdm(disable=True)

    def _look(self, trainer: pl.Trainer) -> None:
        metrics = trainer.callback_metrics
        loss = metrics.get("train/fusion", metrics.get("train/reconstruction"))
        if loss is not None:
            self._losses.append(float(loss))
        if self._window.seconds >= _WINDOW or not self._rate:
            self._rate = self._window.samples_per_second
            self._window.restart()

    def _show(self, trainer: pl.Trainer, now: float) -> None:
        if self._terminal:
            bar = self.train_progress_bar
            bar.n = trainer.global_step
            bar.set_description_str(_where(trainer, self._total) + " ", refresh=False)
            bar.bar_format = self._format(self._state(trainer))
            bar.refresh()
        elif now - self._wrote >= min(max(_SHARE * (self._wrote - self._started), _SOONEST), _LATEST):
            self._wrote = now
            self._line(f"{_where(trainer, self._total)}, {self._state(trainer)}")

    def _format(self, state: str = "") -> str:
        """Return tqdm's, which would put a comma in front of what follows the bar."""
        return ("{desc}{percentage:3.0f}%|{bar}| " if self._total else "{desc}") + state

    def _state(self, trainer: pl.Trainer) -> str:
        left = self._seconds_left(trainer)
        parts = [
            f"loss {sum(self._losses) / len(self._losses):.3g}" if self._losses else None,
            f"PSNR {self._psnr:.2f} dB" if self._psnr is not None else None,
            f"{self._rate:.3g} samples/s" if self._rate else None,
            f"{_duration(left)} left" if left is not None else None,
        ]
        return ", ".join(part for part in parts if part)

    def _seconds_left(self, trainer: pl.Trainer) -> float | None:
        limits = []
        if self._total is not None and self._training.steps:
            steps = self._total - trainer.global_step
            limits.append(steps * self._training.seconds / self._training.steps + self._validation_left(trainer))
        timers = (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
        limits += [left for timer in timers if (left := timer.time_remaining()) is not None]
        return max(min(limits), 0) if limits else None

    def _validation_left(self, trainer: pl.Trainer) -> float:
        """Return the seconds that the validations to come take, as far as one is known."""
        every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
        if not every or not epochs or epochs < 0 or not self._validating.steps:
            return 0.0
        to_come = epochs // every - trainer.current_epoch // every
        return to_come * self._validating.seconds / self._validating.steps

    def _line(self, text: str) -> None:
        if self._terminal:
            Tqdm.write(text, file=sys.stdout)
        else:
            print(text, flush=True)


def _in_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _best_psnr(trainer: pl.Trainer) -> float:
    """Return the best PSNR before the run was resumed."""
    scores = [
        callback.best_model_score
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor == "val/psnr"
    ]
    return max((float(score) for score in scores if score is not None), default=-math.inf)


def _where(trainer: pl.Trainer, total: int | None = None) -> str:
    """Return the epochs and the steps that are done."""
    epoch, epochs = trainer.current_epoch + trainer.is_last_batch, ""
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        epoch, epochs = min(epoch, trainer.max_epochs), f"/{trainer.max_epochs}"
    return f"epoch {epoch}{epochs}, step {trainer.global_step}{f'/{total}' if total else ''}"


def _figures(metrics: dict[str, float]) -> str:
    leaves = [value for name, value in metrics.items() if name.startswith("val/psnr_")]
    spread = f" (leaves {min(leaves):.2f} to {max(leaves):.2f})" if leaves else ""
    return f"PSNR {metrics['val/psnr']:.2f} dB{spread}, SSIM {metrics['val/ssim']:.4f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours or days else f"{minutes}:{seconds:02d}"
    return f"{days} d {clock}" if days else clock
