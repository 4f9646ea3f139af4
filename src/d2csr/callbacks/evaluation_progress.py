"""Progress of an evaluation: a bar on a terminal, lines otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from d2csr.callbacks.progress_bar import LinePace
from d2csr.log_file import log_to_file


class EvaluationProgressBar(ProgressBar):
    """Shows how many images of the first process are evaluated.

    Without a terminal it writes a line at first every 10 seconds, then at growing intervals up to 10 minutes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm[Any] | None = None

    def disable(self) -> None:
        """Show nothing: Lightning calls this on all ranks but the first."""
        self._enabled = False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar or the clock."""
        self._total = int(sum(trainer.num_test_batches))
        self._done = 0
        self._started = time.monotonic()
        self._pace = LinePace(self._started)
        if self._enabled and sys.stdout.isatty():
            self._bar = tqdm(total=self._total, desc="evaluation", unit="image", dynamic_ncols=True, file=sys.stdout)
        if self._enabled:
            self._write(f"evaluating {self._total} image{'s' * (self._total != 1)}")

    def on_test_batch_end(self, *_: Any) -> None:
        """Count an image."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        if self._enabled and self._done < self._total and self._pace.is_due(now):
            seconds = now - self._started
            left = seconds / self._done * (self._total - self._done)
            self._write(f"image {self._done}/{self._total}, {self._done / seconds:.3g} images/s, {left:.0f} s left")

    def _write(self, line: str) -> None:
        """Write a line to the terminal, unless it shows the bar, and to the log file."""
        if self._bar is None:
            print(line, flush=True)
        log_to_file(line)

    def on_test_end(self, *_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar."""
        self.on_test_end()
