"""The Lightning side of an evaluation: each test image through the network once, its figures kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from d2csr.data.batches import Batch
from d2csr.data.shards import FILLER
from d2csr.errors import ConfigError
from d2csr.evaluation.bicubic import bicubic
from d2csr.evaluation.report import BICUBIC, FUSION, Figures, Methods
from d2csr.inference import Inference, Outputs
from d2csr.metrics import psnr, ssim
from d2csr.models import D2CSR
from d2csr.processes import raise_together

# HR pixels beyond which the leaves are not compared unless asked for: the predictions of four take 1.5 GB by then.
_LARGE = 32_000_000


@dataclass(frozen=True)
class Results:
    """What came of one test image.

    Attributes:
        index: the number of its pair.
        lr: 1×3×H×W, RGB in [0, 1].
        hr: 1×3×sH×sW.
        images: 1×3×sH×sW by method: ``bicubic``, one for each leaf, ``mean`` (of the leaves), ``fusion``.
        weights: 1×K×sH×sW, the fusion's; None where the leaves were not compared.
        figures: PSNR and SSIM by method, by the main protocol.
    """

    index: int
    lr: Tensor
    hr: Tensor
    images: dict[str, Tensor]
    weights: Tensor | None
    figures: Methods


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
        if index == FILLER:
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
        raise_together(self._broken)
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

    def _figures(self, image: Tensor, hr: Tensor, protocol: str, perceptual: nn.Module | None = None) -> Figures:
        image = image.to(hr.device)
        scale = self.network.scale
        return Figures(
            psnr(image, hr, scale=scale, protocol=protocol).item(),
            ssim(image, hr, scale=scale, protocol=protocol).item(),
            None if perceptual is None else perceptual(image, hr).item(),
        )
