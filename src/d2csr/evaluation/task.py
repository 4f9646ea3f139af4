"""The Lightning side of an evaluation: each test image through the network once, its figures kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytorch_lightning as pl
from torch import Tensor

from d2csr.data.batches import Batch
from d2csr.evaluation.bicubic import bicubic
from d2csr.evaluation.report import Figures
from d2csr.metrics import psnr, ssim
from d2csr.models import D2CSR

FUSION = "fusion"


@dataclass(frozen=True)
class Results:
    """What came of one test image.

    Attributes:
        index: the number of its pair.
        lr: 1×3×H×W, RGB in [0, 1].
        hr: 1×3×sH×sW.
        images: 1×3×sH×sW by method: ``bicubic``, one for each leaf, ``mean`` (of the leaves), ``fusion``.
        weights: 1×K×sH×sW, the fusion's.
        figures: PSNR and SSIM by method.
    """

    index: int
    lr: Tensor
    hr: Tensor
    images: dict[str, Tensor]
    weights: Tensor
    figures: dict[str, Figures]


class EvaluationTask(pl.LightningModule):
    """Tests a network on whole images, one a batch.

    Args:
        network: the model.
        protocol: by which PSNR and SSIM are reported.
        on_result: called with each image's results, for saving pictures.
    """

    def __init__(self, network: D2CSR, protocol: str, on_result: Callable[[Results], None] | None = None) -> None:
        super().__init__()
        self.network = network
        self.protocol = protocol
        self.on_result = on_result
        self.figures: dict[int, dict[str, Figures]] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take the figures of one image."""
        lr, hr, index = batch["lr"], batch["hr"], int(batch["index"])
        predictions = self.network.divergence(lr)
        sr, weights = self.network.convergence(predictions)
        leaves = zip(self.network.tree.leaves, predictions.unbind(dim=1), strict=True)
        images = {
            "bicubic": bicubic(lr, self.network.scale),
            **{f"leaf {leaf}": prediction for leaf, prediction in leaves},
            "mean": predictions.mean(dim=1),
            FUSION: sr,
        }
        figures = {name: self._figures(image, hr) for name, image in images.items()}
        self.figures[index] = figures
        if self.on_result:
            self.on_result(Results(index, lr, hr, images, weights, figures))

    def _figures(self, image: Tensor, hr: Tensor) -> Figures:
        return Figures(*(f(image, hr, scale=self.network.scale, protocol=self.protocol).item() for f in (psnr, ssim)))
