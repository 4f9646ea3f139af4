"""Evaluation of all test images, and its report."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from PIL import Image

from d2csr.checks import SAVED_BY_EVAL, several_of
from d2csr.data.datamodule import PairDataModule
from d2csr.data.lists import ImagePair
from d2csr.environment import environment
from d2csr.errors import ConfigError
from d2csr.evaluation.evaluation_task import EvaluationTask, Scoring
from d2csr.evaluation.panels import Part, panel, panel_name, to_image
from d2csr.evaluation.report import FUSION, ImageResult, Report, SeedGroup
from d2csr.evaluation.tables import write_tables
from d2csr.files import atomic_write
from d2csr.models import SRNetwork
from d2csr.signals import statuses_of_signals


def evaluate(
    networks: SRNetwork | Mapping[str, SRNetwork],
    datamodule: PairDataModule,
    trainer: pl.Trainer,
    scoring: Scoring | None = None,
    *,
    output: str | Path,
    save: Collection[str] = (),
    part: Part | None = None,
    sr: Mapping[str, Path] | None = None,
    seeds: Sequence[SeedGroup] = (),
    about: Mapping[str, Any] | None = None,
    on_result: Callable[[ImageResult, Path], None] | None = None,
) -> Report:
    """Evaluate models and images of other methods on the test pairs, which the ranks share, and write the report.

    With images of other methods, all methods are scored as 8-bit images.

    Args:
        networks: the model, or several by name, whose leaves are not compared; may be empty beside ``sr``.
        datamodule: with the test pairs.
        trainer: chooses the devices.
        scoring: protocols, metrics and inference.
        output: the folder for the report and the images.
        save: images to write: ``sr`` for the results, of several networks each in a folder of its own; ``panels`` for
            panels with all methods and weights.
        part: of the images, for the panels; by default the whole images.
        sr: folders or lists of the SR images of other methods, by name.
        seeds: groups of networks that differ by their seed alone.
        about: further entries of ``metrics.json``.
        on_result: called on each rank with the result of each of its images and ``output`` of rank zero.

    Raises:
        ConfigError: two settings exclude each other, or a metric has no weights.
        DataError: a list, a pair or an SR image cannot be used.
        SystemExit: SIGTERM arrived; the current image is finished first, and no report is written.
    """
    networks = {FUSION: networks} if isinstance(networks, SRNetwork) else networks
    save = several_of("save", save, SAVED_BY_EVAL)
    scoring = _fitted(scoring or Scoring(), save, part, networks, has_sr=bool(sr))
    _require_all_images(trainer)

    def handle_result(result: ImageResult, folder: Path) -> None:
        name = f"{panel_name(datamodule.test_pairs, result.index)}.png"
        if "panels" in save:
            _save(panel(result, part or Part(), scoring.protocols[0]), folder / "panels" / name)
        for method in networks if "sr" in save else ():
            own = re.sub(r"[^\w.-]+", "_", method) if len(networks) > 1 else ""
            _save(to_image(result.images[method]), folder / "sr" / own / name)
        if on_result:
            on_result(result, folder)

    handle = handle_result if save or on_result else None
    task = EvaluationTask(networks, scoring, output, scale=datamodule.scale, sr=sr, on_result=handle)
    with statuses_of_signals(trainer):
        trainer.test(task, datamodule=datamodule, verbose=False)
    report = _report(task, datamodule.test_pairs, seeds, about or {})
    if trainer.is_global_zero:
        report.write(task.folder)
        write_tables(report, task.folder)
    return report


def _require_all_images(trainer: pl.Trainer) -> None:
    limit = trainer.limit_test_batches  # a share of all, or a number; fast_dev_run sets it to 1
    if isinstance(limit, int) or limit != 1.0:
        raise ConfigError("trainer.limit_test_batches: every test image is scored; name fewer by data.test_list=LIST.")


def _fitted(
    scoring: Scoring, save: Collection[str], part: Part | None, networks: Collection[str], *, has_sr: bool
) -> Scoring:
    """Return the scoring that fits the methods and the images to save."""
    if part not in (None, Part()) and "panels" not in save:
        raise ConfigError("panels: no panel is drawn; add save=panels.")
    if FUSION not in networks and scoring.compare is True:
        raise ConfigError("compare=true compares the leaves of one checkpoint: omit it.")
    if "sr" in save and not networks:
        raise ConfigError("save=sr writes the images of a checkpoint: add ckpt=…, or omit it.")
    compare = True if "panels" in save and scoring.compare == "auto" else scoring.compare
    return replace(scoring, compare=FUSION in networks and compare, eight_bit=scoring.eight_bit or has_sr)


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as partial:
        image.save(partial, format="PNG")


def _report(
    task: EvaluationTask, pairs: Sequence[ImagePair], seeds: Sequence[SeedGroup], about: Mapping[str, Any]
) -> Report:
    """Return the report of a test of these pairs; rank zero adds its environment."""
    numbers = range(len(pairs))
    return Report(
        scale=task.scale,
        pairs=pairs,
        images={one: [task.scores[number][one] for number in numbers] for one in task.scoring.protocols},
        method=next(iter([*task.networks, *task.sr])),
        seeds=seeds,
        about={**about, **({"environment": environment()} if task.trainer.is_global_zero else {})},
        eight_bit=task.scoring.eight_bit,
        metrics={name: metric.description() for name, metric in task.metrics.items()},
        leaves=[task.leaves.get(number, {}) for number in numbers],
    )
