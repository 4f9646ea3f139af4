"""TF32 in a training on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from d2csr.checks import flag
from d2csr.tf32 import set_tf32


class TrainingTF32(Callback):
    """Lets a training on an NVIDIA GPU compute float32 in TF32, or forbids it; validation always uses IEEE float32.

    Args:
        tf32: False computes in IEEE float32.
    """

    def __init__(self, tf32: bool = True) -> None:
        self.tf32 = flag("tf32", tf32)
        self._restore: Callable[[], None] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the flags of this process."""
        if trainer.strategy.root_device.type == "cuda":
            self._restore = set_tf32(self.tf32)

    def on_exception(self, *_: Any) -> None:
        """Restore the flags."""
        self._undo()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Restore the flags."""
        self._undo()

    def _undo(self) -> None:
        restore, self._restore = self._restore, None
        if restore is not None:
            restore()
