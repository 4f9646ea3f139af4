"""TF32 in a training on a GPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from d2csr.checks import flag
from d2csr.precision import tf32


class TrainingTF32(Callback):
    """Lets a training on an NVIDIA GPU compute float32 in TF32, or forbids it; validation always uses IEEE float32."""

    def __init__(self, allowed: bool = True) -> None:
        self.allowed = flag("tf32", allowed)
        self._block = ExitStack()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the flags of this process."""
        if trainer.strategy.root_device.type == "cuda":
            self._block.enter_context(tf32(self.allowed))

    def on_exception(self, *_: Any) -> None:
        """Restore the flags."""
        self._block.close()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Restore the flags."""
        self._block.close()
