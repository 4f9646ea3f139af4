"""``d2csr-convert``: an official checkpoint, or one of a training, into weights in the project's own form."""

from __future__ import annotations

from omegaconf import DictConfig

from d2csr.commands.app import command


@command("convert", paths=("source", "output"))
def main(cfg: DictConfig) -> None:
    """Read any checkpoint and export its weights."""
    from d2csr.checkpoints import read_checkpoint, save_model

    checkpoint = read_checkpoint(cfg.source)
    save_model(cfg.output, checkpoint.model(), checkpoint.data)
    settings = ", ".join(f"{name} {value}" for name, value in checkpoint.settings.items())
    print(f"{cfg.output}: {'official' if checkpoint.official else 'own'} checkpoint with {settings}")


if __name__ == "__main__":
    main()
