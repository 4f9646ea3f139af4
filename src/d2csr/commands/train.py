"""``d2csr-train``: train D2C-SR."""

from __future__ import annotations

from omegaconf import DictConfig

from d2csr.commands.app import command, plain


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

    from d2csr.training.reporting import reporting_callbacks
    from d2csr.training.run import checkpoint_callbacks, train

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    run_dir = HydraConfig.get().runtime.output_dir
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data, _convert_="all")
    task = instantiate(cfg.model, _convert_="all")
    loggers = [instantiate(logger, _convert_="all") for logger in cfg.logger.values()]
    settings = plain(cfg)
    callbacks = [
        *reporting_callbacks(
            run_dir, settings=settings, panels=settings["panels"], progress=cfg.trainer.enable_progress_bar
        ),
        *checkpoint_callbacks(run_dir, cfg.trainer.check_val_every_n_epoch),
    ]
    trainer = instantiate(cfg.trainer, logger=loggers, callbacks=callbacks, default_root_dir=run_dir, _convert_="all")

    checkpoint = train(task, datamodule, trainer, run_dir=run_dir, resume=cfg.resume, init_from=cfg.init_from)
    if trainer.is_global_zero:
        print(f"\nTrained {trainer.global_step} steps. Evaluate with: d2csr-eval ckpt={checkpoint}")


if __name__ == "__main__":
    main()
