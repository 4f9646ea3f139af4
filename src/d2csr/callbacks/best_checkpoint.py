"""Checkpoint with the highest validation PSNR."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

_log = logging.getLogger(__name__)

BEST = "best.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt`` into a folder after each validation with a higher PSNR."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            folder,
            filename=Path(BEST).stem,
            monitor="val/psnr",
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._warned = False
        self.on_train_batch_end = None  # type: ignore[assignment,method-assign]  # Lightning skips it: nothing to do

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it; warn once if the validation has no score."""
        if self.monitor in trainer.callback_metrics or trainer.sanity_checking:
            super().on_validation_end(trainer, pl_module)
        elif not self._warned:
            self._warned = True
            _log.warning("No best.ckpt is written: the validation logs no %s.", self.monitor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, with the path in this folder."""
        score = state_dict["best_model_score"]
        if score is not None:
            float(score)  # a TypeError or ValueError here, not at the end of the next epoch
            self.best_model_score = self.kth_value = score
            self.best_model_path = self.kth_best_model_path = str(Path(self.dirpath or "") / BEST)
            self.best_k_models = {self.best_model_path: score}


def best_psnr(trainer: pl.Trainer) -> float:
    """Return the best validation PSNR of a training in dB; without ``best.ckpt`` the last one, NaN without any."""
    best = [c.best_model_score for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)]
    scores = [float(score) for score in best if score is not None]
    return max(scores, default=float(trainer.callback_metrics.get("val/psnr", "nan")))
