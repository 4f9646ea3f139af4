"""``d2csr-app``: a browser page to try models on images."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from d2csr.checks import require_packages, whole_number
from d2csr.commands.base import command, node_object, texts
from d2csr.errors import ConfigError
from d2csr.files import find_checkpoint


@command("app", lists=("ckpt", "names"), paths=("ckpt",))
def main(cfg: DictConfig) -> None:
    """Load the checkpoints, and serve the page until Ctrl-C."""
    require_packages("d2csr-app", ["starlette", "uvicorn"], "app")
    paths = texts(cfg, "ckpt")
    if not paths:
        raise ConfigError("ckpt: name a checkpoint, or several in brackets, 'ckpt=[A,B]'.")

    from d2csr.app.processing import Limits, NamedModel
    from d2csr.app.server import serve
    from d2csr.checkpoints import load_model
    from d2csr.environment import find_device
    from d2csr.evaluation.runs import unique_names
    from d2csr.inference import Inference

    limits = Limits(cfg.max_pixels, cfg.max_megabytes, cfg.queue)
    port = whole_number("port", cfg.port, 0, 65535)
    inference = node_object(cfg, "inference", Inference)
    device = find_device(cfg.device)
    # load_model knows more than files: addresses with "://".
    names = unique_names([Path(path) if "://" in path else find_checkpoint(path) for path in paths])
    models = [NamedModel(name, load_model(path, device)) for name, path in zip(names, paths, strict=True)]
    serve(models, inference, limits, host=str(cfg.host), port=port, names=texts(cfg, "names", "a name"))


if __name__ == "__main__":
    main()
