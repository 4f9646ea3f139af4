"""The evaluation task, and :func:`evaluate`, which runs it and writes the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor, nn

from d2csr.checks import flag, one_of, several_of
from d2csr.data.batch import PADDING, Batch
from d2csr.data.datamodule import PairDataModule
from d2csr.distributed import gather, gather_and_raise, raise_on_all_ranks
from d2csr.environment import environment
from d2csr.errors import ConfigError, DataError
from d2csr.evaluation.bicubic import bicubic
from d2csr.evaluation.leaf_statistics import leaf_statistics
from d2csr.evaluation.oracle import ORACLES, oracle
from d2csr.evaluation.panels import Part, panel, panel_name, to_image
from d2csr.evaluation.report import ImageResult, Report
from d2csr.evaluation.scores import BICUBIC, FUSION, MEAN, MethodScores, SeedGroup, image_scores
from d2csr.evaluation.sr_images import find_sr_images, read_sr_image
from d2csr.evaluation.tables import write_tables
from d2csr.files import atomic_write
from d2csr.inference import Inference, Outputs
from d2csr.metrics import to_8bit
from d2csr.metrics.iqa import load_metrics
from d2csr.metrics.protocols import protocol_named
from d2csr.models import SRNetwork

SAVE = ("sr", "panels")

# Above this many HR pixels, compare=auto leaves out the leaves: the predictions of four leaves take 1.5 GB.
_LARGE = 32_000_000


def evaluate(
    networks: SRNetwork | Mapping[str, SRNetwork],
    datamodule: PairDataModule,
    trainer: pl.Trainer,
    *,
    output: str | Path,
    protocols: Sequence[str] = ("d2csr",),
    inference: Inference | None = None,
    compare: bool | str = "auto",
    eight_bit: bool = False,
    iqa: Sequence[str] = (),
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
        output: the folder for the report and the images.
        protocols: of :data:`d2csr.metrics.protocols.PROTOCOLS`; the first one is the main one.
        inference: settings of the inference.
        compare: compute the scores of the leaves, their mean and oracle too; ``auto``: unless an image is too large.
        eight_bit: score all methods as 8-bit images, clamped and rounded, as a PNG holds them.
        iqa: names of further metrics, such as ``lpips``, as :func:`d2csr.metrics.iqa.load_metrics` takes them.
        save: images to write: ``sr`` for the results, ``panels`` for panels with all methods and weights.
        part: of the images, for the panels; by default the whole images.
        sr: folders or lists of the SR images of other methods, by name.
        seeds: groups of networks that differ by their seed alone.
        about: further entries of ``metrics.json``.
        on_result: called on each rank with the result of each of its images and ``output`` of rank zero.

    Raises:
        ConfigError: a setting has an impossible value, or a metric has no weights.
        DataError: a list, a pair or an SR image cannot be used.
    """
    networks = {FUSION: networks} if isinstance(networks, SRNetwork) else dict(networks)
    methods = [*networks, *(sr or {})]
    _check_settings(protocols, compare, save, networks)
    eight_bit = flag("eight_bit", eight_bit) or bool(sr)
    metrics = load_metrics(iqa)

    def handle_result(result: ImageResult, folder: Path) -> None:
        name = panel_name(datamodule.test_pairs, result.index)
        if "panels" in save:
            _save(panel(result, part or Part(), protocols[0]), folder / "panels" / f"{name}.png")
        if "sr" in save:
            _save_results(result, list(networks), folder / "sr", name)
        if on_result:
            on_result(result, folder)

    task = EvaluationTask(
        networks,
        protocols,
        output,
        scale=datamodule.scale,
        inference=inference,
        compare=("panels" in save or compare) if FUSION in networks else False,
        eight_bit=eight_bit,
        metrics=metrics,
        sr=sr,
        on_result=handle_result if save or on_result else None,
    )
    limit = trainer.limit_test_batches  # a share of all, or a number; fast_dev_run sets it to 1
    if isinstance(limit, int) or limit != 1.0:
        raise ConfigError("trainer.limit_test_batches: every test image is scored; name fewer by data.test_list=LIST.")
    trainer.test(task, datamodule=datamodule, verbose=False)
    pairs = datamodule.test_pairs
    images = {protocol: [task.scores[number][protocol] for number in range(len(pairs))] for protocol in protocols}
    about = {**(about or {}), **({"environment": environment()} if trainer.is_global_zero else {})}
    descriptions = {name: metric.description() for name, metric in metrics.items()}
    leaves = [task.leaves.get(number, {}) for number in range(len(pairs))]
    report = Report(datamodule.scale, pairs, images, methods[0], seeds, about, eight_bit, descriptions, leaves)
    if trainer.is_global_zero:
        report.write(task.folder)
        write_tables(report, task.folder)
    return report


def _save_results(result: ImageResult, networks: Sequence[str], folder: Path, name: str) -> None:
    """Save the image of each network, in a folder of its own if there are several."""
    for method in networks:
        inner = folder / re.sub(r"[^\w.-]+", "_", method) if len(networks) > 1 else folder
        _save(to_image(result.images[method]), inner / f"{name}.png")


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as partial:
        image.save(partial, format="PNG")


def _check_settings(
    protocols: Sequence[str], compare: bool | str, save: Collection[str], networks: Collection[str]
) -> None:
    for protocol in protocols:
        protocol_named(protocol)
    if not protocols or len(set(protocols)) < len(protocols):
        raise ConfigError(f"protocols: must name at least one, and each once, got {list(protocols)}.")
    several_of("save", save, SAVE)
    one_of("compare", compare, ("auto", True, False))
    if FUSION not in networks and compare is True:
        raise ConfigError("compare=true compares the leaves of one checkpoint: omit it.")
    if FUSION in networks and "panels" in save and compare is False:
        raise ConfigError("save=panels shows the leaves: omit compare=false.")
    if "sr" in save and not networks:
        raise ConfigError("save=sr writes the images of a checkpoint: add ckpt=…, or omit it.")


class EvaluationTask(pl.LightningModule):
    """Tests networks on whole images, one a batch, shared among the ranks, beside SR images of other methods.

    The first protocol scores all methods, the others all except leaves, mean and oracles. ``metrics`` are further ones
    by name, called with an image and its HR, both 1×3×H×W; they score all methods except oracles. ``on_result`` is
    called with the result of each image and the folder. After the test, ``scores`` holds those of all images on every
    rank, by index, protocol and method, and ``leaves`` the statistics of the leaves that were compared, by index.
    """

    def __init__(
        self,
        networks: Mapping[str, SRNetwork],
        protocols: Sequence[str],
        folder: str | Path,
        *,
        scale: int,
        inference: Inference | None = None,
        compare: bool | str = "auto",
        eight_bit: bool = False,
        metrics: Mapping[str, nn.Module] | None = None,
        sr: Mapping[str, Path] | None = None,
        on_result: Callable[[ImageResult, Path], None] | None = None,
    ) -> None:
        super().__init__()
        self.networks = dict(networks)
        self._modules_to_move = nn.ModuleList(self.networks.values())  # names of runs can hold dots
        self.protocols = protocols
        self.folder = Path(folder)
        self.scale = scale
        self.inference = inference or Inference()
        self.compare = compare
        self.eight_bit = eight_bit
        self.metrics = nn.ModuleDict(metrics)
        self.sr = sr or {}
        self.on_result = on_result
        self.scores: dict[int, dict[str, MethodScores]] = {}
        self.leaves: dict[int, dict[str, float]] = {}
        self._sr_images: dict[str, list[Path]] = {}
        self._problems: list[str] = []

    @raise_on_all_ranks
    def setup(self, stage: str) -> None:
        """Find the SR images of other methods, and check their sizes."""
        for name, source in self.sr.items():
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self._sr_images[name] = find_sr_images(source, data.test_pairs, self.scale, data.cache_dir)

    def on_test_start(self) -> None:
        """Use the folder of rank zero; under torchrun each rank composes its own."""
        self.folder = self.trainer.strategy.broadcast(self.folder)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one image, without communication: other ranks may have fewer images."""
        lr, hr, index = batch["lr"], batch["hr"], int(batch["index"])
        self._problems += batch.get("error", [])
        if index == PADDING:
            return
        kept: dict[str, Tensor] = {}
        scores: dict[str, MethodScores] = {protocol: {} for protocol in self.protocols}
        weights: Tensor | None = None
        try:
            for images, of_fusion in self._results(lr, hr, index):
                weights = of_fusion  # the networks come last
                for name, image in images.items():
                    self._add_scores(scores, name, image, hr)
                if self.on_result:
                    kept |= {name: image for name, image in images.items() if name not in ORACLES}
        except DataError as error:
            self._problems.append(str(error))
            return
        self.scores[index] = scores
        if self.on_result:
            self.on_result(ImageResult(index, lr, hr, kept, weights, scores[self.protocols[0]]), self.folder)

    def on_test_epoch_end(self) -> None:
        """Gather the scores on all ranks; raise a DataError if a rank could not read an image."""
        gather_and_raise(self._problems)
        self.scores = {index: scores for share in gather(self.scores) for index, scores in share.items()}
        self.leaves = {index: leaves for share in gather(self.leaves) for index, leaves in share.items()}

    def _results(self, lr: Tensor, hr: Tensor, index: int) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """Yield the images of one method after the other, which bounds the memory, and the weights of a fusion."""
        yield {BICUBIC: bicubic(lr, self.scale)}, None
        for name, paths in self._sr_images.items():
            yield {name: read_sr_image(paths[index], *hr.shape[-2:])}, None
        for name, network in self.networks.items():
            keep_leaves = self._keeps_leaves(network, lr)
            outputs = self.inference.outputs(network, lr, keep_leaves=keep_leaves, on_device=True)
            yield {**_leaves(network, outputs), name: outputs.sr}, outputs.weights
            if outputs.predictions is not None:
                self.leaves[index] = leaf_statistics(outputs, hr, network.tree)
                for best, block in ORACLES.items():
                    yield {best: oracle(outputs.predictions, hr, block)}, outputs.weights

    def _keeps_leaves(self, network: SRNetwork, lr: Tensor) -> bool:
        """Return whether the leaves are compared; ``auto``: unless they would force the image into smaller tiles."""
        if network.tree.num_leaves == 1:
            return False
        if self.compare != "auto":
            return bool(self.compare)
        if lr.shape[-2] * lr.shape[-1] * self.scale**2 > _LARGE:
            return False
        try:
            with_leaves = self.inference.plan(network, lr, keep_leaves=True)
        except ConfigError:
            return False
        return with_leaves.tile == self.inference.plan(network, lr).tile

    def _add_scores(self, scores: dict[str, MethodScores], name: str, image: Tensor, hr: Tensor) -> None:
        image = image.to(hr.device)
        if self.eight_bit:
            image = to_8bit(image)
        main, *others = self.protocols
        scores[main][name] = image_scores(image, hr, scale=self.scale, protocol=main)
        if name not in ORACLES:
            scores[main][name] |= {metric: module(image, hr).item() for metric, module in self.metrics.items()}
        if name == BICUBIC or name in self.sr or name in self.networks:
            for protocol in others:
                scores[protocol][name] = image_scores(image, hr, scale=self.scale, protocol=protocol)


def _leaves(network: SRNetwork, outputs: Outputs) -> dict[str, Tensor]:
    """Return the leaves and their mean by name, or none if the leaves were not kept."""
    if outputs.predictions is None:
        return {}
    leaves = zip(network.tree.leaves, outputs.predictions.unbind(dim=1), strict=True)
    return {**{f"leaf {leaf}": image for leaf, image in leaves}, MEAN: outputs.predictions.mean(dim=1)}
