"""What all three ways of training share: the model, the two losses, the epoch's settings, validation, checkpoints.

A way of training is a subclass that says which optimizers there are and what happens in a step; see ``alternating.py``,
``joint.py`` and ``sequential.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr.callbacks.ema import EMA
from d2csr.checkpoints.own import AVERAGE, KEY, PREFIX, describe
from d2csr.data.datamodule import PairDataModule
from d2csr.data.sampler import Batch, without_padding
from d2csr.distributed import gather_and_raise
from d2csr.inference import Inference
from d2csr.losses import fusion_loss, reconstruction_loss
from d2csr.metrics import PSNR, SSIM
from d2csr.models import D2CSR
from d2csr.training.settings import AdamSettings, DivergenceSettings


class D2CSRTask(pl.LightningModule):
    """The training of D2C-SR but for the step itself.

    Batches are dicts of ``lr``, N×3×H×W, and ``hr``, N×3×sH×sW, RGB floats in [0, 1].

    Args:
        network: the arguments of :class:`d2csr.models.D2CSR`.
        optimizer: the arguments of :class:`d2csr.training.settings.AdamSettings`.
        divergence: the arguments of :class:`d2csr.training.settings.DivergenceSettings`.
        protocol: by which validation reports PSNR and SSIM.
        ema_decay: of :class:`d2csr.callbacks.ema.EMA`; ``None`` averages no weights.

    Attributes:
        optimization: the name of this way of training.
        steps_itself: ``training_step`` steps the optimizers, and Lightning does not.
        whole_backward: each backward pass reaches every parameter, and not one of the two networks alone.
    """

    optimization: ClassVar[str]
    steps_itself: ClassVar[bool] = False
    whole_backward: ClassVar[bool] = False

    def __init__(
        self,
        network: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        divergence: dict[str, Any] | None = None,
        protocol: str = "d2csr",
        ema_decay: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.save_hyperparameters({"optimization": self.optimization})
        self.automatic_optimization = not self.steps_itself
        self.network = D2CSR(**(network or {}))
        self.adam = AdamSettings(**(optimizer or {}))
        self.divergence = DivergenceSettings(**(divergence or {}))
        self.average = None if ema_decay is None else EMA(ema_decay)
        leaves = self.network.tree.leaves
        self.psnr = PSNR(self.network.scale, protocol)
        self.ssim = SSIM(self.network.scale, protocol)
        self.leaf_psnr = torch.nn.ModuleDict({leaf: PSNR(self.network.scale, protocol) for leaf in leaves})
        self.compiled = False
        self._broken: list[str] = []

    def compile_networks(self, mode: str) -> None:
        """Compile both networks by a mode of ``torch.compile``, in place: the names of their weights stay.

        Validation is left alone: it works image by image in strips of many sizes.
        """
        for network in (self.network.divergence, self.network.convergence):
            network.compile(mode=mode)
        self.compiled = True

    def forward(self, lr: Tensor) -> Tensor:
        """Return the fused image, N×3×sH×sW, of an LR batch, N×3×H×W, RGB in [0, 1]."""
        return self.network(lr)

    def configure_callbacks(self) -> list[Callback]:
        """Return the average of the weights, if there is one."""
        return [] if self.average is None else [self.average]

    # The two objectives.

    def divergence_objective(self, predictions: Tensor, hr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the divergence network, reconstruction plus divergence, a scalar, and both losses."""
        reconstruction = reconstruction_loss(predictions, hr)
        divergence = self.divergence.loss(
            predictions, hr, epoch=self.current_epoch, branching=tuple(self.network.tree.branching)
        )
        return reconstruction + divergence, self.log_losses(reconstruction=reconstruction, divergence=divergence)

    def convergence_objective(self, predictions: Tensor, hr: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss of the convergence network on predictions without a gradient, a scalar, and its outputs."""
        sr, weights = self.network.convergence(predictions.detach())
        fusion = fusion_loss(sr, hr)
        losses = self.log_losses(fusion=fusion)
        return fusion, {"losses": losses, "sr": sr.detach(), "weights": weights.detach()}

    # What goes to the log.

    def log_losses(self, **losses: Tensor) -> dict[str, Tensor]:
        """Return losses detached, and log them for ``trainer.callback_metrics``."""
        detached = {name: loss.detach() for name, loss in losses.items()}
        for name, loss in detached.items():
            self.log(f"train/{name}", loss, logger=False)
        return detached

    # The epoch's settings.

    def schedule_epoch(self) -> int:
        """Return the epoch that the learning rate is taken at."""
        return self.current_epoch

    def on_train_start(self) -> None:
        """Give the optimizers the settings of this run: a checkpoint brought those of its own."""
        first, second = self.adam.betas
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group.update(betas=(first, second), eps=self.adam.eps, weight_decay=self.adam.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Set the learning rate of every optimizer: a function of the epoch, so that resuming needs no state."""
        lr = self.adam.schedule(self.schedule_epoch())
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = lr
        self.log("train/lr", lr, logger=False)
        self.log("train/divergence_weight", self.divergence(self.current_epoch), logger=False)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tell the CUDA graphs of compiled networks that what the last step computed may go."""
        if self.compiled:  # else this would load the compiler, for seconds
            torch.compiler.cudagraph_mark_step_begin()

    # Validation, on whole images.

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Add a batch of whole images to the figures.

        How many batches there are differs from process to process, so nothing may be exchanged here; the metrics are
        summed up at the end. A filler adds no image, yet every process has to log every metric.
        """
        self._broken += batch.get("error", [])
        lr, hr = without_padding(batch)
        sr, predictions, weights = self._infer(lr, hr)
        size = len(batch["lr"])
        self.psnr(sr.to(hr.device), hr)
        self.ssim(sr.to(hr.device), hr)
        self.log("val/psnr", self.psnr, on_epoch=True, batch_size=size)
        self.log("val/ssim", self.ssim, on_epoch=True, batch_size=size)
        for leaf, prediction in zip(self.network.tree.leaves, predictions.unbind(dim=1), strict=True):
            metric = cast(PSNR, self.leaf_psnr[leaf])
            metric(prediction.to(hr.device), hr)
            self.log(f"val/psnr_{leaf}", metric, on_epoch=True, batch_size=size)
        return {"lr": lr, "hr": hr, "sr": sr, "predictions": predictions, "weights": weights} if len(lr) else None

    def on_validation_epoch_end(self) -> None:
        """End in every process if an image could not be read in one.

        Raises:
            DataError: it names them all.
        """
        broken, self._broken = self._broken, []
        gather_and_raise(broken)

    def _infer(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return fused images, predictions and weights, on the CPU: of images of any size, as every command does it."""
        if len(lr) == 0:
            predictions = hr.unsqueeze(1).expand(-1, self.network.tree.num_leaves, -1, -1, -1)
            return hr, predictions, predictions[:, :, 0]
        outputs = Inference().outputs(self.network, lr)
        assert outputs.predictions is not None
        assert outputs.weights is not None
        return outputs.sr, outputs.predictions, outputs.weights

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what :func:`d2csr.load_model` and ``d2csr-eval`` need."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        data = datamodule.describe() if isinstance(datamodule, PairDataModule) else None
        checkpoint[KEY] = describe(self.network, data)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the average of the weights where the result is wanted: all but a trainer that resumes."""
        if self._trainer is None and AVERAGE in checkpoint:  # load_from_checkpoint
            average = {PREFIX + name: value for name, value in checkpoint[AVERAGE].items()}
            checkpoint["state_dict"] = checkpoint["state_dict"] | average

    def _optimizers(self) -> Sequence[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]
