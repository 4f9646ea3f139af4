"""One evaluation, from a model and its test pairs to the files it leaves."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytorch_lightning as pl

from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError
from d2csr.evaluation.panels import panel, to_image
from d2csr.evaluation.report import Report
from d2csr.evaluation.task import FUSION, EvaluationTask, Results
from d2csr.metrics.protocols import protocol_named
from d2csr.models import D2CSR

PICTURES = ("sr", "panels")


def evaluate(
    network: D2CSR,
    datamodule: PairDataModule,
    trainer: pl.Trainer,
    *,
    protocol: str = "d2csr",
    output: str | Path,
    save: Collection[str] = (),
) -> Report:
    """Evaluate a model on the test pairs.

    Args:
        network: the model.
        datamodule: where the test pairs come from.
        trainer: Lightning's.
        protocol: ``d2csr``, ``cdc`` or ``y``.
        output: the folder for ``metrics.json``, ``metrics.csv`` and the pictures.
        save: pictures to write: ``sr`` for the results, ``panels`` for all that the network made of each image.

    Raises:
        ConfigError: there is no such protocol or kind of picture.
        DataError: a list or a pair cannot be used.
    """
    protocol_named(protocol)
    unknown = [kind for kind in save if kind not in PICTURES]
    if unknown:
        raise ConfigError(f"save: must be of {', '.join(PICTURES)}, got {', '.join(map(str, unknown))}.")

    def save_pictures(results: Results) -> None:
        stem = _stem(datamodule, results.index)
        for kind in save:
            picture = panel(results) if kind == "panels" else to_image(results.images[FUSION])
            folder = Path(output) / kind
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{stem}.png")

    task = EvaluationTask(network, protocol, save_pictures if save else None)
    trainer.test(task, datamodule=datamodule, verbose=False)
    pairs = datamodule.test_pairs
    report = Report(protocol, network.scale, pairs, [task.figures[index] for index in range(len(pairs))])
    report.write(output)
    return report


def _stem(datamodule: PairDataModule, index: int) -> str:
    """Return a name for an image's pictures: its own, with its number in front where another pair has the same."""
    stems = [pair.lr.stem for pair in datamodule.test_pairs]
    return stems[index] if stems.count(stems[index]) == 1 else f"{index:04d}_{stems[index]}"
