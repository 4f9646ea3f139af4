"""``d2csr-train``: train D2C-SR."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from d2csr.commands.app import command, plain
from d2csr.commands.run_name import started_again


@command(
    "train",
    paths=(
        "resume",
        "init_from",
        "data.root",
        "data.list_dir",
        "data.train_list",
        "data.val_list",
        "data.test_list",
        "data.cache_dir",
    ),
)
def main(cfg: DictConfig) -> None:
    """Build data, task, loggers and trainer from the configuration, and train."""
    import pytorch_lightning as pl
    import torch
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from d2csr.callbacks import TrainingLog, TrainingProgressBar, ValidationPanels
    from d2csr.checks import keys_below
    from d2csr.training.fit import checkpoint_callbacks, train

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    run_dir = HydraConfig.get().runtime.output_dir
    cfg.resume = _resume(cfg, run_dir)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data, _convert_="all")
    task = instantiate(cfg.model, _convert_="all")
    loggers = [instantiate(logger, _convert_="all") for logger in cfg.logger.values()]
    settings = plain(cfg)
    with keys_below("panels"):
        panels = ValidationPanels(f"{run_dir}/panels", **settings["panels"])
    with keys_below("checkpoint"):
        checkpoints = checkpoint_callbacks(run_dir, **plain(cfg.checkpoint), settings=_settings(cfg))
    progress = [TrainingProgressBar()] if cfg.trainer.enable_progress_bar else []
    callbacks = [TrainingLog(settings), panels, *progress, *checkpoints]
    trainer = instantiate(cfg.trainer, logger=loggers, callbacks=callbacks, default_root_dir=run_dir, _convert_="all")

    checkpoint = train(task, datamodule, trainer, run_dir=run_dir, resume=cfg.resume, init_from=cfg.init_from)
    if trainer.is_global_zero:
        done = f"Trained {trainer.global_step} steps. " if trainer.global_step else ""  # none: it was finished already
        print(f"\n{done}Evaluate with: d2csr-eval ckpt={checkpoint}")


def _resume(cfg: DictConfig, run_dir: str) -> str | None:
    """Return what to go on from: a job that is started again finds its own run in the run folder."""
    from d2csr.training.resume import holds_run

    return run_dir if started_again() and holds_run(run_dir) else cfg.resume


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """Return what a checkpoint keeps of the configuration: plain values, without the folders of the present run."""
    settings = plain(cfg)
    return {key: value for key, value in settings.items() if key not in ("logger", "resume", "init_from")}


if __name__ == "__main__":
    main()
