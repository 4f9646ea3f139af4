"""``d2csr-upscale``: super-resolution of images that have no ground truth."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig

from d2csr.checks import SAVED_BY_UPSCALE, several_of
from d2csr.commands.base import command, node_object, plain
from d2csr.commands.heavy_imports import import_heavy
from d2csr.errors import UserError


@command("upscale", lists=("save",), paths=("ckpt", "input", "output", "suffix"))
def main(cfg: DictConfig) -> None:
    """Super-resolve all images, and end with an error that names those that failed."""
    import_heavy("d2csr.upscaling.upscale_task")
    from hydra.utils import instantiate
    from tqdm.contrib.logging import logging_redirect_tqdm

    from d2csr.checkpoints import load_model
    from d2csr.inference import Inference
    from d2csr.upscaling.names import find_images
    from d2csr.upscaling.pipeline import Options
    from d2csr.upscaling.upscale_task import upscale_files

    inference = node_object(cfg, "inference", Inference)
    save = several_of("save", plain(cfg.save), SAVED_BY_UPSCALE, least=1)
    written = (save, cfg.format, cfg.quality, cfg.png_compression)
    options = Options(*written, cfg.overwrite, cfg.max_pixels, str(cfg.suffix))
    images, unreadable = find_images(cfg.input, cfg.output, options.suffix)
    model = load_model(cfg.ckpt)
    trainer = instantiate(trainer_settings(plain(cfg.trainer), cfg.device), _convert_="all")
    # Without progress bars each log line stays a single write, so that lines of several processes do not mix.
    with logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext():
        failed = upscale_files(
            model, images, cfg.output, trainer, inference, options, show_progress=cfg.trainer.enable_progress_bar
        )
    report = [f"{len(failed)} of {len(images)} images could not be super-resolved:", *failed] if failed else []
    if trainer.is_global_zero and (report or unreadable):
        raise UserError("\n".join([*report, *unreadable]))


def trainer_settings(settings: dict[str, Any], device: str | None) -> dict[str, Any]:
    """Return Lightning's arguments for inference on a device or None; raise a ConfigError if it is not available."""
    from d2csr.devices import inference_strategy
    from d2csr.environment import find_device

    settings = {**settings, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    if device is not None:
        found = find_device(device)
        settings["accelerator"] = found.type
        if found.index is not None and found.type != "cpu":
            settings["devices"] = [found.index]
    return {**settings, "strategy": inference_strategy(settings)}


if __name__ == "__main__":
    main()
