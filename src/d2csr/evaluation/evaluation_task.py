"""The evaluation task, and what it scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor, nn

from d2csr.checks import PROTOCOLS, flag, one_of, several_of
from d2csr.data.batch import PADDING, Batch
from d2csr.distributed import gather, gather_and_raise, raise_on_all_ranks
from d2csr.errors import ConfigError, DataError
from d2csr.evaluation.baselines import ORACLES, bicubic, oracle
from d2csr.evaluation.report import BICUBIC, ImageResult, MethodScores, image_scores, leaf_images, leaf_statistics
from d2csr.evaluation.sr_images import find_sr_images, read_sr_image
from d2csr.inference import Inference
from d2csr.metrics import to_8bit
from d2csr.metrics.iqa import load_metrics
from d2csr.models import SRNetwork
from d2csr.signals import stop_if_terminated

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
        self.metrics = load_metrics(scoring.iqa)
        # A list: names can hold dots.
        self._modules_to_move = nn.ModuleList([*self.networks.values(), *self.metrics.values()])
        self.scoring = scoring
        self.folder = Path(folder)
        self.scale = scale
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
        except DataError as error:  # too small for a metric, or an SR image that cannot be read any more
            self._problems.append(f"{self.trainer.datamodule.test_pairs[index].hr}: {error}")  # type: ignore[attr-defined]
            return
        self.scores[index] = scores
        if self.on_result:
            self.on_result(ImageResult(index, lr, hr, kept, weights, scores[self.scoring.protocols[0]]), self.folder)

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
        inference = self.scoring.inference
        try:
            return inference.plan(network, lr, keep_leaves=True).tile == inference.plan(network, lr).tile
        except ConfigError:
            return False

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
