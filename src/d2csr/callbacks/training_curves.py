"""Training curves as pictures, drawn at the end of a training."""

from __future__ import annotations

import logging
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from d2csr.loggers import METRICS, CSVLogger
from d2csr.plotting import draw_curves, read_run_log, write_figure

_log = logging.getLogger(__name__)


class TrainingCurves(Callback):
    """Draws ``curves.png`` and ``curves.svg`` in the run folder from the rows of the CSV logger, if there is one.

    An error ends in one line, never the training.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the curves on rank 0."""
        logger = next((one for one in trainer.loggers if isinstance(one, CSVLogger)), None)
        if logger is None or not trainer.is_global_zero:
            return
        try:
            logger.save()
            figure = draw_curves([read_run_log(Path(logger.log_dir) / METRICS, self.folder.resolve().name)])
            for name in ("curves.png", "curves.svg"):
                write_figure(figure, self.folder / name)
        except Exception as error:  # the result of the training does not depend on its pictures
            reason = str(error).rstrip(".")
            _log.warning("No curves were drawn: %s. To draw them later: d2csr-plot run=%s", reason, self.folder)
