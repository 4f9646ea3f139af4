"""``d2csr-export``: export of a model to ONNX, ``torch.export`` or safetensors."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from d2csr.commands.app import command, plain


@command("export", paths=("ckpt", "output"))
def main(cfg: DictConfig) -> None:
    """Load a checkpoint, export its model, and print what was written."""
    from d2csr.checkpoints import load_model
    from d2csr.checks import flag
    from d2csr.errors import ConfigError, printable
    from d2csr.exporting import export

    output = Path(cfg.output).expanduser()
    if output.exists() and not flag("overwrite", cfg.overwrite):
        raise ConfigError(f"output: {output} exists; choose another name, or add overwrite=true.")
    model = load_model(cfg.ckpt)
    done = export(model, output, outputs=cfg.outputs, precision=cfg.precision, about=plain(cfg.about))
    size = f"{done.bytes / 1e6:.1f} MB, ×{model.scale}"
    print(
        printable(f"{done.path}: {size}; largest difference to the model: {done.difference:.1e} of the largest value")
    )


if __name__ == "__main__":
    main()
