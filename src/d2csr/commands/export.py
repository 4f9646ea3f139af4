"""``d2csr-export``: export of a model to ONNX, ``torch.export``, safetensors, or a folder for the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from d2csr.checks import keys_below, text
from d2csr.commands.base import command, plain, require_new
from d2csr.commands.heavy_imports import import_heavy
from d2csr.errors import ConfigError, printable
from d2csr.files import user_path

if TYPE_CHECKING:
    from d2csr.checkpoints.pretrained import PublishedNetwork


@command("export", paths=("ckpt", "output", "card.evaluation"))
def main(cfg: DictConfig) -> None:
    """Load a checkpoint, export its model, and print what was written."""
    output = user_path(cfg.output)
    is_folder = not output.suffix or output.is_dir() or str(cfg.output).endswith("/")
    empty = is_folder and output.is_dir() and not any(output.iterdir())
    require_new([] if empty else [output], cfg.overwrite)

    import_heavy("d2csr.checkpoints")
    from d2csr.checkpoints import load_model

    model = load_model(cfg.ckpt)
    if is_folder:
        _write_folder(model, output, cfg)
    else:
        _write_file(model, output, cfg)


def _write_file(model: PublishedNetwork, output: Path, cfg: DictConfig) -> None:
    from d2csr.checkpoints.inferred_settings import obstacle_to_inference
    from d2csr.exporting import export

    done = export(model, output, outputs=cfg.outputs, precision=cfg.precision, about=_about(cfg))
    size = f"{done.bytes / 1e6:.1f} MB, ×{model.scale}"
    print(
        printable(f"{done.path}: {size}; largest difference to the model: {done.difference:.1e} of the largest value")
    )
    if output.suffix.lower() == ".safetensors" and (obstacle := obstacle_to_inference(model)):
        print(printable(f"Not for spandrel, chaiNNer and ComfyUI, which read the weights alone: {obstacle}"))


def _write_folder(model: PublishedNetwork, output: Path, cfg: DictConfig) -> None:
    if cfg.outputs != "sr" or str(cfg.precision) != "32":
        raise ConfigError("outputs, precision: a folder for the hub holds the weights in single precision; omit them.")
    kept = (output / "README.md").exists()
    card = plain(cfg.card)
    repo = card.pop("repo")
    with keys_below("card"):
        model.save_pretrained(output, repo_id=repo, model_card_kwargs={**_about(cfg), **card, "checkpoint": cfg.ckpt})
    print(printable(f"{output}: config.json, model.safetensors, README.md{' (kept as it was)' if kept else ''}"))
    if not kept and (output / "images").is_dir():
        print("Its pictures are test images: check that you may publish them, or add card.pictures=0.")
    print(printable(f"Complete README.md, then upload the folder: hf upload {repo or 'USER/NAME'} {output} ."))


def _about(cfg: DictConfig) -> dict[str, Any]:
    return {name: value if value is None else text(f"about.{name}", value) for name, value in plain(cfg.about).items()}


if __name__ == "__main__":
    main()
