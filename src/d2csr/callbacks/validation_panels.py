"""Panels of validation images: LR, bicubic, leaves, weights, fusion, HR."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.checks import one_of, whole_number
from d2csr.data.batch import PADDING, Batch
from d2csr.distributed import gather
from d2csr.evaluation.baselines import bicubic
from d2csr.evaluation.panels import Part, panel, panel_name
from d2csr.evaluation.report import BICUBIC, FUSION, ImageResult, leaf_images
from d2csr.files import atomic_write


class ValidationPanels(Callback):
    """Draws a panel of each of the first validation images, for the loggers and as PNG.

    The network upscales the whole image; the panel shows a part of it, with the scores of this part. The defaults are
    in ``conf/callbacks/default.yaml``.

    Args:
        folder: for the PNG files.
        images: number of images, from the first one on; 0 draws none.
        every: validations from one drawing to the next; the first one is drawn.
        files: ``last`` keeps the newest panel of each image, ``all`` every one, ``none`` writes no file.
        part: ``crop``, ``at`` and ``zoom`` of :class:`d2csr.evaluation.panels.Part`, which a panel shows.
    """

    def __init__(self, folder: str | Path, *, images: int, every: int, files: str, **part: Any) -> None:
        self.folder = Path(folder)
        self.images = whole_number("images", images, 0)
        self.part = Part(**part)
        self.every = whole_number("every", every)
        self.files = one_of("files", files, ("last", "all", "none"))
        self._validations = 0
        self._panels: dict[int, Image.Image] = {}

    def on_validation_batch_end(self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Batch, *_: int) -> None:
        """Draw the images of the batch that are among the first."""
        if outputs is None or "index" not in batch or not self._is_due(trainer):
            return
        numbers = [number for number in batch["index"].reshape(-1).tolist() if number != PADDING]
        for n, number in enumerate(numbers):
            if number < self.images:
                self._panels[number] = self._draw(task, {k: v[n : n + 1] for k, v in outputs.items()})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the panels, and give them to the loggers."""
        if self._is_due(trainer):
            panels = {number: image for share in gather(self._panels) for number, image in share.items()}
            if trainer.is_global_zero:
                self._write(trainer, panels)
        self._panels = {}
        self._validations += not trainer.sanity_checking

    def _is_due(self, trainer: pl.Trainer) -> bool:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and self.images > 0 and self._validations % self.every == 0

    def _draw(self, task: Any, outputs: dict[str, Tensor]) -> Image.Image:
        """Return the panel of one image; all outputs have batch size 1."""
        images = {
            BICUBIC: bicubic(outputs["lr"], task.network.scale),
            **leaf_images(outputs["predictions"], task.network.tree),
            FUSION: outputs["sr"],
        }
        result = ImageResult(0, outputs["lr"], outputs["hr"], images, outputs["weights"], {})
        return panel(result, self.part, task.psnr.protocol)

    def _write(self, trainer: pl.Trainer, panels: dict[int, Image.Image]) -> None:
        pairs = getattr(trainer.datamodule, "val_pairs", [])  # type: ignore[attr-defined]
        for number, image in sorted(panels.items()):
            name = panel_name(pairs, number) if number < len(pairs) else f"{number:04d}"
            if self.files != "none":
                stem = f"{name}_step{trainer.global_step:08d}" if self.files == "all" else name
                _save(image, self.folder / f"{stem}.png")
            for logger in trainer.loggers:
                _log_image(logger, f"panels/{name}", image, trainer.global_step - 1)  # Lightning counts from 0


def _save(image: Image.Image, path: Path) -> None:
    """Write a PNG, or warn if that fails: the training continues without it."""
    try:
        with atomic_write(path) as partial:
            image.save(partial, format="PNG")
    except OSError as error:
        warnings.warn(f"{path}: the panel could not be written ({error.strerror or error}).", stacklevel=2)


def _log_image(logger: Any, name: str, image: Image.Image, step: int) -> None:
    if hasattr(logger, "log_image"):  # Weights & Biases, Comet
        logger.log_image(name, [image], step=step)
    elif hasattr(logger.experiment, "add_image"):  # TensorBoard
        logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")
