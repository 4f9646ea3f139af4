"""The base class of the training tasks: network, losses, schedules, validation and checkpoints.

A mode of optimization is a subclass in :mod:`d2csr.training.modes`, which defines the optimizers and the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from d2csr.callbacks.ema import EMA
from d2csr.checkpoints.own import AVERAGE, KEY, PREFIX, describe
from d2csr.checks import keys_below
from d2csr.data.datamodule import PairDataModule
from d2csr.data.sampler import Batch, without_padding
from d2csr.distributed import gather_and_raise
from d2csr.errors import ConfigError
from d2csr.inference import Inference
from d2csr.losses import sum_over_leaves
from d2csr.metrics import PSNR, SSIM
from d2csr.models import D2CSR
from d2csr.schedules import DivergenceWeightSchedule
from d2csr.training import scheduling

Loss = Callable[[Tensor, Tensor], Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

LOSSES = ("reconstruction", "divergence", "fusion")


class D2CSRTask(pl.LightningModule):
    """Training of D2C-SR, without the step itself.

    Batches are dicts of ``lr``, N×3×H×W, and ``hr``, N×3×sH×sW, RGB floats in [0, 1].

    Args:
        network: the arguments of :class:`d2csr.models.D2CSR`.
        losses: ``reconstruction`` and ``fusion``, called with images M×3×H×W and HR of the same shape, and
            ``divergence``, called with predictions N×K×3×H×W and HR N×3×H×W. Each returns a scalar.
        divergence: the weight of the divergence loss as a function of the epoch.
        divergence_gradient: whether the divergence loss has a gradient, as in the paper. The official code detaches it.
        optimizer: builds an optimizer from parameters.
        scheduler: builds the learning-rate scheduler of an optimizer; ``None`` keeps the learning rate constant.
        scheduler_interval: ``epoch`` or ``step``.
        divergence_epochs: epochs of the first stage, for ``sequential`` alone; ``None`` uses half of ``max_epochs``.
        protocol: the protocol of PSNR and SSIM in validation.
        ema_decay: of :class:`d2csr.callbacks.ema.EMA`; ``None`` averages no weights.

    Attributes:
        optimization: the name of the mode.
        steps_itself: ``training_step`` steps the optimizers (Lightning's manual optimization).
        whole_backward: each backward pass reaches every parameter of both networks.
    """

    optimization: ClassVar[str]
    steps_itself: ClassVar[bool] = False
    whole_backward: ClassVar[bool] = False

    def __init__(
        self,
        network: dict[str, Any],
        *,
        losses: Mapping[str, Loss],
        divergence: DivergenceWeightSchedule,
        divergence_gradient: bool,
        optimizer: OptimizerFactory,
        scheduler: scheduling.SchedulerFactory | None,
        scheduler_interval: str,
        divergence_epochs: int | None,
        protocol: str,
        ema_decay: float | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = not self.steps_itself
        with keys_below("network"):
            self.network = D2CSR(**network)
        self.save_hyperparameters({"network": self.network.settings, "optimization": self.optimization})
        self.losses = dict(losses)  # in a dict, modules are not part of the task: checkpoints hold no weights of theirs
        self.divergence = divergence
        self.divergence_gradient = divergence_gradient
        self.divergence_epochs = divergence_epochs
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.scheduler_interval = scheduler_interval
        self.average = None if ema_decay is None else EMA(ema_decay)
        leaves = self.network.tree.leaves
        self.psnr = PSNR(self.network.scale, protocol)
        self.ssim = SSIM(self.network.scale, protocol)
        self.leaf_psnr = nn.ModuleDict({leaf: PSNR(self.network.scale, protocol) for leaf in leaves})
        self.compiled = False
        self._schedulers: scheduling.Schedulers | None = None
        self._resumed: dict[str, Any] | None = None
        self._step = 0
        self._broken: list[str] = []

    def compile_networks(self, mode: str) -> None:
        """Compile both networks by a mode of ``torch.compile``, in place: the names of their weights stay.

        Validation is not compiled: it works image by image in strips of many sizes.
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

    # Losses.

    def divergence_losses(self, predictions: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the losses of the divergence network, scalars to be added up."""
        weight = self.divergence(self.current_epoch)
        if weight:
            divergence = weight * self._loss("divergence", predictions, hr)
        else:  # in most epochs of the official schedule
            divergence = torch.zeros((), device=predictions.device)
        return {
            "reconstruction": self._loss("reconstruction", predictions, hr),
            "divergence": divergence if self.divergence_gradient else divergence.detach(),
        }

    def convergence_losses(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the loss of the convergence network, a scalar."""
        return {"fusion": self._loss("fusion", sr, hr)}

    def _loss(self, name: str, outputs: Tensor, hr: Tensor) -> Tensor:
        criterion = self.losses[name]
        with torch.autocast(outputs.device.type, enabled=False):
            outputs, hr = outputs.float(), hr.float()
            loss = sum_over_leaves(criterion, outputs, hr) if name == "reconstruction" else criterion(outputs, hr)
        if not isinstance(loss, Tensor) or loss.ndim:
            got = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigError(
                f"model.losses.{name}: must return a scalar, got {got}. Losses of torch do with reduction=mean."
            )
        return loss

    def step_outputs(
        self, losses: dict[str, Tensor], predictions: Tensor, sr: Tensor | None = None, weights: Tensor | None = None
    ) -> dict[str, Any]:
        """Log the losses, and return what callbacks read of a step.

        Args:
            losses: scalars.
            predictions: N×K×3×sH×sW.
            sr: N×3×sH×sW, if the convergence network was trained.
            weights: N×K×sH×sW, of that network.
        """
        losses = {name: loss.detach() for name, loss in losses.items()}
        for name, loss in losses.items():
            self.log(f"train/{name}", loss, logger=False)
        return {
            "losses": losses,
            "predictions": predictions.detach(),
            "sr": None if sr is None else sr.detach(),
            "weights": None if weights is None else weights.detach(),
        }

    # Optimizers and learning rate.

    def build_optimizers(self, *networks: nn.Module) -> list[Optimizer]:
        """Build one optimizer for each of these networks, and their schedulers."""
        optimizers = [self.optimizer_factory(network.parameters()) for network in networks]
        self._schedulers = scheduling.Schedulers(optimizers, self.scheduler_factory, self.scheduler_interval)
        return optimizers

    def stage(self) -> tuple[int, int]:
        """Return the stage of the training and the epoch within it, both from 0."""
        return 0, self.current_epoch

    @property
    def schedulers(self) -> scheduling.Schedulers:
        """The learning-rate schedulers; they exist during ``fit``."""
        assert self._schedulers is not None
        return self._schedulers

    def on_fit_start(self) -> None:
        """Move the losses to the device."""
        for loss in self.losses.values():
            if isinstance(loss, nn.Module):
                loss.to(self.device)

    def on_train_start(self) -> None:
        """Continue the schedules of the checkpoint."""
        self._step = self.trainer.global_step
        state, self._resumed = self._resumed, None
        if state is not None:
            stage, epoch = self.stage()
            count = epoch if self.scheduler_interval == "epoch" else self._step
            self.schedulers.load_state_dict(state or {"stage": stage, "count": count})

    def on_train_epoch_start(self) -> None:
        """Set the learning rate."""
        self.schedulers.start_epoch(*self.stage())
        self.log("train/lr", self.schedulers.optimizers[0].param_groups[0]["lr"], logger=False)
        self.log("train/divergence_weight", self.divergence(self.current_epoch), logger=False)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let CUDA graphs overwrite the outputs of the last step."""
        if self.compiled:  # the call loads the compiler, which takes seconds
            torch.compiler.cudagraph_mark_step_begin()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Step the schedulers, if the optimizers stepped."""
        if self.trainer.global_step != self._step:
            self._step = self.trainer.global_step
            self.schedulers.end_step()

    # Validation, on whole images.

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Add a batch of whole images to the scores; return its images and outputs, or ``None`` for padding.

        The number of batches differs between processes, so nothing may be exchanged here. The metrics are summed at the
        end. A batch of padding adds no image, but every process must log every metric.
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
        if len(lr) == 0:
            return None
        return {"lr": lr, "hr": hr, "sr": sr, "predictions": predictions, "weights": weights}

    def on_validation_epoch_end(self) -> None:
        """End in every process if one could not read an image; step the schedulers that follow the PSNR.

        Raises:
            DataError: it names the images of all processes.
        """
        broken, self._broken = self._broken, []
        gather_and_raise(broken)
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking and self.schedulers.follows_validation:
            self.schedulers.end_validation(float(self.psnr.compute()))

    def _infer(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return fused images, predictions and weights, on the CPU, of images of any size."""
        if len(lr) == 0:
            predictions = hr.unsqueeze(1).expand(-1, self.network.tree.num_leaves, -1, -1, -1)
            return hr, predictions, predictions[:, :, 0]
        outputs = Inference().outputs(self.network, lr)
        assert outputs.predictions is not None
        assert outputs.weights is not None
        return outputs.sr, outputs.predictions, outputs.weights

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description of the network and its data, and the state of the schedulers."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, but does not declare it
        data = datamodule.describe() if isinstance(datamodule, PairDataModule) else None
        checkpoint[KEY] = describe(self.network, data)
        if self._schedulers is not None:
            checkpoint[scheduling.KEY] = self._schedulers.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the schedulers; without a trainer, load the averaged weights."""
        self._resumed = checkpoint.get(scheduling.KEY, {})
        if self._trainer is None and AVERAGE in checkpoint:  # load_from_checkpoint
            average = {PREFIX + name: value for name, value in checkpoint[AVERAGE].items()}
            checkpoint["state_dict"] = checkpoint["state_dict"] | average

    def raw_optimizers(self) -> Sequence[Any]:
        """Return Lightning's optimizers, as a list in every mode."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]
