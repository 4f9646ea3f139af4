"""``d2csr-eval``: figures and pictures of a checkpoint on pairs with ground truth."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from d2csr.commands.app import command, plain


@command("eval")
def main(cfg: DictConfig) -> None:
    """Load the checkpoint, find its test pairs, evaluate, and print the table."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from d2csr.checkpoints import read_checkpoint
    from d2csr.evaluation import evaluate

    output = HydraConfig.get().runtime.output_dir
    checkpoint = read_checkpoint(cfg.ckpt)
    datamodule = _datamodule(plain(cfg.data), checkpoint)
    trainer = instantiate(cfg.trainer, logger=False, default_root_dir=output, _convert_="all")
    save = [cfg.save] if isinstance(cfg.save, str) else list(cfg.save or [])
    report = evaluate(checkpoint.model(), datamodule, trainer, protocol=cfg.protocol, output=output, save=save)
    if trainer.is_global_zero:
        print(f"\n{report.table()}\n\nWritten to {output}")


def _datamodule(asked: dict[str, Any], checkpoint: Any) -> Any:
    """Return the data: what the user names, and where that names no pairs, what the checkpoint was trained with."""
    from d2csr.data.datamodule import PairDataModule
    from d2csr.errors import CheckpointError

    trained_with = {key: value for key, value in checkpoint.data.items() if key != "scale"}
    if asked["test_list"] is None and asked["root"] is None:
        if not trained_with:
            raise CheckpointError(f"{checkpoint.path}: does not say which pairs to test on; add data.test_list=LIST.")
        asked = {**asked, **trained_with}
    asked = {key: value for key, value in asked.items() if value is not None}
    return PairDataModule(scale=checkpoint.settings["scale"], **asked)


if __name__ == "__main__":
    main()
