"""The evaluation task, and :func:`evaluate`, which runs it and writes the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor, nn

from d2csr.checks import PROTOCOLS, SAVED_BY_EVAL, flag, one_of, several_of
from d2csr.data.batch import PADDING, Batch
from d2csr.data.datamodule import PairDataModule
from d2csr.data.lists import ImagePair
from d2csr.distributed import gather, gather_and_raise, raise_on_all_ranks
from d2csr.environment import environment
from d2csr.errors import ConfigError, DataError
from d2csr.evaluation.baselines import ORACLES, bicubic, oracle
from d2csr.evaluation.panels import Part, panel, panel_name, to_image
from d2csr.evaluation.report import (
    BICUBIC,
    FUSION,
    ImageResult,
    MethodScores,
    Report,
    SeedGroup,
    image_scores,
    leaf_images,
    leaf_statistics,
)
from d2csr.evaluation.sr_images import find_sr_images, read_sr_image
from d2csr.evaluation.tables import write_tables
from d2csr.files import atomic_write
from d2csr.inference import Inference
from d2csr.metrics import to_8bit
from d2csr.metrics.iqa import load_metrics
from d2csr.models import SRNetwork
from d2csr.signals import statuses_of_signals, stop_if_terminated

# Above this many HR pixels, compare=auto leaves out the leaves: the predictions of four leaves take 1.5 GB.
_LARGE = 32_000_000


@dataclass(frozen=True)
class Scoring:
    """What is scored, and how; a ConfigError names a value out of its range."""

    protocols: Sequence[str] | str = ("d2csr",)  # of d2csr.metrics.PROTOCOLS; the first one is the main one
    compare: bool | str = "auto"  # score the leaves, their mean and oracle too; auto: unless an image is too large
    eight_bit: bool = False  # score all methods as 8-bit images, clamped and rounded, as a PNG holds them
    iqa: Sequence[str] = ()  # names of further metrics, as d2csr.metrics.iqa.load_metrics takes them
    inference: Inference = field(default_factory=Inference)

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocols", several_of("protocols", self.protocols, PROTOCOLS, least=1))
        one_of("compare", self.compare, ("auto", True, False))
        flag("eight_bit", self.eight_bit)


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
        if "sr" in save:
            _save_results(result, list(networks), folder / "sr", name)
        if on_result:
            on_result(result, folder)

    handle = handle_result if save or on_result else None
    task = EvaluationTask(networks, scoring, output, scale=datamodule.scale, sr=sr, on_result=handle)
    with statuses_of_signals(trainer):
        trainer.test(task, datamodule=datamodule, verbose=False)
    report = task.report(datamodule.test_pairs, seeds, about or {})
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


def _save_results(result: ImageResult, methods: Sequence[str], folder: Path, name: str) -> None:
    """Save the images of networks, of several each in a folder of its own."""
    for method in methods:
        own = re.sub(r"[^\w.-]+", "_", method) if len(methods) > 1 else ""
        _save(to_image(result.images[method]), folder / own / name)


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as partial:
        image.save(partial, format="PNG")


class EvaluationTask(pl.LightningModule):
    """Tests networks on whole images, one a batch, shared among the ranks, beside SR images of other methods.

    The first protocol scores all methods, the others all except leaves, mean and oracles. Further metrics score all
    methods except oracles. After the test, every rank has the ``scores`` of all images, by index, protocol and method,
    and the statistics of the ``leaves`` that were compared, by index.
    """

    def __init__(
        self,
        networks: Mapping[str, SRNetwork],
        scoring: Scoring,
        folder: str | Path,
        *,
        scale: int,
        sr: Mapping[str, Path] | None = None,
        on_result: Callable[[ImageResult, Path], None] | None = None,
    ) -> None:
        super().__init__()
        self.networks = dict(networks)
        self._modules_to_move = nn.ModuleList(self.networks.values())  # names of runs can hold dots
        self.scoring = scoring
        self.folder = Path(folder)
        self.scale = scale
        metrics = load_metrics(scoring.iqa)
        self.metrics = nn.ModuleDict(metrics)
        self._descriptions = {name: metric.description() for name, metric in metrics.items()}
        self.sr = sr or {}
        self.on_result = on_result
        self.scores: dict[int, dict[str, MethodScores]] = {}
        self.leaves: dict[int, dict[str, float]] = {}
        self._sr_images: dict[str, list[Path]] = {}
        self._problems: list[str] = []

    @raise_on_all_ranks
    def setup(self, stage: str) -> None:
        """Use the folder of rank zero; find the SR images of other methods, and check their sizes."""
        self.folder = self.trainer.strategy.broadcast(self.folder)  # under torchrun each rank composes its own
        for name, source in self.sr.items():
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self._sr_images[name] = find_sr_images(source, data.test_pairs, self.scale, data.cache_dir)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one image, without communication: other ranks may have fewer images."""
        stop_if_terminated(self.trainer)
        lr, hr, index = batch["lr"], batch["hr"], int(batch["index"])
        self._problems += batch.get("error", [])
        if index == PADDING:
            return
        kept: dict[str, Tensor] = {}
        scores: dict[str, MethodScores] = {protocol: {} for protocol in self.scoring.protocols}
        try:
            for images, weights in self._results(lr, hr, index):  # noqa: B007 - those of the network, which is last
                for name, image in images.items():
                    self._add_scores(scores, name, image, hr)
                if self.on_result:
                    kept |= {name: image for name, image in images.items() if name not in ORACLES}
        except DataError as error:
            self._problems.append(str(error))
            return
        self.scores[index] = scores
        if self.on_result:
            self.on_result(ImageResult(index, lr, hr, kept, weights, scores[self.scoring.protocols[0]]), self.folder)

    def on_test_epoch_end(self) -> None:
        """Gather the scores on all ranks; raise a DataError if a rank could not read an image."""
        gather_and_raise(self._problems)
        self.scores = {index: scores for share in gather(self.scores) for index, scores in share.items()}
        self.leaves = {index: leaves for share in gather(self.leaves) for index, leaves in share.items()}

    def report(self, pairs: Sequence[ImagePair], seeds: Sequence[SeedGroup], about: Mapping[str, Any]) -> Report:
        """Return the report of a test of these pairs; rank zero adds its environment."""
        numbers = range(len(pairs))
        return Report(
            scale=self.scale,
            pairs=pairs,
            images={one: [self.scores[number][one] for number in numbers] for one in self.scoring.protocols},
            method=next(iter([*self.networks, *self.sr])),
            seeds=seeds,
            about={**about, **({"environment": environment()} if self.trainer.is_global_zero else {})},
            eight_bit=self.scoring.eight_bit,
            metrics=self._descriptions,
            leaves=[self.leaves.get(number, {}) for number in numbers],
        )

    def _results(self, lr: Tensor, hr: Tensor, index: int) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """Yield the images of one method after the other, which bounds the memory, and the weights of a fusion."""
        yield {BICUBIC: bicubic(lr, self.scale)}, None
        for name, paths in self._sr_images.items():
            yield {name: read_sr_image(paths[index], *hr.shape[-2:])}, None
        for name, network in self.networks.items():
            keep_leaves = self._keeps_leaves(network, lr)
            outputs = self.scoring.inference.outputs(network, lr, keep_leaves=keep_leaves)
            leaves = {} if outputs.predictions is None else leaf_images(outputs.predictions, network.tree)
            yield {**leaves, name: outputs.sr}, outputs.weights
            if outputs.predictions is not None:
                self.leaves[index] = leaf_statistics(outputs, hr, network.tree)
                for best, block in ORACLES.items():
                    yield {best: oracle(outputs.predictions, hr, block)}, outputs.weights

    def _keeps_leaves(self, network: SRNetwork, lr: Tensor) -> bool:
        """Return whether the leaves are compared; ``auto``: unless they would force the image into smaller tiles."""
        if network.tree.num_leaves == 1:
            return False
        if self.scoring.compare != "auto":
            return bool(self.scoring.compare)
        if lr.shape[-2] * lr.shape[-1] * self.scale**2 > _LARGE:
            return False
        try:
            with_leaves = self.scoring.inference.plan(network, lr, keep_leaves=True)
        except ConfigError:
            return False
        return with_leaves.tile == self.scoring.inference.plan(network, lr).tile

    def _add_scores(self, scores: dict[str, MethodScores], name: str, image: Tensor, hr: Tensor) -> None:
        image = image.to(hr.device)
        if self.scoring.eight_bit:
            image = to_8bit(image)
        main = self.scoring.protocols[0]
        for protocol, found in scores.items():
            if protocol == main or name in (BICUBIC, *self.sr, *self.networks):
                found[name] = image_scores(image, hr, scale=self.scale, protocol=protocol)
        if name not in ORACLES:
            scores[main][name] |= {metric: module(image, hr).item() for metric, module in self.metrics.items()}
