"""One evaluation, from a model and its test pairs to the files it leaves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from d2csr.data.datamodule import PairDataModule
from d2csr.data.sampler import PADDING, Batch
from d2csr.distributed import gather_and_raise
from d2csr.errors import ConfigError
from d2csr.evaluation.panels import bicubic, panel, picture_name, to_image
from d2csr.evaluation.report import BICUBIC, FUSION, Methods, Report, Results, Scores
from d2csr.inference import Inference, Outputs
from d2csr.metrics import psnr, ssim
from d2csr.metrics.lpips import LPIPS
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
        perceptual=LPIPS() if lpips else None,
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


# HR pixels beyond which the leaves are not compared unless asked for: the predictions of four take 1.5 GB by then.
_LARGE = 32_000_000


class EvaluationTask(pl.LightningModule):
    """Tests a network on whole images, one a batch, shared among the processes that there are.

    Args:
        network: the model.
        protocols: by which PSNR and SSIM are taken; of the leaves by the first one alone.
        folder: where the pictures go.
        inference: how to run the model.
        compare: take the figures of leaves and mean too; ``auto``: where their predictions fit into the memory.
        perceptual: for LPIPS.
        on_result: called with each image's results and the folder, for saving pictures.

    Attributes:
        folder: after the start, that of the first process: under torchrun each composes one of its own.
        figures: after the test, in every process, those of all images, by number, protocol and method.
    """

    def __init__(
        self,
        network: D2CSR,
        protocols: Sequence[str],
        folder: str | Path,
        *,
        inference: Inference | None = None,
        compare: bool | str = "auto",
        perceptual: nn.Module | None = None,
        on_result: Callable[[Results, Path], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.protocols = protocols
        self.folder = Path(folder)
        self.inference = inference or Inference()
        self.compare = compare
        self.perceptual = perceptual
        self.on_result = on_result
        self.figures: dict[int, dict[str, Methods]] = {}
        self._broken: list[str] = []

    def on_test_start(self) -> None:
        """Agree on one folder."""
        self.folder = self.trainer.strategy.broadcast(self.folder)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take the figures of one image; nothing may be exchanged here, since other processes may have fewer."""
        lr, hr, index = batch["lr"], batch["hr"], int(batch["index"])
        self._broken += batch.get("error", [])
        if index == PADDING:
            return
        outputs = self.inference.outputs(self.network, lr, parts=self._compares(lr))
        images = self._images(lr, outputs)
        main, *others = self.protocols
        figures = {main: {name: self._figures(image, hr, main, self.perceptual) for name, image in images.items()}}
        for protocol in others:
            figures[protocol] = {name: self._figures(images[name], hr, protocol) for name in (BICUBIC, FUSION)}
        self.figures[index] = figures
        if self.on_result:
            self.on_result(Results(index, lr, hr, images, outputs.weights, figures[main]), self.folder)

    def on_test_epoch_end(self) -> None:
        """Gather the figures of all processes in each of them.

        Raises:
            DataError: an image could not be read in one of them.
        """
        gather_and_raise(self._broken)
        if self.trainer.world_size > 1:
            shares: list[dict[int, dict[str, Methods]]] = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(shares, self.figures)
            self.figures = {index: figures for share in shares for index, figures in share.items()}

    def _compares(self, lr: Tensor) -> bool:
        """Say whether to keep the leaves' predictions: not if these leave no memory to work the image as otherwise."""
        if self.compare != "auto":
            return bool(self.compare)
        if lr.shape[-2] * lr.shape[-1] * self.network.scale**2 > _LARGE:
            return False
        try:
            with_leaves = self.inference.plan(self.network, lr, parts=True)
        except ConfigError:
            return False
        return with_leaves.tile == self.inference.plan(self.network, lr).tile

    def _images(self, lr: Tensor, outputs: Outputs) -> dict[str, Tensor]:
        images = {BICUBIC: bicubic(lr, self.network.scale)}
        if outputs.predictions is not None:
            leaves = zip(self.network.tree.leaves, outputs.predictions.unbind(dim=1), strict=True)
            images |= {f"leaf {leaf}": prediction for leaf, prediction in leaves}
            images["mean"] = outputs.predictions.mean(dim=1)
        return {**images, FUSION: outputs.sr}

    def _figures(self, image: Tensor, hr: Tensor, protocol: str, perceptual: nn.Module | None = None) -> Scores:
        image = image.to(hr.device)
        scale = self.network.scale
        return Scores(
            psnr(image, hr, scale=scale, protocol=protocol).item(),
            ssim(image, hr, scale=scale, protocol=protocol).item(),
            None if perceptual is None else perceptual(image, hr).item(),
        )
