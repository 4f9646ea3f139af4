"""Pictures of the same validation images after each validation: LR, bicubic, leaves, weights, fusion, HR."""

from __future__ import annotations

import contextlib
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.data.sampler import PADDING, Batch, without_padding
from d2csr.errors import ConfigError
from d2csr.evaluation.bicubic import bicubic
from d2csr.evaluation.panels import panel, panel_name
from d2csr.evaluation.report import BICUBIC, FUSION, ImageResult, Scores
from d2csr.training.task import D2CSRTask

FILES = ("last", "all", "none")

# Pixels of a sheet that one picture should take in width: pixels are seen better, and its label fits.
_CELL = 256


class ValidationPanels(Callback):
    """Draws a sheet of each of the first validation images, for the loggers that take pictures and as PNG.

    The network has seen the whole image, the sheet shows the middle of it; the figures on it, by the task's protocol,
    are those of what it shows. Images of other processes come to the first one, which writes.

    Args:
        folder: where the PNG files go.
        images: how many images, from the first one on; 0 draws none.
        crop: the side of what a sheet shows, in HR pixels.
        every: validations from one drawing to the next, the first one being drawn.
        files: ``last`` keeps the newest sheet of each image, ``all`` one for each validation, ``none`` leaves the
            pictures to the loggers.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self, folder: str | Path, *, images: int = 2, crop: int = 128, every: int = 1, files: str = "last"
    ) -> None:
        for name, value, least in (("images", images, 0), ("crop", crop, 32), ("every", every, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"panels.{name}: must be a whole number from {least} up, got {value!r}.")
        if files not in FILES:
            raise ConfigError(f"panels.files: must be one of {', '.join(FILES)}, got {files!r}.")
        self.folder = Path(folder)
        self.images = images
        self.crop = crop
        self.every = every
        self.files = files
        self._validations = 0
        self._sheets: dict[int, Image.Image] = {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: D2CSRTask) -> None:  # type: ignore[override]
        """Ask to see the images, if they are to be drawn this time."""
        if self._draws(trainer):
            pl_module.on_validated = partial(self._see, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: D2CSRTask) -> None:  # type: ignore[override]
        """Hand the sheets out."""
        pl_module.on_validated = None
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        sheets, self._sheets = self._sheets, {}
        if self._draws(trainer):
            sheets = _gather(sheets, trainer)
            if trainer.is_global_zero:
                self._hand_out(trainer, sheets)
        self._validations += 1

    def _draws(self, trainer: pl.Trainer) -> bool:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and self.images > 0 and self._validations % self.every == 0

    def _see(self, task: D2CSRTask, batch: Batch, sr: Tensor, predictions: Tensor, weights: Tensor) -> None:
        """Draw the images of a batch that are among the first."""
        if "index" not in batch:
            return
        numbers = [number for number in batch["index"].reshape(-1).tolist() if number != PADDING]
        if not numbers:  # a tensor of no image would be split into one
            return
        parts = (*without_padding(batch), sr, predictions, weights)
        for number, *image in zip(numbers, *(part.split(1) for part in parts), strict=True):
            if number < self.images:
                self._sheets[number] = self._sheet(task, *image)

    def _sheet(
        self, task: D2CSRTask, lr: Tensor, hr: Tensor, sr: Tensor, predictions: Tensor, weights: Tensor
    ) -> Image.Image:
        """Return the sheet of one image; all are of batch size 1."""
        scale = task.network.scale
        lr, top, left = _middle(lr, self.crop // scale)
        height, width = lr.shape[-2] * scale, lr.shape[-1] * scale
        top, left = top * scale, left * scale
        lr, hr, sr, predictions, weights = (
            part.cpu().float()
            for part in (
                lr,
                *(part[..., top : top + height, left : left + width] for part in (hr, sr, predictions, weights)),
            )
        )
        images = {BICUBIC: bicubic(lr, scale)}
        leaves = zip(task.network.tree.leaves, predictions.unbind(dim=1), strict=True)
        images |= {f"leaf {leaf}": prediction for leaf, prediction in leaves}
        images |= {"mean": predictions.mean(dim=1), FUSION: sr}
        # A sheet shows no SSIM.
        figures = {
            name: Scores(task.psnr.figure(image, hr, scale=scale, protocol=task.psnr.protocol).item(), float("nan"))
            for name, image in images.items()
        }
        zoom = max(1, _CELL // hr.shape[-1])
        images = {name: _enlarge(image, zoom) for name, image in images.items()}
        return panel(ImageResult(0, lr, _enlarge(hr, zoom), images, _enlarge(weights, zoom), figures))

    def _hand_out(self, trainer: pl.Trainer, sheets: dict[int, Image.Image]) -> None:
        pairs = getattr(trainer.datamodule, "val_pairs", [])  # type: ignore[attr-defined]
        for number, sheet in sorted(sheets.items()):
            name = panel_name(pairs, number) if number < len(pairs) else f"{number:04d}"
            if self.files != "none":
                stem = f"{name}_step{trainer.global_step:08d}" if self.files == "all" else name
                _save(sheet, self.folder / f"{stem}.png")
            for logger in trainer.loggers:
                _show(logger, f"panels/{name}", sheet, trainer.global_step - 1)  # as Lightning counts: from 0


def _middle(image: Tensor, side: int) -> tuple[Tensor, int, int]:
    """Return the middle of …×H×W, no more than ``side`` high and wide, with its top and left."""
    height, width = image.shape[-2:]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return image[..., top : top + side, left : left + side], top, left


def _enlarge(image: Tensor, zoom: int) -> Tensor:
    return F.interpolate(image, scale_factor=zoom, mode="nearest")


def _gather(sheets: dict[int, Image.Image], trainer: pl.Trainer) -> dict[int, Image.Image]:
    """Return the sheets of all processes, in each of them."""
    if trainer.world_size == 1:
        return sheets
    shares: list[dict[int, Image.Image]] = [{} for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(shares, sheets)
    return {number: sheet for share in shares for number, sheet in share.items()}


def _save(sheet: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all; a picture is not worth the end of a training."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(unfinished, format="PNG")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        warnings.warn(f"{path}: the picture could not be written ({error.strerror or error}).", stacklevel=2)


def _show(logger: Any, name: str, sheet: Image.Image, step: int) -> None:
    """Hand a picture to a logger, if it takes any."""
    if hasattr(logger, "log_image"):  # Weights & Biases, Comet
        logger.log_image(name, [sheet], step=step)
    elif hasattr(logger.experiment, "add_image"):  # TensorBoard
        pixels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(sheet.height, sheet.width, 3)
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")
