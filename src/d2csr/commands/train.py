"""``d2csr-train``: training of D2C-SR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from d2csr.commands.base import command, config_dir, plain, require_trainer
from d2csr.commands.heavy_imports import import_heavy
from d2csr.commands.network_match import apply_match, save_configuration
from d2csr.commands.run_folder import keep_run_folder, requeued
from d2csr.commands.targets import fit_to_targets, shipped_files

_NOT_STORED = ("logger", "resume", "init_from", "init_strict", "match", "match_by", "match_to")  # in a checkpoint


@command(
    "train",
    paths=(
        *("resume", "init_from", "data.root", "data.list_dir", "data.cache_dir"),
        *("data.train_list", "data.val_list", "data.test_list", "data.hr", "data.val_hr", "data.test_hr"),
    ),
    open_nodes=("model.network.body", "match_to.body"),
)
def main(cfg: DictConfig) -> float:
    """Build data, model, callbacks, loggers and trainer from the configuration, and train.

    Returns:
        The best validation PSNR in dB, for sweepers; without ``best.ckpt`` the last one, and NaN without a validation.
    """
    import_heavy("d2csr.training.fit")
    import pytorch_lightning as pl
    import torch
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from pytorch_lightning.callbacks import LambdaCallback, ProgressBar
    from pytorch_lightning.loggers import Logger

    from d2csr.callbacks import BatchReport, LastCheckpoint
    from d2csr.callbacks.best_checkpoint import best_psnr
    from d2csr.checks import keys_below, whole_number
    from d2csr.distributed import is_rank_zero
    from d2csr.environment import environment, environment_lines
    from d2csr.log_file import log_to_file, print_and_log
    from d2csr.training.build import check_modules
    from d2csr.training.fit import train
    from d2csr.training.resume import holds_run, resumed_network

    if cfg.threads is not None:
        torch.set_num_threads(whole_number("threads", cfg.threads))
    hydra_cfg = HydraConfig.get()
    run_dir = hydra_cfg.runtime.output_dir
    files = shipped_files(config_dir(), "train", plain(hydra_cfg.runtime.choices))
    fit_to_targets(cfg, files, list(hydra_cfg.overrides.task))
    if requeued() and holds_run(run_dir):
        cfg.resume = run_dir
    if cfg.match is not None and apply_match(cfg, resumed_network(cfg.resume, run_dir)) and is_rank_zero():
        save_configuration(cfg, run_dir)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    if is_rank_zero():
        log_to_file("\n".join(environment_lines(environment())))
    datamodule = instantiate(cfg.data, _convert_="all")
    task = instantiate(cfg.model, _convert_="all")
    check_modules(task, datamodule)
    callbacks = [*_callbacks(cfg, task), BatchReport(cfg.expected_batch)]
    with keys_below("checkpoint"):
        last = LastCheckpoint(Path(run_dir) / "checkpoints", **plain(cfg.checkpoint), settings=_settings(cfg))
    trainer = instantiate(
        cfg.trainer,
        logger=_instances(cfg, "logger", Logger),
        callbacks=[*callbacks, last, LambdaCallback(on_train_start=keep_run_folder)],
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        default_root_dir=run_dir,
        _convert_="all",
    )
    require_trainer(trainer)
    start = {"resume": cfg.resume, "init_from": cfg.init_from, "init_strict": cfg.init_strict}
    checkpoint = train(task, datamodule, trainer, run_dir=run_dir, **start)
    if trainer.is_global_zero:
        print_and_log(_summary(trainer.global_step, task, checkpoint))
    return best_psnr(trainer)


def _summary(steps: int, task: Any, checkpoint: Any) -> str:
    """Return the last line of a training; ``steps`` is 0 if the run was finished already."""
    from d2csr.training.task import D2CSRTask

    done = f"Trained {steps} step{'s' * (steps != 1)}. " if steps else ""
    advice = "Evaluate with: d2csr-eval ckpt=" if isinstance(task, D2CSRTask) else "Its checkpoint: "
    return f"{done}{advice}{checkpoint}"


def _callbacks(cfg: DictConfig, task: Any) -> list[Any]:
    """Build the callbacks of the group that fit the task; the log gets the settings of the run."""
    from pytorch_lightning.callbacks import Callback, ProgressBar

    from d2csr.callbacks import TrainingLog, ValidationPanels
    from d2csr.training.task import D2CSRTask

    callbacks = _instances(cfg, "callbacks", Callback)
    for callback in callbacks:
        if isinstance(callback, TrainingLog):
            callback.settings = plain(cfg)
    unused: tuple[type, ...] = () if cfg.trainer.get("enable_progress_bar", True) else (ProgressBar,)
    unused += () if isinstance(task, D2CSRTask) else (TrainingLog, ValidationPanels)
    return [callback for callback in callbacks if not isinstance(callback, unused)]


def _instances(cfg: DictConfig, group: str, kind: type) -> list[Any]:
    """Build the objects of a group, which may be empty or removed."""
    from hydra.utils import instantiate

    from d2csr.errors import ConfigError

    instances = []
    for name, node in (cfg.get(group) or {}).items():
        instances.append(instantiate(node, _convert_="all") if isinstance(node, DictConfig) else node)
        if not isinstance(instances[-1], kind):
            raise ConfigError(f"{group}.{name}: is no {kind.__name__.lower()}; set +{group}.{name}._target_=CLASS.")
    return instances


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that a checkpoint stores, without the paths of the present run."""
    settings = plain(cfg)
    for callback in (settings.get("callbacks") or {}).values():
        (callback or {}).pop("folder", None)
    return {key: value for key, value in settings.items() if key not in _NOT_STORED}


if __name__ == "__main__":
    main()
