"""``d2csr-eval``: figures and pictures of a checkpoint on pairs with ground truth."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig

from d2csr.commands.app import command, plain


@command("eval", lists=("save", "protocols"), paths=("ckpt", "data.test_list", "data.root"))
def main(cfg: DictConfig) -> None:
    """Load the checkpoint, find its test pairs, evaluate, and print the table."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from d2csr.callbacks.rank_failure import RankFailure
    from d2csr.checkpoints import read_checkpoint
    from d2csr.evaluation import evaluate
    from d2csr.inference import Inference

    output = HydraConfig.get().runtime.output_dir
    checkpoint = read_checkpoint(cfg.ckpt)
    datamodule = _datamodule(plain(cfg.data), checkpoint)
    trainer = instantiate(
        cfg.trainer, logger=False, callbacks=[RankFailure()], default_root_dir=output, _convert_="all"
    )
    report = evaluate(
        checkpoint.model(),
        datamodule,
        trainer,
        output=output,
        protocols=_protocols(cfg),
        inference=Inference(**plain(cfg.inference)),
        compare=cfg.compare,
        lpips=cfg.lpips,
        save=_several(cfg.save),
    )
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


def _protocols(cfg: DictConfig) -> list[str]:
    """Return the protocols, the main one first: the one named alone, or else the first of several."""
    first = [] if cfg.protocol is None else [cfg.protocol]
    return list(dict.fromkeys([*first, *_several(cfg.protocols)])) or ["d2csr"]


def _several(value: Any) -> list[Any]:
    """Return a list of what may be one value, several, or none."""
    return [] if value is None else list(value) if isinstance(value, ListConfig) else [value]


if __name__ == "__main__":
    main()
