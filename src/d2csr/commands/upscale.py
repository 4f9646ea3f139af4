"""``d2csr-upscale``: super-resolution of images that have no ground truth."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from omegaconf import DictConfig

from d2csr.checks import SAVED_BY_UPSCALE, several_of
from d2csr.commands.base import command, inference_trainer, node_object, plain
from d2csr.commands.heavy_imports import import_heavy
from d2csr.errors import ConfigError, UserError


@command("upscale", lists=("save",), paths=("ckpt", "input", "output", "suffix"))
def main(cfg: DictConfig) -> None:
    """Super-resolve all images, and end with an error that names those that failed."""
    import_heavy("d2csr.upscaling.upscale_task")
    from tqdm.contrib.logging import logging_redirect_tqdm

    from d2csr.checkpoints import load_model
    from d2csr.environment import find_device
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
    settings = plain(cfg.trainer)
    if cfg.device is not None:
        device, accelerator = find_device(cfg.device), settings["accelerator"]
        if accelerator not in ("auto", device.type, "cpu" if device.type == "cpu" else "gpu"):
            raise ConfigError(f"device={device}: trainer.accelerator={accelerator} is another one; choose one of them.")
        settings["accelerator"] = device.type
        if device.index is not None:
            settings["devices"] = [device.index]
    trainer = inference_trainer(settings, enable_checkpointing=False, enable_progress_bar=False)
    # Without progress bars each log line stays a single write, so that lines of several processes do not mix.
    with logging_redirect_tqdm() if sys.stderr.isatty() else nullcontext():
        show = cfg.trainer.get("enable_progress_bar", True)
        failed = upscale_files(model, images, cfg.output, trainer, inference, options, show_progress=show)
    report = [f"{len(failed)} of {len(images)} images could not be super-resolved:", *failed] if failed else []
    if trainer.is_global_zero and (report or unreadable):
        raise UserError("\n".join([*report, *unreadable]))


if __name__ == "__main__":
    main()
