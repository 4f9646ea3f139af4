"""``d2csr-upscale``: super-resolve images that have no ground truth."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from omegaconf import DictConfig

from d2csr.commands.app import command, plain


@command("upscale", lists=("save",), paths=("ckpt", "input", "output"))
def main(cfg: DictConfig) -> None:
    """Super-resolve every image, report those that cannot be done, and fail if there are any."""
    from hydra.utils import instantiate
    from tqdm.contrib.logging import logging_redirect_tqdm

    from d2csr.checkpoints import load_model
    from d2csr.errors import UserError
    from d2csr.inference import Inference
    from d2csr.upscaling.names import find_images, parse_kinds
    from d2csr.upscaling.pipeline import Options
    from d2csr.upscaling.upscale_task import upscale_files

    inference = Inference(**plain(cfg.inference), self_ensemble=cfg.self_ensemble, precision=cfg.precision)
    options = Options(parse_kinds(plain(cfg.save)), cfg.format, cfg.quality, cfg.overwrite, cfg.max_pixels)
    images = find_images(cfg.input, cfg.output)
    model = load_model(cfg.ckpt)
    trainer = instantiate(trainer_settings(plain(cfg.trainer), cfg.device), _convert_="all")
    # Where there are no bars to spare, a line stays one write: those of several processes do not get mixed up.
    with logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext():
        problems = upscale_files(
            model, images, cfg.output, trainer, inference, options, show_progress=cfg.trainer.enable_progress_bar
        )
    if problems:
        raise UserError("\n".join([f"{len(problems)} of {len(images)} images could not be super-resolved:", *problems]))


def trainer_settings(settings: dict[str, Any], device: str | None) -> dict[str, Any]:
    """Return the settings of Lightning's Trainer for inference.

    Args:
        settings: of the config group ``trainer``.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None leaves it to the trainer.

    Raises:
        ConfigError: there is no such device.
    """
    import torch
    from pytorch_lightning.strategies import DDPStrategy

    from d2csr.errors import ConfigError

    settings = {**settings, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    if device is not None:
        kind, _, index = str(device).partition(":")
        accelerators = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "mps": "mps"}
        if kind not in accelerators or not (index.isdecimal() or str(device) == kind):
            raise ConfigError(f"device: expected cpu, cuda, cuda:1 or mps, got {device!r}.")
        present = {"gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if int(index or 0) >= present.get(accelerators[kind], 1):
            raise ConfigError(f"device={device}: there is no such device here, or torch was built without it.")
        settings["accelerator"] = accelerators[kind]
        if index and kind != "cpu":
            settings["devices"] = [int(index)]
    if str(settings["strategy"]).startswith("ddp"):
        # A process that is done waits for the others, which may take hours longer: images differ in size.
        settings["strategy"] = DDPStrategy(timeout=timedelta(days=7))
    return settings


if __name__ == "__main__":
    main()
