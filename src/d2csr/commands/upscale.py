"""``d2csr-upscale``: super-resolve images that have no ground truth."""

from __future__ import annotations

from omegaconf import DictConfig

from d2csr.commands.app import command


@command("upscale")
def main(cfg: DictConfig) -> None:
    """Super-resolve every image, report those that cannot be read, and fail if there are any."""
    import torch

    from d2csr.checkpoints import load_model
    from d2csr.errors import UserError
    from d2csr.inference.files import find_images, upscale_files

    images = find_images(cfg.input)
    device = cfg.device or ("cuda" if torch.cuda.is_available() else "cpu")
    broken = upscale_files(load_model(cfg.ckpt, device), images, cfg.output, overwrite=cfg.overwrite)
    if broken:
        raise UserError("\n".join([f"{len(broken)} of {len(images)} images could not be super-resolved:", *broken]))


if __name__ == "__main__":
    main()
