"""``d2csr-summary``: parameters, FLOPs, receptive field and memory of a network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from d2csr.commands.base import command, config_dir, plain, require_new
from d2csr.commands.heavy_imports import import_heavy
from d2csr.commands.network_match import apply_match
from d2csr.commands.targets import fit_to_targets, shipped_files
from d2csr.errors import ConfigError, printable
from d2csr.files import atomic_write, user_path

if TYPE_CHECKING:
    from d2csr.training.task import D2CSRTask

# Keys of another network than that of a checkpoint.
_OF_NETWORK = ("model.network", "model/network", "scale", "match", "match_by", "match_to", "experiment")


@command("summary", paths=("ckpt", "output"), open_nodes=("model.network.body", "match_to.body"))
def main(cfg: DictConfig) -> None:
    """Build the network without memory, and print its summary."""
    from hydra.core.hydra_config import HydraConfig

    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    output = _output(cfg)
    width, height = _size(plain(cfg.output_size))
    import_heavy("d2csr.training.task")
    if cfg.ckpt is not None:
        _refuse_network(overrides)
        _take_network(cfg)
    fit_to_targets(cfg, shipped_files(config_dir(), "train", plain(hydra_cfg.runtime.choices)), overrides)
    apply_match(cfg)

    from d2csr.checks import keys_below, whole_number
    from d2csr.models.cost import on_meta
    from d2csr.network_summary import summarize, summary_lines, training_line
    from d2csr.training.step_memory import step_memory

    network = plain(cfg.model.get("network"))
    if not isinstance(network, dict) or "_target_" not in cfg.model:  # model=[] and ~model leave a part of it
        raise ConfigError(f"model: {cfg.model.get('_target_')} has no network of d2csr.")
    with keys_below("model.network"):
        built = on_meta(network)
    summary = summarize(built, width, height)
    print("\n".join(map(printable, summary_lines(summary))))
    batch_size = whole_number("data.batch_size", cfg.data.get("batch_size"))
    patch_size = whole_number("data.patch_size", cfg.data.get("patch_size"))
    try:
        training = step_memory(_task(cfg), batch_size, patch_size)
    except ConfigError as error:
        print(printable(f"training memory    unknown: {error}"))
    else:
        summary = replace(summary, training=training)
        print(training_line(training, batch_size, patch_size, cfg.optimization))
    if output is not None:
        settings = {"batch_size": batch_size, "patch_size": patch_size, "optimization": cfg.optimization}
        with atomic_write(output) as partial:
            partial.write_text(json.dumps({**summary.as_dict(), **settings}, indent=2) + "\n", encoding="utf-8")


def _task(cfg: DictConfig) -> D2CSRTask:
    """Build the task of the training on the meta device."""
    import torch
    from hydra.utils import instantiate

    from d2csr.training.task import D2CSRTask

    cfg.model.compile = None
    with torch.device("meta"):
        task = instantiate(cfg.model, _convert_="all")
    if not isinstance(task, D2CSRTask):
        raise ConfigError(f"{cfg.model._target_} is no task of d2csr.")
    return task


def _output(cfg: DictConfig) -> Path | None:
    if cfg.output is None:
        return None
    output = user_path(str(cfg.output))
    if output.suffix != ".json":
        raise ConfigError(f"output: must be a .json file, got {cfg.output}.")
    require_new([output], cfg.overwrite)
    return output


def _size(size: Any) -> tuple[int, int]:
    if not isinstance(size, list) or len(size) != 2:
        raise ConfigError(f"output_size: must be width and height, such as [1280,720], got {size!r}.")
    return size[0], size[1]


def _refuse_network(overrides: list[str]) -> None:
    """Refuse settings of a network beside a checkpoint; those of its training, such as the optimizer, may be given."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "model" or any(key == name or key.startswith(f"{name}.") for name in _OF_NETWORK):
            raise ConfigError(f"ckpt=… and {key}=… exclude each other: a checkpoint has a network of its own.")


def _take_network(cfg: DictConfig) -> None:
    """Put the network of the checkpoint, which its weights have confirmed, into the configuration."""
    from omegaconf import OmegaConf

    from d2csr.checkpoints import load_model

    network = load_model(cfg.ckpt)
    OmegaConf.set_struct(cfg, False)
    cfg.scale = network.scale
    cfg.model.network = network.settings
    cfg.model.losses.divergence.branching = list(network.tree.branching)
    if not network.learned_fusion:
        cfg.model.divergence.weight = 0
    OmegaConf.set_struct(cfg, True)


if __name__ == "__main__":
    main()
