"""``d2csr-app``: a browser page to try models on images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from omegaconf import DictConfig

from d2csr.commands.app import command, plain
from d2csr.errors import ConfigError

_PACKAGES = ("starlette", "uvicorn")


@command("app", lists=("ckpt", "names"), paths=("ckpt",))
def main(cfg: DictConfig) -> None:
    """Load the checkpoints, and serve the page until Ctrl-C."""
    if missing := [package for package in _PACKAGES if importlib.util.find_spec(package) is None]:
        raise ConfigError(f"d2csr-app needs {' and '.join(missing)}; install it by: pip install 'd2csr[app]'.")
    paths = plain(cfg.ckpt)
    paths = [str(path) for path in paths] if isinstance(paths, list) else [str(paths)]
    if not paths:
        raise ConfigError("ckpt: name a checkpoint, or several in brackets, 'ckpt=[A,B]'.")

    from d2csr.app.processing import Limits, NamedModel
    from d2csr.app.server import serve
    from d2csr.checkpoints import load_model
    from d2csr.checks import keys_below, whole_number
    from d2csr.commands.device import torch_device
    from d2csr.evaluation.runs import unique_names
    from d2csr.files import find_checkpoint
    from d2csr.inference import Inference

    limits = Limits(cfg.max_pixels, cfg.max_megabytes, cfg.queue)
    port = whole_number("port", cfg.port, 0, 65535)
    with keys_below("inference"):
        inference = Inference(**plain(cfg.inference))
    device = torch_device(cfg.device)
    # load_model knows more than files: addresses with "://".
    names = unique_names([Path(path) if "://" in path else find_checkpoint(path) for path in paths])
    models = [NamedModel(name, load_model(path, device)) for name, path in zip(names, paths, strict=True)]
    serve(models, inference, limits, host=str(cfg.host), port=port, names=[str(name) for name in plain(cfg.names)])


if __name__ == "__main__":
    main()
