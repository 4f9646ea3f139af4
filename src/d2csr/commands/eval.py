"""``d2csr-eval``: scores and images of a checkpoint on pairs with ground truth."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from d2csr.commands.app import command, plain


@command("eval", lists=("save", "protocols"), paths=("ckpt", "data.test_list", "data.root"))
def main(cfg: DictConfig) -> None:
    """Load the checkpoint, find its test pairs, evaluate, and print the table."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from d2csr.callbacks.evaluation_progress import EvaluationProgressBar
    from d2csr.callbacks.rank_failure import RankFailure
    from d2csr.checkpoints import read_checkpoint
    from d2csr.checks import keys_below, several_of
    from d2csr.data.datamodule import PairDataModule
    from d2csr.evaluation import SAVE, evaluate
    from d2csr.inference import Inference
    from d2csr.metrics.protocols import PROTOCOLS

    output = HydraConfig.get().runtime.output_dir
    with keys_below("inference"):
        inference = Inference(**plain(cfg.inference))
    save = several_of("save", plain(cfg.save), SAVE)
    first = several_of("protocol", cfg.protocol, tuple(PROTOCOLS))
    protocols = [*first, *several_of("protocols", plain(cfg.protocols), tuple(PROTOCOLS))]
    checkpoint = read_checkpoint(cfg.ckpt)
    network = checkpoint.model()
    data = {key: value for key, value in plain(cfg.data).items() if value is not None}
    if "test_list" not in data and "root" not in data:
        data = {**checkpoint_pairs(checkpoint), **data}
    with keys_below("data"):
        datamodule = PairDataModule(scale=network.scale, **data)
    trainer = instantiate(
        cfg.trainer,
        logger=False,
        callbacks=[RankFailure(), EvaluationProgressBar()],
        default_root_dir=output,
        _convert_="all",
    )
    report = evaluate(
        network,
        datamodule,
        trainer,
        output=output,
        protocols=list(dict.fromkeys(protocols)) or ["d2csr"],
        inference=inference,
        compare=cfg.compare,
        lpips=cfg.lpips,
        save=save,
    )
    if trainer.is_global_zero:
        print(f"\n{report.table()}\n\nWritten to {output}")


_LISTS = ("test_list", "val_list", "train_list")
_MAX_LIST_BYTES = 64 * 2**20
_MAX_PATH = 4096


def checkpoint_pairs(checkpoint: Any) -> dict[str, str]:
    """Return and print where a checkpoint's test pairs are: its name, root and lists. Other settings are not used.

    Raises:
        CheckpointError: the checkpoint names no pairs, or a value is not a path.
        DataError: a list is not a regular file, or is too large.
    """
    from pathlib import Path

    from d2csr.distributed import is_rank_zero
    from d2csr.errors import CheckpointError, printable
    from d2csr.files import require_regular_file

    data = {key: checkpoint.data.get(key) for key in (*_LISTS, "root", "list_dir", "name")}
    data = {key: value for key, value in data.items() if value is not None}
    for key, value in data.items():
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_PATH or "\0" in value:
            raise CheckpointError(f"{checkpoint.path}: its data.{key} is not a path; add data.test_list=LIST.")
    source = next((key for key in (*_LISTS, "root", "list_dir") if key in data), None)
    if source is None:
        raise CheckpointError(f"{checkpoint.path}: does not say which pairs to test on; add data.test_list=LIST.")
    if source in _LISTS:
        require_regular_file(Path(data[source]), _MAX_LIST_BYTES)
    if is_rank_zero():
        print(f"From the checkpoint: data.{source}={printable(data[source])}", flush=True)
    return data


if __name__ == "__main__":
    main()
