"""``d2csr-convert``: conversion of an official or a training checkpoint to weights in the project's own format."""

from __future__ import annotations

from omegaconf import DictConfig

from d2csr.commands.base import command, require_new
from d2csr.commands.heavy_imports import import_heavy
from d2csr.errors import ConfigError, printable
from d2csr.files import user_path

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


@command("convert", paths=("source", "output"))
def main(cfg: DictConfig) -> None:
    """Read any checkpoint and export its weights."""
    source, output = user_path(str(cfg.source)), user_path(str(cfg.output))
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"output={output}: the suffix must be {', '.join(SUFFIXES)}; no other format is written.")
    if output.is_dir():
        raise ConfigError(f"output={output}: a folder. Name the file to write.")
    if output.exists() and source.exists() and output.samefile(source):
        raise ConfigError(f"output={output}: is the source itself. Name another file.")
    require_new([output], cfg.overwrite)

    import_heavy("d2csr.checkpoints")
    from d2csr.checkpoints import read_checkpoint, save_model  # after the checks: torch takes seconds to import
    from d2csr.checkpoints.safetensors_file import write_safetensors
    from d2csr.files import write_checkpoint_file

    checkpoint = read_checkpoint(cfg.source)
    model = checkpoint.model()
    if output.suffix == ".safetensors":
        with write_checkpoint_file(output) as partial:
            write_safetensors(partial, model)
    else:
        save_model(output, model, checkpoint.data)
    settings = ", ".join(f"{name} {value}" for name, value in checkpoint.settings.items())
    print(printable(f"{cfg.output}: {'official' if checkpoint.official else 'own'} checkpoint with {settings}"))


if __name__ == "__main__":
    main()
