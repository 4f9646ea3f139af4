"""The evaluation task, and :func:`evaluate`, which runs it and writes the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor, nn

from d2csr.checks import flag, one_of, several_of
from d2csr.data.datamodule import PairDataModule
from d2csr.data.sampler import PADDING, Batch
from d2csr.distributed import gather, gather_and_raise
from d2csr.errors import ConfigError
from d2csr.evaluation.bicubic import bicubic
from d2csr.evaluation.panels import Part, panel, panel_name, to_image
from d2csr.evaluation.report import BICUBIC, FUSION, MEAN, ImageResult, MethodScores, Report, Scores
from d2csr.files import atomic_write
from d2csr.inference import Inference, Outputs
from d2csr.metrics import psnr, ssim
from d2csr.metrics.lpips import LPIPS
from d2csr.metrics.protocols import protocol_named
from d2csr.models import D2CSR

SAVE = ("sr", "panels")

# Above this many HR pixels, compare=auto leaves out the leaves: the predictions of four leaves take 1.5 GB.
_LARGE = 32_000_000


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
    part: Part | None = None,
) -> Report:
    """Evaluate a model on the test pairs, which the ranks share, and write the report.

    Args:
        network: the model.
        datamodule: with the test pairs.
        trainer: chooses the devices.
        output: the folder for ``metrics.json``, ``metrics.csv`` and the images.
        protocols: of :data:`d2csr.metrics.protocols.PROTOCOLS`; the first one is the main one.
        inference: settings of the inference.
        compare: compute the scores of the leaves and of their mean too; ``auto``: unless an image is too large.
        lpips: compute LPIPS too.
        save: images to write: ``sr`` for the results, ``panels`` for panels with all leaves and weights.
        part: of the images, for the panels; by default the whole images.

    Raises:
        ConfigError: a setting has an impossible value, or there are no weights for LPIPS.
        DataError: a list or a pair cannot be used.
    """
    _check_settings(protocols, compare, lpips, save)

    def save_images(result: ImageResult, folder: Path) -> None:
        name = panel_name(datamodule.test_pairs, result.index)
        for kind in save:
            image = panel(result, part or Part(), protocols[0]) if kind == "panels" else to_image(result.images[FUSION])
            with atomic_write(folder / kind / f"{name}.png") as partial:
                image.save(partial, format="PNG")

    task = EvaluationTask(
        network,
        protocols,
        output,
        inference=inference,
        compare="panels" in save or compare,
        metrics={"lpips": LPIPS()} if lpips else None,
        on_result=save_images if save else None,
    )
    trainer.test(task, datamodule=datamodule, verbose=False)
    pairs = datamodule.test_pairs
    images = {protocol: [task.scores[number][protocol] for number in range(len(pairs))] for protocol in protocols}
    report = Report(network.scale, pairs, images)
    if trainer.is_global_zero:
        report.write(task.folder)
    return report


def _check_settings(protocols: Sequence[str], compare: bool | str, lpips: bool, save: Collection[str]) -> None:
    for protocol in protocols:
        protocol_named(protocol)
    if not protocols or len(set(protocols)) < len(protocols):
        raise ConfigError(f"protocols: must name at least one, and each once, got {list(protocols)}.")
    several_of("save", save, SAVE)
    flag("lpips", lpips)
    one_of("compare", compare, ("auto", True, False))
    if "panels" in save and compare is False:
        raise ConfigError("save=panels shows the leaves: omit compare=false.")


class EvaluationTask(pl.LightningModule):
    """Tests a network on whole images, one a batch, shared among the ranks.

    The first protocol scores all methods, the others only bicubic and the fusion. ``metrics`` are further ones by name,
    called with an image and its HR, both 1×3×H×W; they score all methods too. ``on_result`` is called with the result
    of each image and the folder. After the test, ``scores`` holds those of all images on every rank, by index,
    protocol and method.
    """

    def __init__(
        self,
        network: D2CSR,
        protocols: Sequence[str],
        folder: str | Path,
        *,
        inference: Inference | None = None,
        compare: bool | str = "auto",
        metrics: Mapping[str, nn.Module] | None = None,
        on_result: Callable[[ImageResult, Path], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.protocols = protocols
        self.folder = Path(folder)
        self.inference = inference or Inference()
        self.compare = compare
        self.metrics = nn.ModuleDict(metrics)
        self.on_result = on_result
        self.scores: dict[int, dict[str, MethodScores]] = {}
        self._problems: list[str] = []

    def on_test_start(self) -> None:
        """Use the folder of rank zero; under torchrun each rank composes its own."""
        self.folder = self.trainer.strategy.broadcast(self.folder)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one image, without communication: other ranks may have fewer images."""
        lr, hr, index = batch["lr"], batch["hr"], int(batch["index"])
        self._problems += batch.get("error", [])
        if index == PADDING:
            return
        outputs = self.inference.outputs(self.network, lr, keep_leaves=self._keeps_leaves(lr))
        images = self._images(lr, outputs)
        main, *others = self.protocols
        scores = {main: {name: self._score(image, hr, main, self.metrics) for name, image in images.items()}}
        for protocol in others:
            scores[protocol] = {name: self._score(images[name], hr, protocol) for name in (BICUBIC, FUSION)}
        self.scores[index] = scores
        if self.on_result:
            self.on_result(ImageResult(index, lr, hr, images, outputs.weights, scores[main]), self.folder)

    def on_test_epoch_end(self) -> None:
        """Gather the scores on all ranks; raise a DataError if a rank could not read an image."""
        gather_and_raise(self._problems)
        self.scores = {index: scores for share in gather(self.scores) for index, scores in share.items()}

    def _keeps_leaves(self, lr: Tensor) -> bool:
        """Return whether the leaves are compared; ``auto``: unless they would force the image into smaller tiles."""
        if self.compare != "auto":
            return bool(self.compare)
        if lr.shape[-2] * lr.shape[-1] * self.network.scale**2 > _LARGE:
            return False
        try:
            with_leaves = self.inference.plan(self.network, lr, keep_leaves=True)
        except ConfigError:
            return False
        return with_leaves.tile == self.inference.plan(self.network, lr).tile

    def _images(self, lr: Tensor, outputs: Outputs) -> dict[str, Tensor]:
        images = {BICUBIC: bicubic(lr, self.network.scale)}
        if outputs.predictions is not None:
            leaves = zip(self.network.tree.leaves, outputs.predictions.unbind(dim=1), strict=True)
            images |= {f"leaf {leaf}": prediction for leaf, prediction in leaves}
            images[MEAN] = outputs.predictions.mean(dim=1)
        return {**images, FUSION: outputs.sr}

    def _score(
        self, image: Tensor, hr: Tensor, protocol: str, metrics: Mapping[str, nn.Module] | None = None
    ) -> Scores:
        """Return PSNR and SSIM by a protocol, and the further metrics, which know no protocol."""
        image, scale = image.to(hr.device), self.network.scale
        return {
            "psnr": psnr(image, hr, scale=scale, protocol=protocol).item(),
            "ssim": ssim(image, hr, scale=scale, protocol=protocol).item(),
            **{name: metric(image, hr).item() for name, metric in (metrics or {}).items()},
        }
