"""``d2csr-convert``: conversion of an official or a training checkpoint to weights in the project's own format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from d2csr.commands.app import command

if TYPE_CHECKING:
    from d2csr.checkpoints import Checkpoint

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


@command("convert", paths=("source", "output"))
def main(cfg: DictConfig) -> None:
    """Read any checkpoint and export its weights."""
    from d2csr.checks import flag

    _check_output(Path(str(cfg.source)), Path(str(cfg.output)), flag("overwrite", cfg.overwrite))

    from d2csr.checkpoints import read_checkpoint  # after the check: torch takes seconds to import
    from d2csr.errors import printable

    checkpoint = read_checkpoint(cfg.source)
    _write(Path(str(cfg.output)), checkpoint)
    settings = ", ".join(f"{name} {value}" for name, value in checkpoint.settings.items())
    print(printable(f"{cfg.output}: {'official' if checkpoint.official else 'own'} checkpoint with {settings}"))


def _write(output: Path, checkpoint: Checkpoint) -> None:
    from d2csr.checkpoints import save_model
    from d2csr.checkpoints.safetensors_file import write_safetensors
    from d2csr.files import write_checkpoint_file

    if output.suffix != ".safetensors":
        save_model(output, checkpoint.model(), checkpoint.data)
        return
    model = checkpoint.model()
    with write_checkpoint_file(output) as partial:
        write_safetensors(partial, model)


def _check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Raise a ConfigError for a suffix of another format, or a file that would be lost."""
    from d2csr.errors import ConfigError

    if output.suffix not in SUFFIXES:
        raise ConfigError(f"output={output}: the suffix must be {', '.join(SUFFIXES)}; no other format is written.")
    if output.is_dir():
        raise ConfigError(f"output={output}: a folder. Name the file to write.")
    if not output.exists():
        return
    if source.exists() and output.samefile(source):
        raise ConfigError(f"output={output}: is the source itself. Name another file.")
    if not overwrite:
        raise ConfigError(f"output={output}: exists already. Add overwrite=true to replace it, or name another file.")


if __name__ == "__main__":
    main()
