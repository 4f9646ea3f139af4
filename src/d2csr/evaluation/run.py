"""One evaluation, from a model and its test pairs to the files it leaves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytorch_lightning as pl

from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError
from d2csr.evaluation.panels import panel, picture_name, to_image
from d2csr.evaluation.perceptual import Perceptual
from d2csr.evaluation.report import FUSION, Report
from d2csr.evaluation.task import EvaluationTask, Results
from d2csr.inference import Inference
from d2csr.metrics.protocols import protocol_named
from d2csr.models import D2CSR

PICTURES = ("sr", "panels")


def evaluate(
    network: D2CSR,
    datamodule: PairDataModule,
    trainer: pl.Trainer,
    *,
    output: str | Path,
    protocols: Sequence[str] = ("d2csr",),
    inference: Inference | None = None,
    compare: bool | str = "auto",
    lpips: bool = False,
    save: Collection[str] = (),
) -> Report:
    """Evaluate a model on the test pairs.

    The images are shared among the trainer's processes; the first one writes the figures, of all of them.

    Args:
        network: the model.
        datamodule: where the test pairs come from.
        trainer: Lightning's.
        output: the folder for ``metrics.json``, ``metrics.csv`` and the pictures.
        protocols: of ``d2csr``, ``cdc`` and ``y``; the first one is the main one.
        inference: how to run the model.
        compare: take the figures of the leaves and their mean too; ``auto``: unless an image is too large for that.
        lpips: take LPIPS too.
        save: pictures to write: ``sr`` for the results, ``panels`` for all that the network made of each image.

    Raises:
        ConfigError: a setting has an impossible value, or there are no weights for LPIPS.
        DataError: a list or a pair cannot be used.
    """
    _check(protocols, compare, save)

    def save_pictures(results: Results, folder: Path) -> None:
        stem = picture_name(datamodule.test_pairs, results.index)
        for kind in save:
            picture = panel(results) if kind == "panels" else to_image(results.images[FUSION])
            (folder / kind).mkdir(parents=True, exist_ok=True)
            picture.save(folder / kind / f"{stem}.png")

    task = EvaluationTask(
        network,
        protocols,
        output,
        inference=inference,
        compare="panels" in save or compare,
        perceptual=Perceptual() if lpips else None,
        on_result=save_pictures if save else None,
    )
    trainer.test(task, datamodule=datamodule, verbose=False)
    pairs = datamodule.test_pairs
    images = {protocol: [task.figures[number][protocol] for number in range(len(pairs))] for protocol in protocols}
    report = Report(network.scale, pairs, images)
    if trainer.is_global_zero:
        report.write(task.folder)
    return report


def _check(protocols: Sequence[str], compare: bool | str, save: Collection[str]) -> None:
    for protocol in protocols:
        protocol_named(protocol)
    if not protocols or len(set(protocols)) < len(protocols):
        raise ConfigError(f"protocols: each once, and at least one, got {list(protocols)}.")
    unknown = [kind for kind in save if kind not in PICTURES]
    if unknown:
        raise ConfigError(f"save: must be of {', '.join(PICTURES)}, got {', '.join(map(str, unknown))}.")
    if compare not in (True, False, "auto"):
        raise ConfigError(f"compare: must be auto, true or false, got {compare!r}.")
    if "panels" in save and compare is False:
        raise ConfigError("save=panels shows the leaves: leave compare=false away.")
